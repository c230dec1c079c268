"""Of a program that differs, the fewest steps that still do: delta debugging.

Flow: leave out a half, then quarters, eighths, ..., single steps, as long as what is left still differs; then one
request at a time instead of several, and the first database, where that differs as well. Each try is a run on both
sides, from empty.
Must stay true: what is returned was seen to differ, in the same way. Within the budget it need not be the least.
Rejected: shortening words; programs have few long ones, and the report cuts these.
"""

from collections.abc import Callable
from dataclasses import replace

from differential.program import Program
from differential.run import Difference

TRIES_MAX = 250


def minimised(program: Program, run: Callable[[Program], Difference | None], first: Difference) -> Difference:
    """What differs in the smallest program found. `first` is what differs in the program itself."""
    best, found, tries = program, first, 0

    def differs(candidate: Program) -> bool:
        nonlocal best, found, tries
        if tries >= TRIES_MAX:
            return False
        tries += 1
        result = run(candidate)
        # Without a part of its steps a program may differ in another way, which is not what was found.
        if result is None or result.name != first.name:
            return False
        best, found = candidate, result
        return True

    parts = 2
    while len(best.steps) > 1:
        length = max(1, -(-len(best.steps) // parts))
        starts = range(0, len(best.steps), length)
        if any(differs(_without(best, start, length)) for start in starts):
            parts = max(2, parts - 1)
        elif length == 1:
            break
        else:
            parts = min(len(best.steps), parts * 2)
    for simpler in (replace(best, burst=1), replace(best, burst=1, database=0)):
        if simpler != best:
            differs(simpler)
    return found


def _without(program: Program, start: int, length: int) -> Program:
    return replace(program, steps=program.steps[:start] + program.steps[start + length :])
