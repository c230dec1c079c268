"""Pools of a nutcracker.yml and what is written through them: what tests/system/test_twemproxy.py runs over.

A `Pool` is one pool of the file, `Blobs` are the requests for its keys and the replies that must come, put together
once: every request of a pipeline is answered in a way that is known beforehand, so a comparison of bytes is the whole
check, and ten thousand keys take a tenth of a second.
Must stay true: keys are of the bytes that a user's keys could be of. Bytes from 0x80 up are the point of some hashes:
they are negative in C. Rejected: printable keys only, which no sign extension would ever show.
"""

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.nutcracker import connect

HASHES = (
    *("one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32"),
    *("hsieh", "murmur", "jenkins"),
)
KEYS = 10_000
# Requests sent before their replies are read: under the windows of both proxies.
BATCH = 500
TIMEOUT_S = 10.0
KEY_BYTES_MAX = 48
# What a request of the memcached protocol cannot have in a key.
MEMCACHED_BYTES = bytes(byte for byte in range(33, 256) if byte != 127)
TAGS = (b"{%b}", b"x{%b}y", b"{}%b", b"{%b", b"}%b{", b"$%b$", b"x$%b$y", b"$$%b", b"$%b", b"{%b}{other}")


@dataclass(frozen=True)
class Pool:
    """One pool. `servers` are lines of the file; `settings` further keys of it."""

    name: str
    listen: str
    servers: tuple[str, ...]
    distribution: str = "ketama"
    hash: str = "fnv1a_64"
    redis: bool = True
    database: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where clients connect: the mode of a unix socket is no part of it."""
        return self.listen.split(" ")[0]

    def yaml(self) -> str:
        entries = {
            "listen": self.listen,
            "hash": self.hash,
            "distribution": self.distribution,
            "redis": "true" if self.redis else "false",
            **({"redis_db": str(self.database)} if self.database else {}),
            **self.settings,
        }
        lines = [f"{self.name}:", *(f"  {name}: {value}" for name, value in entries.items()), "  servers:"]
        return "\n".join([*lines, *(f"   - {server}" for server in self.servers)]) + "\n"


def keys_of(pool: Pool) -> tuple[bytes, ...]:
    """The pool's keys: those of a pool with a database to itself are the same in all of them."""
    return random_keys("shared" if pool.database else pool.name, redis=pool.redis, shared=not pool.database)


@functools.cache
def random_keys(seed: str, *, redis: bool = True, shared: bool = False) -> tuple[bytes, ...]:
    """Ten thousand distinct keys, every fifth with something that could be a tag in it; the same for the same seed.

    Where pools share a space of keys, theirs are long enough never to meet.
    """
    chance = random.Random(seed)
    alphabets = [bytes(range(256)) if redis else MEMCACHED_BYTES, b"abcdefghijklmnopqrstuvwxyz0123456789:-_"]
    # Bytes are drawn at once and translated: drawing letters one by one took half of the test's time.
    tables = [bytes(alphabet[i % len(alphabet)] for i in range(256)) for alphabet in alphabets]
    shortest = 12 if shared else 1
    keys: dict[bytes, None] = {}
    while len(keys) < KEYS:
        # Most real keys are plain text; half of them are here.
        key = chance.randbytes(chance.randint(shortest, KEY_BYTES_MAX)).translate(tables[chance.random() < 0.5])
        if chance.random() < 0.2:
            key = chance.choice(TAGS) % key
        keys[key] = None
    return tuple(keys)


def redis_request(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@dataclass(frozen=True)
class Blobs:
    """Requests and the replies that must come, in the order of the keys."""

    keys: Sequence[bytes]
    requests: list[bytes]
    replies: list[bytes]

    def batches(self) -> Iterator[tuple[int, bytes, bytes]]:
        for first in range(0, len(self.requests), BATCH):
            part = slice(first, first + BATCH)
            yield first, b"".join(self.requests[part]), b"".join(self.replies[part])


# The pools that share their keys come one after the other.
@functools.lru_cache(maxsize=2)
def writes(keys: tuple[bytes, ...], mark: bytes, *, redis: bool) -> Blobs:
    """A value of its own for each key."""
    if redis:
        requests = [redis_request(b"SET", key, b"%b:%d" % (mark, i)) for i, key in enumerate(keys)]
        return Blobs(keys, requests, [b"+OK\r\n"] * len(keys))
    values = [b"%b:%d" % (mark, i) for i in range(len(keys))]
    requests = [b"set %b 0 0 %d\r\n%b\r\n" % (key, len(v), v) for key, v in zip(keys, values, strict=True)]
    return Blobs(keys, requests, [b"STORED\r\n"] * len(keys))


@functools.lru_cache(maxsize=2)
def reads(keys: tuple[bytes, ...], mark: bytes, *, redis: bool) -> Blobs:
    """What `writes` of the same mark has left."""
    values = [b"%b:%d" % (mark, i) for i in range(len(keys))]
    if redis:
        return Blobs(
            keys, [redis_request(b"GET", key) for key in keys], [b"$%d\r\n%b\r\n" % (len(v), v) for v in values]
        )
    replies = [b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(v), v) for key, v in zip(keys, values, strict=True)]
    return Blobs(keys, [b"get %b\r\n" % key for key in keys], replies)


def exchange(pool: Pool, blobs: Blobs) -> None:
    """Sends everything through the pool; fails at the first batch of replies that are not as they must be."""
    with connect(pool.address, TIMEOUT_S) as link:
        for first, requests, replies in blobs.batches():
            link.sendall(requests)
            received = bytearray()
            while len(received) < len(replies) and replies.startswith(received):
                data = link.recv(1 << 18)
                if not data:
                    break
                received += data
            if received != replies:
                raise AssertionError(_difference(pool, blobs, first, bytes(received)))


def _difference(pool: Pool, blobs: Blobs, first: int, received: bytes) -> str:
    rest = received
    for key, request, reply in zip(blobs.keys[first:], blobs.requests[first:], blobs.replies[first:], strict=True):
        if not rest.startswith(reply):
            return (
                f"pool {pool.name} ({pool.distribution}, {pool.hash}, {pool.settings}), key {key!r}:\n"
                f"asked {request!r}\nwants {reply!r}\ngets  {rest[: len(reply) + 80]!r}"
            )
        rest = rest[len(reply) :]
    return f"pool {pool.name}: more came than was asked for"


def found(pool: Pool, keys: Sequence[bytes]) -> int:
    """How many of the keys a pool of Redis servers finds."""
    hits = 0
    with connect(pool.address, TIMEOUT_S) as link, link.makefile("rb") as replies:
        for first in range(0, len(keys), BATCH):
            batch = keys[first : first + BATCH]
            link.sendall(b"".join(redis_request(b"EXISTS", key) for key in batch))
            hits += sum(replies.readline() == b":1\r\n" for _ in batch)
    return hits
