"""The words of a verdict: what is printed, and what is kept in benchmarks/record.

A record is two files, named by date and kind of host as those of `make bench`: the figures for people, and every test's
outcome for programs.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from redispy.reasons import grouped, phases
from redispy.suite import Outcome
from redispy.verdict import Verdict

TESTS_SHOWN = 3


@dataclass(frozen=True)
class Run:
    """One comparison: what was run over what, and what came of it."""

    version: str
    server: str
    shards: int
    protocol: int
    plain: Mapping[str, Outcome]
    through: Mapping[str, Outcome]
    verdict: Verdict


def figures(run: Run) -> str:
    """The table that both the terminal and the record have."""
    verdict = run.verdict
    rows = (
        ("tests that pass on one plain Redis", len(verdict.plain), len(verdict.passed)),
        ("of them, tests that speak to the server", len(verdict.spoke), len(verdict.spoke_passed)),
    )
    lines = [
        f"| redis-py {run.version}, RESP{run.protocol} | one Redis | through shoal, {run.shards} shards | share |",
        "|:---|---:|---:|---:|",
    ]
    for name, all_of_them, passed in rows:
        share = passed / all_of_them if all_of_them else 0.0
        lines.append(f"| {name} | {all_of_them} | {passed} | {share:.1%} |")
    return "\n".join(lines)


def failures(run: Run, *, everything: bool = False) -> str:
    """Failures by class, then what is unexpected."""
    verdict = run.verdict
    lines: list[str] = []
    if verdict.expected:
        lines.append(f"\n{len(verdict.expected)} failures are expected:")
        lines += [f"  {count:4}  {reason}" for reason, count in Counter(verdict.expected.values()).most_common()]
    if verdict.unexpected:
        lines.append(f"\n{len(verdict.unexpected)} failures are not expected:")
        for name, outcomes in grouped(verdict.unexpected):
            note = phases(outcomes)
            lines.append(f"  {len(outcomes):4}  {name}" + (f" ({note})" if note else ""))
            shown = outcomes if everything else outcomes[:TESTS_SHOWN]
            for outcome in shown:
                first = (outcome.error.splitlines() or [""])[0]
                lines.append(f"          {outcome.test}" + (f"\n              {first}" if everything else ""))
            if len(outcomes) > len(shown):
                lines.append(f"          and {len(outcomes) - len(shown)} more")
    if verdict.now_passing:
        lines.append(f"\n{len(verdict.now_passing)} expected failures pass; take them out of the file:")
        lines += [f"  {test}\n      ({reason})" for test, reason in verdict.now_passing.items()]
    if verdict.unused:
        lines.append("\nentries of the file that name no test:")
        lines += [f"  {pattern}" for pattern in verdict.unused]
    if verdict.second_try:
        lines.append("\nfailed through shoal at first and passed alone:")
        lines += [f"  {test}" for test in verdict.second_try]
    return "\n".join(lines)


def plain_failures(plain: Mapping[str, Outcome], flaky: list[str]) -> str:
    """Tests that say nothing about shoal, because a plain Redis fails them too."""
    failed = [outcome for outcome in plain.values() if outcome.outcome == "failed"]
    skipped = sum(outcome.outcome == "skipped" for outcome in plain.values())
    lines = [f"on one plain Redis {len(failed)} fail and {skipped} are skipped; they do not count:"]
    lines += [f"  {outcome.test}" for outcome in failed]
    if flaky:
        lines.append("failed there at first and passed alone (flaky; they count):")
        lines += [f"  {test}" for test in flaky]
    return "\n".join(lines)


def write_record(directory: Path, run: Run, when: datetime, machine: Mapping[str, object], name: str) -> Path:
    """Two files; the path of the one for people."""
    stem = f"{when:%Y-%m-%dT%H%M}-{name}-redis-py-resp{run.protocol}"
    verdict = run.verdict
    reasons = Counter(verdict.expected.values())
    text = [
        f"# redis-py's own tests, {when:%Y-%m-%d}",
        "",
        *(f"- {key}: {value}" for key, value in machine.items()),
        f"- server: {run.server}",
        "",
        "Method: the standalone part of redis-py's tests (no modules, Redis Cluster, Sentinel, replicas, TLS) as they",
        f"are, first against one redis-server, then against shoal over {run.shards} of them; see `make test-redispy`.",
        "What needs keys of several shards is one operation (`tests/redispy/shoal.toml`).",
        "Only tests that pass on the plain server count. Those that never connect to it are told apart.",
        "",
        figures(run),
        "",
        *(f"- {count} expected failures: {reason}" for reason, count in reasons.most_common()),
        *(f"- {len(found)} unexpected failures: {reason}" for reason, found in grouped(verdict.unexpected)),
        "",
    ]
    raw = {
        "schema": 1,
        "date": when.isoformat(timespec="seconds"),
        "machine": dict(machine),
        "redis-py": run.version,
        "server": run.server,
        "shards": run.shards,
        "protocol": run.protocol,
        "plain": len(verdict.plain),
        "passed": len(verdict.passed),
        "spoke": len(verdict.spoke),
        "spoke_passed": len(verdict.spoke_passed),
        "failed": {outcome.test: outcome.error for outcome in run.through.values() if outcome.outcome == "failed"},
        "expected": verdict.expected,
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}.md"
    path.write_text("\n".join(text))
    path.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    return path


def as_json(outcomes: Mapping[str, Outcome]) -> str:
    """Outcomes as a file that `from_json` reads."""
    return json.dumps([asdict(outcome) for outcome in outcomes.values()], indent=1) + "\n"


def from_json(text: str) -> dict[str, Outcome]:
    return {entry["test"]: Outcome(**entry) for entry in json.loads(text)}
