"""The text of /metrics, judged by Prometheus' own parser."""

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shoal.metrics import CONTROL_METRICS, Declaration, Sample, control_samples, render, seconds

BOUNDS_US = [50, 250, 1_000, 2_500_000]

DECLARATIONS = [
    Declaration(
        "shoal_requests_total", "counter", 'Requests.\nWith "quotes" and \\ in the help.', ["keyspace", "shard"]
    ),
    Declaration("shoal_clients", "gauge", "Clients that are connected."),
    Declaration("shoal_request_duration_seconds", "histogram", "From request to reply.", ["shard"]),
    Declaration("shoal_unused_total", "counter", "Never counted.", ["reason"]),
]


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    assert text.endswith("\n")
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "each series once"
            found[key] = sample.value
    return found


def test_counters_and_gauges() -> None:
    samples = [Sample(0, 7, ["main", "s0"]), Sample(0, 2**63, ["main", "s1"]), Sample(1, 0)]
    found = parsed(render(DECLARATIONS, samples, BOUNDS_US))
    assert found == {
        ("shoal_requests_total", (("keyspace", "main"), ("shard", "s0"))): 7,
        ("shoal_requests_total", (("keyspace", "main"), ("shard", "s1"))): 2**63,
        ("shoal_clients", ()): 0,
    }


def test_large_counters_are_written_exactly() -> None:
    text = render(DECLARATIONS, [Sample(1, 2**63 + 1)], BOUNDS_US)
    assert "shoal_clients 9223372036854775809\n" in text


def test_types_and_help_are_declared_once_also_without_samples() -> None:
    text = render(DECLARATIONS, [Sample(0, 1, ["a", "b"]), Sample(0, 2, ["c", "d"])], BOUNDS_US)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert [(family.name, family.type) for family in families.values()] == [
        ("shoal_requests", "counter"),
        ("shoal_clients", "gauge"),
        ("shoal_request_duration_seconds", "histogram"),
        ("shoal_unused", "counter"),
    ]
    assert families["shoal_requests"].documentation == DECLARATIONS[0].help
    assert text.count("# TYPE shoal_requests_total counter\n") == 1


def test_a_histogram_is_cumulative_in_seconds_and_ends_at_infinity() -> None:
    found = parsed(render(DECLARATIONS, [Sample(2, 9, ["s0"], sum_us=3_000_250, buckets=[1, 4, 4, 8])], BOUNDS_US))
    name = "shoal_request_duration_seconds"
    buckets = {
        float(dict(labels)["le"]): value for (sample, labels), value in found.items() if sample == f"{name}_bucket"
    }
    assert buckets == {0.00005: 1, 0.00025: 4, 0.001: 4, 2.5: 8, math.inf: 9}
    assert list(buckets) == sorted(buckets)
    assert found[(f"{name}_count", (("shard", "s0"),))] == 9
    assert found[(f"{name}_sum", (("shard", "s0"),))] == 3.00025


def test_buckets_that_do_not_fit_the_bounds_are_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match="zip"):
        render(DECLARATIONS, [Sample(2, 9, ["s0"], buckets=[1])], BOUNDS_US)
    with pytest.raises(ValueError, match="zip"):
        render(DECLARATIONS, [Sample(0, 9, ["one of two"])], BOUNDS_US)


@pytest.mark.parametrize("value", ['"', "\\", "\n", "a\\nb", '\\"', "{x=y},", "é☃", "", " "])
def test_label_values_come_out_as_they_went_in(value: str) -> None:
    found = parsed(render(DECLARATIONS, [Sample(0, 1, [value, "s"])], BOUNDS_US))
    assert list(found) == [("shoal_requests_total", (("keyspace", value), ("shard", "s")))]


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(0, "0"), (1, "0.000001"), (250, "0.00025"), (1_000_000, "1"), (10_000_000, "10"), (1_500_000, "1.5")],
)
def test_seconds_are_exact_decimals(microseconds: int, text: str) -> None:
    assert seconds(microseconds) == text


def test_nothing_gives_nothing() -> None:
    assert render([], [], []) == ""


def test_the_control_plane_has_metrics_of_its_own() -> None:
    samples = control_samples("1.2.3", 7, 5, [("s0", 2), ("s1", 0)])
    found = parsed(render(CONTROL_METRICS, samples, []))
    assert found == {
        ("shoal_build_info", (("version", "1.2.3"),)): 1,
        ("shoal_topology_epoch", ()): 7,
        ("shoal_log_events_dropped_total", ()): 5,
        ("shoal_fleet_restarts_total", (("shard", "s0"),)): 2,
        ("shoal_fleet_restarts_total", (("shard", "s1"),)): 0,
    }


def test_core_and_control_plane_share_no_name() -> None:
    from shoal import _core

    declared = [of_core.name for of_core in _core.metric_declarations()] + [own.name for own in CONTROL_METRICS]
    assert len(declared) == len(set(declared))
    text = render(_core.metric_declarations(), [], _core.histogram_bounds_us())
    assert len(list(text_string_to_metric_families(text))) == len(_core.metric_declarations())
