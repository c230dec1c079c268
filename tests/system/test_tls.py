"""TLS of clients and to servers, with real certificates, real clients (redis-py, redis-cli, openssl) and real servers.

The judge is never the library that the proxy uses: certificates come from the openssl command, clients speak through
Python's ssl or hiredis, servers are Debian's Redis, built with OpenSSL.
"""

import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from harness import ErrorReply, Fault, Fleet, Mischief, Port, Proxy, Server, Wire, need, wait_until
from harness.certificates import Authority, Certificate
from harness.wire import encode
from redis.backoff import NoBackoff
from redis.retry import Retry
from system.placement import keys_of, keys_on
from system.test_observability import Metrics

NewProxy = Callable[..., Proxy]

# A client that tries again by itself makes it several failures.
ONCE = Retry(NoBackoff(), 0)
LARGE = 100 * 1024 * 1024

FRONT = """
admin = "{{admin}}"
workers = 2
log_level = "debug"
[keyspace.main]
listen = "{{listen}}"
shards = [{shards}]
[keyspace.main.tls]
cert = "{cert}"
key = "{key}"
"""


@dataclass(frozen=True)
class Papers:
    """What both sides show and trust."""

    authority: Authority
    server: Certificate
    client: Certificate


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    authority = Authority(tmp_path_factory.mktemp("papers"))
    return Papers(authority, authority.issue("server"), authority.issue("client", names=()))


def front(papers: Papers, shards: int, *, certificate: Certificate | None = None, more: str = "") -> str:
    shown = certificate or papers.server
    names = ", ".join(f'"{{shard{i}}}"' for i in range(shards))
    return FRONT.format(shards=names, cert=shown.cert, key=shown.key) + more


def options(papers: Papers, *, shows: bool = False) -> dict[str, object]:
    """redis-py's words for TLS: everything is verified, as it does unless told otherwise."""
    given: dict[str, object] = {"ssl": True, "ssl_ca_certs": str(papers.authority.cert)}
    if shows:
        given |= {"ssl_certfile": str(papers.client.cert), "ssl_keyfile": str(papers.client.key)}
    return given


def context(papers: Papers, *, shows: bool = False) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=papers.authority.cert)
    if shows:
        made.load_cert_chain(papers.client.cert, papers.client.key)
    return made


class SecureWire(Wire):
    """A raw connection within TLS."""

    def __init__(self, port: int, secured: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port)
        self.socket = secured.wrap_socket(self.socket, server_hostname="localhost")


def logged(proxy: Proxy, *parts: str) -> str | None:
    return next((line for line in proxy.log() if all(part in line for part in parts)), None)


def closed(proxy: Proxy, reason: str) -> float:
    return Metrics(proxy).of("shoal_clients_closed_total", reason=reason)


def wait_for_end(proxy: Proxy, reason: str, *detail: str) -> None:
    wait_until(lambda: closed(proxy, reason) >= 1, 15, f"{reason} is counted")
    line = wait_until(lambda: logged(proxy, "event=client-closed", f"reason={reason}"), 5, "it is logged")
    for part in (*detail, "peer=127.0.0.1:", "keyspace=main"):
        assert part in line


@pytest.fixture
def secure(fleet: Fleet, new_proxy: NewProxy, papers: Papers) -> Proxy:
    """A proxy that speaks TLS only."""
    return new_proxy(fleet.addresses, config=front(papers, len(fleet)))


# ------------------------------------------------------------------------------------------------------------ clients


def test_a_client_library_with_everything_verified(secure: Proxy, papers: Papers) -> None:
    client = secure.client(**options(papers))
    assert client.mset({f"key:{i}": i for i in range(100)})
    assert client.mget([f"key:{i}" for i in range(100)]) == [str(i).encode() for i in range(100)]
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        secure.client(ssl=True, retry=ONCE).ping()
    wait_for_end(secure, "tls-failed", "UnknownCA")
    assert Metrics(secure).of("shoal_tls_handshakes_total", keyspace="main") >= 1


def test_redis_cli_and_openssl(secure: Proxy, papers: Papers) -> None:
    cli = [
        str(need("redis-cli", "redis-tools")),
        "-p",
        str(secure.port),
        "--tls",
        "--cacert",
        str(papers.authority.cert),
    ]
    done = subprocess.run([*cli, "set", "a", "b"], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "OK\n"
    for version in ("-tls1_2", "-tls1_3"):
        shown = openssl(
            secure, version, "-CAfile", papers.authority.cert, text="*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n"
        )
        assert "Verify return code: 0 (ok)" in shown
        assert "+PONG" in shown
        assert version.removeprefix("-tls").replace("_", ".") in shown
    assert "+PONG" not in openssl(secure, "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0", text="PING\r\n")


def openssl(proxy: Proxy, *words: str | Path, text: str) -> str:
    command = [str(need("openssl", "openssl")), "s_client", "-connect", proxy.address, "-ign_eof", *map(str, words)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout


def test_large_values_and_long_pipelines(fleet: Fleet, secure: Proxy, papers: Papers) -> None:
    client = secure.client(**options(papers), socket_timeout=60)
    value = bytes(range(256)) * (LARGE // 256)
    assert client.set("large", value)
    assert client.get("large") == value
    pipeline = client.pipeline(transaction=False)
    for i in range(10_000):
        pipeline.set(f"key:{i}", "x" * (i % 300))
    assert pipeline.execute() == [True] * 10_000
    for i in range(10_000):
        pipeline.get(f"key:{i}")
    assert pipeline.execute() == [b"x" * (i % 300) for i in range(10_000)]
    assert sum(len(keys_of(fleet, i)) for i in range(len(fleet))) == 10_001


def test_a_client_that_reads_slowly_gets_every_byte(secure: Proxy, papers: Papers) -> None:
    """What is encrypted and not taken by the kernel must be neither lost nor repeated, and last words come last."""
    value = b"".join(b"%08d" % i for i in range(1 << 20))
    with SecureWire(secure.port, context(papers)) as wire:
        assert wire.ask("SET", "v", value) == "OK"
        wire.send(encode("GET", "v") + encode("GET", "v") + encode("QUIT"))
        # The kernel's buffers between us are far smaller than that; the rest waits in the proxy.
        wait_until(lambda: Metrics(secure).of("shoal_client_sent_bytes_total") > 0, 5, "it has begun")
        got = wire.until_closed()
    assert got == b"$%d\r\n%s\r\n" % (len(value), value) * 2 + b"+OK\r\n"


def test_bytes_that_come_one_by_one_or_many_at_once(secure: Proxy, papers: Papers) -> None:
    """Records cut anywhere, and requests that lie decrypted in the proxy when the socket has no more."""
    host, port = secure.address.split(":")
    with Fault(host, int(port)) as fault, SecureWire(fault.port.number, context(papers)) as wire:
        fault.requests = fault.replies = Mischief(dribble=7)
        assert wire.ask("SET", "k", "v" * 3000) == "OK"
        assert wire.ask("GET", "k") == b"v" * 3000
    with SecureWire(secure.port, context(papers)) as wire:
        for size in (1, 2, 15_000, 16_384, 16_385, 40_000, 65_536, 200_000):
            value = "y" * size
            wire.send(encode("SET", "k", value) + encode("GET", "k") + encode("STRLEN", "k") + encode("PING"))
            assert [wire.reply() for _ in range(4)] == ["OK", value.encode(), size, "PONG"]


@pytest.mark.timeout(120)  # 20,000 requests, and four hundred handshakes on whatever the machine has left
def test_many_clients(secure: Proxy, papers: Papers) -> None:
    secured = context(papers)
    wires = [SecureWire(secure.port, secured) for _ in range(400)]
    for round_number in range(5):
        for number, wire in enumerate(wires):
            wire.send(encode("SET", f"{number}", f"{round_number}") + encode("GET", f"{number}") * 9)
        for wire in wires:
            assert [wire.reply() for _ in range(10)] == ["OK"] + [b"%d" % round_number] * 9
    assert Metrics(secure).of("shoal_clients_connected", keyspace="main") == 400
    for wire in wires:
        wire.close()
    wait_until(lambda: Metrics(secure).of("shoal_clients_connected", keyspace="main") == 0, 10, "all have left")


def test_a_client_that_says_nothing_more_still_gets_its_replies(secure: Proxy, papers: Papers) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secured = context(papers).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with secure.socket() as plain:

        def until_done(step: Callable[[], object]) -> object:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    plain.send(outgoing.read())
                    incoming.write(plain.socket.recv(1 << 16))

        until_done(secured.do_handshake)
        secured.write(encode("SET", "k", "v") + encode("GET", "k"))
        with pytest.raises(ssl.SSLWantReadError):
            secured.unwrap()  # our goodbye; that of the proxy comes after its replies
        assert until_done(lambda: secured.read(100)) == b"+OK\r\n$1\r\nv\r\n"
        plain.until_closed()
    wait_until(lambda: closed(secure, "client-closed") >= 1, 5, "it is seen off")
    with SecureWire(secure.port, context(papers)) as wire:
        assert wire.ask("GET", "k") == b"v"
        wire.command("QUIT")
        assert wire.until_closed() == b"+OK\r\n"  # ends by close_notify: anything else raises SSLEOFError


def test_a_listener_for_tls_beside_the_plain_one(fleet: Fleet, new_proxy: NewProxy, papers: Papers) -> None:
    beside = Port.take()
    text = front(papers, len(fleet)).replace("shards =", f'tls_listen = "{beside}"\nshards =')
    proxy = new_proxy(fleet.addresses, config=text)
    assert proxy.ready["keyspaces"][0]["listen"] == proxy.address
    assert proxy.ready["keyspaces"][0]["tls_listen"] == str(beside)
    assert proxy.client().set("k", "plain")
    with SecureWire(beside.number, context(papers)) as wire:
        assert wire.ask("GET", "k") == b"plain"
        named = wire.ask("CLIENT", "INFO")
        assert isinstance(named, bytes)
        assert f"laddr=127.0.0.1:{beside.number}".encode() in named
    beside.release()


# -------------------------------------------------------------------------------------------- those who come wrongly


def test_a_plain_client_at_a_port_for_tls(secure: Proxy) -> None:
    with secure.socket() as wire:
        answer = wire.ask("PING")
        assert isinstance(answer, ErrorReply)
        assert answer.startswith("ERR this port speaks TLS only; connect with it")
        assert wire.until_closed() == b""
    wait_for_end(secure, "plain-on-tls")


@pytest.mark.parametrize("protocol", ["redis", "memcached"])
def test_a_tls_client_at_a_plain_port(fleet: Fleet, new_proxy: NewProxy, papers: Papers, protocol: str) -> None:
    keyspace = f'[keyspace.main]\nlisten = "{{listen}}"\nshards = ["{{shard0}}"]\nprotocol = "{protocol}"\n'
    text = 'admin = "{admin}"\n' + keyspace
    proxy = new_proxy(fleet.addresses[:1], config=text)
    with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
        SecureWire(proxy.port, context(papers))
    wait_for_end(proxy, "tls-on-plain")
    # In two pieces, and with what would end a line.
    with proxy.socket() as wire:
        wire.send(b"\x16")
        assert wire.is_silent(0.1)
        wire.send(b"\x03\x01\x00\x05\r\n\r\n")
        assert b"this port does not speak TLS" in wire.until_closed()


def test_who_looks_whether_the_port_is_open_is_no_failure(secure: Proxy) -> None:
    secure.socket().close()
    wait_until(lambda: closed(secure, "client-closed") >= 1, 5, "counted as one that left")
    assert closed(secure, "tls-failed") == 0


def test_a_handshake_that_is_left(secure: Proxy) -> None:
    with secure.socket() as wire:
        wire.send(b"\x16\x03\x01\x02\x00\x01\x00")
        wire.socket.shutdown(socket.SHUT_WR)
        wire.until_closed()
    wait_for_end(secure, "tls-failed", "left in the middle of the handshake")


def test_rubbish_after_the_first_byte(secure: Proxy) -> None:
    with secure.socket() as wire:
        wire.send(b"\x16\x03\x01\xff\xff" + bytes(70_000))
        wire.until_closed()
    wait_for_end(secure, "tls-failed", "what came is not TLS")


def test_a_slow_handshake_is_ended_and_holds_up_nobody(secure: Proxy, papers: Papers) -> None:
    silent = [secure.socket(timeout=20) for _ in range(30)]
    begun = secure.socket(timeout=20)
    begun.send(b"\x16\x03\x01")
    with SecureWire(secure.port, context(papers)) as wire:
        assert wire.ask("PING") == "PONG"
    assert Metrics(secure).of("shoal_clients_connected", keyspace="main") >= 31
    wait_until(lambda: closed(secure, "tls-timeout") == 31, 20, "all are ended after ten seconds")
    wait_for_end(secure, "tls-timeout", "not done within 10000 ms")
    for opened in (*silent, begun):
        assert opened.until_closed() == b""
        opened.close()


def test_max_clients_counts_those_in_a_handshake(fleet: Fleet, new_proxy: NewProxy, papers: Papers) -> None:
    text = front(papers, 1).replace("shards =", "max_clients = 2\nshards =")
    proxy = new_proxy(fleet.addresses[:1], config=text)
    with proxy.socket(), SecureWire(proxy.port, context(papers)) as first:
        assert first.ask("PING") == "PONG"
        with SecureWire(proxy.port, context(papers)) as refused:
            assert refused.reply() == ErrorReply("ERR max number of clients reached")
            assert refused.until_closed() == b""


# ------------------------------------------------------------------------------------------------ client certificates


@pytest.mark.parametrize("auth", ["optional", "required"])
def test_client_certificates(fleet: Fleet, new_proxy: NewProxy, papers: Papers, tmp_path: Path, auth: str) -> None:
    more = f'client_ca = "{papers.authority.cert}"\nclient_auth = "{auth}"\n'
    proxy = new_proxy(fleet.addresses, config=front(papers, len(fleet), more=more))
    assert proxy.client(**options(papers, shows=True)).ping()
    if auth == "optional":
        assert proxy.client(**options(papers)).ping()
    else:
        with pytest.raises(redis.ConnectionError):
            proxy.client(**options(papers), retry=ONCE).ping()
        wait_for_end(proxy, "tls-certificate", "it showed no certificate")
    strangers = Authority(tmp_path, "strangers")
    for bad in (strangers.issue("client", names=()), papers.authority.issue("late", names=(), days=-2)):
        shown = {"ssl_certfile": str(bad.cert), "ssl_keyfile": str(bad.key)}
        with pytest.raises(redis.ConnectionError):
            proxy.client(**options(papers), **shown, retry=ONCE).ping()
    wait_until(lambda: closed(proxy, "tls-certificate") >= 2, 5, "both are counted")
    wait_until(lambda: logged(proxy, "reason=tls-certificate", "UnknownIssuer"), 5, "the stranger")
    wait_until(lambda: logged(proxy, "reason=tls-certificate", "certificate expired"), 5, "the late one")


def test_our_expired_certificate_is_told_before_clients_find_it(
    fleet: Fleet, new_proxy: NewProxy, papers: Papers
) -> None:
    late = papers.authority.issue("expired", days=-1)
    proxy = new_proxy(fleet.addresses[:1], config=front(papers, 1, certificate=late))
    assert logged(proxy, "level=warning", "expired.crt expired at")
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        SecureWire(proxy.port, context(papers))
    wait_for_end(proxy, "tls-failed", "CertificateExpired")


# ------------------------------------------------------------------------------------------------------------- reload


def seen(proxy: Proxy, papers: Papers) -> str:
    """The common name of the certificate that a new connection is shown."""
    with SecureWire(proxy.port, context(papers)) as wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        shown = wire.socket.getpeercert()
        assert shown
        subject: Any = shown["subject"]
        (((_, name),),) = subject
        return str(name)


def test_reload_without_a_restart(fleet: Fleet, new_proxy: NewProxy, papers: Papers, tmp_path: Path) -> None:
    mine = Certificate(tmp_path / "mine.crt", tmp_path / "mine.key")

    def put(certificate: Certificate) -> None:
        mine.cert.write_bytes(certificate.cert.read_bytes())
        mine.key.write_bytes(certificate.key.read_bytes())
        mine.key.chmod(0o600)

    put(papers.server)
    proxy = new_proxy(fleet.addresses, config=front(papers, len(fleet), certificate=mine))
    first = expiry(proxy)
    assert first == file_expiry(papers.server)
    with SecureWire(proxy.port, context(papers)) as old:
        assert old.ask("PING") == "PONG"
        assert seen(proxy, papers) == "server"
        fresh = papers.authority.issue("fresh", days=60)
        put(fresh)
        hang_up(proxy, "event=tls-reloaded")
        assert seen(proxy, papers) == "fresh"
        assert expiry(proxy) == file_expiry(fresh)
        assert old.ask("PING") == "PONG"
        # A certificate with another's key changes nothing.
        mine.key.write_bytes(papers.server.key.read_bytes())
        hang_up(proxy, "event=tls-not-reloaded")
        assert logged(proxy, "level=error", "event=tls-not-reloaded", "mine.key is not the key of", "side=clients")
        assert seen(proxy, papers) == "fresh"
        mine.cert.unlink()
        hang_up(proxy, "event=tls-not-reloaded", 2)
        assert logged(proxy, "event=tls-not-reloaded", "cannot read", "mine.crt")
        assert seen(proxy, papers) == "fresh"
        assert old.ask("PING") == "PONG"
    assert proxy.stop() == 0


def hang_up(proxy: Proxy, event: str, count: int = 1) -> None:
    os.kill(proxy.pid, signal.SIGHUP)
    wait_until(lambda: sum(event in line for line in proxy.log()) >= count, 5, event)


def expiry(proxy: Proxy, side: str = "clients") -> float:
    return Metrics(proxy).of("shoal_tls_certificate_expiry_seconds", keyspace="main", side=side)


def file_expiry(certificate: Certificate) -> float:
    command = [str(need("openssl", "openssl")), "x509", "-in", str(certificate.cert), "-noout", "-enddate"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    return ssl.cert_time_to_seconds(shown.strip().removeprefix("notAfter="))


# ------------------------------------------------------------------------------------------------------------ servers

BACK = """
admin = "{{admin}}"
[keyspace.main]
listen = "{{listen}}"
shards = [{shards}]
probe_interval_ms = 200
[keyspace.main.server_tls]
"""


class SecureServers:
    """Debian's Redis with TLS: each has a plain port for the test, and one with TLS for the proxy."""

    def __init__(self, folder: Path, papers: Papers, count: int, *, shown: Certificate | None = None) -> None:
        shown = shown or papers.server
        self.tls_ports = [Port.take() for _ in range(count)]
        self.servers = [
            Server(
                folder / f"secure-{i}",
                "redis7",
                [
                    f"tls-port {port.number}",
                    f"tls-cert-file {shown.cert}",
                    f"tls-key-file {shown.key}",
                    f"tls-ca-cert-file {papers.authority.cert}",
                    "tls-auth-clients optional",
                ],
            )
            for i, port in enumerate(self.tls_ports)
        ]
        for server in self.servers:
            server.start()
        for server in self.servers:
            server.ready()

    @property
    def addresses(self) -> list[str]:
        return [str(port) for port in self.tls_ports]

    def end(self) -> None:
        for server in self.servers:
            server.end(signal.SIGKILL)
            server.port.release()
        for port in self.tls_ports:
            port.release()


NewServers = Callable[..., SecureServers]


@pytest.fixture
def new_servers(tmp_path: Path, papers: Papers) -> Iterator[NewServers]:
    made: list[SecureServers] = []

    def make(count: int = 1, **options: Certificate) -> SecureServers:
        made.append(SecureServers(tmp_path / f"servers-{len(made)}", papers, count, **options))
        return made[-1]

    yield make
    for servers in made:
        servers.end()


def back(papers: Papers, shards: int, more: str | None = None) -> str:
    names = ", ".join(f'"{{shard{i}}}"' for i in range(shards))
    return BACK.format(shards=names) + (more if more is not None else f'ca = "{papers.authority.cert}"\n')


def test_tls_to_servers(new_servers: NewServers, new_proxy: NewProxy, papers: Papers) -> None:
    servers = new_servers(2)
    proxy = new_proxy(servers.addresses, config=back(papers, 2))
    client = proxy.client(socket_timeout=60)
    value = bytes(range(256)) * (LARGE // 256)
    assert client.set("large", value)
    assert client.get("large") == value
    pipeline = client.pipeline(transaction=False)
    for i in range(10_000):
        pipeline.set(f"key:{i}", i)
        pipeline.get(f"key:{i}")
    assert pipeline.execute() == [part for i in range(10_000) for part in (True, b"%d" % i)]
    assert client.mget([f"key:{i}" for i in range(2_000)]) == [b"%d" % i for i in range(2_000)]
    listed = servers.servers[0].client().client_list()
    ours = [one for one in listed if one["laddr"].endswith(f":{servers.tls_ports[0].number}")]
    assert ours, "the proxy is connected to the port with TLS"


def test_tls_on_both_sides_with_certificates(new_servers: NewServers, new_proxy: NewProxy, papers: Papers) -> None:
    servers = new_servers(2)
    for server in servers.servers:
        server.client().config_set("tls-auth-clients", "yes")
    shown = f'[keyspace.main.server_tls]\nca = "{papers.authority.cert}"\n'
    proxy = new_proxy(servers.addresses, config=front(papers, 2, more=shown))
    wait_until(lambda: logged(proxy, "event=shard-down", "TLS:"), 5, "servers want a certificate")
    proxy.end()
    shown += f'cert = "{papers.client.cert}"\nkey = "{papers.client.key}"\n'
    proxy = new_proxy(servers.addresses, config=front(papers, 2, more=shown))
    client = proxy.client(**options(papers), socket_timeout=60)
    assert client.set("large", b"z" * LARGE)
    assert client.get("large") == b"z" * LARGE
    assert expiry(proxy, "servers") == file_expiry(papers.client)


def test_a_connection_with_tls_is_killed(new_servers: NewServers, new_proxy: NewProxy, papers: Papers) -> None:
    servers = new_servers(2)
    proxy = new_proxy(servers.addresses, config=back(papers, 2))
    client = proxy.client()
    keys = [f"key:{i}" for i in range(100)]
    assert client.mset(dict.fromkeys(keys, "v"))
    servers.servers[0].client().client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: logged(proxy, "event=shard-down"), 5, "it is noticed")

    def works() -> bool:
        try:
            return client.mget(keys) == [b"v"] * 100
        except redis.ResponseError:
            return False

    wait_until(works, 8, "connected again")


def test_a_connection_that_is_cut_in_the_middle(new_servers: NewServers, new_proxy: NewProxy, papers: Papers) -> None:
    servers = new_servers(1)
    with Fault("127.0.0.1", servers.tls_ports[0].number) as fault:
        proxy = new_proxy([fault.address], config=back(papers, 1))
        with proxy.socket() as wire:
            assert wire.ask("SET", "k", "v" * 100_000) == "OK"
            fault.replies = Mischief(dribble=11)
            assert wire.ask("GETRANGE", "k", 0, 5_000) == b"v" * 5_001
            fault.replies = Mischief(cut_after=50_000)
            wire.command("GET", "k")
            # Part of it was passed on, or nothing; never a whole reply.
            assert b"v" * 100_000 not in wire.until_closed()
            fault.replies = Mischief()
        wait_until(lambda: answers(proxy), 8, "connected again")


def answers(proxy: Proxy) -> bool:
    with proxy.socket() as wire:
        return not isinstance(wire.ask("GET", "x"), ErrorReply)


def down(proxy: Proxy) -> str:
    """Why the shard is down, as a client is told."""

    def reason() -> str | None:
        with proxy.socket() as wire:
            answer = wire.ask("GET", "x")
        return str(answer) if isinstance(answer, ErrorReply) else None

    told = wait_until(reason, 8, "a client is told")
    wait_until(lambda: Metrics(proxy).of("shoal_shard_tls_failures_total", shard="s0") >= 1, 5, "counted")
    wait_until(lambda: logged(proxy, "event=shard-down", "shard=s0", "reason="), 5, "logged")
    return told


def test_servers_that_are_not_who_they_should_be(
    new_servers: NewServers, new_proxy: NewProxy, papers: Papers, tmp_path: Path
) -> None:
    authority = f'ca = "{papers.authority.cert}"\n'
    strangers = Authority(tmp_path, "strangers")
    unknown = new_servers(shown=strangers.issue("server"))
    assert "UnknownIssuer" in down(new_proxy(unknown.addresses, config=back(papers, 1)))
    late = new_servers(shown=papers.authority.issue("late", days=-1))
    assert "certificate expired" in down(new_proxy(late.addresses, config=back(papers, 1)))
    other = new_servers(shown=papers.authority.issue("other", names=["DNS:redis.internal"]))
    assert "not valid for name" in down(new_proxy(other.addresses, config=back(papers, 1)))
    # Three ways to do with that one.
    for more in (authority + 'server_name = "redis.internal"\n', authority + 'verify = "ca"\n', 'verify = "none"\n'):
        proxy = new_proxy(other.addresses, config=back(papers, 1, more))
        assert proxy.client().set("k", "v")
        assert logged(proxy, "level=warning", "keyspace.main.server_tls.verify") or "none" not in more
    assert "UnknownIssuer" in down(new_proxy(unknown.addresses, config=back(papers, 1, authority + 'verify = "ca"\n')))
    assert new_proxy(unknown.addresses, config=back(papers, 1, 'verify = "none"\n')).client().ping()


def test_a_server_without_tls_and_one_that_says_nothing(fleet: Fleet, new_proxy: NewProxy, papers: Papers) -> None:
    """The first takes a handshake for a line that has no end yet."""
    text = back(papers, 1).replace("probe_interval_ms = 200", "timeout_ms = 500")
    assert "no TLS handshake within 500 ms; does it speak TLS?" in down(new_proxy(fleet.addresses[:1], config=text))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert "no TLS handshake within 500 ms" in down(new_proxy([address], config=text))


def test_servers_certificates_are_reloaded(
    new_servers: NewServers, new_proxy: NewProxy, papers: Papers, tmp_path: Path
) -> None:
    """The authority is replaced while the proxy runs: a server with a certificate of the new one is trusted then."""
    renewed = Authority(tmp_path, "renewed")
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(papers.authority.cert.read_bytes())
    servers = new_servers(shown=renewed.issue("server"))
    proxy = new_proxy(servers.addresses, config=back(papers, 1, f'ca = "{trusted}"\n'))
    assert "UnknownIssuer" in down(proxy)
    trusted.write_bytes(trusted.read_bytes() + renewed.cert.read_bytes())
    hang_up(proxy, "event=tls-reloaded")
    wait_until(lambda: answers(proxy), 8, "it is trusted")


# ---------------------------------------------------------------------------------------------------- the same as Redis


def test_as_a_plain_redis_does_it(new_servers: NewServers, fleet: Fleet, new_proxy: NewProxy, papers: Papers) -> None:
    """The same conversation, byte for byte, with a server's own TLS and with ours."""
    servers = new_servers(1)
    proxy = new_proxy(fleet.addresses[:1], config=front(papers, 1))
    key = keys_on(0, 1)[0]
    requests = [
        encode("SET", key, "x" * 70_000),
        encode("GETRANGE", key, 1, 40_000),
        encode("INCR", key),
        encode("APPEND", key, "y"),
        b"PING\r\n",
        encode("QUIT"),
    ]
    said = []
    for port in (servers.tls_ports[0].number, proxy.port):
        with SecureWire(port, context(papers)) as wire:
            wire.send(b"".join(requests))
            said.append(wire.until_closed())
    assert said[0] == said[1]


def test_clients_in_threads(secure: Proxy, papers: Papers) -> None:
    """Connections that come and go all the time, from several sides."""
    faults: list[BaseException] = []

    def come_and_go(number: int) -> None:
        secured = context(papers)
        try:
            for i in range(25):
                with SecureWire(secure.port, secured) as wire:
                    assert wire.ask("SET", f"{number}:{i}", i) == "OK"
                    assert wire.ask("GET", f"{number}:{i}") == b"%d" % i
        except (AssertionError, OSError) as fault:
            faults.append(fault)

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    handshakes = Metrics(secure).of("shoal_tls_handshakes_total", keyspace="main")
    assert handshakes == 200
    assert not re.search("level=(warning|error)", secure.tail())
