"""shoal in front of three real memcached servers, beside one memcached that is asked directly.

`Lines` is a raw connection; the end of any sequence of requests is marked by a request whose answer nothing else gives.
Random programs are seeded; whatever a single server answers, shoal over three must answer, byte for byte, once unique
numbers have been mapped.
"""

import random
import re
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import memcache
import pytest
from harness import Memcached, wait_until
from pymemcache.client.base import Client

from shoal.core import start_proxy
from shoal.distribution import Distribution
from shoal.topology import Keyspace, Shard, Topology, deal_slots

SHARDS = 3
TIMEOUT_MS = 500


class Lines:
    """A raw connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def until(self, end: bytes) -> bytes:
        """Everything up to `end`, without it."""
        data = b""
        while not data.endswith(end):
            piece = self._socket.recv(1 << 20)
            assert piece, f"closed after {data[-200:]!r}"
            data += piece
        return data.removesuffix(end)

    def ask(self, data: bytes) -> bytes:
        self.send(data + b"mg -end- b\r\n")
        return self.until(b"CLIENT_ERROR error decoding key\r\n")

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        return b"".join(iter(lambda: self._socket.recv(65536), b""))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class World:
    """Three servers behind shoal, and one alone."""

    def __init__(self, servers: list[Memcached], alone: Memcached, proxy: Any) -> None:
        self.servers = servers
        self.alone = alone
        self.proxy = proxy
        self.port = int(proxy.addresses()[0][1].rpartition(":")[2])

    def through(self) -> Lines:
        return Lines(self.port)

    def direct(self) -> Lines:
        return Lines(self.alone.port.number)

    def key_on(self, shard: int) -> bytes:
        """A key of that shard: asked of the server itself after a write through shoal."""
        for number in range(200):
            key = b"on:%d:%d" % (shard, number)
            with self.through() as lines:
                lines.ask(b"set %s 0 0 1\r\nx\r\n" % key)
            with Lines(self.servers[shard].port.number) as lines:
                if lines.ask(b"get %s\r\n" % key) != b"END\r\n":
                    return key
        raise AssertionError(f"no key on shard {shard}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        servers = [stack.enter_context(Memcached(tmp_path)) for _ in range(SHARDS)]
        alone = stack.enter_context(Memcached(tmp_path))
        shards = tuple(Shard(f"m{index}", s.host, s.port.number) for index, s in enumerate(servers))
        distribution = Distribution("slots", slots=deal_slots(SHARDS))
        keyspace = Keyspace("cache", "127.0.0.1", 0, shards, distribution, timeout_ms=TIMEOUT_MS, protocol="memcached")
        proxy = start_proxy(Topology((keyspace,)), 1)
        stack.callback(proxy.stop, 1000)
        yield World(servers, alone, proxy)


def program(chance: random.Random, length: int) -> bytes:
    """Random requests; most of them good.

    Without decrements: a server pads a number that became shorter with a space, unless a reply still holds the value.
    """
    keys = [b"k%d" % number for number in range(12)]

    def one() -> bytes:
        key, other = chance.choice(keys), b" ".join(chance.choices(keys, k=chance.randint(1, 5)))
        quiet = chance.choice([b"", b"", b" noreply"])
        value = chance.choice(
            [b"1", b"41", b"", b"x\r\ny", b"END\r\n", bytes(chance.randbytes(chance.randint(0, 3000)))]
        )
        flags = b" ".join(chance.sample([b"v", b"k", b"f", b"s", b"t", b"q", b"O%d" % chance.randint(0, 99)], 3))
        store = chance.choice([b"set", b"set", b"add", b"replace", b"append", b"prepend"])
        return chance.choice(
            [
                b"get " + other,
                b"gat 0 " + other,
                b"%s %s %d 0 %d%s\r\n%s" % (store, key, chance.randint(0, 9), len(value), quiet, value),
                b"delete %s%s" % (key, quiet),
                b"incr %s %d%s" % (key, chance.randint(0, 50), quiet),
                b"touch %s 0%s" % (key, quiet),
                b"mg %s %s" % (key, flags),
                b"ms %s %d %s\r\n%s" % (key, len(value), chance.choice([b"c", b"q", b"MA", b"ME q k"]), value)
                if chance.random() < 0.9
                else b"ms %s 1 Z\r\nx" % key,
                b"md %s %s" % (key, chance.choice([b"q", b"k", b"O5 q", b"I T30"])),
                b"ma %s %s" % (key, chance.choice([b"q", b"v", b"N0 J7 v q", b"D2 v"])),
                b"mn",
                b"flush_all noreply" if chance.random() < 0.1 else b"version",
                chance.choice([b"nonsense", b"get", b"set a b c d", b"incr k1 x", b"verbosity 0", b"delete k1 0"]),
            ]
        )

    return b"".join(one() + b"\r\n" for _ in range(length))


def mapped(reply: bytes) -> bytes:
    """Unique numbers (`c123` of meta replies) differ from server to server."""
    return re.sub(rb"(?m)^(HD .*?)c[0-9]+", rb"\1c#", reply)


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_are_answered_as_by_one_server(world: World, seed: int) -> None:
    chance = random.Random(seed)
    with world.through() as through, world.direct() as direct:
        for _ in range(30):
            requests = program(chance, 40)
            assert mapped(through.ask(requests)) == mapped(direct.ask(requests)), requests


def test_requests_and_replies_in_single_bytes(world: World) -> None:
    requests = program(random.Random(99), 30)
    with world.through() as through, world.direct() as direct:
        for at in range(len(requests)):
            through.send(requests[at : at + 1])
        assert mapped(through.ask(b"")) == mapped(direct.ask(requests))


def test_many_keys_come_in_the_order_in_which_they_were_named(world: World) -> None:
    keys = [b"many:%d" % number for number in range(300)]
    with world.through() as lines:
        for key in keys[::2]:
            lines.send(b"set %s 0 0 %d noreply\r\n%s\r\n" % (key, len(key), key))
        reply = lines.ask(b"get " + b" ".join(keys + keys[:10]) + b"\r\n")
    expected = [b"VALUE %s 0 %d\r\n%s\r\n" % (key, len(key), key) for key in (*keys[::2], *keys[:10:2])]
    assert reply == b"".join(expected) + b"END\r\n"


def test_decrements(world: World) -> None:
    with world.through() as lines:
        assert lines.ask(b"set d 0 0 2\r\n10\r\n") == b"STORED\r\n"
        assert lines.ask(b"decr d 1\r\nma d MD v\r\ndecr d 9 noreply\r\ndecr d 1\r\n") == b"9\r\nVA 1\r\n8\r\n0\r\n"


def test_cas(world: World) -> None:
    with world.through() as lines:
        assert lines.ask(b"set c 0 0 1\r\na\r\n") == b"STORED\r\n"
        unique = lines.ask(b"gets c\r\n").split()[4]
        assert lines.ask(b"gats 0 c other\r\n").split()[4] == unique
        assert lines.ask(b"cas c 0 0 1 %s\r\nb\r\n" % unique) == b"STORED\r\n"
        assert lines.ask(b"cas c 0 0 1 %s\r\nc\r\n" % unique) == b"EXISTS\r\n"
        assert lines.ask(b"cas none 0 0 1 5\r\nc\r\n") == b"NOT_FOUND\r\n"
        assert lines.ask(b"cas c 0 0 1 1 noreply\r\nc\r\n") == b""


def test_an_encoded_key_is_the_key_that_it_stands_for(world: World) -> None:
    with world.through() as lines:
        for number in range(30):
            key = b"plain:%d" % number
            encoded = b64encode(key)
            assert lines.ask(b"ms %s 2 b\r\nhi\r\n" % encoded) == b"HD\r\n"
            assert lines.ask(b"get %s\r\n" % key) == b"VALUE %s 0 2\r\nhi\r\nEND\r\n" % key


def test_values_up_to_the_servers_bound_and_past_it(world: World) -> None:
    good, too_large = b"v" * 1_000_000, b"v" * 3_000_000
    with world.through() as lines:
        for quiet, stored in ((b"", b"STORED\r\n"), (b" noreply", b"")):
            for size in (65_535, 65_536, 300_000, len(good)):
                assert lines.ask(b"set big 7 0 %d%s\r\n%s\r\n" % (size, quiet, good[:size])) == stored
                assert lines.ask(b"get big\r\n") == b"VALUE big 7 %d\r\n%s\r\nEND\r\n" % (size, good[:size])
        refusal = b"SERVER_ERROR object too large for cache\r\n"
        assert lines.ask(b"set big 7 0 %d\r\n%s\r\n" % (len(too_large), too_large)) == refusal
        assert lines.ask(b"set big 7 0 %d noreply\r\n%s\r\n" % (len(too_large), too_large)) == b""
        assert lines.ask(b"get big\r\n") == b"END\r\n"


def test_a_storm_without_replies_leaves_everything_in_step(world: World) -> None:
    with world.through() as lines:
        for _ in range(20):
            lines.send(b"".join(b"set s%d 0 0 2 noreply\r\nok\r\nincr s%d 1 noreply\r\n" % (n, n) for n in range(500)))
        for number in range(500):
            assert lines.ask(b"get s%d\r\n" % number) == b"VALUE s%d 0 2\r\nok\r\nEND\r\n" % number


def test_every_shard_is_flushed_and_counted(world: World) -> None:
    keys = [world.key_on(shard) for shard in range(SHARDS)]
    with world.through() as lines:
        stats = dict(line.split(b" ", 2)[1:] for line in lines.ask(b"stats\r\n").splitlines()[:-1])
        items = 0
        for server in world.servers:
            with Lines(server.port.number) as own:
                found = re.search(rb"STAT curr_items ([0-9]+)", own.ask(b"stats\r\n"))
                items += int(found[1]) if found else 0
        assert int(stats[b"curr_items"]) == items >= SHARDS
        assert stats[b"version"].startswith(b"1.")
        assert int(stats[b"limit_maxbytes"]) == SHARDS * 64 * 1024 * 1024
        assert b"STAT maxbytes 67108864\r\n" in lines.ask(b"stats settings\r\n")
        assert lines.ask(b"stats reset\r\n") == b"RESET\r\n"
        assert lines.ask(b"stats slabs\r\n").startswith(b"CLIENT_ERROR shoal: 'stats slabs'")
        assert lines.ask(b"watch\r\n").startswith(b"CLIENT_ERROR shoal: 'watch'")
        assert lines.ask(b"flush_all\r\n") == b"OK\r\n"
        assert lines.ask(b"get " + b" ".join(keys) + b"\r\n") == b"END\r\n"


def test_a_dead_server_fails_its_own_keys_and_no_others(world: World) -> None:
    keys = [world.key_on(shard) for shard in range(SHARDS)]
    world.servers[1].kill()
    with world.through() as lines:

        def is_refused() -> bool:
            return lines.ask(b"get %s\r\n" % keys[1]).startswith(b"SERVER_ERROR shoal: shard 'm1' at 127.0.0.1:")

        wait_until(is_refused, 8, "the shard's keys are refused")
        for key in (keys[0], keys[2]):
            assert lines.ask(b"get %s\r\n" % key) == b"VALUE %s 0 1\r\nx\r\nEND\r\n" % key
        assert lines.ask(b"get " + b" ".join(keys) + b"\r\n").startswith(b"SERVER_ERROR shoal: shard 'm1'")
        assert lines.ask(b"set %s 0 0 1 noreply\r\nx\r\n" % keys[1]) == b""
        assert lines.ask(b"version\r\n").startswith(b"VERSION 1.")
        world.servers[1].start()
        wait_until(lambda: lines.ask(b"get %s\r\n" % keys[1]) == b"END\r\n", 8, "the shard is used again")


def test_a_long_line_of_one_client_does_not_take_the_servers_away_from_others(world: World) -> None:
    keys = [world.key_on(shard) for shard in range(SHARDS)]
    lines = b"gat 0 " + b"a " * 9_000 + b"\r\n", b"mg a " + b" " * 3_000 + b"v\r\n", b" " * 3_000 + b"get a\r\n"
    with world.through() as other:
        for line in lines:
            with world.through() as client:
                client.send(line)
                assert client.rest() == b"CLIENT_ERROR line too long\r\n"
            for key in keys:
                assert other.ask(b"get %s\r\n" % key) == b"VALUE %s 0 1\r\nx\r\nEND\r\n" % key
        many = b"get " + b"a " * 9_000 + b"\r\n"
        assert other.ask(many) == b"END\r\n"


class OldServer:
    """A server without meta commands, as memcached was before 1.6; `version` is what it calls itself."""

    def __init__(self, version: bytes) -> None:
        self._version = version
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            for line in peer.makefile("rb"):
                match line.split():
                    case [b"version"]:
                        peer.sendall(b"VERSION %s\r\n" % self._version)
                    case [b"get", key]:
                        peer.sendall(b"VALUE %s 0 1\r\nx\r\nEND\r\n" % key)
                    case _:
                        peer.sendall(b"ERROR\r\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


@pytest.mark.parametrize("version", [b"1.4.15", b"of another make"])
@pytest.mark.parametrize("request_", [b"mg a v q\r\n", b"ms a 5 q\r\nget b\r\n"])
def test_meta_commands_for_a_server_without_them_give_nobody_anothers_reply(version: bytes, request_: bytes) -> None:
    with OldServer(version) as server, ExitStack() as stack:
        distribution = Distribution("slots", slots=deal_slots(1))
        shard = Shard("old", "127.0.0.1", server.port)
        keyspace = Keyspace("cache", "127.0.0.1", 0, (shard,), distribution, timeout_ms=5_000, protocol="memcached")
        proxy = start_proxy(Topology((keyspace,)), 1)
        stack.callback(proxy.stop, 1000)
        port = int(proxy.addresses()[0][1].rpartition(":")[2])
        one, other = stack.enter_context(Lines(port)), stack.enter_context(Lines(port))
        good = b"VALUE mine 0 1\r\nx\r\nEND\r\n"
        for _ in range(5):
            wait_until(lambda: other.ask(b"get mine\r\n") == good, 8, "the shard is up")
            one.send(request_)
            assert other.ask(b"get mine\r\n").startswith((good, b"SERVER_ERROR shoal: "))
            assert one.ask(b"").startswith(b"SERVER_ERROR shoal: ")


def test_a_server_that_hangs_is_given_up(world: World) -> None:
    keys = [world.key_on(shard) for shard in range(SHARDS)]
    world.servers[2].pause()
    try:
        with world.through() as lines:
            reply = lines.ask(b"get %s\r\nmg %s q v\r\nget %s\r\n" % (keys[2], keys[2], keys[0]))
            first, second, rest = reply.split(b"\r\n", 2)
            assert first.startswith(b"SERVER_ERROR shoal: ")
            assert b"m2" in first
            assert second.startswith(b"SERVER_ERROR shoal: ")
            assert b"m2" in second
            assert rest == b"VALUE %s 0 1\r\nx\r\nEND\r\n" % keys[0]
    finally:
        world.servers[2].resume()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x80\x01\x00\x00", b"CLIENT_ERROR shoal: the binary protocol"),
        (b"POST /x HTTP/1.1\r\nHost: y\r\n\r\n", b"CLIENT_ERROR shoal: this is not an HTTP port"),
        (b"x" * 5000, b"CLIENT_ERROR line too long\r\n"),
        (b"quit\r\n", b""),
        (b"get a\r\nquit\r\nget b\r\n", b"END\r\n"),
    ],
)
def test_who_is_sent_away_is_told_why(world: World, sent: bytes, answer: bytes) -> None:
    with world.through() as lines:
        lines.send(sent)
        assert lines.rest().startswith(answer)


def test_pymemcache_with_its_defaults(world: World) -> None:
    client = Client(("127.0.0.1", world.port))
    try:
        assert client.set("a", b"1")
        assert client.add("b", b"5", noreply=False)
        assert client.set_many({f"m{number}": str(number) for number in range(50)}) == []
        assert client.get_many([f"m{number}" for number in range(60)]) == {
            f"m{number}": str(number).encode() for number in range(50)
        }
        value, unique = client.gets("a")
        assert value == b"1"
        assert client.cas("a", b"2", unique) is True
        assert client.cas("a", b"3", unique) is False
        assert client.incr("b", 3) == 8
        assert client.decr("b", 1) == 7
        assert client.incr("none", 1) is None
        assert client.append("a", b"x", noreply=False)
        assert client.get("a") == b"2x"
        assert client.touch("a", 100, noreply=False)
        assert client.delete("a", noreply=False)
        assert client.get("a") is None
        assert client.version().startswith(b"1.")
        assert client.stats()[b"threads"] == SHARDS
        assert client.flush_all()
        assert client.get("b") is None
    finally:
        client.close()


def test_python_memcached(world: World) -> None:
    client = memcache.Client([f"127.0.0.1:{world.port}"])
    try:
        assert client.set("a", {"some": "thing"})
        assert client.get("a") == {"some": "thing"}
        assert client.set_multi({f"m{number}": number for number in range(30)}) == []
        assert client.get_multi([f"m{number}" for number in range(40)]) == {
            f"m{number}": number for number in range(30)
        }
        assert client.incr("m1") == 2
        assert client.delete("m1")
        assert client.get("m1") is None
        client.flush_all()
        assert client.get("m2") is None
    finally:
        client.disconnect_all()
