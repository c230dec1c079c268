"""Is there an order in which one server would have given these replies? The search of Wing and Gong, as Lowe mended it.

Flow: operations that share keys, directly or through others, are one group; each group is searched alone (an order for
each makes an order for all: Herlihy and Wing's locality). The search takes an operation that may be next (nothing that
is left completed before it was invoked), asks the model for its replies, goes on if they are the ones seen, and goes
back if not. A pair of (operations done, state) that was reached once is not searched again.
A read that fits is taken at once and never undone: it changes nothing, so an order that has it later is as good.
Operations whose outcome is unknown may be taken at any time after their invocation, or never.
Must stay true: the search is bounded (STEPS_MAX), and a group that reaches the bound is undecided, not passed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from consistency.finding import Verdict, Violation
from consistency.history import Operation
from consistency.model import State, apply, is_read, keys_of

CHECKER = "linearizable"

# Model steps of one group; some seconds. Groups of the workload take some hundreds.
STEPS_MAX = 200_000

NEVER = 1 << 62


@dataclass(frozen=True)
class Result:
    """Of one group: linearizable, not so, or (None) not decided."""

    linearizable: bool | None
    steps: int
    # The operation at which the best attempt ended: no order gets past it.
    stuck: Operation | None = None


def check(operations: Sequence[Operation], steps_max: int = STEPS_MAX) -> Verdict:
    """All groups of a history whose keys were all missing at its beginning."""
    violations, undecided, count = [], 0, 0
    for group in groups(operations):
        count += 1
        result = search(group, steps_max)
        if result.linearizable is None:
            undecided += 1
        elif not result.linearizable:
            violations.append(_violation(group, result))
    return Verdict(CHECKER, len(operations), count, undecided, tuple(violations))


def groups(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    """Parts that share no key. Failed operations are left out: they did nothing."""
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while (above := leader.setdefault(key, key)) != key:
            leader[key] = leader[above]
            key = above
        return key

    done = [operation for operation in operations if operation.outcome != "fail"]
    named = [[key for command in operation.commands for key in keys_of(command)] for operation in done]
    for keys in named:
        for key in keys[1:]:
            leader[find(key)] = find(keys[0])
    found: dict[str, list[Operation]] = {}
    for operation, keys in zip(done, named, strict=True):
        found.setdefault(find(keys[0]), []).append(operation)
    yield from found.values()


def search(group: Sequence[Operation], steps_max: int = STEPS_MAX) -> Result:
    """Looks for an order of one group."""
    # An unknown read tells nothing and does nothing.
    found = [op for op in group if op.outcome == "ok" or not is_read(op.commands)]
    return _Search(sorted(found, key=lambda op: op.invoked), steps_max).run()


class _Search:
    def __init__(self, operations: list[Operation], steps_max: int) -> None:
        self.operations = operations
        self.steps_max = steps_max
        self.steps = 0
        self.ends = [op.completed if op.outcome == "ok" and op.completed is not None else NEVER for op in operations]
        self.reads = [is_read(op.commands) for op in operations]
        self.required = sum(1 << at for at, op in enumerate(operations) if op.outcome == "ok")
        self.best = 0
        self.stuck: Operation | None = None

    def run(self) -> Result:
        first: tuple[int, State] = (0, {})
        seen: set[tuple[int, frozenset[tuple[str, object]]]] = set()
        stack = [self.taken(*first)]
        while stack:
            done, state = stack.pop()
            if done & self.required == self.required:
                return Result(True, self.steps)
            key = (done, frozenset(state.items()))
            if key in seen:
                continue
            seen.add(key)
            if self.steps > self.steps_max:
                return Result(None, self.steps)
            self.note(done)
            # Those of unknown outcome last: most orders do without them.
            after = [
                self.taken(done | 1 << at, next_state)
                for at in sorted(self.enabled(done), key=lambda at: -self.ends[at])
                if not self.reads[at] and (next_state := self.step(at, state)) is not None
            ]
            stack += after
        return Result(False, self.steps, self.stuck)

    def enabled(self, done: int) -> list[int]:
        """Operations that may be next: invoked before anything that is left has completed."""
        left, until = [], NEVER
        start = _lowest_zero(done)
        for at in range(start, len(self.operations)):
            if self.operations[at].invoked > until:
                break
            if not done >> at & 1:
                left.append(at)
                until = min(until, self.ends[at])
        return [at for at in left if self.operations[at].invoked <= until]

    def step(self, at: int, state: State) -> State | None:
        """The state after this operation; None when it could not have answered so."""
        self.steps += 1
        operation = self.operations[at]
        after, replies = apply(state, operation.commands)
        return after if operation.outcome != "ok" or replies == operation.replies else None

    def taken(self, done: int, state: State) -> tuple[int, State]:
        """With every read that fits now."""
        more = True
        while more:
            more = False
            for at in self.enabled(done):
                if self.reads[at] and self.step(at, state) is not None:
                    done |= 1 << at
                    more = True
        return done, state

    def note(self, done: int) -> None:
        """Remembers what stopped the longest order: of the operations left, the one that completed first."""
        count = (done & self.required).bit_count()
        if count >= self.best:
            self.best = count
            left = [at for at in self.enabled(done) if self.required >> at & 1]
            self.stuck = self.operations[min(left, key=lambda at: self.ends[at])] if left else None


def _lowest_zero(bits: int) -> int:
    return (~bits & (bits + 1)).bit_length() - 1


def _violation(group: Sequence[Operation], result: Result) -> Violation:
    stuck = result.stuck
    keys = sorted({key for op in group for command in op.commands for key in keys_of(command)})
    about = f"no order of {len(group)} operations on {', '.join(keys)} gives these replies"
    if stuck is None:
        return Violation(CHECKER, "not linearizable", about, tuple(group))
    near = [op for op in group if op.invoked <= (stuck.completed or NEVER) and (op.completed or NEVER) >= stuck.invoked]
    before = [op for op in group if (op.completed or NEVER) < stuck.invoked][-3:]
    shown = (stuck, *before, *(op for op in near if op is not stuck))
    return Violation(CHECKER, "not linearizable", f"{about}; none gets past #{stuck.number}", shown)
