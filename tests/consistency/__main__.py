"""`make test-consistency`: rounds of load, faults, quiescence and checks, until the time is over.

Exit code: 0 when nothing was found, 1 when something was (or something was not tested), 2 when it could not be run.
With --fence-off it is the reverse: 0 when violations were found, because then the checkers are worth something.
The history of a round with violations is kept in .cache/consistency, and --check looks at it again.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness import process, wait_until

from benchmarks import machine
from consistency import faults, report, residue, workload
from consistency.client import TIMEOUT_S, Client
from consistency.finding import Verdict
from consistency.history import History, Operation, load, save
from consistency.judge import judge
from consistency.model import is_read
from consistency.rig import KINDS, Rig, Shape

TESTS = Path(__file__).resolve().parent.parent
RECORD = TESTS.parent / "benchmarks" / "record"
KEPT = TESTS.parent / ".cache" / "consistency"

ROUND_S = 12.0
# The fences are off: violations must come within a minute.
FENCE_OFF_MINUTES = 1.0
START_LEAD_S = 1.0
# Between faults: operations that meet nothing, and those that follow on what was broken.
CALM_S = 0.5
# A fault and its mending take less, mostly.
FAULT_S = 5.0
# What is asked for at the opening and the close of a round, on a machine with nothing broken.
TRIES_MAX = 100
RETRY_S = 0.05

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
    add("--check", type=Path, metavar="FILE", help="check a history that was kept, and run nothing")
    return parser.parse_args()


class Run:
    """One rig and its rounds."""

    def __init__(
        self, rig: Rig, tally: report.Tally, clients: int, injected: Sequence[faults.Fault], *, quiet: bool
    ) -> None:
        self.rig = rig
        self.tally = tally
        self.clients = clients
        self.faults = [fault for fault in injected if not fault.between_rounds]
        self.between = [fault for fault in injected if fault.between_rounds]
        self.waiting: list[faults.Fault] = []  # of which each comes once before any comes again
        self.stream = sys.stderr if quiet else sys.stdout
        self.chance = random.Random(tally.seed)

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def round(self, seconds: float) -> bool:
        """Load, faults, quiescence, checks. Whether nothing was found."""
        number = self.tally.rounds
        folder = self.rig.folder / f"round-{number}"
        folder.mkdir()
        opened = self.do_all(workload.opening(number, list(self.rig.places)), self.rig.endpoints[0], "opening")
        files = self.load(number, folder, seconds)
        self.rig.heal()
        history = History([*opened, *load(files)])
        used = [c for op in history if op.workload in (workload.REGISTER, workload.APPEND) for c in op.commands]
        closing = workload.closing(number, list(self.rig.places), used)
        closed = [
            operation
            for at, endpoint in enumerate(self.rig.endpoints)
            for operation in self.do_all(closing, endpoint, f"closing-{at}")
        ]
        history = History.of([*history, *closed])
        left = residue.check(self.rig.quiet(), self.rig.places)
        verdicts: list[Verdict] = [*judge(history), left]
        self.tally.add(history, verdicts, seconds)
        self.rig.forget()
        if self.between and number % 2:
            self.inject(self.chance.choice(self.between))
        found = [violation for verdict in verdicts for violation in verdict.violations]
        self.say(f"round {number}: {len(history)} operations, {len(found)} violations")
        if found:
            KEPT.mkdir(parents=True, exist_ok=True)
            kept = KEPT / f"seed-{self.tally.seed}-round-{number}.jsonl"
            save(history, kept)
            self.say(f"kept: {kept.relative_to(TESTS.parent)}")
        for path in files:
            path.unlink()
        return not found

    def load(self, number: int, folder: Path, seconds: float) -> list[Path]:
        """The clients' processes, from start to end; the files that they wrote."""
        started = time.monotonic_ns() + int(START_LEAD_S * 1e9)
        names = [f"r{number}c{client}" for client in range(self.clients)]
        children, files = [], []
        for part in range(2):
            path = folder / f"clients-{part}.jsonl"
            order = {
                "seed": f"{self.tally.seed} {number}",
                "round": number,
                "places": list(self.rig.places),
                "endpoints": self.rig.endpoints,
                "clients": names[part::2],
                "started": started,
                "until": started + int(seconds * 1e9),
                "history": str(path),
            }
            (folder / f"order-{part}.json").write_text(json.dumps(order))
            child = process.start(
                [sys.executable, "-m", "consistency.client", folder / f"order-{part}.json"],
                stdout=folder / f"clients-{part}.log",
                env={"PYTHONPATH": str(TESTS)},
            )
            children.append(child)
            files.append(path)
        self.disturb(seconds)
        limit = seconds + START_LEAD_S + 4 * TIMEOUT_S
        wait_until(lambda: all(child.poll() is not None for child in children), limit, "the clients end")
        for part, child in enumerate(children):
            log = (folder / f"clients-{part}.log").read_text()
            assert child.returncode == 0, f"clients ended with {child.returncode}:\n{log}"
        return files

    def disturb(self, seconds: float) -> None:
        """One fault after the other, for as long as there is load; what each breaks is mended before the next."""
        until = time.monotonic() + START_LEAD_S + seconds
        faults.pass_time(START_LEAD_S + CALM_S)
        while self.faults and time.monotonic() + FAULT_S < until:
            if not self.waiting:
                self.waiting = self.chance.sample(self.faults, len(self.faults))
            self.inject(self.waiting.pop())
            self.rig.heal()
            faults.pass_time(CALM_S)

    def inject(self, fault: faults.Fault) -> None:
        came = fault.inject(self.rig, self.chance)
        (self.tally.faults if came else self.tally.missed)[fault.name] += 1
        self.say(f"  {fault.name}" + ("" if came else ": did not come about"))

    def do_all(self, plans: Sequence[workload.Plan], endpoint: tuple[str, int], name: str) -> list[Operation]:
        """Does each of them; again, for as long as it certainly was not done."""
        client = Client(name, [endpoint], f"{self.tally.seed} {name}")
        done: list[Operation] = []
        for plan in plans:
            for _ in range(TRIES_MAX):
                assert client.connect(), f"nobody listens on {endpoint[0]}:{endpoint[1]}"
                done.append(client.do(plan))
                unknown = done[-1].outcome == "info" and not is_read(plan.commands)
                if done[-1].outcome == "ok" or unknown or done[-1].error.startswith("CROSSSLOT"):
                    break
                faults.pass_time(RETRY_S)
            if plan.kind == "open":
                assert done[-1].outcome == "ok", f"not opened: {done[-1]}"
        client.close()
        return done


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
        runner = Run(rig, tally, options.clients, injected, quiet=options.json)
        runner.say(f"{report.describe(shape)}; seed {seed}")
        until = time.monotonic() + total
        while (left := until - time.monotonic()) > 0:
            clean = runner.round(min(left, ROUND_S))
            if options.fence_off and not clean:
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
        print(f"test-consistency: {error}", file=sys.stderr)
        code = 2

    sys.exit(code)
