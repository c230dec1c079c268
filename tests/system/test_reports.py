"""What servers tell of themselves, told of all shards as of one: LATENCY and MEMORY.

The shards' own replies are the judge of the figures, a plain server is that of everything else.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from harness.fleet import Fleet
from harness.proxy import Proxy
from harness.wait import wait_until
from harness.wire import ErrorReply, Reply, Wire
from system.placement import slot_of

SPIN = """
local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end
local until_us = now() + tonumber(ARGV[1])
while now() < until_us do end
return 1
"""

CONFIG = """
workers = 3
admin = "{admin}"
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}"]
"""

Ends = tuple[Wire, list[Wire], Wire]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two shards and, last, a plain server beside them."""
    with Fleet(tmp_path_factory.mktemp("fleet"), 3, "redis7") as fleet:
        for shard in range(3):
            fleet.client(shard).config_set("latency-monitor-threshold", 5)
        yield fleet


@pytest.fixture(scope="module")
def proxy(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(tmp_path_factory.mktemp("proxy"), fleet.addresses[:2], config=CONFIG) as proxy:
        yield proxy


@pytest.fixture(params=[2, 3])
def ends(request: pytest.FixtureRequest, proxy: Proxy, fleet: Fleet) -> Iterator[Ends]:
    """A connection to shoal, to each shard, to the plain server; all of one protocol, all data and reports empty."""
    ours = proxy.socket()
    servers = [Wire(server.host, server.port.number) for server in fleet.servers]
    for wire in (ours, *servers):
        wire.ask("HELLO", request.param)
    for wire in servers:
        for words in ("FLUSHALL", "CONFIG RESETSTAT", "LATENCY RESET"):
            wire.ask(*words.split())
    yield ours, servers[:2], servers[2]
    for wire in (ours, *servers):
        wire.close()


def key_on(shard: int, number: int = 0) -> str:
    found = (f"k{n}" for n in range(10_000) if slot_of(f"k{n}".encode()) // 8192 == shard)
    return [next(found) for _ in range(number + 1)][-1]


def mapping(reply: Reply) -> dict[Any, Any]:
    """A map of RESP3, or what RESP2 has for it."""
    if isinstance(reply, dict):
        return reply
    assert isinstance(reply, list)
    return dict(zip(reply[::2], reply[1::2], strict=True))


def counted(report: Reply) -> dict[int, int]:
    """Counts by bound, in their order; `Wire` has bytes for whatever is a key in RESP3."""
    return {int(bound): count for bound, count in mapping(mapping(report)[b"histogram_usec"]).items()}


def listed(reply: Reply) -> list[Any]:
    assert isinstance(reply, list)
    return reply


def test_latest_and_history(ends: Ends) -> None:
    ours, shards, plain = ends
    assert ours.ask("LATENCY", "LATEST") == [] == plain.ask("LATENCY", "LATEST")
    for shard, us in ((0, 20_000), (1, 40_000), (0, 10_000)):
        assert ours.ask("EVAL", SPIN, 1, key_on(shard), us) == 1
    plain.ask("EVAL", SPIN, 0, 10_000)
    own = [{event[0]: event for event in listed(wire.ask("LATENCY", "LATEST"))} for wire in shards]
    merged = {event[0]: event for event in listed(ours.ask("LATENCY", "LATEST"))}
    assert set(merged) == {name for events in own for name in events} >= {b"command"}
    for name, event in merged.items():
        of_it = [events[name] for events in own if name in events]
        assert event[3] == max(one[3] for one in of_it)
        assert [event[1], event[2]] == max([one[1], one[2]] for one in of_it)
    assert merged[b"command"][3] >= 40
    (first, *_) = listed(plain.ask("LATENCY", "LATEST"))
    assert [type(part) for part in merged[b"command"]] == [type(part) for part in first]

    history = listed(ours.ask("LATENCY", "HISTORY", "command"))
    worst: dict[int, int] = {}
    for wire in shards:
        for when, took in listed(wire.ask("LATENCY", "HISTORY", "command")):
            worst[when] = max(worst.get(when, 0), took)
    assert history == [list(sample) for sample in sorted(worst.items())]
    assert ours.ask("LATENCY", "HISTORY", "nosuch") == plain.ask("LATENCY", "HISTORY", "nosuch") == []
    assert isinstance(ours.ask("LATENCY", "RESET"), int)
    assert ours.ask("LATENCY", "LATEST") == []


def test_histogram(ends: Ends) -> None:
    ours, shards, plain = ends
    for number in range(20):
        for shard in range(2):
            ours.ask("SET", key_on(shard, number), "v")
    ours.ask("EVAL", SPIN, 1, key_on(1), 3_000)
    ours.ask("LPUSH", "l", 1)
    plain.ask("SET", "k", "v")
    for commands in (["set"], ["set", "eval", "nosuch"], ["SET", "lpush"], ["config"]):
        own = [mapping(wire.ask("LATENCY", "HISTOGRAM", *commands)) for wire in shards]
        merged = mapping(ours.ask("LATENCY", "HISTOGRAM", *commands))
        assert set(merged) == {name for report in own for name in report}
        for name, told in merged.items():
            parts = [report[name] for report in own if name in report]
            calls = mapping(told)[b"calls"]
            assert calls == sum(mapping(part)[b"calls"] for part in parts)
            counts = counted(told)
            assert list(counts) == sorted(counts)
            for bound, count in counts.items():
                below = [max((many for at, many in counted(part).items() if at <= bound), default=0) for part in parts]
                assert count == sum(below)
            assert list(counts.values())[-1] == calls
    assert mapping(mapping(ours.ask("LATENCY", "HISTOGRAM", "set"))[b"set"])[b"calls"] == 40
    single = plain.ask("LATENCY", "HISTOGRAM", "set")
    assert type(ours.ask("LATENCY", "HISTOGRAM", "set")) is type(single)
    assert ours.ask("LATENCY", "HISTOGRAM", "nosuch") == plain.ask("LATENCY", "HISTOGRAM", "nosuch")
    assert b"set" in mapping(ours.ask("LATENCY", "HISTOGRAM"))


def test_memory_stats(ends: Ends) -> None:
    ours, shards, plain = ends
    for number in range(50):
        ours.ask("SET", key_on(number % 2, number), "v" * 100)
    ours.ask("SELECT", 2)
    ours.ask("SET", key_on(1), "v")
    ours.ask("SELECT", 0)
    plain.ask("SET", "k", "v")
    own = [mapping(wire.ask("MEMORY", "STATS")) for wire in shards]
    reply = ours.ask("MEMORY", "STATS")
    merged, single = mapping(reply), mapping(plain.ask("MEMORY", "STATS"))
    assert set(merged) == set(own[0]) | set(own[1])
    assert set(merged) - {b"db.2"} == set(single)
    for name in set(single):
        assert type(merged[name]) is type(single[name]), name
    # Each shard has a record of shoal's own, where it was not taken away.
    assert 51 <= merged[b"keys.count"] <= 51 + len(own)
    assert merged[b"startup.allocated"] == sum(report[b"startup.allocated"] for report in own)
    for name in (b"total.allocated", b"allocator.active", b"overhead.total"):
        expected = sum(report[name] for report in own)
        assert expected * 0.9 < merged[name] < expected * 1.1, "asked at another moment"
    main = mapping(merged[b"db.0"])[b"overhead.hashtable.main"]
    assert main == sum(mapping(report[b"db.0"])[b"overhead.hashtable.main"] for report in own)
    for name in (b"dataset.percentage", b"peak.percentage", b"fragmentation", b"keys.bytes-per-key"):
        figures = [float(report[name]) for report in own]
        assert min(figures) * 0.9 <= float(merged[name]) <= max(figures) * 1.1


def clients_of(wire: Wire) -> dict[str, str]:
    text = wire.ask("INFO", "clients")
    assert isinstance(text, bytes)
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


def waits(wire: Wire, count: int) -> bool:
    return clients_of(wire)["blocked_clients"] == str(count)


def test_info_counts_clients_that_wait_and_no_connections_of_shoals_own(ends: Ends, proxy: Proxy) -> None:
    ours, _, plain = ends
    assert clients_of(ours)["blocked_clients"] == clients_of(plain)["blocked_clients"] == "0"
    keys = [key_on(0), key_on(1)]
    for at, teller in (((proxy.host, proxy.port), ours), (plain.socket.getpeername(), plain)):
        waiting = [Wire(*at) for _ in range(5)]
        for number, wire in enumerate(waiting):
            # One after the other is on each worker; some wait on one shard, some on both.
            wire.command("BLPOP", *(keys if number % 2 else keys[:1]), 0)
        wait_until(partial(waits, teller, 5), 5, "all are counted, once")
        assert clients_of(teller)["tracking_clients"] == "0"
        assert teller.ask("RPUSH", keys[0], *range(5)) == 5
        for wire in waiting:
            assert isinstance(wire.reply(), list)
            wire.close()
        assert clients_of(teller)["blocked_clients"] == "0"


@pytest.mark.parametrize("words", ["MEMORY DOCTOR", "LATENCY DOCTOR", "LATENCY GRAPH command", "MEMORY MALLOC-STATS"])
def test_texts_name_their_shard(ends: Ends, words: str) -> None:
    ours, shards, plain = ends
    for wire in (*shards, plain):
        wire.ask("EVAL", SPIN, 0, 10_000)
    text, single = ours.ask(*words.split()), plain.ask(*words.split())
    assert isinstance(text, bytes)
    assert isinstance(single, bytes)
    parts = text.split(b"# s1\n")
    assert len(parts) == 2
    assert parts[0].startswith(b"# s0\n")
    first = single.split()[0]
    assert parts[0].split()[2] == first
    assert parts[1].split()[0] == first


def test_a_graph_of_one_shard_alone_and_of_none(ends: Ends) -> None:
    ours, shards, plain = ends
    shards[1].ask("EVAL", SPIN, 0, 10_000)
    text = ours.ask("LATENCY", "GRAPH", "command")
    assert isinstance(text, bytes)
    assert text.startswith(b"# s0\nERR No samples available for event 'command'\n# s1\ncommand - high ")
    assert ours.ask("LATENCY", "GRAPH", "nosuch") == plain.ask("LATENCY", "GRAPH", "nosuch")


@pytest.mark.parametrize(
    "words",
    [
        "MEMORY HELP", "LATENCY HELP", "OBJECT HELP", "MEMORY USAGE nosuch", "MEMORY PURGE", "MEMORY NOSUCH",
        "LATENCY NOSUCH", "LATENCY HISTORY", "LATENCY RESET nosuch", "MEMORY STATS x", "LATENCY GRAPH",
    ],
)  # fmt: skip
def test_the_rest_is_the_servers(ends: Ends, words: str) -> None:
    ours, _, plain = ends
    assert ours.ask(*words.split()) == plain.ask(*words.split())


def test_a_report_without_a_shard_is_refused(ends: Ends, fleet: Fleet) -> None:
    ours, _, _ = ends
    fleet.kill(1)
    try:
        wait_until(lambda: isinstance(ours.ask("GET", key_on(1)), ErrorReply), 5, "the shard is down")
        for words in ("MEMORY STATS", "LATENCY LATEST", "MEMORY DOCTOR"):
            reply = ours.ask(*words.split())
            assert isinstance(reply, ErrorReply)
            assert "s1" in reply
    finally:
        fleet.restart(1)
        fleet.client(1).config_set("latency-monitor-threshold", 5)
    wait_until(lambda: ours.ask("GET", key_on(1)) is None, 8, "the shard is back")
