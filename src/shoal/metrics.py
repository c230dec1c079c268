"""Renders metrics as Prometheus text (exposition format 0.0.4).

The core declares its metrics once (name, kind, help, label names) and answers samples added up over all workers; this
file turns the two into text and adds the few metrics of the control plane. A pure function over plain values: no
core, no clock, so that a test can hand it anything and an independent parser can judge the result.

Times are microseconds inside and seconds outside, as Prometheus wants; they are written as exact decimals, because a
bucket bound that is rounded differently in two versions splits a dashboard's series in two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class DeclarationLike(Protocol):
    """What is read of a `_core.MetricDeclaration`."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def help(self) -> str: ...
    @property
    def labels(self) -> list[str]: ...


class SampleLike(Protocol):
    """What is read of a `_core.Sample`."""

    @property
    def metric(self) -> int: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def value(self) -> int: ...
    @property
    def sum_us(self) -> int: ...
    @property
    def buckets(self) -> list[int]: ...


@dataclass(frozen=True)
class Declaration:
    """A metric of the control plane."""

    name: str
    kind: str
    help: str
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """One value of one metric of the control plane."""

    metric: int
    value: int
    labels: list[str] = field(default_factory=list)
    sum_us: int = 0
    buckets: list[int] = field(default_factory=list)


# The control plane's own metrics; their samples come from `control_samples`.
CONTROL_METRICS: tuple[Declaration, ...] = (
    Declaration("shoal_build_info", "gauge", "Always 1; the version is the label.", ["version"]),
    Declaration("shoal_topology_epoch", "gauge", "The epoch of the topology in use."),
    Declaration("shoal_log_events_dropped_total", "counter", "Log events lost because they were not fetched in time."),
    Declaration(
        "shoal_fleet_restarts_total", "counter", "Embedded servers that ended and were started again.", ["shard"]
    ),
    Declaration(
        "shoal_tls_certificate_expiry_seconds",
        "gauge",
        "When the certificate that shoal shows expires, in seconds since 1970; side: clients, or servers.",
        ["keyspace", "side"],
    ),
)


def control_samples(
    version: str,
    epoch: int,
    events_dropped: int,
    restarts: Iterable[tuple[str, int]],
    expiries: Iterable[tuple[str, str, int]] = (),
) -> list[Sample]:
    """The values of CONTROL_METRICS."""
    return [
        Sample(0, 1, [version]),
        Sample(1, epoch),
        Sample(2, events_dropped),
        *(Sample(3, count, [shard]) for shard, count in restarts),
        *(Sample(4, seconds, [keyspace, side]) for keyspace, side, seconds in expiries),
    ]


def render(declarations: Sequence[DeclarationLike], samples: Iterable[SampleLike], bounds_us: Sequence[int]) -> str:
    """The text of all metrics, each with its help and type, in the order of their declarations."""
    by_metric: dict[int, list[SampleLike]] = {}
    for sample in samples:
        by_metric.setdefault(sample.metric, []).append(sample)
    lines: list[str] = []
    for index, declaration in enumerate(declarations):
        lines.append(f"# HELP {declaration.name} {_help_text(declaration.help)}")
        lines.append(f"# TYPE {declaration.name} {declaration.kind}")
        for sample in by_metric.get(index, ()):
            if declaration.kind == "histogram":
                lines += _histogram(declaration, sample, bounds_us)
            else:
                lines.append(f"{declaration.name}{_labels(declaration.labels, sample.labels)} {sample.value}")
    return "\n".join(lines) + "\n" if lines else ""


def _histogram(declaration: DeclarationLike, sample: SampleLike, bounds_us: Sequence[int]) -> Iterable[str]:
    """Buckets are cumulative already; +Inf is the number of observations."""
    names = [*declaration.labels, "le"]
    for bound_us, count in zip(bounds_us, sample.buckets, strict=True):
        yield f"{declaration.name}_bucket{_labels(names, [*sample.labels, seconds(bound_us)])} {count}"
    yield f"{declaration.name}_bucket{_labels(names, [*sample.labels, '+Inf'])} {sample.value}"
    plain = _labels(declaration.labels, sample.labels)
    yield f"{declaration.name}_sum{plain} {seconds(sample.sum_us)}"
    yield f"{declaration.name}_count{plain} {sample.value}"


def seconds(microseconds: int) -> str:
    """Microseconds as seconds, exactly and without an exponent: 250 is "0.00025"."""
    whole, rest = divmod(microseconds, 1_000_000)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".") if rest else str(whole)


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_label_value(value)}"' for name, value in pairs) + "}"


def _label_value(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
