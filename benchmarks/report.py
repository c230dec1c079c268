"""What is shown and what is kept.

Tables are Markdown that also reads well in a terminal: the same text is printed and recorded. A record is two files
of one name: the text, and JSON with every sample as it was taken, from which each figure of the text can be computed
again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.bench import ALL_CORES, Outcome, Plan
from benchmarks.machine import host_kind
from benchmarks.reckon import Sample, capacity_ratios, median_of, missed, ratios, spread
from benchmarks.subjects import BASELINE, SHOAL
from benchmarks.workloads import CAPACITY_REACH, SYSCALL_REACH

SCHEMA = 1
MISSED = "MISSED"
METHOD = """\
Method: 4 redis-server shards, each with all keys; load generator
(redis-benchmark), subject and shards pinned to one core, the harness off it; the subjects take turns within each
round, in rotating order. CPU time of all threads of the subject, the kernel's work for it included, per request. A
ratio compares two cells of one round; shown are the median of the ratios over the rounds and, in brackets, the lowest
and highest. Each cell was checked against the shards' own counters."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return "| " + " | ".join(aligned) + " |"

    rule = "|" + "|".join([":" + "-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def subjects_measured(samples: Sequence[Sample]) -> list[str]:
    """Names in a fixed order: shoal, the baseline, the others."""
    names = {sample.subject for sample in samples}
    first = [name for name in (SHOAL, BASELINE) if name in names]
    return first + sorted(names - set(first))


def ratio_table(plan: Plan, outcome: Outcome) -> str:
    """CPU per request relative to the baseline, with the bars; in microseconds for the baseline itself."""
    others = [name for name in subjects_measured(outcome.samples) if name != BASELINE]
    rows = []
    for workload in plan.workloads:
        base = median_of(outcome.samples, workload.name, BASELINE, "cpu_us_per_request")
        if base is None:
            continue
        row = [workload.title, f"{base:.1f} us", _bar(workload.reach, "<=")]
        for name in others:
            found = ratios(outcome.samples, workload.name, name, BASELINE)
            if not found:
                row.append("-")
                continue
            of = spread(found)
            mark = f" {MISSED}" if name == SHOAL and missed(of.median, workload.reach) else ""
            row.append(f"{of.median:.2f} [{of.low:.2f}-{of.high:.2f}]{mark}")
        rows.append(row)
    return table(["CPU per request, as a ratio", BASELINE, "reach", *others], rows) if rows else ""


def figures_table(plan: Plan, outcome: Outcome) -> str:
    """Medians as they were measured: CPU per request, throughput, latency, resident memory."""
    rows = []
    for workload in plan.workloads:
        for name in subjects_measured(outcome.samples):
            values = [
                median_of(outcome.samples, workload.name, name, figure)
                for figure in ("cpu_us_per_request", "requests_per_s", "p50_ms", "p99_ms", "resident_kib")
            ]
            cpu, per_s, p50, p99, resident = values
            if cpu is None or per_s is None or p50 is None or p99 is None or resident is None:
                continue
            latency = [f"{p50:.2f}", f"{p99:.2f}"]
            rows.append([workload.title, name, f"{cpu:.2f}", f"{per_s:.0f}", *latency, f"{resident / 1024:.1f}"])
    head = ["medians", "subject", "CPU us/request", "requests/s", "p50 ms", "p99 ms", "resident MiB"]
    return table(head, rows)


def syscall_table(outcome: Outcome) -> str:
    """Syscalls per request and which they are, with shoal's bars."""
    rows = []
    for count in outcome.syscalls:
        reach = SYSCALL_REACH.get(count.workload) if count.subject == SHOAL else None
        often = sorted(count.by_name.items(), key=lambda item: -item[1])
        named = ", ".join(f"{name} {n / count.requests:.2f}" for name, n in often if n / count.requests >= 0.005)
        mark = f" {MISSED}" if missed(count.per_request, reach) else ""
        shown = f"{count.per_request:.2f}{mark}"
        rows.append([count.workload, count.subject, shown, _bar(reach, "<="), count.method, named])
    return table(["syscalls", "subject", "per request", "reach", "counted by", "most frequent"], rows) if rows else ""


def capacity_table(outcome: Outcome) -> str:
    """Capacity of two workers over that of one. The bar is judged where the workers really run side by side."""
    rows = []
    for workload, placement in dict.fromkeys((s.workload, s.placement) for s in outcome.workers):
        found = capacity_ratios(outcome.workers, workload, placement, 2)
        if not found:
            continue
        of = spread(found)
        here = [s for s in outcome.workers if (s.workload, s.placement) == (workload, placement)]
        even = spread(s.evenness for s in here if s.workers == 2)
        cost = [spread(s.cpu_us_per_request for s in here if s.workers == n).median for n in (1, 2)]
        reach = CAPACITY_REACH if placement == ALL_CORES else None
        mark = f" {MISSED}" if missed(of.median, reach, at_least=True) else ""
        rows.append(
            [
                workload,
                placement,
                f"{of.median:.2f} [{of.low:.2f}-{of.high:.2f}]{mark}",
                _bar(reach, ">="),
                f"{even.median:.2f}",
                f"{cost[0]:.2f}",
                f"{cost[1]:.2f}",
            ]
        )
    head = ["two workers", "placement", "capacity, times one's", "reach", "evenness", "us/request, 1", "us/request, 2"]
    return table(head, rows) if rows else ""


def _bar(reach: float | None, sign: str) -> str:
    return "" if reach is None else f"{sign} {reach:.2f}"


def summary(plan: Plan, outcome: Outcome) -> str:
    """Everything a reader needs, with the machine left to `record_text`."""
    parts = [
        ratio_table(plan, outcome),
        figures_table(plan, outcome),
        syscall_table(outcome),
        capacity_table(outcome),
        "\n".join(f"left out: {line}" for line in outcome.failures),
    ]
    return "\n\n".join(part for part in parts if part)


def misses(plan: Plan, outcome: Outcome) -> list[str]:
    """One line for each bar that shoal misses."""
    lines = []
    for workload in plan.workloads:
        found = ratios(outcome.samples, workload.name, SHOAL, BASELINE)
        if found and missed(spread(found).median, workload.reach):
            lines.append(f"{workload.name}: {spread(found).median:.2f}, reach {workload.reach}")
    for count in outcome.syscalls:
        if count.subject == SHOAL and missed(count.per_request, SYSCALL_REACH.get(count.workload)):
            reach = SYSCALL_REACH[count.workload]
            lines.append(f"syscalls, {count.workload}: {count.per_request:.2f}, reach {reach}")
    for name in dict.fromkeys(s.workload for s in outcome.workers):
        found = capacity_ratios(outcome.workers, name, ALL_CORES, 2)
        if found and missed(spread(found).median, CAPACITY_REACH, at_least=True):
            lines.append(f"two workers, {name}: {spread(found).median:.2f}, reach {CAPACITY_REACH}")
    return lines


def as_json(plan: Plan, outcome: Outcome, machine: dict[str, Any], versions: dict[str, str], when: datetime) -> str:
    """The raw record, one sample per line so that two records can be compared with diff."""
    head = {
        "schema": SCHEMA,
        "date": when.isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions,
        "plan": {
            "subjects": {subject.name: subject.title for subject in plan.subjects},
            "rounds": plan.rounds,
            "seconds_per_cell": plan.seconds,
            "core": plan.core,
            "workloads": [_without_values(asdict(workload)) for workload in plan.workloads],
        },
        "requests_per_cell": outcome.requests,
        "resident_start_kib": outcome.resident_start_kib,
        "failures": outcome.failures,
    }
    rows = {
        "samples": [asdict(sample) for sample in outcome.samples],
        "syscalls": [asdict(count) for count in outcome.syscalls],
        "workers": [asdict(sample) for sample in outcome.workers],
    }
    text = json.dumps(head, indent=1)[:-2]
    for name, entries in rows.items():
        lines = ",\n  ".join(json.dumps(entry) for entry in entries)
        text += f',\n "{name}": [' + (f"\n  {lines}\n ]" if lines else "]")
    return text + "\n}\n"


def _without_values(workload: dict[str, Any]) -> dict[str, Any]:
    """The command with long values named by their size: ten kilobytes of one letter say nothing."""
    command = [word if len(word) < 40 else f"<{len(word)} bytes>" for word in workload["command"]]
    return {**workload, "command": " ".join(command)}


def record_text(plan: Plan, outcome: Outcome, machine: dict[str, Any], versions: dict[str, str], when: datetime) -> str:
    """The short text beside the raw record."""
    cpu = f"{machine['cores']} cores, {machine['cpu']}{' (virtual machine)' if machine['virtual'] else ''}"
    facts = [
        f"# Cost per request, {when.date().isoformat()}",
        "",
        f"- {cpu}, {machine['memory_gib']} GiB; {machine['system']}, Linux {machine['kernel']}",
        f"- {plan.rounds} rounds, cells of about {plan.seconds} s; load average at start {machine['load_average']}",
        *(f"- {name}: {version}" for name, version in versions.items()),
        "",
        METHOD,
        "",
    ]
    missing = misses(plan, outcome)
    verdict = "\n".join(["Bars missed:", *(f"- {line}" for line in missing)]) if missing else "No bar missed."
    if not any(sample.subject == SHOAL for sample in outcome.samples):
        verdict = "shoal was not among the subjects."
    return "\n".join(facts) + "\n" + summary(plan, outcome) + "\n\n" + verdict + "\n"


def write_record(directory: Path, when: datetime, machine: dict[str, Any], text: str, raw: str, kind: str = "") -> Path:
    """Write both files; the name tells date, kind of run and kind of host. Returns the path of the text."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{when.strftime('%Y-%m-%dT%H%M')}-{kind}{host_kind(machine)}"
    (directory / f"{stem}.json").write_text(raw)
    path = directory / f"{stem}.md"
    path.write_text(text)
    return path
