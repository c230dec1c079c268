"""The verdict of a run: in words, as JSON, and as a record in benchmarks/record.

A run is good when no checker found a violation, almost nothing was left undecided, and everything that the workload has
was done successfully at least once: what never came out ok was not tested.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from consistency.finding import UNDECIDED_SHARE_MAX, Verdict, Violation
from consistency.history import History
from consistency.rig import Shape

VIOLATIONS_SHOWN = 8
ERRORS_SHOWN = 12
ERROR_LENGTH = 110


@dataclass
class Tally:
    """What has been done and found so far."""

    shape: Shape
    seed: int
    rounds: int = 0
    seconds: float = 0.0  # under load
    operations: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)  # that came out ok
    tried: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)  # faults that did not come about
    checked: Counter[str] = field(default_factory=Counter)  # operations by checker
    groups: Counter[str] = field(default_factory=Counter)
    undecided: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def add(self, history: History, verdicts: Sequence[Verdict], seconds: float) -> None:
        """One round."""
        self.rounds += 1
        self.seconds += seconds
        self.operations += len(history)
        for operation in history:
            name = f"{operation.workload}: {operation.kind}"
            self.outcomes[operation.outcome] += 1
            self.tried[name] += 1
            self.kinds[name] += operation.outcome == "ok"
            if operation.error:
                self.errors[f"{operation.outcome}: {_general(operation.error)}"] += 1
        for verdict in verdicts:
            self.checked[verdict.checker] += verdict.operations
            self.groups[verdict.checker] += verdict.groups
            self.undecided[verdict.checker] += verdict.undecided
            self.violations += verdict.violations

    @property
    def untested(self) -> list[str]:
        faults = [name for name in self.missed if not self.faults[name]]
        return sorted([*(name for name in self.tried if not self.kinds[name]), *faults])

    @property
    def undecided_too_often(self) -> list[str]:
        return [name for name, count in self.undecided.items() if count > self.groups[name] * UNDECIDED_SHARE_MAX]

    @property
    def good(self) -> bool:
        return not self.violations and not self.untested and not self.undecided_too_often and self.operations > 0


def describe(shape: Shape) -> str:
    if shape.kind == "plain":
        return f"one plain server ({shape.flavour})"
    proxies = "1 proxy" if shape.proxies == 1 else f"{shape.proxies} proxies"
    if shape.kind == "one-shard":
        return f"{proxies} of {shape.workers} workers over one shard ({shape.flavour})"
    fences = "" if shape.fences else ", fences ignored"
    return f"{proxies} of {shape.workers} workers over {shape.shards} shards ({shape.flavour}), {shape.kind}{fences}"


def words(tally: Tally) -> str:
    """For people."""
    rate = tally.operations / tally.seconds if tally.seconds else 0
    lines = [
        f"{describe(tally.shape)}; seed {tally.seed}, {tally.rounds} rounds, {tally.seconds:.0f} s of load",
        f"operations checked: {tally.operations} ({rate:.0f} a second): {_counts(tally.outcomes)}",
        f"faults injected: {sum(tally.faults.values())}" + (f": {_counts(tally.faults)}" if tally.faults else ""),
        f"violations: {len(tally.violations)}" + (f": {_counts(_shapes(tally))}" if tally.violations else ""),
        "by checker: " + _counts(tally.checked),
    ]
    if any(tally.undecided.values()):
        lines.append("undecided groups: " + _counts(tally.undecided))
    if tally.undecided_too_often:
        lines.append(f"too many of them: {', '.join(tally.undecided_too_often)}")
    if tally.untested:
        lines.append(f"never came about, so not tested: {', '.join(tally.untested)}")
    lines += [f"  {count:6}  {text}" for text, count in tally.errors.most_common(ERRORS_SHOWN)]
    for violation in _various(tally.violations)[:VIOLATIONS_SHOWN]:
        lines.append(f"\n  {violation}")
    return "\n".join(lines)


def figures(tally: Tally) -> dict[str, object]:
    """For programs."""
    return {
        "what": describe(tally.shape),
        "seed": tally.seed,
        "rounds": tally.rounds,
        "seconds": round(tally.seconds, 1),
        "operations": tally.operations,
        "outcomes": dict(tally.outcomes),
        "kinds": dict(sorted(tally.kinds.items())),
        "errors": dict(tally.errors.most_common()),
        "faults": dict(sorted(tally.faults.items())),
        "faults_missed": dict(sorted(tally.missed.items())),
        "checked": dict(tally.checked),
        "undecided": dict(tally.undecided),
        "untested": tally.untested,
        "violations": [{"checker": v.checker, "shape": v.shape, "text": v.text} for v in tally.violations],
        "good": tally.good,
    }


def as_json(tally: Tally) -> str:
    return json.dumps(figures(tally))


def write_record(directory: Path, tally: Tally, when: datetime, host: Mapping[str, object], name: str) -> Path:
    """Two files, named as those of `make bench`; the path of the one for people."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{when:%Y-%m-%dT%H%M}-{name}-consistency.md"
    text = [
        f"# Histories checked, {when:%Y-%m-%d}",
        "",
        *(f"- {key}: {value}" for key, value in host.items()),
        "",
        "Method: `make test-consistency` (tests/consistency): random operations on one key and over shards,",
        "transactions and scripts of many clients on few hot keys, checked for strict serializability.",
        "",
        "```",
        words(tally),
        "```",
        "",
    ]
    path.write_text("\n".join(text))
    raw = {"schema": 1, "date": when.isoformat(timespec="seconds"), "machine": dict(host), **figures(tally)}
    path.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    return path


def _counts(counter: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.items())


def _shapes(tally: Tally) -> Counter[str]:
    return Counter(f"{violation.checker} {violation.shape}" for violation in tally.violations)


def _various(violations: Sequence[Violation]) -> list[Violation]:
    """One of each shape first: a hundred torn reads say less than one cycle more."""
    seen: Counter[tuple[str, str]] = Counter()
    ranked = []
    for violation in violations:
        shape = (violation.checker, violation.shape)
        ranked.append((seen[shape], violation))
        seen[shape] += 1
    return [violation for _, violation in sorted(ranked, key=lambda entry: entry[0])]


def _general(error: str) -> str:
    """Without what differs from one to the next: keys and ports."""
    shown = "".join("N" if letter.isdigit() else letter for letter in error)
    while "NN" in shown:
        shown = shown.replace("NN", "N")
    return shown[:ERROR_LENGTH]
