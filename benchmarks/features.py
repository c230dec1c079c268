"""`python -m benchmarks.features`: what messages, transactions and waits cost through shoal, beside one Redis itself.

    shards up -> shoal up -> rounds: for each feature, shoal and one shard asked directly, in turn -> table, record

There is no other proxy to compare with: those of bench.py refuse these commands. So the baseline is Redis itself, asked
by the same load generator (featureload.c), which compares every byte of what comes back. For shoal the CPU time is that
of the proxy alone; what its shards spend comes on top of it, as everywhere in these benchmarks.

What must stay true: subject, shards and load share one core (see bench.py). Ratios are formed within a round.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import accounting, machine
from benchmarks.load import LoadResult, parse_load
from benchmarks.memload import compiled
from benchmarks.processes import BenchError, Stage, pinned
from benchmarks.reckon import Sample, median_of, rotated, spread
from benchmarks.report import table, write_record
from benchmarks.shards import start_shards
from benchmarks.subjects import DIRECT, SHOAL, Setting, Subject, find_subjects

SOURCE = Path(__file__).parent / "featureload.c"
RECORD = Path(__file__).parent / "record"
ROUNDS = 7
QUICK_ROUNDS = 1
RUN_SECONDS_MAX = 60.0
# Operations across shards; on one Redis they are that command itself.
ACROSS = (("union", "SUNION"), ("store", "SUNIONSTORE"), ("rename", "RENAME"), ("pair", "MULTI of 2 SETs"))
# A thousand subscribers, on both sides of the proxy's process and in the load generator.
FILES_WANTED = 8192


@dataclass(frozen=True)
class Feature:
    """A load of featureload.c: its words after the port, and how many things that makes."""

    name: str
    load: str
    title: str
    words: tuple[int, ...]
    count: int
    unit: str

    def command(self, port: int) -> list[str]:
        return [compiled(SOURCE), self.load, str(port), *(str(word) for word in self.words)]


def features(share: float) -> tuple[Feature, ...]:
    """The loads; `share` of the usual length."""
    messages, transactions, rounds, operations = (max(1, round(full * share)) for full in (600, 30_000, 60, 20_000))
    return (
        Feature(
            "fanout", "fanout", "1 publisher, 1000 subscribers", (1000, messages, 4, 64), 1000 * messages, "delivery"
        ),
        Feature("multi", "multi", "MULTI of 10 SETs, 50 clients", (50, transactions, 10), transactions, "transaction"),
        Feature("handover", "handover", "RPUSH to a waiting BLPOP", (50, rounds), 50 * rounds, "element"),
        *(
            Feature(
                name,
                "across",
                f"{title}, keys on two shards, 50 clients",
                (50, operations, kind),
                operations,
                "operation",
            )
            for kind, (name, title) in enumerate(ACROSS)
        ),
    )


@dataclass(frozen=True)
class Actor:
    """Who is asked, and whose CPU time counts."""

    name: str
    port: int
    pids: tuple[int, ...]


def start(stage: Stage, core: int, subject: Subject) -> list[Actor]:
    """Shards and shoal."""
    shards = start_shards(stage, (core,))
    port, second = stage.free_port(), stage.free_port()
    setting = Setting(port, second, tuple(shard.endpoint for shard in shards), stage.directory)
    if subject.command is None:
        raise BenchError(f"{subject.name} cannot be started")
    running = stage.start(subject.name, port, subject.command(setting), (core,))
    pids = tuple(accounting.with_descendants(running.process.pid))
    return [Actor(SHOAL, port, pids), Actor(DIRECT, shards[0].port, (shards[0].process.pid,))]


def cell(number: int, feature: Feature, actor: Actor, core: int) -> Sample:
    """One load on one subject; BenchError when anything that came back was wrong."""
    meter = _Meter(actor, core)
    result = meter.around(lambda: _load(feature, actor.port, core))
    return Sample(
        round=number,
        workload=feature.name,
        subject=actor.name,
        requests=feature.count,
        cpu_ns=meter.cpu_ns,
        requests_per_s=result.requests_per_s,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        resident_kib=accounting.resident_kib(actor.pids),
        steal_ms=meter.steal_ms,
    )


class _Meter:
    """CPU time of a subject, and what the host took from the core, around a load."""

    def __init__(self, actor: Actor, core: int) -> None:
        self._actor = actor
        self._core = core
        self.cpu_ns = 0
        self.steal_ms = 0

    def around(self, load: Callable[[], LoadResult]) -> LoadResult:
        def spent() -> int:
            return accounting.cpu_ns(self._actor.pids)

        stolen, before = accounting.steal_ms(self._core), accounting.wait_quiet(spent)
        result = load()
        self.cpu_ns = accounting.wait_quiet(spent) - before
        self.steal_ms = accounting.steal_ms(self._core) - stolen
        return result


def _load(feature: Feature, port: int, core: int) -> LoadResult:
    command = pinned((core,), feature.command(port))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{feature.name}: no end within {RUN_SECONDS_MAX:.0f} s") from error
    return parse_load(done.stdout)


FIGURES = ("cpu_us_per_request", "requests_per_s", "p50_ms", "p99_ms")


def figure_ratios(samples: Sequence[Sample], feature: str, figure: str) -> list[float]:
    """A figure of shoal over the same of one Redis, for each round that has both."""

    def per_round(name: str) -> dict[int, float]:
        return {s.round: float(getattr(s, figure)) for s in samples if (s.workload, s.subject) == (feature, name)}

    shoal, direct = per_round(SHOAL), per_round(DIRECT)
    return [shoal[number] / direct[number] for number in sorted(shoal) if direct.get(number, 0) > 0]


def summary(chosen: Sequence[Feature], samples: Sequence[Sample]) -> str:
    """Two tables: ratios to one Redis, and the medians as measured."""
    ratios, medians = [], []
    for feature in chosen:
        row = [feature.title, feature.unit]
        for figure in FIGURES:
            found = figure_ratios(samples, feature.name, figure)
            of = spread(found) if found else None
            row.append(f"{of.median:.2f} [{of.low:.2f}-{of.high:.2f}]" if of else "-")
        ratios.append(row)
        for name in (SHOAL, DIRECT):
            values = [median_of(samples, feature.name, name, figure) for figure in FIGURES]
            medians.append([feature.title, name, *("-" if value is None else f"{value:.3g}" for value in values)])
    head = ["shoal, times one Redis", "of one", "CPU (proxy alone)", "per second", "p50", "p99"]
    plain = ["medians", "subject", "CPU us", "per second", "p50 ms", "p99 ms"]
    return table(head, ratios) + "\n\n" + table(plain, medians)


def run(chosen: Sequence[Feature], rounds: int, core: int, say: Callable[[str], None]) -> list[Sample]:
    """All cells. Whatever happens, no process stays."""
    found, absent = find_subjects(os.environ, Path(sys.executable).parent)
    shoal = next((subject for subject in found if subject.name == SHOAL), None)
    if shoal is None:
        raise BenchError("; ".join(absent))
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as directory, Stage(Path(directory)) as stage:
        actors = {actor.name: actor for actor in start(stage, core, shoal)}
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for place, feature in enumerate(chosen):
                turn = rotated(list(actors), number + place)
                samples.extend(cell(number, feature, actors[name], core) for name in turn)
    return samples


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.features",
        description="Messages, transactions and waits through shoal, as ratios to one Redis.",
        epilog="examples:\n  make bench-features\n  make bench-features ARGS='--quick --only multi'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = arguments.add_argument
    add("--quick", action="store_true", help="one short round, nothing recorded: a first look")
    add("--rounds", type=int, default=ROUNDS, help=f"odd number of rounds (default {ROUNDS})")
    add("--only", default="", metavar="A,B", help="only these: fanout, multi, handover, union, store, rename, pair")
    add("--json", action="store_true", help="print the samples instead of tables")
    return arguments


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code: 0, or 2 when the run made no sense."""
    options = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    names = {name for name in options.only.split(",") if name}
    chosen = [feature for feature in features(0.1 if options.quick else 1) if not names or feature.name in names]
    rounds = QUICK_ROUNDS if options.quick else options.rounds
    if rounds < 1 or rounds % 2 == 0 or not chosen:
        _say("nothing to measure: --rounds wants an odd number, --only names of loads")
        return 2
    _raise_file_limit()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[:-1]) or set(cores))
    when, host = datetime.now(UTC), machine.describe()
    try:
        samples = run(chosen, rounds, cores[-1], _say)
    except BenchError as error:
        _say(str(error))
        return 2
    versions = machine.versions(())
    rows = ",\n  ".join(json.dumps(asdict(sample)) for sample in samples)
    head = json.dumps({"date": when.isoformat(timespec="seconds"), "machine": host, "versions": versions}, indent=1)
    raw = f'{head[:-2]},\n "samples": [\n  {rows}\n ]\n}}\n'
    text = summary(chosen, samples)
    print(raw if options.json else text)
    if not options.quick:
        facts = [f"- {name}: {version}" for name, version in versions.items()]
        title = f"# Messages, transactions and waits, {when.date().isoformat()}"
        method = f"{machine.host_kind(host)}, load average {host['load_average']}; {rounds} rounds; one core for all."
        page = "\n".join([title, "", *facts, f"- {method}", "", text, ""])
        _say(f"recorded: {write_record(RECORD, when, host, page, raw, 'features-')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
