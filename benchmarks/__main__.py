"""`python -m benchmarks`: reads the arguments, runs the plan, shows and keeps what came of it.

Tables (or, with --json, the raw record) go to standard output, progress to standard error. Exit code: 0 when
everything asked for was measured, whether or not it reached the bars (one noisy run must not fail a build); 1 when a
subject had to be left out; 2 when the run made no sense.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import accounting, machine, report
from benchmarks.bench import Plan, run
from benchmarks.processes import BenchError
from benchmarks.subjects import chosen, find_binary, find_subjects
from benchmarks.workloads import WORKLOADS, by_name

ROUNDS = 7
SECONDS = 1.2
QUICK_ROUNDS = 3
QUICK_SECONDS = 0.25
RECORD = Path(__file__).parent / "record"
TOOLS = {
    "redis-server": "redis-server",
    "redis-benchmark": "redis-tools",
    "redis-cli": "redis-tools",
    "taskset": "util-linux",
    "setpriv": "util-linux",
}


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="CPU time per request of shoal, nutcracker, HAProxy, direct Redis and other proxies.",
        epilog="Other proxies are named in the environment: see docs/guides/benchmarks.md.",
    )
    add = arguments.add_argument
    add("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of short cells, nothing recorded: a first look")
    add("--rounds", type=int, help=f"odd number of rounds (default {ROUNDS})")
    add("--seconds", type=float, help=f"length of a cell (default {SECONDS})")
    add("--only", default="", metavar="A,B", help="only these subjects (nutcracker is what ratios need)")
    add("--workload", default="", metavar="A,B", help="only these workloads")
    add("--core", type=int, help="the core that load, subject and shards share (default: the last one)")
    add("--record", type=Path, metavar="DIR", help="where to write the record (benchmarks/record, none if --quick)")
    add("--no-record", action="store_true", help="write no record")
    add("--no-syscalls", action="store_true", help="leave out the counting of syscalls")
    add("--no-workers", action="store_true", help="leave out the two-worker reckoning")
    add("--json", action="store_true", help="print the raw record instead of tables")
    add("--list", action="store_true", help="print the subjects and workloads there are")
    return arguments


def _names(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name]


def make_plan(options: argparse.Namespace) -> Plan:
    """The plan those options ask for; BenchError for what cannot be."""
    found, absent = find_subjects(os.environ, Path(sys.executable).parent)
    try:
        subjects = chosen(found, _names(options.only))
        workloads = [by_name(name) for name in _names(options.workload)] or list(WORKLOADS)
    except KeyError as error:
        raise BenchError("; ".join([str(error.args[0]), *absent])) from error
    for line in absent:
        _say(f"not measured: {line}")
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    if rounds < 1 or rounds % 2 == 0:
        raise BenchError("--rounds wants an odd number, so that a median is a measured figure")
    cores = tuple(sorted(os.sched_getaffinity(0)))
    core = cores[-1] if options.core is None else options.core
    if core not in cores:
        raise BenchError(f"--core {core}: this process may use {', '.join(map(str, cores))}")
    return Plan(
        subjects=tuple(subjects),
        workloads=tuple(workloads),
        rounds=rounds,
        seconds=options.seconds or (QUICK_SECONDS if options.quick else SECONDS),
        core=core,
        cores=cores,
        syscalls=not options.no_syscalls,
        capacity=not options.no_workers,
    )


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _list() -> None:
    found, absent = find_subjects(os.environ, Path(sys.executable).parent)
    for subject in found:
        print(f"{subject.name:12} {subject.title}")
    for line in absent:
        print(f"(absent: {line})")
    for workload in WORKLOADS:
        print(f"{workload.name:12} {workload.title}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = parser().parse_args(argv)
    if options.list:
        _list()
        return 0
    missing = {package for tool, package in TOOLS.items() if not find_binary(tool)}
    if missing:
        _say(f"install the Debian packages {', '.join(sorted(missing))}")
        return 2
    # Otherwise a polite kill of the harness would skip the stopping of what it started.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    when, host = datetime.now(UTC), machine.describe()
    try:
        plan = make_plan(options)
        with tempfile.TemporaryDirectory(prefix="shoal-bench-") as directory:
            outcome = run(plan, Path(directory), _say)
    except BenchError as error:
        _say(str(error))
        return 2
    versions = machine.versions(plan.subjects)
    host["cpu_clock"] = accounting.cpu_clock()
    host["load_average_end"] = [round(value, 2) for value in os.getloadavg()]
    raw = report.as_json(plan, outcome, host, versions, when)
    print(raw if options.json else report.summary(plan, outcome))
    for line in report.misses(plan, outcome):
        _say(f"bar missed: {line}")
    if not options.no_record and (options.record or not options.quick):
        text = report.record_text(plan, outcome, host, versions, when)
        _say(f"recorded: {report.write_record(options.record or RECORD, when, host, text, raw)}")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
