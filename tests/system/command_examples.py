"""Reads command_examples.txt: requests for every command with keys, for comparing shoal with one plain server.

Must stay true of the text: every reply is determined by the requests, in both protocols (sets are small enough to keep
their order); a test finds a command of the generated table that has no example.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One request of an example."""

    words: tuple[str, ...]
    similar: bool  # the reply holds times or sizes


@dataclass(frozen=True)
class Example:
    """One line of the text."""

    command: str
    steps: tuple[Step, ...]

    def has_further_keys(self) -> bool:
        return any(word.startswith("%") and word != "%" for step in self.steps for word in step.words)


def read_examples() -> list[Example]:
    text = Path(__file__).with_suffix(".txt").read_text()
    return [_example(line) for line in text.splitlines() if line and not line.startswith("#")]


def _example(line: str) -> Example:
    name, _, rest = line.partition(": ")
    requests = [request.strip() for request in rest.split("; ")]
    steps = [Step(tuple(shlex.split(request.removeprefix("~"))), request.startswith("~")) for request in requests]
    return Example(name, tuple(steps))
