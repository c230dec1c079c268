"""What a run says: each difference with all that is needed to see it again, then the figures."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from differential.draw import Word
from differential.program import Program
from differential.run import Difference

WORD_MAX = 60


@dataclass(frozen=True)
class Figures:
    """What was done, and what came of it."""

    seed: int
    server: str
    against: str
    programs: int
    commands: int
    differences: int
    seconds: float
    errors: dict[str, int]
    forms: dict[str, int]
    known: dict[str, int]
    asked: dict[str, int]
    longest_ms: float
    longest: str


def word(text: Word) -> str:
    """A word as a shell or redis-cli takes it, unless it is too long to be read."""
    plain = text.decode(errors="backslashreplace") if isinstance(text, bytes) else str(text)
    if len(plain) > WORD_MAX:
        plain = f"{plain[:20]}...({len(plain)} characters)"
    return plain if plain and plain.replace("-", "").replace(".", "").isalnum() else json.dumps(plain)


def steps(program: Program) -> str:
    """The program, a line for each request."""
    both = len({step.client for step in program.steps}) > 1
    return "\n".join(
        f"  {i:3} " + (f"client {step.client}: " if both else "") + " ".join(map(word, step.words))
        for i, step in enumerate(program.steps)
    )


def difference(found: Difference, seed: int, number: int, against: str) -> str:
    """One difference, of a program that has been minimised."""
    program = found.program
    at = "" if found.step is None else f" at step {found.step}"
    return (
        f"program {number} differs{at} (RESP{program.protocol}, database {program.database}, {program.burst} at once), "
        f"in its least form:\n"
        f"{steps(program)}\n"
        f"  one server: {found.left}\n"
        f"  {against}: {found.right}\n"
        f"  again: make test-differential ARGS='--seed {seed} --program {number}'"
    )


def summary(figures: Figures) -> str:
    """The figures in a few lines."""
    errors = ", ".join(f"{name} {count:,}" for name, count in Counter(figures.errors).most_common(8))
    lines = [
        f"{figures.commands:,} commands in {figures.programs:,} programs of seed {figures.seed}, "
        f"on one {figures.server} and on {figures.against}: {figures.differences} differences, {figures.seconds:.0f} s",
        f"errors among the replies: {errors or 'none'}",
    ]
    lines += [f"meant to differ: {reason} ({count:,})" for reason, count in sorted(figures.known.items())]
    if figures.forms:
        forms = "; ".join(f"{name} ({count:,})" for name, count in sorted(figures.forms.items()))
        lines.append(f"forms that only a restored value has: {forms}")
    longest = f"{figures.longest_ms:.0f} ms at most ({figures.longest})"
    lines.append(f"times were compared within what a group of requests took, {longest}")
    return "\n".join(lines)


def names(found: Sequence[Difference]) -> str:
    """The differences by name, for when there are many."""
    counts = Counter(difference.name for difference in found)
    return "\n".join(f"  {count:4} {name}" for name, count in counts.most_common())


def as_json(figures: Figures, found: Sequence[Difference]) -> str:
    """One line for programs."""
    differing = [{"name": one.name, "steps": steps(one.program), "left": one.left, "right": one.right} for one in found]
    return json.dumps({**asdict(figures), "found": differing})


def write_record(folder: Path, figures: Figures, when: datetime, host: dict[str, str], kind: str) -> Path:
    """Keeps the figures beside the other records; the file's name says when and where."""
    path = folder / f"{when:%Y-%m-%d}-{kind}-differential.json"
    path.write_text(json.dumps({"when": f"{when:%Y-%m-%dT%H:%MZ}", "host": host, **asdict(figures)}, indent=1) + "\n")
    return path
