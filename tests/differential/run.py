"""One program on both sides: reply by reply, then what both hold, then what is on the shards.

Flow: each group of steps is sent to both sides, and answered by both, before the next; the first difference ends the
program, since nothing after it says anything. `Pair` holds the sides; a program begins with both empty.
Must stay true: the time that a group took is measured on both sides, because times are compared by it.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness import wait_until

from differential import state
from differential.compare import Tolerance, equal, equal_all
from differential.draw import Words
from differential.known import known
from differential.program import Program, Step
from differential.reply import Reply
from differential.sides import CLIENTS, Shards, Side

# What is done behind a reply (values that were brought to a shard are removed) takes milliseconds.
SETTLE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Difference:
    """Where the sides parted: at a step, with both replies; or after the last, in words."""

    program: Program
    step: int | None
    left: str
    right: str

    @property
    def name(self) -> str:
        """What differed, without the particulars: differences of one name have mostly one cause."""
        if self.step is None:
            return " ".join(self.left.split()[:4])
        # Of an error its code, of another reply its kind.
        said = [text.split(" ")[0] if text.startswith("-") else text[:1] for text in (self.left, self.right)]
        return " ".join([str(self.program.steps[self.step].words[0]).upper(), *said])


@dataclass
class Transactions:
    """Of each client what it has queued, as the replies say; so EXEC's reply can be read."""

    queued: dict[int, list[Words] | None] = field(default_factory=lambda: dict.fromkeys(range(CLIENTS)))

    def equal(self, step: Step, left: Reply, right: Reply, tolerance: Tolerance) -> bool:
        """Whether the replies are; notes what they say of the transaction."""
        name, queue = str(step.words[0]).upper(), self.queued[step.client]
        if name == "MULTI" and left.text == b"OK":
            self.queued[step.client] = []
        elif left.text == b"QUEUED" and queue is not None:
            queue.append(step.words)
        elif name in ("EXEC", "DISCARD") and queue is not None and len(step.words) == 1:
            self.queued[step.client] = None
            if left.parts:
                return equal_all(queue, left, right, tolerance)
        return equal(step.words, left, right, tolerance)


@dataclass
class Pair:
    """Both sides, what is behind the second, and what was counted on the way."""

    plain: Side
    shoal: Side
    shards: Shards | None
    forms: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    longest_ms: float = 0.0
    longest: str = ""

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.plain, self.shoal

    def prepare(self) -> None:
        """Makes both sides ready for programs: scripts are known, keys are on every shard."""
        if self.shards is not None:
            self.shards.check_keys()
        for side in self.sides:
            side.prepare()

    def uncounted(self) -> "Pair":
        """The same sides, for runs that do not count."""
        return Pair(self.plain, self.shoal, self.shards)

    def run(self, program: Program) -> Difference | None:
        """The first difference, or None. Both sides are empty afterwards."""
        tolerance = Tolerance()
        for side in self.sides:
            side.open(program.protocol, program.database)
            side.clear()
        try:
            parting = self._steps(program, tolerance)
        finally:
            for side in self.sides:
                side.close()
        if parting is None:
            return self._end(program, tolerance)
        at, left, right = parting
        reason = known(program.steps[at].words, left, right, lambda words: self.plain.ask(*words))
        if reason is None:
            return Difference(program, at, left.shown(), right.shown())
        self.known[reason] += 1
        return None

    def _steps(self, program: Program, tolerance: Tolerance) -> tuple[int, Reply, Reply] | None:
        """The first step at which the replies differ, with these."""
        transactions, at = Transactions(), 0
        for burst in program.bursts():
            begin = time.monotonic()
            requests = [step.words for step in burst]
            for side in self.sides:
                side.send(burst[0].client, requests)
            left, right = (side.receive(burst[0].client, len(burst)) for side in self.sides)
            self._took(burst, time.monotonic() - begin, tolerance)
            for step, one, other in zip(burst, left, right, strict=True):
                self._count(step.words, one)
                if not transactions.equal(step, one, other, tolerance):
                    return at, one, other
                at += 1
        return None

    def _took(self, burst: Sequence[Step], seconds: float, tolerance: Tolerance) -> None:
        tolerance.measured(seconds)
        if seconds * 1000 > self.longest_ms:
            self.longest_ms, self.longest = seconds * 1000, ", ".join(str(step.words[0]) for step in burst)

    def _count(self, words: Words, answer: Reply) -> None:
        self.asked[str(words[0]).upper()] += 1
        if answer.is_error:
            self.errors[answer.text.split(b" ")[0].decode()] += 1

    def _end(self, program: Program, tolerance: Tolerance) -> Difference | None:
        if self.shards is not None and (left_over := self._left_over(self.shards, program.database)):
            return Difference(program, None, f"shards: {left_over[0]}", "; ".join(left_over[1:]))
        found = state.differences(self.plain, self.shoal, tolerance, self.forms)
        return Difference(program, None, f"state: {found[0]}", "; ".join(found[1:])) if found else None

    @staticmethod
    def _left_over(shards: Shards, database: int) -> list[str]:
        """What is where it does not belong, and stays."""
        try:
            wait_until(lambda: not shards.misplaced(database), SETTLE_TIMEOUT_S, "everything is where it belongs")
        except AssertionError:
            return shards.misplaced(database)
        return []
