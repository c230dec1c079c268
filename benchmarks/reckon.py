"""Arithmetic over samples: no process, no clock, no file.

Samples come in as they were taken, one per cell (round, workload, subject); ratios, medians and capacities go out.

What must stay true: a ratio is formed within one round and only then is the median taken. The machine is noisier
between rounds than within one (frequency, neighbours on the host), so the median of ratios says more than a ratio of
medians. Means were rejected: one preempted cell would decide them.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One cell: what one subject took for one workload in one round."""

    round: int
    workload: str
    subject: str
    requests: int
    cpu_ns: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    resident_kib: int
    steal_ms: int

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_ns / self.requests / 1000


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some figures, and how many there were."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float]) -> Spread:
    """The spread of at least one value; ValueError for none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values to summarise")
    return Spread(statistics.median(ordered), ordered[0], ordered[-1], len(ordered))


def ratios(samples: Sequence[Sample], workload: str, subject: str, baseline: str) -> list[float]:
    """CPU per request of `subject` over that of `baseline`, one figure per round in which both have a cell."""

    def per_round(name: str) -> dict[int, float]:
        return {s.round: s.cpu_us_per_request for s in samples if s.workload == workload and s.subject == name}

    measured, reference = per_round(subject), per_round(baseline)
    return [measured[n] / reference[n] for n in sorted(measured) if reference.get(n, 0) > 0]


def median_of(samples: Sequence[Sample], workload: str, subject: str, figure: str) -> float | None:
    """The median of one field (or property) over a cell's rounds, or None without samples."""
    values = [float(getattr(s, figure)) for s in samples if s.workload == workload and s.subject == subject]
    return statistics.median(values) if values else None


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The names, begun at another one each turn: no subject always follows the same one or always comes first."""
    if not names:
        return []
    start = turn % len(names)
    return [*names[start:], *names[:start]]


def requests_for(per_s: float, seconds: float, clients: int, pipeline: int) -> int:
    """How many requests make a cell of about `seconds`: a whole number of turns of all clients.

    redis-benchmark issues whole pipelines; with a multiple of clients x pipeline it sends exactly what it was told.
    """
    turn = clients * pipeline
    return max(1, round(per_s * seconds / turn)) * turn


@dataclass(frozen=True)
class WorkerSample:
    """One run of the capacity reckoning: CPU time of the process's threads while it answered `requests`."""

    round: int
    workload: str
    placement: str
    workers: int
    requests: int
    thread_cpu_ns: tuple[int, ...]

    def busiest(self) -> tuple[int, ...]:
        """The threads that carried the load: as many as there are workers, the busiest first."""
        return tuple(sorted(self.thread_cpu_ns, reverse=True)[: self.workers])

    @property
    def capacity_per_s(self) -> float:
        """Requests per second when the busiest worker has a core for itself and is never idle."""
        return self.requests / (self.busiest()[0] / 1e9)

    @property
    def evenness(self) -> float:
        """1 when every worker did the same; 1 / workers when one did everything."""
        busiest = self.busiest()
        return sum(busiest) / (self.workers * busiest[0])

    @property
    def cpu_us_per_request(self) -> float:
        """All threads together, those that are no workers too."""
        return sum(self.thread_cpu_ns) / self.requests / 1000


def capacity_ratios(samples: Sequence[WorkerSample], workload: str, placement: str, workers: int) -> list[float]:
    """Capacity with `workers` over capacity with one, one figure per round that has both."""

    def per_round(count: int) -> dict[int, float]:
        return {
            s.round: s.capacity_per_s
            for s in samples
            if s.workload == workload and s.placement == placement and s.workers == count
        }

    one, many = per_round(1), per_round(workers)
    return [many[n] / one[n] for n in sorted(many) if n in one]


@dataclass(frozen=True)
class SyscallCount:
    """Syscalls of one subject during one run; `by_name` is partial when only some names were counted apart."""

    workload: str
    subject: str
    method: str
    requests: int
    total: int
    by_name: Mapping[str, int]

    @property
    def per_request(self) -> float:
        return self.total / self.requests


def missed(value: float, reach: float | None, *, at_least: bool = False) -> bool:
    """Whether a figure misses its bar. Judged as printed, with two decimals, so that table and mark never disagree."""
    if reach is None:
        return False
    shown = round(value, 2)
    return shown < reach if at_least else shown > reach
