"""The words of a verdict: the table, the same as JSON, and what is kept in benchmarks/record.

A record is two files, named by date and kind of host as those of `make bench`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from apps.run import Outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """One line for each application."""
    lines = ["| application | version | verdict | steps | seconds |", "|:---|:---|:---|---:|---:|"]
    lines += [f"| {o.app} | {o.version} | {o.verdict} | {o.steps} | {o.seconds:.1f} |" for o in outcomes]
    passed = sum(outcome.passed for outcome in outcomes)
    return "\n".join(lines) + f"\n\n{passed} of {len(outcomes)} passed"


def as_json(outcomes: Sequence[Outcome]) -> str:
    return json.dumps([asdict(outcome) for outcome in outcomes])


def write_record(
    directory: Path, outcomes: Sequence[Outcome], when: datetime, host: Mapping[str, object], name: str, where: str
) -> Path:
    """Two files; the path of the one for people."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{when:%Y-%m-%dT%H%M}-{name}-apps.md"
    text = [
        f"# Applications, {when:%Y-%m-%d}",
        "",
        *(f"- {key}: {value}" for key, value in host.items()),
        f"- where: {where}",
        "",
        "Method: each application's job (tests/apps), with the package's defaults, once; see `make test-apps`. Passed:",
        "every step came out as on one plain Redis. Seconds are of the whole job, with its waits and its worker's",
        "start: they are no measure of speed.",
        "",
        table(outcomes),
        "",
    ]
    path.write_text("\n".join(text))
    raw = {"schema": 1, "date": when.isoformat(timespec="seconds"), "machine": dict(host), "where": where}
    path.with_suffix(".json").write_text(json.dumps(raw | {"apps": [asdict(o) for o in outcomes]}, indent=1) + "\n")
    return path
