"""The slow log: shoal's own over all workers, with SHARDS those of the shards too; beside a plain redis-server.

On a busy machine anything may be slow, so tests look for the entries of what they made slow.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from harness.fleet import Fleet
from harness.proxy import Proxy
from harness.wait import wait_until
from harness.wire import ErrorReply, Wire, encode
from system.placement import slot_of

CONFIG = """
workers = 3
admin = "{admin}"
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}"]
slowlog_log_slower_than = THRESHOLD
slowlog_max_len = LENGTH
"""

# Runs so long on the server, in microseconds, that hardly anything else here takes half as long.
SLOW_US = 250_000
SPIN = """
local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end
local until_us = now() + tonumber(ARGV[1])
while now() < until_us do end
return ARGV[1]
"""

Address = tuple[str, int]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two shards and, last, a plain server beside them."""
    with Fleet(tmp_path_factory.mktemp("fleet"), 3, "redis7") as fleet:
        yield fleet


def make_proxy(fleet: Fleet, folder: Path, threshold: int, length: int = 128) -> Proxy:
    config = CONFIG.replace("THRESHOLD", str(threshold)).replace("LENGTH", str(length))
    return Proxy(folder, fleet.addresses[:2], config=config)


@pytest.fixture(scope="module")
def judging(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Half of what the slow script takes is slow."""
    with make_proxy(fleet, tmp_path_factory.mktemp("judging"), SLOW_US // 2) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def taking_all(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Everything is slow, and the log is short."""
    with make_proxy(fleet, tmp_path_factory.mktemp("all"), 0, 20) as proxy:
        yield proxy


@pytest.fixture
def slow(judging: Proxy, fleet: Fleet) -> Proxy:
    with judging.socket() as wire:
        assert wire.ask("SLOWLOG", "RESET") == "OK"
    for shard in range(2):
        fleet.client(shard).slowlog_reset()
        fleet.client(shard).config_set("slowlog-log-slower-than", SLOW_US // 2)
    return judging


def entries(wire: Wire, *words: str | int) -> list[Any]:
    reply = wire.ask("SLOWLOG", "GET", *words)
    assert isinstance(reply, list), reply
    return reply


def of_scripts(wire: Wire, *words: str | int) -> list[Any]:
    return [entry for entry in entries(wire, *words) if entry[3][0] == b"EVAL"]


def key_on(shard: int) -> str:
    return next(f"k{n}" for n in range(100) if slot_of(f"k{n}".encode()) // 8192 == shard)


def name_of(wire: Wire) -> str:
    host, port = wire.socket.getsockname()
    return f"{host}:{port}"


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("protocol", [2, 3])
def test_a_slow_request_is_told_as_a_server_tells_it(slow: Proxy, fleet: Fleet, shard: int, protocol: int) -> None:
    words: tuple[str | int, ...] = ("EVAL", SPIN, 1, key_on(shard), SLOW_US)
    told = []
    entry: list[Any] = []
    plain = Wire(fleet.servers[2].host, fleet.servers[2].port.number)
    plain.ask("SLOWLOG", "RESET")
    for wire in (plain, slow.socket()):
        with wire:
            wire.ask("HELLO", protocol)
            wire.ask("CLIENT", "SETNAME", "me")
            began = time.time()
            assert wire.ask(*words) == str(SLOW_US).encode()
            took = (time.time() - began) * 1e6
            (entry,) = of_scripts(wire)
            assert len(entry) == 6
            number, when, us, args, peer, name = entry
            assert number >= 0
            assert abs(when - began) < 5
            assert SLOW_US <= us <= took
            assert (peer, name) == (name_of(wire).encode(), b"me")
            told.append(args)
    assert told[1] == told[0]
    with slow.socket() as wire:
        (full,) = [full for full in of_scripts(wire, "SHARDS") if full[4] == entry[4]]
        assert full[:6] == entry
        assert full[6] == f"s{shard}".encode()
        assert SLOW_US <= full[7] <= entry[2]


def test_what_stands_in_line_behind_a_slow_request_is_not_slow(slow: Proxy) -> None:
    key = key_on(0)
    with slow.socket() as wire, slow.socket() as second, slow.socket() as third, slow.socket() as fourth:
        wire.command("EVAL", SPIN, 1, key, SLOW_US)
        # Of the clients one is on the same worker, so that its request goes behind the script on the same connection.
        others = [second, third, fourth]
        for other in others:
            for _ in range(20):
                other.command("GET", key)
        assert wire.reply() == str(SLOW_US).encode()
        for other in others:
            assert [other.reply() for _ in range(20)] == [None] * 20
        logged = entries(wire, -1)
        assert [entry[3][0] for entry in logged].count(b"EVAL") == 1
        # On each worker's connection one reply was the first after the silence.
        assert len(logged) <= 3


def test_a_request_over_several_shards_is_one_entry_that_names_the_slowest(slow: Proxy, fleet: Fleet) -> None:
    keys = [key_on(0), key_on(1)]
    with slow.socket() as wire:
        fleet.client(1).client_pause(SLOW_US // 1000, all=True)
        assert wire.ask("MGET", *keys, "x" * 300) == [None, None, None]
        (entry,) = [entry for entry in entries(wire, 10, "SHARDS") if entry[3][0] == b"MGET"]
        expected = [word.encode() for word in ["MGET", *keys]]
        assert entry[3][:3] == expected
        assert entry[3][3].startswith(b"xxx")
        assert entry[3][3].endswith(b" more bytes)")
        assert entry[6] == b"s1"
        assert SLOW_US // 2 <= entry[7] <= entry[2]


def test_waiting_is_not_slow(slow: Proxy) -> None:
    with slow.socket() as wire:
        wait_s = SLOW_US / 1e6
        assert wire.ask("BLPOP", "nothing", str(wait_s)) is None
        assert wire.ask("BLPOP", "nothing", key_on(0), key_on(1), str(wait_s)) is None
        assert wire.ask("WAIT", 1, int(wait_s * 1000)) == 0
        assert not [entry for entry in entries(wire, -1) if entry[3][0] in (b"BLPOP", b"WAIT")]


def test_the_logs_of_all_workers_are_one(slow: Proxy) -> None:
    with slow.socket() as first, slow.socket() as second, slow.socket() as third:
        wires = [first, second, third]
        for round_ in range(2):
            for number, wire in enumerate(wires):
                wire.ask("EVAL", SPIN, 1, key_on(number % 2), SLOW_US, f"{round_}{number}")
        for wire in wires:
            assert wire.ask("SLOWLOG", "LEN") == len(entries(wire, -1))
            found = of_scripts(wire)
            assert [entry[3][-1] for entry in found] == [b"12", b"11", b"10", b"02", b"01", b"00"], "newest first"
            assert len({entry[0] for entry in found}) == 6
            assert entries(wire, 2) == entries(wire, -1)[:2]
            assert entries(wire, 0) == []
        assert second.ask("SLOWLOG", "RESET") == "OK"
        for wire in wires:
            assert of_scripts(wire, -1) == []


def test_the_shards_own_logs_are_merged_on_request(slow: Proxy, fleet: Fleet) -> None:
    fleet.client(1).eval(SPIN, 0, SLOW_US, "past shoal")
    with slow.socket() as wire:
        wire.ask("EVAL", SPIN, 1, key_on(0), SLOW_US, "through shoal")
        assert [entry[3][-1] for entry in of_scripts(wire)] == [b"through shoal"]
        merged = of_scripts(wire, -1, "shards")
        assert sorted((entry[3][-1], entry[6]) for entry in merged) == [
            (b"past shoal", b"s1"), (b"through shoal", b"s0"), (b"through shoal", b"s0"),
        ]  # fmt: skip
        assert all(len(entry) == 8 and SLOW_US <= entry[7] <= entry[2] for entry in merged)
        times = [entry[1] for entry in merged]
        assert times == sorted(times, reverse=True)
        assert len(entries(wire, 1, "SHARDS")) == 1
        fleet.kill(1)
        try:
            wait_until(
                lambda: isinstance(wire.ask("SLOWLOG", "GET", "SHARDS"), ErrorReply), 5, "a log that is missing is said"
            )
            assert len(of_scripts(wire)) == 1, "our own can be had"
        finally:
            fleet.restart(1)
        wait_until(lambda: wire.ask("GET", key_on(1)) is None, 8, "the shard is back")


@pytest.mark.parametrize(
    "words",
    [
        "SLOWLOG GET x",
        "SLOWLOG GET -2",
        "SLOWLOG LEN x",
        "SLOWLOG RESET x",
        "SLOWLOG",
        "SLOWLOG NOSUCH",
        "SLOWLOG GET 0",
    ],
)
def test_refusals_are_the_servers(slow: Proxy, fleet: Fleet, words: str) -> None:
    with slow.socket() as ours, Wire(fleet.servers[2].host, fleet.servers[2].port.number) as theirs:
        assert ours.ask(*words.split()) == theirs.ask(*words.split())


def test_arguments_are_cut_as_a_server_cuts_them(taking_all: Proxy, fleet: Fleet) -> None:
    """As far as the beginning of a request is kept; so long ones are cut further."""
    plain = fleet.client(2)
    plain.config_set("slowlog-log-slower-than", 0)
    requests: list[list[bytes | str]] = [
        ["SET", "k", b"\0\r\n\xff"], ["SET", "k", "v" * 128], ["SET", "k", "v" * 129], ["RPUSH", "l", *"abcdefgh"],
        ["RPUSH", "l", *"a" * 20], ["GET", "g" * 100],
    ]  # fmt: skip
    with Wire(fleet.servers[2].host, fleet.servers[2].port.number) as theirs, taking_all.socket() as ours:
        for words in requests:
            told = []
            for wire in (theirs, ours):
                wire.ask("SLOWLOG", "RESET")
                wire.ask(*words)
                told.append([entry[3] for entry in entries(wire) if entry[3][0] != b"SLOWLOG"])
            assert told[1] == told[0]
        ours.ask("SLOWLOG", "RESET")
        ours.ask("RPUSH", "many", *(["x" * 20] * 40))
        (cut,) = [entry[3] for entry in entries(ours)]
        assert cut[:3] == [b"RPUSH", b"many", b"x" * 20]
        assert cut[-1] == b"... (%d more arguments)" % (42 - (len(cut) - 1))
        ours.ask("DEL", "k", "l", "many")
    plain.config_set("slowlog-log-slower-than", 10_000)


def test_the_log_is_bounded(taking_all: Proxy) -> None:
    with taking_all.socket() as first, taking_all.socket() as second, taking_all.socket() as third:
        first.ask("SLOWLOG", "RESET")
        for number in range(60):
            for wire in (first, second, third):
                wire.ask("GET", f"{number}")
        for wire in (first, second, third):
            assert wire.ask("SLOWLOG", "LEN") == 20
            found = entries(wire, -1)
            assert len(found) == 20
            assert found[0][3] == [b"GET", b"59"]
            assert all(int(entry[3][1]) >= 53 for entry in found)


def test_passwords_are_not_kept(taking_all: Proxy) -> None:
    with taking_all.socket() as wire:
        wire.ask("SLOWLOG", "RESET")
        wire.ask("AUTH", "default", "secret")
        wire.ask("HELLO", 3, "AUTH", "default", "secret")
        wire.ask("GET", "k")
        assert "secret" not in str(entries(wire, -1))
        assert "secret" not in str(entries(wire, -1, "SHARDS"))


def test_none_is_slow_without_a_threshold(fleet: Fleet, tmp_path: Path) -> None:
    with make_proxy(fleet, tmp_path, -1) as proxy, proxy.socket() as wire:
        wire.ask("EVAL", SPIN, 1, "k", SLOW_US)
        assert entries(wire) == []
        assert wire.ask("SLOWLOG", "LEN") == 0


def test_config_set_is_for_the_shards_logs_and_for_shoals(fleet: Fleet, tmp_path: Path) -> None:
    with make_proxy(fleet, tmp_path, -1) as proxy:
        wires = [proxy.socket() for _ in range(3)]
        assert wires[0].ask("CONFIG", "SET", "slowlog-log-slower-than", 0, "slowlog-max-len", 30) == "OK"
        for shard in range(2):
            assert fleet.client(shard).config_get("slowlog-*") == {
                "slowlog-log-slower-than": "0", "slowlog-max-len": "30",
            }  # fmt: skip
        for number, wire in enumerate(wires):
            # The other workers learn of it a moment later.
            wait_until(partial(is_logged, wire, f"by {number}"), 5, "every worker goes by it")
        for bad in ("x", "-2"):
            assert isinstance(wires[1].ask("CONFIG", "SET", "slowlog-max-len", bad), ErrorReply)
        for _ in range(50):
            wires[2].ask("GET", "k")
        assert wires[1].ask("SLOWLOG", "LEN") == 30
        assert wires[1].ask("CONFIG", "SET", "slowlog-log-slower-than", 10_000, "slowlog-max-len", 128) == "OK"
        for wire in wires:
            wire.close()


def is_logged(wire: Wire, key: str) -> bool:
    wire.ask("GET", key)
    return any(entry[3] == [b"GET", key.encode()] for entry in entries(wire, -1))


def test_a_pipeline_longer_than_the_ring_does_not_lose_the_slow_one(slow: Proxy) -> None:
    """More requests follow than heads are kept while the slow one runs; none of them is mistaken for it."""
    with slow.socket() as wire, slow.socket() as busy, slow.socket() as busy2, slow.socket() as busy3:
        wire.command("EVAL", SPIN, 1, key_on(0), SLOW_US * 2, "the slow one")
        for _ in range(40):
            for other in (busy, busy2, busy3):
                other.send(b"".join(encode("GET", key_on(1)) for _ in range(200)))
            for other in (busy, busy2, busy3):
                for _ in range(200):
                    other.reply()
        assert wire.reply() == str(SLOW_US * 2).encode()
        slowest = max(entries(wire, -1), key=lambda entry: entry[2])
        assert slowest[3][0] == b"EVAL"
        assert slowest[4] == name_of(wire).encode()


def test_redis_py_reads_it(slow: Proxy) -> None:
    with redis.Redis(host=slow.host, port=slow.port) as client:
        client.eval(SPIN, 1, "k", SLOW_US)
        (entry,) = [entry for entry in client.slowlog_get() if entry["command"].startswith(b"EVAL ")]
        assert entry["duration"] >= SLOW_US
        assert entry["client_name"] == b""
        assert client.slowlog_len() >= 1
        assert all(entry["client_address"] for entry in client.slowlog_get("SHARDS"))
        assert client.slowlog_reset()


def test_help(slow: Proxy) -> None:
    with slow.socket() as wire:
        told = wire.ask("SLOWLOG", "HELP")
        assert isinstance(told, list)
        assert any("SHARDS" in str(line) for line in told)
