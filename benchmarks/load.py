"""One run of the load generator, and the check before the first one.

redis-benchmark is what everyone knows, and its commands can be spelled out. What it prints to say that a reply was an
error is looked for, since it goes on and exits with 0.
"""

import csv
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks import memload
from benchmarks.processes import LOOPBACK, BenchError, pinned
from benchmarks.workloads import LARGE_KEYS, MEMCACHED, MULTI_KEYS, SMALL_KEYS, Workload

RUN_SECONDS_MAX = 40.0
ANSWER_SECONDS_MAX = 10.0
ERROR_MARKS = ("Error from server", "Error:", "Could not connect")


@dataclass(frozen=True)
class LoadResult:
    """What the load generator itself saw."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


def load_command(port: int, workload: Workload, requests: int) -> list[str]:
    """The command line of a cell: redis-benchmark's, or that of the load generator for memcached."""
    if workload.scene == MEMCACHED:
        return memload.load_command(port, workload, requests)
    return [
        "redis-benchmark",
        *("-h", LOOPBACK),
        *("-p", str(port)),
        *("-c", str(workload.clients)),
        *("-n", str(requests)),
        *("-P", str(workload.pipeline)),
        *("-r", str(workload.keys.count)),
        "--csv",
        *workload.command,
    ]


def parse_load(text: str) -> LoadResult:
    """The result row of `redis-benchmark --csv`; BenchError when there is none or when a reply was an error."""
    for line in text.splitlines():
        if line.startswith(ERROR_MARKS):
            raise BenchError(f"the load: {line.strip()}")
    rows = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
    if len(rows) != 2 or rows[0][:2] != ["test", "rps"]:
        raise BenchError(f"the load printed no result: {text.strip()[:300]!r}")
    row = dict(zip(rows[0], rows[1], strict=True))
    return LoadResult(float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]))


def run_load(
    port: int, workload: Workload, requests: int, cores: Iterable[int], around: Sequence[str] = ()
) -> LoadResult:
    """Run the load on those cores; `around` is a command that runs it in turn. BenchError if anything went wrong."""
    command = [*around, *pinned(cores, load_command(port, workload, requests))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{workload.name}: no end within {RUN_SECONDS_MAX:.0f} s") from error
    except OSError as error:
        raise BenchError(f"{command[0]} cannot be started: {error}") from error
    if done.returncode != 0:
        raise BenchError(f"{workload.name}: the load ended with code {done.returncode}: {done.stderr.strip()[-300:]}")
    return parse_load(done.stdout)


def ask(port: int, *words: str) -> list[str]:
    """The lines of redis-cli's answer."""
    try:
        done = subprocess.run(
            ["redis-cli", "-h", LOOPBACK, "-p", str(port), *words],
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"redis-cli {words[0]}: {error}") from error
    return done.stdout.splitlines()


def check_answers(port: int, mark: str) -> None:
    """Ask a subject, through redis-cli, each kind of question of the workloads; BenchError for the first wrong answer.

    `mark` makes the keys written here the subject's own, so that none can be answered with what another one wrote.
    """
    own = f"check:{mark}"
    many = [SMALL_KEYS.key(number * 977) for number in range(MULTI_KEYS)]
    pairs = [word for number in range(MULTI_KEYS) for word in (f"{own}:{number}", f"{mark}-{number}")]
    questions: list[tuple[tuple[str, ...], list[str]]] = [
        (("SET", own, mark), ["OK"]),
        (("GET", own), [mark]),
        (("GET", SMALL_KEYS.key(7)), [SMALL_KEYS.value]),
        (("GET", LARGE_KEYS.key(7)), [LARGE_KEYS.value]),
        (("MGET", *many), [SMALL_KEYS.value] * MULTI_KEYS),
        (("MSET", *pairs), ["OK"]),
        (("MGET", *pairs[::2]), pairs[1::2]),
    ]
    for words, expected in questions:
        answer = ask(port, *words)
        if answer != expected:
            raise BenchError(f"wrong answer to {words[0]} {words[1]}: {' '.join(answer)[:200] or 'nothing'!r}")
