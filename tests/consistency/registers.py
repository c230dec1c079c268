"""Keys that are always written together are one register: all equal in every read, and the register is linearizable.

Writers set all keys of a group to one unique value (MSET, or MULTI with SETs); readers read all of them or some (MGET,
MULTI, GET).
First, every read must show one value. Then, as each value is written once, linearizability is a matter of intervals
(Gibbons and Korach, 1997): the operations of one value span a zone from its first completion to its last invocation. It
is a forward zone if they lie in that order: the value was there all that time. No two forward zones may overlap, and no
backward zone may lie within a forward one: its value had to be there at some moment in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from consistency.finding import Verdict, Violation, verdict
from consistency.history import Operation
from consistency.model import keys_of

CHECKER = "all-equal"

BEFORE_ALL = -1
NEVER = 1 << 62


@dataclass
class _Value:
    """One value of one group: who wrote it, who read it."""

    write: Operation | None = None
    reads: tuple[Operation, ...] = ()

    @property
    def first_end(self) -> int:
        """By then it had been there."""
        ends = [read.completed or NEVER for read in self.reads]
        if self.write is None:
            ends.append(BEFORE_ALL)
        elif self.write.outcome == "ok":
            ends.append(self.write.completed or NEVER)
        return min(ends, default=NEVER)

    @property
    def last_begin(self) -> int:
        """It was there still, or not there yet."""
        begins = [read.invoked for read in self.reads]
        begins.append(BEFORE_ALL if self.write is None else self.write.invoked)
        return max(begins)

    def witnesses(self) -> tuple[Operation, ...]:
        """The operations that make its zone."""
        shown = [*((self.write,) if self.write else ())]
        if self.reads:
            shown.append(min(self.reads, key=lambda op: op.completed or NEVER))
            shown.append(max(self.reads, key=lambda op: op.invoked))
        return tuple(dict.fromkeys(shown))


def check(operations: Sequence[Operation]) -> Verdict:
    """Groups of keys that are all missing at the beginning."""
    violations: list[Violation] = []
    groups: dict[str, dict[str | None, _Value]] = {}
    reads: list[tuple[str, str | None, Operation]] = []
    for operation in operations:
        group = _group(operation)
        values = groups.setdefault(group, {None: _Value()})
        if operation.commands[0][0] in ("MSET", "SET"):
            values.setdefault(operation.commands[0][2], _Value()).write = operation
        elif operation.outcome == "ok":
            seen = _seen(operation)
            if len(seen) > 1:
                shown = ", ".join(sorted(str(value) for value in seen))
                text = f"one read of {group} shows {shown}"
                violations.append(Violation(CHECKER, "torn read", text, (operation,)))
            else:
                reads.append((group, next(iter(seen)), operation))
    for group, value, operation in reads:
        found = groups[group].setdefault(value, _Value())
        if value is not None and (found.write is None or found.write.outcome == "fail"):
            # Zones are for values that were written; this one is a violation by itself.
            by = "by nobody" if found.write is None else "by an operation that failed"
            witnesses = (operation, *((found.write,) if found.write else ()))
            violations.append(Violation(CHECKER, "garbage", f"a read shows {value}, written {by}", witnesses))
            found.write = found.write or operation
            continue
        found.reads += (operation,)
    for group, values in groups.items():
        violations += _zones(group, values)
    return verdict(CHECKER, operations, violations)


def _group(operation: Operation) -> str:
    """A key is `{place}name`: those of one name are one group. A read of some of them is a read of the register."""
    names = {key.split("}", 1)[1] for command in operation.commands for key in keys_of(command)}
    assert len(names) == 1, f"an operation on several groups: {operation}"
    return names.pop()


def _seen(operation: Operation) -> set[str | None]:
    values: list[str | None] = []
    for reply in operation.replies:
        parts = reply if isinstance(reply, tuple) else (reply,)
        values += [None if part is None else str(part) for part in parts]
    return set(values)


def _zones(group: str, values: dict[str | None, _Value]) -> Iterator[Violation]:
    """Zones that cannot stand side by side."""
    forward: list[tuple[int, int, str | None]] = []
    backward: list[tuple[int, int, str | None]] = []
    for value, found in values.items():
        if found.write is not None and found.write.outcome != "ok" and not found.reads:
            continue  # perhaps never done
        early = [read for read in found.reads if found.write and (read.completed or NEVER) < found.write.invoked]
        if early and found.write:
            text = f"{group} showed {value} before it was written"
            yield Violation(CHECKER, "read from the future", text, (early[0], found.write))
        begin, end = found.first_end, found.last_begin
        (forward if begin < end else backward).append((min(begin, end), max(begin, end), value))
    forward.sort(key=lambda zone: zone[:2])
    furthest: tuple[int, int, str | None] | None = None
    for zone in forward:
        if furthest is not None and zone[0] < furthest[1]:
            yield _stale(group, values, furthest[2], zone[2])
        if furthest is None or zone[1] > furthest[1]:
            furthest = zone
    # Forward zones that do not overlap are found by their beginning; of those that do, one complaint is there already.
    events = sorted([(zone[0], 0, zone) for zone in forward] + [(zone[0], 1, zone) for zone in backward], key=_order)
    around: tuple[int, int, str | None] | None = None
    for _, is_backward, zone in events:
        if is_backward:
            if around is not None and around[0] < zone[0] and zone[1] < around[1]:
                yield _stale(group, values, around[2], zone[2])
        elif around is None or zone[1] > around[1]:
            around = zone


def _order(event: tuple[int, int, object]) -> tuple[int, int]:
    return event[:2]


def _stale(group: str, values: dict[str | None, _Value], first: str | None, second: str | None) -> Violation:
    text = f"{group} showed {first}, {second} in between, and {first} again"
    return Violation(CHECKER, "back in time", text, values[first].witnesses() + values[second].witnesses())
