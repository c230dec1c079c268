"""What both runs and the file of expected failures say together.

Of the tests that pass on one plain Redis, each passes through shoal or not, and is expected to or not. A verdict is
good when nothing is unexpected: no failure that the file does not name, no success that the file says cannot be, no
entry that names no test.
A name in the file is a test's name, in which `*` stands for anything and nothing else is special (brackets are part of
names). An entry may be for one protocol only.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redispy.suite import Outcome

KINDS = ("left-out", "flaky", "expected")


@dataclass(frozen=True)
class Entry:
    """Some tests and why they are treated otherwise."""

    kind: str
    reason: str
    tests: tuple[str, ...]
    protocol: int | None = None

    def unused(self, names: Iterable[str]) -> list[str]:
        """Patterns of it that match none of the names."""
        known = list(names)
        return [pattern for pattern in self.tests if not any(matches(pattern, name) for name in known)]


@dataclass(frozen=True)
class Book:
    """The file of expected failures."""

    entries: tuple[Entry, ...] = ()

    def find(self, kind: str, test: str) -> Entry | None:
        for entry in self.entries:
            if entry.kind == kind and any(matches(pattern, test) for pattern in entry.tests):
                return entry
        return None

    def left_out(self, test: str) -> bool:
        return self.find("left-out", test) is not None


@dataclass
class Verdict:
    """Tests by what became of them; names in the order of the run."""

    plain: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    spoke: list[str] = field(default_factory=list)
    spoke_passed: list[str] = field(default_factory=list)
    second_try: list[str] = field(default_factory=list)
    expected: dict[str, str] = field(default_factory=dict)
    unexpected: list[Outcome] = field(default_factory=list)
    now_passing: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return bool(self.plain) and not (self.unexpected or self.now_passing or self.unused)

    @property
    def share(self) -> float:
        """Of the tests that speak to the server and pass on a plain one, how many pass through shoal."""
        return len(self.spoke_passed) / len(self.spoke) if self.spoke else 0.0


def matches(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def read_book(path: Path, protocol: int) -> Book:
    """The entries of the file that are for this protocol. Raises ValueError when the file is not what it should be."""
    raw = tomllib.loads(path.read_text())
    unknown = set(raw) - set(KINDS)
    if unknown:
        raise ValueError(f"{path.name}: there is no [[{unknown.pop()}]], only {', '.join(KINDS)}")
    entries = []
    for kind in KINDS:
        for table in raw.get(kind, ()):
            if not table.get("reason") or not table.get("tests") or set(table) - {"reason", "tests", "protocol"}:
                raise ValueError(f"{path.name}: [[{kind}]] has a reason, tests and perhaps a protocol: {table}")
            entry = Entry(kind, table["reason"], tuple(table["tests"]), table.get("protocol"))
            if entry.protocol in (None, protocol):
                entries.append(entry)
    return Book(tuple(entries))


def judge(
    plain: Mapping[str, Outcome],
    through: Mapping[str, Outcome],
    book: Book,
    *,
    second_try: Sequence[str] = (),
    whole: bool = True,
) -> Verdict:
    """Compares. `second_try` names tests that failed first and passed alone; they count as passed, and are named.

    When not all tests were run (`whole` is false) entries that name no test are no fault.
    """
    verdict = Verdict(second_try=list(second_try))
    for test, outcome in plain.items():
        if not outcome.passed or book.find("flaky", test) or test not in through:
            continue
        verdict.plain.append(test)
        passed = through[test].passed or test in second_try
        if passed:
            verdict.passed.append(test)
        if outcome.spoke:
            verdict.spoke.append(test)
            if passed:
                verdict.spoke_passed.append(test)
        entry = book.find("expected", test)
        if passed and entry is not None:
            verdict.now_passing[test] = entry.reason
        elif not passed and entry is not None:
            verdict.expected[test] = entry.reason
        elif not passed:
            verdict.unexpected.append(through[test])
    if whole:
        candidates = set(plain)
        for entry in book.entries:
            # What is left out was not collected, so nothing can be said of it.
            if entry.kind != "left-out":
                verdict.unused += entry.unused(candidates)
    return verdict


def proposal(groups: Sequence[tuple[str, Sequence[Outcome]]]) -> str:
    """Entries for the file, one for each class; the reasons are to be written by somebody who knows them."""
    lines = []
    for name, outcomes in groups:
        lines += ["[[expected]]", f'reason = "{_escaped(name)}"', "tests = ["]
        lines += [f'    "{_escaped(outcome.test)}",' for outcome in outcomes]
        lines += ["]", ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
