"""The shards: four redis-server processes, their keys, and what they say was asked of them.

Every shard holds every key. So it does not matter by which rule a subject finds the owner of a key, HAProxy and
direct Redis can be asked for the same keys on one shard, and all reads hit. Filling through each proxy in turn was
rejected: it needs as many key sets as there are distributions and proves no more.

The shards are also the witnesses: after each cell their counters must have moved by what the load generator sent,
with no miss and no error. A proxy that answers from somewhere else, or answers errors quickly, is found out here.
"""

import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOOPBACK, BenchError, Running, Stage
from benchmarks.subjects import find_binary
from benchmarks.workloads import KeyRange

SHARDS = 4
FILL_BATCH = 500
REPLY_SECONDS_MAX = 30.0
RECEIVE_BYTES = 1 << 16


@dataclass(frozen=True)
class Witness:
    """What the shards have counted since they started, all shards together."""

    hits: int
    misses: int
    error_replies: int
    commands: int

    def since(self, before: "Witness") -> "Witness":
        return Witness(
            self.hits - before.hits,
            self.misses - before.misses,
            self.error_replies - before.error_replies,
            self.commands - before.commands,
        )


def start_shards(stage: Stage, cores: Iterable[int]) -> list[Running]:
    """Start the shards, without persistence, on those cores; BenchError when that cannot be done."""
    binary = find_binary("redis-server")
    if binary is None:
        raise BenchError("redis-server is missing: install the Debian package redis-server")
    core_list = tuple(cores)
    running = []
    for number in range(SHARDS):
        port = stage.free_port()
        directory = stage.directory / f"shard{number}"
        directory.mkdir()
        running.append(stage.start(f"shard{number}", port, _command(binary, port, directory), core_list))
    return running


def _command(binary: str, port: int, directory: Path) -> list[str]:
    options = {
        "--bind": LOOPBACK,
        "--port": str(port),
        "--dir": str(directory),
        "--save": "",
        "--appendonly": "no",
        "--loglevel": "warning",
        "--maxclients": "4096",
        "--tcp-backlog": "1024",
    }
    return [binary, *(word for option in options.items() for word in option)]


def request(*words: str) -> bytes:
    """One request in RESP."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        raw = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def fill(shards: Sequence[Running], ranges: Iterable[KeyRange]) -> None:
    """Write all keys to all shards; BenchError when a shard does not take them."""
    for keys in ranges:
        batches = list(_batches(keys))
        for shard in shards:
            with socket.create_connection((LOOPBACK, shard.port), REPLY_SECONDS_MAX) as link:
                for batch, count in batches:
                    link.sendall(batch)
                    expected = b"+OK\r\n" * count
                    if _receive(link, len(expected)) != expected:
                        raise BenchError(f"{shard.name} did not take the keys {keys.prefix}...")


def _batches(keys: KeyRange) -> Iterator[tuple[bytes, int]]:
    for first in range(0, keys.count, FILL_BATCH):
        numbers = range(first, min(first + FILL_BATCH, keys.count))
        yield b"".join(request("SET", keys.key(n), keys.value) for n in numbers), len(numbers)


def _receive(link: socket.socket, count: int) -> bytes:
    """`count` bytes, or fewer if the peer closes."""
    received = bytearray()
    while len(received) < count:
        chunk = link.recv(min(RECEIVE_BYTES, count - len(received)))
        if not chunk:
            break
        received += chunk
    return bytes(received)


def parse_info(text: str) -> dict[str, str]:
    """The fields of an INFO reply; section titles and blank lines are left out."""
    fields = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            fields[name] = value.strip()
    return fields


def _info_stats(shard: Running) -> dict[str, str]:
    with socket.create_connection((LOOPBACK, shard.port), REPLY_SECONDS_MAX) as link:
        link.sendall(request("INFO", "stats"))
        with link.makefile("rb") as reply:
            header = reply.readline()
            if not header.startswith(b"$"):
                raise BenchError(f"{shard.name} answers INFO with {header!r}")
            return parse_info(reply.read(int(header[1:])).decode())


def witness(shards: Sequence[Running]) -> Witness:
    """What all shards have counted so far."""
    stats = [_info_stats(shard) for shard in shards]

    def total(field: str) -> int:
        return sum(int(fields[field]) for fields in stats)

    return Witness(
        total("keyspace_hits"),
        total("keyspace_misses"),
        total("total_error_replies"),
        total("total_commands_processed"),
    )
