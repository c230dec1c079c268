"""Counters: what was acknowledged is there, nothing is there that nobody did, and no read goes back in time.

Only INCRBY of 1 changes a counter, alone or together with its pair in a MULTI. For each counter and each reply, an
increment's or a read's: it is at least the largest value that anybody had seen when it was invoked, and at least the
number of increments acknowledged by then; and at most the number of increments that had been invoked (and did not fail)
when it completed. Two increments never answer the same. Pairs that are only counted together are equal in every
snapshot.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from consistency.finding import Verdict, Violation, verdict
from consistency.history import Operation

CHECKER = "counters"


@dataclass
class _Counter:
    """What is known of one counter; times in nanoseconds."""

    invoked: list[int] = field(default_factory=list)  # increments that may have been done
    acknowledged: list[int] = field(default_factory=list)  # when
    # value, operation, by an increment
    seen: list[tuple[int, Operation, bool]] = field(default_factory=list)


def check(operations: Sequence[Operation]) -> Verdict:
    """Counters that are missing at the beginning."""
    counters: dict[str, _Counter] = {}
    violations: list[Violation] = []
    for operation in operations:
        for at, (name, *args) in enumerate(operation.commands):
            reply = operation.replies[at] if operation.outcome == "ok" else None
            if name == "INCRBY":
                counter = counters.setdefault(args[0], _Counter())
                if operation.outcome != "fail":
                    counter.invoked.append(operation.invoked)
                if operation.outcome == "ok" and operation.completed is not None:
                    counter.acknowledged.append(operation.completed)
                    counter.seen.append((int(str(reply)), operation, True))
            elif operation.outcome == "ok":
                values = reply if isinstance(reply, tuple) else (reply,)
                for key, value in zip(args, values, strict=True):
                    counters.setdefault(key, _Counter()).seen.append((int(str(value or 0)), operation, False))
        if operation.kind == "snapshot pair" and operation.outcome == "ok":
            violations += _unequal(operation)
    for key, counter in counters.items():
        violations += _wrong(key, counter)
    return verdict(CHECKER, operations, violations)


def _unequal(operation: Operation) -> Iterator[Violation]:
    flat = [part for reply in operation.replies for part in (reply if isinstance(reply, tuple) else (reply,))]
    values = {int(str(value or 0)) for value in flat}
    if len(values) > 1:
        shown = " and ".join(str(value) for value in sorted(values))
        yield Violation(CHECKER, "torn pair", f"counted together, and a snapshot shows {shown}", (operation,))


def _wrong(key: str, counter: _Counter) -> Iterator[Violation]:
    counter.invoked.sort()
    counter.acknowledged.sort()
    given: dict[int, Operation] = {}
    # What the largest value seen was, at the end of each operation that raised it.
    by_end = sorted(counter.seen, key=lambda seen: seen[1].completed or 0)
    ends: list[int] = []
    largest: list[tuple[int, Operation]] = []
    for value, operation, _ in by_end:
        if not largest or value > largest[-1][0]:
            ends.append(operation.completed or 0)
            largest.append((value, operation))
    for value, operation, by_increment in counter.seen:
        before = bisect_left(ends, operation.invoked)
        if before and largest[before - 1][0] + by_increment > value:
            text = f"{key} was {largest[before - 1][0]} already, and shows {value}"
            yield Violation(CHECKER, "back in time", text, (largest[before - 1][1], operation))
        acknowledged = bisect_left(counter.acknowledged, operation.invoked)
        if value < acknowledged + by_increment:
            text = f"{key} shows {value} after {acknowledged} increments were acknowledged"
            yield Violation(CHECKER, "lost increment", text, (operation,))
        possible = bisect_right(counter.invoked, operation.completed or 0)
        if value > possible:
            text = f"{key} shows {value} of {possible} increments"
            yield Violation(CHECKER, "too many", text, (operation,))
        if by_increment:
            if value in given:
                text = f"two increments of {key} answer {value}"
                yield Violation(CHECKER, "same answer", text, (given[value], operation))
            given[value] = operation
