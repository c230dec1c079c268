"""`make test-consistency`: rounds of load, faults, quiescence and checks, until the time is over.

Exit code: 0 when nothing was found, 1 when something was (or something was not tested), 2 when it could not be run.
With --fence-off it is the reverse: 0 when violations were found, because then the checkers are worth something.
The history of a round with violations is kept in .cache/consistency, and --check looks at it again.
"""

import argparse
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine
from consistency import faults, report
from consistency.history import load
from consistency.judge import judge
from consistency.rig import KINDS, Rig, Shape
from consistency.rounds import Run

TESTS = Path(__file__).resolve().parent.parent
RECORD = TESTS.parent / "benchmarks" / "record"

ROUND_S = 12.0
# Time for several.
FAULTS_ROUND_S = 24.0
ROUND_LEAST_S = 1.0
# The fences are off: violations must come within a minute.
FENCE_OFF_MINUTES = 1.0

EPILOG = """\
examples:
  make test-consistency MINUTES=10                      ten minutes, one proxy
  make test-consistency ARGS='--proxies 3 --seed 7'     three proxies over the same shards
  make test-consistency ARGS='--faults "kill at"'       those that end a proxy at a step of an operation
  make test-consistency ARGS='--faults none'            races only, several times as many operations
  make test-consistency ARGS='--kind plain'             one server without shoal: nothing may be found
  make test-consistency ARGS='--fence-off'              fences ignored: violations must be found
  make test-consistency ARGS='--check FILE'             a history that was kept
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make test-consistency ARGS=...",
        description="Checks that what clients see through shoal is as on one server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=2.0, help="how long (2); the round that runs is ended")
    add("--seconds", type=float, help="the same in seconds")
    add("--seed", type=int, default=None, help="of chance; a new one each time if it is not given")
    add("--kind", choices=KINDS, default="strict", help="what the keyspace promises, or one plain server (strict)")
    add("--proxies", type=int, choices=(1, 2, 3), default=1, help="how many shoal processes (1)")
    add("--workers", type=int, default=2, help="threads of each (2)")
    add("--shards", type=int, default=3, help="how many servers (3)")
    add("--flavour", default="valkey", help="which servers (valkey)")
    add("--clients", type=int, default=10, help="how many clients at a time (10), in two processes")
    add(
        "--faults",
        default="",
        metavar="NAMES",
        help="only faults whose names begin so (with commas), or none",
    )
    add("--fence-off", action="store_true", help="shoal ignores its fences: succeeds when violations are found")
    add(
        "--json", action="store_true", help="print the verdict as one line of JSON; what happens goes to standard error"
    )
    add("--record", action="store_true", help="write the figures to benchmarks/record")
    add("--keep", action="store_true", help="keep every history, not only those with violations")
    add("--check", type=Path, metavar="FILE", help="check a history that was kept, and run nothing")
    return parser.parse_args()


def choose(options: argparse.Namespace) -> list[faults.Fault]:
    """The faults of a run: where nothing is promised, none."""
    if options.kind in ("plain", "per-shard") or options.fence_off:
        return []
    words = [word.strip() for word in options.faults.split(",") if word.strip()] or ["all"]
    found = [fault for fault in faults.chosen(words) if options.kind == "strict" or not fault.of_operations]
    assert found or words == ["none"], f"no fault is named so; there are: {', '.join(f.name for f in faults.ALL)}"
    return found


def run(options: argparse.Namespace) -> report.Tally:
    """All rounds."""
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    injected = choose(options)
    shape = Shape(
        durable=any(fault.needs_durable for fault in injected),
        clocks=any(fault.needs_clocks for fault in injected),
        relays=any(fault.needs_relays for fault in injected),
        kind=options.kind,
        flavour=options.flavour,
        shards=options.shards,
        proxies=options.proxies,
        workers=options.workers,
        fences=not options.fence_off,
    )
    tally = report.Tally(shape, seed)
    total = options.seconds if options.seconds is not None else options.minutes * 60
    total = min(total, FENCE_OFF_MINUTES * 60) if options.fence_off else total
    with tempfile.TemporaryDirectory() as folder, Rig(Path(folder), shape) as rig:
        runner = Run(rig, tally, options.clients, injected, quiet=options.json, keeps=options.keep)
        runner.say(f"{report.describe(shape)}; seed {seed}")
        until = time.monotonic() + total
        while (left := until - time.monotonic()) > ROUND_LEAST_S or not tally.rounds:
            clean = runner.round(min(left, FAULTS_ROUND_S if injected else ROUND_S))
            if runner.over or (options.fence_off and not clean):
                break
    return tally


def check(path: Path) -> int:
    """The checkers over a file."""
    verdicts = judge(load([path]))
    for verdict in verdicts:
        print(f"{verdict.checker}: {verdict.operations} operations, {len(verdict.violations)} violations")
        for violation in verdict.violations:
            print(f"  {violation}")
    return 0 if all(verdict.good for verdict in verdicts) else 1


def main() -> int:
    options = arguments()
    if options.check is not None:
        return check(options.check)
    tally = run(options)
    print(report.as_json(tally) if options.json else "\n" + report.words(tally))
    if options.record:
        host = machine.describe()
        host["commit"] = machine.first_line(["git", "describe", "--always", "--dirty"])
        path = report.write_record(RECORD, tally, datetime.now(UTC), host, machine.host_kind(host))
        print(f"recorded: {path}", file=sys.stderr)
    if options.fence_off:
        return 0 if tally.violations else 1
    return 0 if tally.good else 1


if __name__ == "__main__":
    try:
        code = main()
    except (AssertionError, OSError, ValueError, RuntimeError) as error:
        reason = f" ({error.__cause__})" if error.__cause__ else ""
        print(f"test-consistency: {error}{reason}", file=sys.stderr)
        code = 2

    sys.exit(code)
