"""Twemproxy and shoal over one nutcracker.yml and the same servers: what one has written, the other finds.

This is the move that a user makes: nutcracker runs and writes; it is stopped and shoal started over the very same file;
shoal reads every key, writes every key anew, and is stopped; nutcracker, started again, must find what shoal wrote. The
servers are witnesses: when shoal had written a key to another server than nutcracker did, there would now be two.
All pools of a protocol are in one file. Pools of Redis have a database each, so that they share keys and servers.

That the test can fail is tested as well: with another hash most keys are elsewhere, and the servers show it.
"""

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Fleet, Port, need, process, wait_until
from harness.memcached import MemcachedFleet
from harness.nutcracker import Nutcracker, accepts
from harness.proxy import program
from system.twemproxy_pools import HASHES, KEYS, Blobs, Pool, exchange, found, keys_of, random_keys, reads, writes

# Not a power of two: modula would see the lowest bits only, in which some hashes agree for every key.
SERVERS = 5
DATABASES = 64
NAMES = ("delta", "b", "cc", "a10", "echo")
WEIGHTS = (1, 2, 3, 1, 4)
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
# The rule of libmemcached: a server at this port is hashed by its host alone. Loopback has hosts enough.
PORT_WITHOUT_NAME = 11211

Start = Callable[[Path, Path, Sequence[str]], AbstractContextManager[object]]


@contextmanager
def shoal(folder: Path, file: Path, listeners: Sequence[str]) -> Iterator[None]:
    """shoal over the file, as somebody starts it who had nutcracker before."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "shoal.log"
    running = process.start([program(), "serve", "--nutcracker", file, "--json"], stdout=log, cwd=folder)

    def is_up() -> bool:
        if running.poll() is not None:
            raise RuntimeError(f"shoal serve --nutcracker ended while starting:\n{log.read_text()[-3000:]}")
        return all(accepts(address) for address in listeners)

    try:
        wait_until(is_up, START_TIMEOUT_S, f"shoal listens where {file} says")
        yield
    finally:
        process.end(running, signal.SIGTERM, STOP_TIMEOUT_S)


class Pools:
    """Makes the pools of one file and knows their listeners."""

    def __init__(self, folder: Path, servers: Sequence[str], sockets: Sequence[str], *, redis: bool) -> None:
        self.redis = redis
        self._folder = folder
        self._servers = servers
        self._sockets = sockets
        self._ports: list[Port] = []
        self.made: list[Pool] = []

    def add(self, name: str, distribution: str, function: str, servers: Sequence[str], **settings: str) -> Pool:
        port = Port.take()
        self._ports.append(port)
        listen = settings.pop("listen", str(port))
        # nutcracker 0.5.0 does not select the database on a connection to a unix socket: measured, and used here.
        over_sockets = any(server.startswith("/") for server in servers)
        database = 0 if over_sockets or not self.redis else len(self.made) + 1
        pool = Pool(name, listen, tuple(servers), distribution, function, self.redis, database, settings)
        self.made.append(pool)
        return pool

    def add_all(self) -> None:
        """Every distribution with every hash, then names, weights, tags and unix sockets."""
        named = [f"{address}:1 {name}" for address, name in zip(self._servers, NAMES, strict=True)]
        heavy = [f"{address}:{weight}" for address, weight in zip(self._servers, WEIGHTS, strict=True)]
        both = [f"{line} {name}" for line, name in zip(heavy, NAMES, strict=True)]
        plain = [f"{address}:1" for address in self._servers]
        for distribution in ("ketama", "modula"):
            for function in HASHES:
                self.add(f"{distribution}-{function}", distribution, function, named)
        for distribution, function in (("ketama", "murmur"), ("ketama", "fnv1a_64"), ("modula", "md5")):
            self.add(f"unnamed-{distribution}-{function}", distribution, function, plain)
            self.add(f"weights-{distribution}-{function}", distribution, function, heavy)
            self.add(f"weights-names-{distribution}-{function}", distribution, function, both)
        for distribution, function, tag in (
            ("ketama", "fnv1a_32", "{}"),
            ("modula", "crc32a", "{}"),
            ("ketama", "md5", "$$"),
            ("modula", "one_at_a_time", "$$"),
        ):
            kind = "braces" if tag == "{}" else "dollars"
            self.add(f"{kind}-{distribution}-{function}", distribution, function, named, hash_tag=f'"{tag}"')
        sockets = [f"{path}:1" for path in self._sockets]
        named_sockets = [f"{path}:2 {name}" for path, name in zip(self._sockets, NAMES, strict=True)]
        self.add("sockets", "ketama", "jenkins", sockets)
        self.add("sockets-names", "modula", "hsieh", named_sockets, listen=f"{self._folder}/named.sock 0600")
        self.add("sockets-listen", "ketama", "crc32a", plain, listen=f"{self._folder}/plain.sock")
        self.add("lonely", "ketama", "murmur", plain[:1])
        self.add("options", "ketama", "one_at_a_time", named, preconnect="true", server_connections="2", timeout="5000")

    def write(self, file: Path) -> None:
        file.write_text("".join(pool.yaml() for pool in self.made))

    @property
    def listeners(self) -> list[str]:
        return [pool.address for pool in self.made]

    def release(self) -> None:
        for port in self._ports:
            port.release()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="shoal-tw-") as path:
        yield Path(path)


@pytest.fixture
def redis_servers(folder: Path, flavour: str) -> Iterator[tuple[Fleet, list[str]]]:
    """The servers and the paths of their unix sockets."""
    # One folder for all: each server's own is its working folder, in which the path below is relative.
    with Fleet(folder, SERVERS, flavour, (f"databases {DATABASES}", "unixsocket s", "unixsocketperm 700")) as fleet:
        yield fleet, [str(server.folder / "s") for server in fleet.servers]


@pytest.fixture
def pools(folder: Path, redis_servers: tuple[Fleet, list[str]]) -> Iterator[Pools]:
    """An empty file over the Redis servers."""
    fleet, sockets = redis_servers
    made = Pools(folder, fleet.addresses, sockets, redis=True)
    yield made
    made.release()


def move(folder: Path, pools: Pools, successor: Start, check: Callable[[str], None]) -> None:
    """nutcracker writes; its successor reads, then writes anew; nutcracker reads. `check` looks at the servers."""
    file = folder / "nutcracker.yml"
    pools.write(file)
    keys = {pool.name: keys_of(pool) for pool in pools.made}

    def all_pools(request: Callable[..., Blobs], mark: bytes) -> None:
        for pool in pools.made:
            exchange(pool, request(keys[pool.name], mark, redis=pools.redis))

    with Nutcracker(folder / "before", file, pools.listeners):
        all_pools(writes, b"nutcracker")
    check("nutcracker has written")
    with successor(folder / "successor", file, pools.listeners):
        all_pools(reads, b"nutcracker")
        all_pools(writes, b"successor")
    check("its successor has written")
    with Nutcracker(folder / "after", file, pools.listeners):
        all_pools(reads, b"successor")


def placement(fleet: Fleet, pool: Pool) -> dict[bytes, int]:
    """Which server holds each key of a pool of Redis servers; fails for a key that two of them hold."""
    owners: dict[bytes, int] = {}
    wanted = set(keys_of(pool))
    for number, server in enumerate(fleet.servers):
        with server.client(db=pool.database) as client:
            held = client.keys()
        assert isinstance(held, list)
        for key in wanted.intersection(held):
            assert key not in owners, f"pool {pool.name}: servers {owners[key]} and {number} both hold {key!r}"
            owners[key] = number
    return owners


def is_on_one_server(pool: Pool) -> bool:
    """crc32 gives 15 bits and ketama's points have 32: all keys are below the first of them, on one server."""
    return len(pool.servers) == 1 or (pool.distribution, pool.hash) == ("ketama", "crc32")


def check_redis(fleet: Fleet, pools: Pools, when: str) -> None:
    """Every key of every pool is on one server, and they are spread; other hashes and tags lay them out otherwise."""
    owners: dict[str, dict[bytes, int]] = {}
    for pool in pools.made:
        owners[pool.name] = placement(fleet, pool)
        counts = Counter(owners[pool.name].values())
        assert counts.total() == KEYS, f"{when}: pool {pool.name} has {counts}"
        assert len(counts) == (1 if is_on_one_server(pool) else SERVERS), f"{when}: pool {pool.name} has {counts}"

    some = keys_of(pools.made[0])[::5]

    def share_elsewhere(one: str, other: str) -> float:
        return sum(owners[one][key] != owners[other][key] for key in some) / len(some)

    names = [pool.name for pool in pools.made if pool.name.split("-")[0] in ("ketama", "modula")]
    for number, one in enumerate(names):
        for other in names[:number]:
            assert share_elsewhere(one, other) > 0.3, f"{when}: {one} and {other} lay out the keys alike"
    for tagged in (name for name in owners if name.startswith(("braces-", "dollars-"))):
        plain = tagged.split("-", 1)[1]
        assert 0.01 < share_elsewhere(tagged, plain) < 0.3, f"{when}: the tag of {tagged} decides nothing"


def test_redis_keys_are_found_both_ways(folder: Path, pools: Pools, redis_servers: tuple[Fleet, list[str]]) -> None:
    pools.add_all()
    move(folder, pools, shoal, lambda when: check_redis(redis_servers[0], pools, when))


def test_memcached_keys_are_found_both_ways(folder: Path) -> None:
    # The port is given, so the addresses are this process's own: two runs at once must not meet.
    net = f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
    hosts = [f"{net}.{number}:{PORT_WITHOUT_NAME}" for number in range(1, SERVERS + 1)]
    with ExitStack() as stack:
        fleet = stack.enter_context(MemcachedFleet(folder / "tcp", SERVERS, also=hosts))
        unix = stack.enter_context(MemcachedFleet(folder / "unix", SERVERS, socket=True))
        pools = Pools(folder, fleet.addresses, unix.addresses, redis=False)
        stack.callback(pools.release)
        pools.add_all()
        pools.add("libmemcached", "ketama", "one_at_a_time", [f"{host}:1" for host in hosts])
        file_pools = len(pools.made)

        def check(when: str) -> None:
            held = [server.items() for server in (*fleet.servers, *unix.servers)]
            assert sum(held) == file_pools * KEYS, f"{when}: the servers hold {held}"
            assert min(held) > KEYS / 10, f"{when}: the servers hold {held}"

        move(folder, pools, shoal, check)


def test_random_uses_every_server_whatever_the_key(
    folder: Path, pools: Pools, redis_servers: tuple[Fleet, list[str]]
) -> None:
    """A cache only: a key is wherever chance has put it. So what can be held to account is that a key that was written
    often enough is everywhere, and found by whoever draws next; and that the weight counts for nothing."""
    heavy = [f"{address}:{weight}" for address, weight in zip(redis_servers[0].addresses, WEIGHTS, strict=True)]
    pool = pools.add("any", "random", "fnv1a_64", heavy)
    file = folder / "nutcracker.yml"
    pools.write(file)
    keys = random_keys("random")
    for start, mark in ((Nutcracker, b"nutcracker"), (shoal, b"shoal")):
        redis_servers[0].heal()
        with start(folder / mark.decode(), file, pools.listeners):
            exchange(pool, writes(keys, mark, redis=True))
            counts = [server.client(db=pool.database) for server in redis_servers[0].servers]
            shares = [int(client.dbsize()) / KEYS for client in counts]
            # 10,000 draws of one in five: the deviation is 0.004.
            assert all(abs(share - 1 / SERVERS) < 0.03 for share in shares), f"{mark!r}: {shares}"
            # One of 20 keys is missing somewhere after 100 draws with a chance of 2e-8.
            for _ in range(100):
                exchange(pool, writes(keys[:20], mark, redis=True))
            exchange(pool, reads(keys[:20], mark, redis=True))


def test_the_comparison_can_fail(folder: Path, pools: Pools, redis_servers: tuple[Fleet, list[str]]) -> None:
    """The same steps with nutcracker as its own successor pass; over a file with one word changed they do not."""
    need("nutcracker", "nutcracker")
    named = [f"{address}:1 {name}" for address, name in zip(redis_servers[0].addresses, NAMES, strict=True)]
    pools.add("ketama-fnv1a_64", "ketama", "fnv1a_64", named)
    pools.add("modula-md5", "modula", "md5", named)
    pools.add("braces-modula-md5", "modula", "md5", named, hash_tag='"{}"')
    move(folder, pools, Nutcracker, lambda when: check_redis(redis_servers[0], pools, when))
    for pool, change in (
        (0, {"hash": "fnv1a_32"}),
        (0, {"distribution": "modula"}),
        (1, {"servers": tuple(reversed([f"{a}:1" for a in redis_servers[0].addresses]))}),
        (2, {"settings": {}}),
    ):
        changed = replace(pools.made[pool], **change)
        file = folder / "changed.yml"
        file.write_text(changed.yaml())
        keys = keys_of(changed)
        with Nutcracker(folder / "changed", file, [changed.address]):
            assert found(changed, keys) < 0.99 * KEYS
            with pytest.raises(AssertionError, match=f"pool {changed.name} "):
                exchange(changed, reads(keys, b"successor", redis=True))
