"""What a checker says: violations, each with the shape of the anomaly and the operations that show it.

A checker returns a `Verdict`. What it could not decide within its bound is counted apart and is not a pass: a run with
more of that than UNDECIDED_SHARE_MAX has failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from consistency.history import Operation

# Of the groups of a checker; above it the workload is wrong for the checker, and nothing is known.
UNDECIDED_SHARE_MAX = 0.01

OPERATIONS_SHOWN = 12


@dataclass(frozen=True)
class Violation:
    """One thing that cannot have happened on one server."""

    checker: str
    shape: str  # "G-single", "torn read", "lost append"
    text: str
    operations: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        shown = [f"      {operation}" for operation in self.operations[:OPERATIONS_SHOWN]]
        if len(self.operations) > OPERATIONS_SHOWN:
            shown.append(f"      and {len(self.operations) - OPERATIONS_SHOWN} more")
        return "\n".join([f"{self.checker}: {self.shape}: {self.text}", *shown])


@dataclass(frozen=True)
class Verdict:
    """What one checker found in one history."""

    checker: str
    operations: int  # looked at
    groups: int = 1  # parts that were decided on their own
    undecided: int = 0
    violations: tuple[Violation, ...] = ()

    @property
    def good(self) -> bool:
        return not self.violations and self.undecided <= self.groups * UNDECIDED_SHARE_MAX


def verdict(checker: str, operations: Sequence[Operation], violations: Sequence[Violation]) -> Verdict:
    """Of a checker that always decides."""
    return Verdict(checker, len(operations), violations=tuple(violations))
