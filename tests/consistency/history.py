"""What clients did and saw: one `Operation` for each request or transaction, with the times of its call and its return.

Flow: client processes append lines of JSON to a file each, when an operation is over; `load` puts the files together.
An operation is a list of commands that should have happened at one instant, and their replies. Times are of the
monotonic clock, which all processes of a machine share: if one operation completed before another was invoked, every
order of events must agree.
Outcomes: `ok` (the replies are known), `fail` (certainly not done), `info` (nobody knows; perhaps it is done later).
Must stay true: in doubt it is `info`. Calling a thing failed that was done makes a checker cry wolf; the reverse only
dulls it.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

Reply: TypeAlias = "str | int | tuple[Reply, ...] | None"
Command: TypeAlias = tuple[str, ...]
Outcome: TypeAlias = Literal["ok", "fail", "info"]

# Values of clients never begin so; what a server answers with an error does here.
ERROR_MARK = "!"


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client asked for in one step, and what became of it."""

    client: str
    workload: str  # which checker it is for
    kind: str  # what it is called in reports: "MSET", "MULTI RPUSH+LRANGE"
    commands: tuple[Command, ...]
    invoked: int  # nanoseconds
    completed: int | None  # None: it never returned
    outcome: Outcome
    replies: tuple[Reply, ...] = ()  # of each command; empty unless ok
    error: str = ""  # why it is not ok
    number: int = -1  # its place in the history, by invocation

    def __str__(self) -> str:
        """One line for people: who, what, when (milliseconds), with which replies."""
        parts = [" ".join(command) for command in self.commands]
        if self.outcome == "ok":
            parts = [f"{part} -> {_shown(reply)}" for part, reply in zip(parts, self.replies, strict=False)]
        until = f"{self.completed / 1e6:.3f}" if self.completed is not None else "..."
        end = "" if self.outcome == "ok" else f" {self.outcome}: {self.error}"
        return f"#{self.number} {self.client} [{self.invoked / 1e6:.3f}, {until}] {'; '.join(parts)}{end}"


class History(tuple[Operation, ...]):
    """Operations in the order of their invocation, numbered so."""

    __slots__ = ()

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> "History":
        found = sorted(operations, key=lambda operation: operation.invoked)
        return cls(replace(operation, number=number) for number, operation in enumerate(found))

    def only(self, workload: str) -> list[Operation]:
        """One workload's operations; they keep their numbers."""
        return [operation for operation in self if operation.workload == workload]


def as_line(operation: Operation) -> str:
    return json.dumps(asdict(operation), separators=(",", ":"))


def read(path: Path) -> Iterator[Operation]:
    """The operations of one file; the last line of a process that was ended may be cut, and is left out."""
    with path.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield _operation(json.loads(line))


def load(paths: Iterable[Path]) -> History:
    return History.of(operation for path in paths for operation in read(path))


def save(history: Iterable[Operation], path: Path) -> None:
    path.write_text("".join(as_line(operation) + "\n" for operation in history))


def _operation(fields: dict[str, Any]) -> Operation:
    fields["commands"] = tuple(tuple(command) for command in fields["commands"])
    fields["replies"] = _frozen(fields["replies"])
    return Operation(**fields)


def _frozen(reply: Any) -> Any:
    return tuple(_frozen(part) for part in reply) if isinstance(reply, list) else reply


def _shown(reply: Reply) -> str:
    if isinstance(reply, tuple):
        # Of a long list the end is what differs.
        shown = reply if len(reply) <= 8 else ("...", *reply[-6:])
        return f"[{' '.join(_shown(part) for part in shown)}]"
    return "nil" if reply is None else str(reply)
