"""What operators see: metrics that move with what happens, health, and log lines with a reason for each end.

An independent parser (prometheus_client's) reads /metrics.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from harness import ErrorReply, Fault, Fleet, Proxy, Wire, wait_until
from harness.wire import encode
from prometheus_client.parser import text_string_to_metric_families
from system.placement import SHARDS, keys_on, one_key_each

from shoal import _core

NewFleet = Callable[..., Fleet]
NewProxy = Callable[..., Proxy]
NewFault = Callable[..., Fault]

Labels = frozenset[tuple[str, str]]


def fetch(proxy: Proxy, path: str) -> tuple[int, str, str]:
    """Status, content type, text."""
    try:
        with urllib.request.urlopen(proxy.admin_url + path, timeout=5) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read().decode()


class Metrics:
    """One reading of /metrics."""

    def __init__(self, proxy: Proxy) -> None:
        status, kind, text = fetch(proxy, "/metrics")
        assert status == 200
        assert kind.startswith("text/plain; version=0.0.4")
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.values: dict[tuple[str, Labels], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def of(self, name: str, **labels: str) -> float:
        """The sum over all label values that are not given."""
        wanted = set(labels.items())
        found = [value for (known, has), value in self.values.items() if known == name and wanted <= has]
        assert found, f"no {name} with {labels}"
        return sum(found)


def moved(before: Metrics, after: Metrics, name: str, **labels: str) -> int:
    return int(after.of(name, **labels) - before.of(name, **labels))


@pytest.fixture
def steady(fleet: Fleet, new_proxy: NewProxy) -> Proxy:
    """A proxy of this test alone that has used every shard."""
    proxy = new_proxy(fleet.addresses, options=["--workers", "2"])
    with proxy.socket() as wire:
        assert wire.ask("MGET", *one_key_each()) == [None] * SHARDS
    wait_until(lambda: Metrics(proxy).of("shoal_clients_connected") == 0, 5, "nobody is connected")
    return proxy


def test_every_declared_metric_is_shown_with_its_kind_and_help(steady: Proxy) -> None:
    metrics = Metrics(steady)
    for declared in _core.metric_declarations():
        name = declared.name.removesuffix("_total") if declared.kind == "counter" else declared.name
        family = metrics.families[name]
        assert (family.type, family.documentation) == (declared.kind, declared.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(declared.labels)
    assert metrics.of("shoal_build_info", version=_core.version()) == 1


def test_counters_of_requests(steady: Proxy) -> None:
    before = Metrics(steady)
    keys = one_key_each()
    requests = [
        *(["SET", key, "v"] for key in keys),
        *(["GET", key] for key in keys * 3),
        ["MGET", *keys],
        ["PING"],
        ["PING"],
        ["NOSUCH"],
        ["SORT", keys[0], "BY", "w_*"],
        ["LPUSH", keys[0], "wrong type"],
    ]
    data = b"".join(encode(*words) for words in requests)
    with steady.socket() as wire:
        wire.send(data)
        replies = [wire.reply() for _ in requests]
        assert sum(isinstance(reply, ErrorReply) for reply in replies) == 3
        during = Metrics(steady)
        assert during.of("shoal_clients_connected", keyspace="main") == 1
    after = wait_until(
        lambda: found if (found := Metrics(steady)).of("shoal_clients_connected") == 0 else None, 5, "gone"
    )
    assert moved(before, after, "shoal_clients_accepted_total") == 1
    assert moved(before, after, "shoal_requests_total", keyspace="main") == len(requests)
    assert moved(before, after, "shoal_refused_total") == 2
    assert moved(before, after, "shoal_split_total") == 1
    assert moved(before, after, "shoal_local_total") == 2
    assert moved(before, after, "shoal_client_received_bytes_total") == len(data)
    assert moved(before, after, "shoal_client_sent_bytes_total") > 4 * 5 + 16 * 7
    assert moved(before, after, "shoal_clients_closed_total", reason="client-closed") == 1
    for shard in range(SHARDS):
        # SET, three GETs, a part of the MGET; the first has LPUSH as well. Idle connections are asked now and then.
        sent = moved(before, after, "shoal_shard_requests_total", shard=f"s{shard}")
        assert 5 + (shard == 0) <= sent <= 5 + (shard == 0) + 4
        assert moved(before, after, "shoal_shard_errors_total", shard=f"s{shard}") == (shard == 0)
        assert moved(before, after, "shoal_shard_failed_total", shard=f"s{shard}") == 0
        assert moved(before, after, "shoal_shard_sent_bytes_total", shard=f"s{shard}") > 100
        assert moved(before, after, "shoal_shard_received_bytes_total", shard=f"s{shard}") > 20
        assert after.of("shoal_shard_in_flight", shard=f"s{shard}") == 0


def test_counters_never_fall_and_bytes_are_exact(steady: Proxy) -> None:
    key = one_key_each()[2]
    with steady.socket() as wire:
        wire.ask("SET", key, "x" * 100_000)
        before = Metrics(steady)
        for _ in range(20):
            assert wire.ask("GET", key) == b"x" * 100_000
        after = Metrics(steady)
    assert moved(before, after, "shoal_client_sent_bytes_total") == 20 * len(b"$100000\r\n\r\n") + 20 * 100_000
    for (name, labels), value in before.values.items():
        if name.endswith(("_total", "_bucket", "_count", "_sum")):
            assert after.values[name, labels] >= value, (name, labels)


def test_latency_histogram_of_each_shard(steady: Proxy, fleet: Fleet) -> None:
    keys = one_key_each()
    before = Metrics(steady)
    with steady.socket() as wire:
        for _ in range(50):
            wire.ask("GET", keys[1])
        fleet.stop(3)
        wire.send(encode("GET", keys[3]) * 3)
        assert wire.is_silent(0.05)
        fleet.cont(3)
        assert [wire.reply() for _ in range(3)] == [None] * 3
    after = Metrics(steady)
    name = "shoal_shard_latency_seconds"
    for shard in range(SHARDS):
        label = f"s{shard}"
        buckets = sorted(
            (float(dict(labels)["le"]), int(value))
            for (known, labels), value in after.values.items()
            if known == f"{name}_bucket" and ("shard", label) in labels
        )
        bounds = [bound for bound, _ in buckets]
        counts = [count for _, count in buckets]
        assert bounds[-1] == float("inf")
        assert [round(bound * 1e6) for bound in bounds[:-1]] == _core.histogram_bounds_us()
        assert counts == sorted(counts), "cumulative"
        assert counts[-1] == after.of(f"{name}_count", shard=label)
    assert moved(before, after, f"{name}_count", shard="s1") >= 50
    assert after.of(f"{name}_sum", shard="s1") - before.of(f"{name}_sum", shard="s1") < 2
    slow = after.of(f"{name}_sum", shard="s3") - before.of(f"{name}_sum", shard="s3")
    assert 0.14 < slow < 5
    fast_enough = moved(before, after, f"{name}_bucket", shard="s3", le="0.016384")
    assert moved(before, after, f"{name}_bucket", shard="s3", le="+Inf") - fast_enough >= 3


def test_a_shard_that_dies_shows_in_metrics_and_readiness(steady: Proxy, fleet: Fleet) -> None:
    assert fetch(steady, "/healthz")[0] == 200
    assert fetch(steady, "/readyz")[0] == 200
    before = Metrics(steady)
    assert before.of("shoal_shard_up", shard="s2") >= 1
    fleet.kill(2)
    with steady.socket() as wire:
        for _ in range(5):
            assert isinstance(wire.ask("GET", one_key_each()[2]), ErrorReply)
    wait_until(lambda: Metrics(steady).of("shoal_shard_up", shard="s2") == 0, 5, "it is down")
    after = Metrics(steady)
    assert moved(before, after, "shoal_shard_losses_total", shard="s2") >= 1
    assert moved(before, after, "shoal_refused_total") + moved(before, after, "shoal_shard_failed_total") >= 5
    assert moved(before, after, "shoal_shard_losses_total", shard="s1") == 0
    assert fetch(steady, "/healthz")[0] == 200, "the process itself is well"
    status, kind, text = fetch(steady, "/readyz")
    assert kind.startswith("application/json")
    shown = json.dumps(json.loads(text))
    assert "s2" in shown
    assert "down" in shown
    assert status in (200, 503)
    fleet.restart(2)
    wait_until(lambda: answers(steady, one_key_each()[2]), 8, "it is used again")
    wait_until(lambda: Metrics(steady).of("shoal_shard_up", shard="s2") >= 1, 5, "it is up")
    wait_until(lambda: fetch(steady, "/readyz")[0] == 200, 8, "ready again")
    assert moved(before, Metrics(steady), "shoal_shard_connects_total", shard="s2") >= 1


def answers(proxy: Proxy, key: str) -> bool:
    with proxy.socket() as wire:
        return not isinstance(wire.ask("GET", key), ErrorReply)


def test_not_ready_without_any_shard(new_fleet: NewFleet, new_proxy: NewProxy) -> None:
    fleet = new_fleet(2)
    proxy = new_proxy(fleet.addresses)
    wait_until(lambda: fetch(proxy, "/readyz")[0] == 200, 5, "ready")
    fleet.kill(0)
    fleet.kill(1)
    wait_until(lambda: fetch(proxy, "/readyz")[0] == 503, 8, "found out, also without clients")
    assert fetch(proxy, "/healthz")[0] == 200
    assert fetch(proxy, "/nothing")[0] == 404


def test_closes_are_counted_by_their_reason(steady: Proxy) -> None:
    before = Metrics(steady)
    ways: dict[str, Callable[[Wire], object]] = {
        "client-closed": lambda wire: wire.close(),
        "quit": lambda wire: wire.ask("QUIT"),
        "protocol-error": lambda wire: wire.send(b"*x\r\n"),
        "client-error": lambda wire: wire.reset(),
    }
    for reason, end in ways.items():
        with steady.socket() as wire:
            wire.ask("PING")
            end(wire)
            wait_until(
                lambda reason=reason: (
                    moved(  # type: ignore[misc]
                        before, Metrics(steady), "shoal_clients_closed_total", reason=reason
                    )
                    == 1
                ),
                5,
                reason,
            )
    with steady.socket() as wire, steady.socket() as other:
        wire.ask("CLIENT", "KILL", "ID", str(other.ask("CLIENT", "ID")))
        other.until_closed()
        assert moved(before, Metrics(steady), "shoal_clients_closed_total", reason="killed") == 1


def is_counted(before: Metrics, proxy: Proxy, reason: str) -> bool:
    return moved(before, Metrics(proxy), "shoal_clients_closed_total", reason=reason) == 1


def test_scripts_that_were_mended_are_counted(steady: Proxy, fleet: Fleet) -> None:
    with steady.socket() as wire:
        sha = wire.ask("SCRIPT", "LOAD", "return ARGV[1]")
        assert isinstance(sha, bytes)
        fleet.client(0).script_flush()
        before = Metrics(steady)
        assert wire.ask("EVALSHA", sha, 1, one_key_each()[0], "x") == b"x"
        assert moved(before, Metrics(steady), "shoal_scripts_mended_total") == 1


# --------------------------------------------------------------------------------------------------------------- logs

LOGFMT = re.compile(r'(?:[\w.-]+=(?:"(?:[^"\\]|\\.)*"|[^\s"=]\S*)(?: |$))+')


def events(proxy: Proxy) -> list[dict[str, Any]]:
    return [json.loads(line) for line in proxy.stderr.read_text().splitlines()]


def test_json_lines(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, options=["--log", "json", "--log-level", "debug"])
    with proxy.socket() as wire:
        wire.ask("CLIENT", "SETNAME", "evil\u0022name")
        wire.ask("MGET", *one_key_each())
        wire.send(b"*x\r\n")
        wire.until_closed()
    fleet.kill(1)
    wait_until(lambda: any(event["event"] == "shard-down" for event in events(proxy)), 5, "shard-down is logged")
    fleet.restart(1)
    wait_until(lambda: answers(proxy, one_key_each()[1]), 8, "it is used again")
    assert proxy.stop() == 0
    lines = events(proxy)
    for line in lines:
        assert {"ts", "level", "event"} <= set(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
        assert line["level"] in ("debug", "info", "warning", "error")
    names = [line["event"] for line in lines]
    assert {"starting", "ready", "shard-up", "shard-down", "client-closed", "stopping", "stopped"} <= set(names)
    for line in lines:
        if line["event"] in ("shard-down", "client-closed", "connection-lost", "stopping"):
            assert line["reason"], line
    (closed,) = [line for line in lines if line.get("reason") == "protocol-error"]
    assert closed["peer"].startswith("127.0.0.1:")
    assert closed["keyspace"] == "main"
    down = next(line for line in lines if line["event"] == "shard-down")
    assert (down["shard"], down["endpoint"]) == ("s1", fleet.addresses[1])


def test_logfmt_lines(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses)
    with proxy.socket() as wire:
        wire.ask("MGET", *one_key_each())
        wire.send(b'*1\r\n+"\n\r\n')
        wire.until_closed()
    fleet.kill(0)
    wait_until(lambda: "event=shard-down" in proxy.stderr.read_text(), 5, "shard-down is logged")
    assert proxy.stop() == 0
    lines = proxy.stderr.read_text().splitlines()
    assert len(lines) > 5
    for line in lines:
        assert LOGFMT.fullmatch(line), line
        assert line.startswith("ts=20")
        assert " level=" in line
        assert " event=" in line


def test_ordinary_ends_are_quiet_and_unusual_ones_are_not(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses)
    for _ in range(50):
        with proxy.socket() as wire:
            wire.ask("PING")
    with proxy.socket() as wire:
        wire.ask("QUIT")
    with proxy.socket() as wire:
        wire.send(b"$\r\n" + b"*x\r\n")
        wire.until_closed()
    wait_until(lambda: any("reason=protocol-error" in line for line in proxy.log()), 5, "it is logged")
    assert sum("event=client-closed" in line for line in proxy.log()) == 1


def test_a_lost_connection_names_shard_reason_and_what_was_unanswered(
    fleet: Fleet, new_proxy: NewProxy, new_fault: NewFault
) -> None:
    fault = new_fault(fleet.servers[0])
    proxy = new_proxy([fault.address, *fleet.addresses[1:]])
    key = keys_on(0, 1)[0]
    with proxy.socket() as wire:
        assert wire.ask("GET", key) is None
        fleet.stop(0)
        wire.send(encode("GET", key) * 7)
        assert wire.is_silent(0.1)
        fault.cut()
        assert all(isinstance(wire.reply(), ErrorReply) for _ in range(7))
    line = wait_until(lambda: next((line for line in proxy.log() if "event=shard-down" in line), None), 5, "logged")
    assert f"endpoint={fault.address}" in line
    assert "shard=s0" in line
    assert "unanswered=7" in line
    assert re.search(r'reason=("[^"]+"|\S+)', line)
