"""Memcached's part of the run: the servers, their keys, what they say was asked of them, and the load on subjects.

The same as shards.py and load.py do for Redis. The load comes from memload.c, which lies beside this file and is
compiled with `cc` when it is first wanted; it prints what redis-benchmark prints, so load.py reads both.
"""

import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.processes import LOOPBACK, BenchError, Running, Stage
from benchmarks.shards import FILL_BATCH, REPLY_SECONDS_MAX, SHARDS, Witness
from benchmarks.subjects import find_binary
from benchmarks.workloads import MULTI_KEYS, SMALL_KEYS, KeyRange, Workload

SOURCE = Path(__file__).parent / "memload.c"
CACHE = Path(__file__).parent.parent / ".cache"
COMPILE_SECONDS_MAX = 60.0
# The keys of a run take a quarter of it.
MEMORY_MIB = 128
CONNECTIONS_MAX = 4096


@functools.cache
def compiled(source: Path) -> str:
    """The path of a compiled load generator; BenchError when it cannot be compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError(f"{source.name} is compiled with cc: install the Debian packages gcc and libc6-dev")
    CACHE.mkdir(exist_ok=True)
    path = CACHE / source.stem
    # Under a name of its own first: another run may be executing the one that is there.
    made = CACHE / f"{source.stem}-{os.getpid()}"
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(made), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS_MAX, check=False)
    if done.returncode != 0:
        raise BenchError(f"{source.name} does not compile: {done.stderr.strip()[:500]}")
    made.replace(path)
    return str(path)


def load_command(port: int, workload: Workload, requests: int) -> list[str]:
    """The command line of a cell."""
    numbers = (port, workload.clients, requests, workload.pipeline, workload.keys.count)
    return [
        compiled(SOURCE),
        *(str(number) for number in numbers),
        workload.keys.prefix,
        str(workload.keys_per_request),
        str(workload.keys.value_bytes),
        *workload.command,
    ]


def start_servers(stage: Stage, cores: Iterable[int]) -> list[Running]:
    """Start the servers on those cores, a thread each; BenchError when that cannot be done."""
    binary = find_binary("memcached")
    if binary is None:
        raise BenchError("memcached is missing: install the Debian package memcached")
    core_list = tuple(cores)
    running = []
    for number in range(SHARDS):
        port = stage.free_port()
        options = ["-l", LOOPBACK, "-p", str(port), "-U", "0", "-t", "1", "-m", str(MEMORY_MIB)]
        # Started by root it wants to be told as whom it shall run.
        command = [binary, *options, "-c", str(CONNECTIONS_MAX), "-u", "nobody"]
        running.append(stage.start(f"memcached{number}", port, command, core_list))
    return running


def fill(servers: Sequence[Running], ranges: Iterable[KeyRange]) -> None:
    """Write all keys to all servers; BenchError when one does not take them."""
    for keys in ranges:
        for server in servers:
            with _connect(server.port) as link, link.makefile("rb") as replies:
                for first in range(0, keys.count, FILL_BATCH):
                    numbers = range(first, min(first + FILL_BATCH, keys.count))
                    link.sendall(b"".join(_set(keys.key(n), keys.value) for n in numbers))
                    if any(replies.readline() != b"STORED\r\n" for _ in numbers):
                        raise BenchError(f"{server.name} did not take the keys {keys.prefix}...")


def _connect(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), REPLY_SECONDS_MAX)


def _set(key: str, value: str) -> bytes:
    return f"set {key} 0 0 {len(value)}\r\n{value}\r\n".encode()


def parse_stats(lines: Iterable[str]) -> dict[str, str]:
    """The fields of `stats`."""
    return dict(line.split(" ", 2)[1:] for line in lines if line.startswith("STAT "))


def witness(servers: Sequence[Running]) -> Witness:
    """What all servers have counted so far. They count no errors; the load generator fails at the first one."""
    seen = Witness(0, 0, 0, 0)
    for server in servers:
        fields = parse_stats(ask(server.port, "stats"))
        hits, gets, sets = (int(fields[name]) for name in ("get_hits", "cmd_get", "cmd_set"))
        seen = Witness(seen.hits + hits, seen.misses + gets - hits, 0, seen.commands + gets + sets)
    return seen


def ask(port: int, request: str) -> list[str]:
    """The lines of one reply, its last line included: END, or whatever else is the only one."""
    lines: list[str] = []
    try:
        with _connect(port) as link, link.makefile("rb") as replies:
            link.sendall(request.encode() + b"\r\n")
            while line := replies.readline().decode().rstrip("\r\n"):
                lines.append(line)
                if line == "END" or (len(lines) == 1 and not line.startswith(("VALUE ", "STAT "))):
                    break
    except OSError as error:
        raise BenchError(f"memcached protocol, {request.partition(' ')[0]}: {error}") from error
    return lines


def check_answers(port: int, mark: str) -> None:
    """Ask a subject each kind of question of the workloads; BenchError for the first wrong answer."""
    own = f"check:{mark}".replace(" ", "-")
    many = [SMALL_KEYS.key(number * 977) for number in range(MULTI_KEYS)]

    def values(*keys: str) -> list[str]:
        return [line for key in keys for line in (f"VALUE {key} 0 {len(SMALL_KEYS.value)}", SMALL_KEYS.value)]

    questions = [
        (f"set {own} 0 0 {len(own)}\r\n{own}", ["STORED"]),
        (f"get {own}", [f"VALUE {own} 0 {len(own)}", own, "END"]),
        (f"get {many[3]}", [*values(many[3]), "END"]),
        (f"get {' '.join(many)}", [*values(*many), "END"]),
    ]
    for request, expected in questions:
        answer = ask(port, request)
        # A proxy may give the values of several servers in any order.
        if sorted(answer) != sorted(expected):
            raise BenchError(f"wrong answer to {request[:60]!r}: {' '.join(answer)[:200] or 'nothing'!r}")
