"""Where clients and servers are reached: sockets in the file system, shared ports, names whose address changes.

Paths of sockets are short (the kernel takes some 100 bytes), so they are in a folder of their own, not in pytest's.
A name is one of a hosts file that the proxy alone sees: it runs in a mount namespace where that file lies over the
system's, and the test rewrites it.
"""

import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
from harness import Fleet, Port, Proxy, Server, need, wait_until
from harness.needs import lack
from harness.proxy import program

NewProxy = Callable[..., Proxy]

FRONT = """
admin = "{admin}"
[keyspace.main]
listen = "FRONT"
shards = ["{shard0}"]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="shoal-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def front(folder: Path) -> Path:
    return folder / "front.sock"


def config(front: Path, more: str = "") -> str:
    return FRONT.replace("FRONT", str(front)) + more


def serve_again(proxy: Proxy) -> subprocess.CompletedProcess[str]:
    """The end of a second shoal with the configuration of the first, its admin port apart."""
    text = (proxy.folder / "shoal.toml").read_text()
    second = proxy.folder / "second.toml"
    second.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("admin")))
    return subprocess.run(
        [program(), "serve", second], capture_output=True, text=True, timeout=30, check=False, cwd=proxy.folder
    )


def test_sockets_on_both_sides(folder: Path, front: Path, flavour: str, new_proxy: NewProxy) -> None:
    with Fleet(folder, 2, flavour, settings=["unixsocket back.sock"]) as fleet:
        backs = [server.folder / "back.sock" for server in fleet.servers]
        text = config(front).replace('["{shard0}"]', '["{shard0}", "{shard1}"]')
        proxy = new_proxy([str(back) for back in backs], config=text)
        assert proxy.ready["keyspaces"][0]["listen"] == str(front)
        client = proxy.client(unix_socket_path=str(front))
        keys = [f"key:{i}" for i in range(50)]
        assert client.mset({key: f"value of {key}" for key in keys})
        assert client.mget(keys) == [f"value of {key}".encode() for key in keys]
        counts = [len(server.held()) for server in fleet.servers]
        assert sum(counts) == len(keys)
        assert all(counts), "both servers hold some"
        for i, back in enumerate(backs):
            addresses = {entry["addr"] for entry in fleet.client(i).client_list()}
            assert any(back.name in address for address in addresses), "shoal has come through the socket"
        # Long values go and come in several pieces.
        long = b"x" * 5_000_000
        client.set("long", long)
        assert client.get("long") == long


def test_a_client_is_listed_with_the_path(front: Path, fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=config(front))
    client = proxy.client(unix_socket_path=str(front))
    (entry,) = client.client_list()
    assert (entry["addr"], entry["laddr"]) == (f"{front}:0", f"{front}:0")


@pytest.mark.parametrize("mode", ["0600", "0660", "0777"])
def test_the_socket_has_its_permissions(front: Path, fleet: Fleet, new_proxy: NewProxy, mode: str) -> None:
    new_proxy(fleet.addresses, config=config(front, f'listen_mode = "{mode}"\n'))
    assert stat.S_IMODE(front.stat().st_mode) == int(mode, 8)


def test_the_file_goes_with_the_proxy(front: Path, fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=config(front))
    assert front.is_socket()
    assert proxy.stop() == 0
    assert not front.exists()


def test_a_living_shoal_keeps_its_socket(front: Path, fleet: Fleet, new_proxy: NewProxy) -> None:
    first = new_proxy(fleet.addresses, config=config(front))
    second = serve_again(first)
    assert second.returncode == 2
    assert f"cannot listen on {front}: address already in use" in second.stderr
    assert first.client(unix_socket_path=str(front)).ping()


def test_the_socket_of_a_killed_shoal_is_taken_over(front: Path, fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=config(front))
    proxy.kill()
    assert front.is_socket(), "nobody was left to remove it"
    proxy.start()
    assert proxy.client(unix_socket_path=str(front)).ping()


def test_a_file_that_is_no_socket_stays(front: Path, fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=config(front))
    proxy.stop()
    front.write_text("precious")
    refused = serve_again(proxy)
    assert refused.returncode == 2
    assert f"cannot listen on {front}: there is a file that is no socket" in refused.stderr
    assert front.read_text() == "precious"


def test_a_server_whose_socket_comes_later_is_found(
    folder: Path, front: Path, flavour: str, new_proxy: NewProxy
) -> None:
    server = Server(folder / "late", flavour, ["unixsocket back.sock"])
    with ExitStack() as ends:
        ends.callback(server.port.release)
        proxy = new_proxy([str(server.folder / "back.sock")], config=config(front))
        client = proxy.client(unix_socket_path=str(front))
        with pytest.raises(redis.RedisError, match="No such file"):
            client.get("key")
        server.start()
        ends.callback(server.end, signal.SIGKILL)
        server.ready()
        wait_until(lambda: answers(client), 10, "the socket is found")


def test_two_shoals_share_a_port(fleet: Fleet, new_proxy: NewProxy) -> None:
    port = Port.take()
    text = FRONT.replace("FRONT", str(port)) + "reuse_port = true\n"
    try:
        proxies = [new_proxy(fleet.addresses, config=text) for _ in range(2)]
        # The kernel deals connections out by a hash of their ports: sooner or later each of them gets one.
        for proxy in proxies:
            wait_until(partial(is_served_by, port, proxy.pid), 10, "this one serves too")
        proxies[0].stop()
        assert served_by(port) == proxies[1].pid
    finally:
        port.release()


def test_a_name_is_looked_up_at_every_connection(tmp_path: Path, flavour: str, new_proxy: NewProxy) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 shard.example\n")
    with two_servers(tmp_path, flavour) as (old, new):
        proxy = new_proxy([f"shard.example:{old.port.number}"], wrapper=sees(hosts))
        client = proxy.client()
        assert client.set("key", "old")
        assert old.client().get("key") == b"old"
        hosts.write_text("127.0.0.2 shard.example\n")
        old.end(signal.SIGKILL)
        wait_until(lambda: answers(client), 20, "shoal has followed the name")
        assert client.set("key", "new")
        assert new.client().get("key") == b"new"


def test_every_address_of_a_name_is_tried(tmp_path: Path, flavour: str, new_proxy: NewProxy) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 shard.example\n127.0.0.2 shard.example\n")
    with two_servers(tmp_path, flavour) as (one, two):
        proxy = new_proxy([f"shard.example:{one.port.number}"], wrapper=sees(hosts))
        client = proxy.client()
        for i in range(20):
            client.set(f"key:{i}", "value")
        sizes = {server: len(server.held()) for server in (one, two)}
        assert sorted(sizes.values()) == [0, 20], "all connections use one of the addresses while it works"
        used, other = sorted((one, two), key=lambda server: -sizes[server])
        used.end(signal.SIGKILL)
        wait_until(lambda: answers(client), 20, "the other address is used")
        assert client.set("later", "value")
        assert other.client().get("later") == b"value"


def sees(hosts: Path) -> list[str | Path]:
    """A command that runs the one after it where this file lies over the system's hosts file."""
    unshare = need("unshare", "apt-get install util-linux")
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    wrapper: list[str | Path] = [unshare, "--mount", "sh", "-c", script, hosts]
    tried = subprocess.run([*wrapper, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        lack(f"a mount namespace ({tried.stderr.strip()})", "run the tests as root, with CAP_SYS_ADMIN")
    return wrapper


@contextmanager
def two_servers(folder: Path, flavour: str) -> Iterator[tuple[Server, Server]]:
    """Two servers on one port, of 127.0.0.1 and 127.0.0.2."""
    first = Server(folder / "first", flavour)
    second = Server(folder / "second", flavour, host="127.0.0.2", port=first.port)
    try:
        for server in (first, second):
            server.start()
        for server in (first, second):
            server.ready()
        yield first, second
    finally:
        for server in (first, second):
            server.end(signal.SIGKILL)
        first.port.release()


def answers(client: redis.Redis) -> bool:
    try:
        client.get("key")
    except redis.RedisError:
        return False
    return True


def served_by(port: Port) -> int:
    """The process id of the shoal that a new connection gets."""
    with redis.Redis(host="127.0.0.1", port=port.number) as client:
        return int(client.info("server")["process_id"])


def is_served_by(port: Port, pid: int) -> bool:
    return served_by(port) == pid
