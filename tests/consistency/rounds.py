"""The rounds of a run: load with faults, quiescence, a last read of everything, checks.

Flow of a round: opening (money and tokens are put in place) -> processes of clients, and faults meanwhile -> all is
mended -> closing (everything is read, through each proxy) -> what is left on the shards -> the checkers -> its keys go.
Each round has keys of its own, so that a long run does not grow. When everything is mended everything must be served:
what is not after SERVED_S is a violation too, and ends the run, since nothing could be checked after it.
What is needed to understand violations is kept in .cache/consistency: history, logs, records of the shards.
"""

import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness import process, wait_until

from consistency import faults, report, residue, workload
from consistency.client import TIMEOUT_S, UNANSWERED, Client
from consistency.finding import Verdict, Violation
from consistency.history import History, Operation, load, save
from consistency.judge import judge
from consistency.model import is_read
from consistency.rig import Rig

TESTS = Path(__file__).resolve().parent.parent
KEPT = TESTS.parent / ".cache" / "consistency"

START_LEAD_S = 1.0
# Between faults: operations that meet nothing, and those that follow on what was broken.
CALM_S = 0.5
# A fault and its mending take less, mostly.
FAULT_S = 5.0
# Whatever was left undone is finished or undone by then, on a busy machine too.
SERVED_S = 20.0
RETRY_S = 0.05

SERVED = "served"


class Run:
    """One rig and its rounds."""

    def __init__(
        self,
        rig: Rig,
        tally: report.Tally,
        clients: int,
        injected: Sequence[faults.Fault],
        *,
        quiet: bool,
        keeps: bool,
    ) -> None:
        self.rig = rig
        self.tally = tally
        self.clients = clients
        self.keeps = keeps
        self.faults = [fault for fault in injected if not fault.between_rounds]
        self.between = [fault for fault in injected if fault.between_rounds]
        self.injected: list[str] = []  # with times, as in the history
        self.over = False  # nothing more can be done
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
        places = list(self.rig.places)
        opened, stuck = self.do_all(workload.opening(number, places), self.rig.endpoints[0], "opening")
        operations, files = list(opened), []
        if not stuck:
            files = self.load(number, folder, seconds)
            self.rig.heal()
            operations += load(files)
        used = [c for op in operations if op.workload in (workload.REGISTER, workload.APPEND) for c in op.commands]
        for at, endpoint in enumerate(self.rig.endpoints):
            # Every window once is enough; what all clients share is read through every proxy.
            plans = workload.closing(number, places, used if at == 0 else ())
            closed, refused = self.do_all(plans, endpoint, f"closing-{at}")
            operations += closed
            stuck += refused
        history = History.of(operations)
        left = residue.check(self.rig.quiet(), self.rig.places)
        unanswered = [
            Violation(SERVED, "unanswered", operation.error, (operation,))
            for operation in history
            if operation.error == UNANSWERED
        ]
        served = Verdict(SERVED, len(operations), violations=(*stuck[:1], *unanswered))
        verdicts: list[Verdict] = [*judge(history), left, served]
        self.tally.add(history, verdicts, seconds)
        found = [violation for verdict in verdicts for violation in verdict.violations]
        self.say(f"round {number}: {len(history)} operations, {len(found)} violations")
        if found or self.keeps:
            self.keep(history)
        self.over = bool(stuck)
        self.rig.forget()
        for path in files:
            path.unlink()
        if self.between and number % 2 and not self.over:
            self.inject(self.chance.choice(self.between))
        return not found

    def keep(self, history: History) -> None:
        """What is needed to understand a violation."""
        folder = KEPT / f"seed-{self.tally.seed}-round-{self.tally.rounds - 1}"
        folder.mkdir(parents=True, exist_ok=True)
        save(history, folder / "history.jsonl")
        (folder / "records.txt").write_text(self.rig.records())
        (folder / "faults.txt").write_text("".join(self.injected))
        for number, proxy in enumerate(self.rig.proxies):
            (folder / f"proxy-{number}.log").write_text("\n".join(proxy.log()) + "\n")
        self.say(f"kept: {folder.relative_to(TESTS.parent)}")

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
        begun = time.monotonic()
        came = fault.inject(self.rig, self.chance)
        times = f"[{begun * 1e3:.3f}, {time.monotonic() * 1e3:.3f}]"
        self.injected.append(f"{times} {fault.name}{'' if came else ': did not come about'}\n")
        (self.tally.faults if came else self.tally.missed)[fault.name] += 1
        self.say(f"  {fault.name}" + ("" if came else ": did not come about"))

    def do_all(
        self, plans: Sequence[workload.Plan], endpoint: tuple[str, int], name: str
    ) -> tuple[list[Operation], list[Violation]]:
        """Does each of them; again, for as long as it certainly was not done. Also what is not served in time."""
        client = Client(name, [endpoint], f"{self.tally.seed} {name}")
        done: list[Operation] = []
        until = time.monotonic() + SERVED_S
        for plan in plans:
            while True:
                assert client.connect(), f"nobody listens on {endpoint[0]}:{endpoint[1]}"
                done.append(client.do(plan))
                unknown = done[-1].outcome == "info" and not is_read(plan.commands)
                # What a keyspace refuses for good is not tested, and the report says so.
                if done[-1].outcome == "ok" or unknown or done[-1].error.startswith("CROSSSLOT"):
                    break
                if time.monotonic() > until:
                    client.close()
                    text = f"everything runs, and {name} is refused after {SERVED_S:g} s"
                    return done, [Violation(SERVED, "stuck", text, (done[-1],))]
                faults.pass_time(RETRY_S)
            assert plan.kind != "open" or done[-1].outcome == "ok", f"not opened: {done[-1]}"
        client.close()
        return done, []
