"""Reads keys from live servers with SCAN, for a look at how they are spread.

A client of the few bytes of RESP that it takes: AUTH, SELECT, DBSIZE and SCAN on a blocking socket. Bounded in keys,
bytes and time; reads only. What must stay true: a sample has of each shard the part that the shard has of all keys, or
a crowded shard would look like the others. Rejected: a Redis library as a dependency of the package, for four commands
of an occasional verb.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Self

from shoal.errors import ShoalError, UsageError
from shoal.topology import Keyspace, Shard

TIMEOUT_SECONDS = 10.0
COUNT = 1_000
REPLY_BYTES_MAX = 64 * 1024 * 1024
# What proxies keep on the shards themselves.
OWN = b"__shoal:"


class ScanError(ShoalError):
    """A server could not be read."""


def scan(keyspace: Keyspace, keys_max: int, progress: Callable[[int, Shard], None]) -> list[bytes]:
    """Up to `keys_max` keys, of each shard in proportion to what it holds. Raises ScanError with the shard named."""
    if keyspace.protocol != "redis":
        raise UsageError("keys of memcached servers cannot be listed: give them with --keys")
    sizes = []
    for shard in keyspace.shards:
        with _connected(shard, keyspace.database) as connection:
            sizes.append(connection.size())
    found: list[bytes] = []
    for shard, part in zip(keyspace.shards, parts(sizes, keys_max), strict=True):
        own: list[bytes] = []
        with _connected(shard, keyspace.database) as connection:
            for batch in connection.batches() if part else ():
                own += batch
                progress(len(found) + len(own), shard)
                if len(own) >= part:
                    break
        found += own[:part]
    return found


def parts(sizes: list[int], keys_max: int) -> list[int]:
    """How many keys to take of servers that hold so many: all, or in proportion and `keys_max` in sum."""
    total = sum(sizes)
    if total <= keys_max:
        return sizes
    ends = [keys_max * before // total for before in accumulate(sizes, initial=0)]
    return [end - begin for begin, end in pairwise(ends)]


@contextmanager
def _connected(shard: Shard, database: int) -> Iterator[_Connection]:
    """A connection that may read; what the system says of it is a ScanError with the shard named."""
    try:
        with _Connection(shard) as connection:
            connection.prepare(shard, database)
            yield connection
    except OSError as error:
        raise ScanError(f"shard {shard.name} at {shard.endpoint}: {error.strerror or error}") from None


class _Connection:
    """One server; a context manager."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        family = socket.AF_UNIX if shard.endpoint.is_socket else None
        if family is not None:
            self._socket = socket.socket(family)
            self._socket.settimeout(TIMEOUT_SECONDS)
            self._socket.connect(shard.host)
        else:
            self._socket = socket.create_connection((shard.host, shard.port), TIMEOUT_SECONDS)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def prepare(self, shard: Shard, database: int) -> None:
        if shard.password is not None:
            self.ask(*(["AUTH", shard.username, shard.password] if shard.username else ["AUTH", shard.password]))
        if database:
            self.ask("SELECT", str(database))

    def size(self) -> int:
        """How many keys its database has."""
        reply = self.ask("DBSIZE")
        if not (isinstance(reply, bytes) and reply.isdigit()):
            raise ScanError(f"shard {self._shard.name}: not an answer to DBSIZE")
        return int(reply)

    def batches(self) -> Iterator[list[bytes]]:
        cursor = b"0"
        while True:
            reply = self.ask("SCAN", cursor.decode(), "COUNT", str(COUNT))
            if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[0], bytes)):
                raise ScanError(f"shard {self._shard.name}: not an answer to SCAN")
            cursor, batch = reply[0], reply[1]
            names = batch if isinstance(batch, list) else []
            yield [key for key in names if isinstance(key, bytes) and not key.startswith(OWN)]
            if cursor == b"0":
                return

    def ask(self, *words: str) -> object:
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            raw = word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
        self._socket.sendall(b"".join(parts))
        return self._reply()

    def _reply(self) -> object:
        line = self._stream.readline(REPLY_BYTES_MAX)
        if not line.endswith(b"\r\n"):
            raise ScanError(f"shard {self._shard.name} at {self._shard.endpoint} closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ScanError(f"shard {self._shard.name} at {self._shard.endpoint}: {rest.decode(errors='replace')}")
        if kind == b"$":
            size = int(rest)
            if not 0 <= size <= REPLY_BYTES_MAX:
                return None
            return self._stream.read(size + 2)[:-2]
        if kind == b"*":
            return [self._reply() for _ in range(min(int(rest), REPLY_BYTES_MAX))]
        return rest
