"""Transactions over several shards, where the keyspace allows them: each shard's part is atomic, the whole is not.

A plain server (one of the fleet's own), which takes any keys, says what the replies have to be.
"""

import threading
import urllib.request
from collections.abc import Callable

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import Reply
from system.placement import keys_on, one_key_each

CONFIG = """
admin = "{admin}"
[keyspace.main]
listen = "{listen}"
transactions = "per-shard"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
"""
A, B, C, D = one_key_each("ts")
SECOND_A, SECOND_B = keys_on(0, 2, "ts")[1], keys_on(1, 2, "ts")[1]

# A line per request; `other:` is another client.
SCENARIOS = [
    ["MULTI", f"SET {A} 1", f"SET {B} 2", f"INCR {A}", f"GET {B}", f"INCR {C}", "EXEC", f"GET {A}"],
    ["MULTI", f"SET {A} x", f"INCR {A}", f"LPUSH {B} 1", f"GET {B}", f"RPUSH {B} 2 3", "EXEC", f"LRANGE {B} 0 -1"],
    ["MULTI", "PING", f"SET {A} 1", "ECHO x", f"SET {B} 1", "CLIENT SETNAME n", f"GET {A}", "EXEC", "CLIENT GETNAME"],
    ["MULTI", f"SET {A} 1", f"SET {B} 1", "DISCARD", f"EXISTS {A} {B}"],
    ["MULTI", f"SET {A} 1", "NOPE", f"SET {B} 1", "EXEC", f"EXISTS {A} {B}"],
    ["MULTI", f"MSET {A} 1 {SECOND_A} 2", f"MSET {B} 3 {SECOND_B} 4", f"MGET {A} {SECOND_A}", "EXEC"],
    [
        "MULTI",
        f"MSET {A} 1 {B} 2 {C} 3 {SECOND_A} 4",
        f"MGET {C} {SECOND_A} {B} none {A} {C}",
        f"GET {B}",
        "PING",
        "EXEC",
    ],
    [f"MSET {A} 1 {B} 2", "MULTI", f"DEL {A} {B} {C}", f"EXISTS {A} {B}", f"INCR {A}", f"TOUCH {B} {A}", "EXEC"],
    ["MULTI", f"LPUSH {A} 1", f"MGET {A} {B}", f"UNLINK {B} {A}", "EXEC", f"EXISTS {A} {B}"],
    [f"WATCH {B}", "MULTI", f"MSET {A} 1 {B} 2", f"MGET {B} {A}", "EXEC", f"MGET {A} {B}"],
    [f"WATCH {B}", f"other:SET {B} 5", "MULTI", f"MSET {A} 1 {B} 2", "EXEC", f"MGET {A} {B}"],
    ["MULTI", f"MSET {A} 1 {B} 2", "DISCARD", f"MGET {A} {B}"],
    ["MULTI", f"HSET {A} f v", f"HGETALL {A}", f"ZADD {B} 1.5 m", f"ZSCORE {B} m", f"GET {D}", "EXEC"],
    ["MULTI", f"EVAL return{{KEYS[1],2}} 1 {A}", f"EVAL return{{KEYS[1],3}} 1 {B}", "EXEC"],
    [f"WATCH {A}", "MULTI", f"SET {B} 1", f"SET {C} 2", "PING", "EXEC", f"MGET {B} {C}"],
    [f"WATCH {B}", "MULTI", f"SET {A} 1", f"SET {B} 2", f"GET {A}", f"INCR {B}", "EXEC", f"MGET {A} {B}"],
    [f"WATCH {B}", f"other:SET {B} 5", "MULTI", f"SET {A} 1", f"SET {B} 2", "EXEC", f"MGET {A} {B}", "MULTI", "EXEC"],
    [f"WATCH {D}", f"SET {D} 5", "MULTI", f"SET {A} 1", f"SET {B} 2", "EXEC", f"MGET {A} {B}"],
    [f"WATCH {D}", f"other:SET {D} 5", "UNWATCH", "MULTI", f"SET {A} 1", f"SET {B} 2", "EXEC", f"MGET {A} {B}"],
]


@pytest.fixture
def proxy(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> Proxy:
    return new_proxy(fleet.addresses, config=CONFIG, options=["--workers", "2"])


def run(connect: Callable[[], Wire], scenario: list[str], *, resp3: bool) -> list[Reply]:
    replies: list[Reply] = []
    with connect() as own, connect() as other:
        if resp3:
            own.ask("HELLO", "3")
        for line in scenario:
            wire = other if line.startswith("other:") else own
            replies.append(wire.ask(*line.removeprefix("other:").split(" ")))
    return replies


def queue(wire: Wire, *lines: str) -> None:
    assert wire.ask("MULTI") == "OK"
    for line in lines:
        assert wire.ask(*line.split(" ")) == "QUEUED"


def counted(proxy: Proxy, name: str) -> int:
    with urllib.request.urlopen(f"{proxy.admin_url}/metrics", timeout=10) as answer:
        lines: list[str] = answer.read().decode().splitlines()
    return int(next(line for line in lines if line.startswith(name + "{")).rsplit(" ", 1)[1])


@pytest.mark.parametrize("resp3", [False, True], ids=["resp2", "resp3"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=" ; ".join)
def test_replies_are_one_servers(proxy: Proxy, fleet: Fleet, scenario: list[str], resp3: bool) -> None:
    ours = run(proxy.socket, scenario, resp3=resp3)
    server = fleet.servers[0]
    fleet.client(0).flushall()
    theirs = run(lambda: Wire(server.host, server.port.number), scenario, resp3=resp3)
    assert ours == theirs


def test_it_is_counted_told_once_and_explained(proxy: Proxy) -> None:
    with proxy.socket() as one, proxy.socket() as two:
        for wire in (one, two, one):
            queue(wire, f"SET {A} 1", f"SET {B} 2")
            assert wire.ask("EXEC") == ["OK", "OK"]
        queue(one, f"SET {A} 1")
        assert one.ask("EXEC") == ["OK"]
        explained = one.ask("SHOAL", "EXPLAIN", "EXEC")
    assert isinstance(explained, list)
    assert "with keys on several shards: executed by each shard on its own, atomic on each" in explained
    wait_until(lambda: counted(proxy, "shoal_transactions_split_total") == 3, 5, "three are counted")
    assert counted(proxy, "shoal_transactions_total") == 4
    told = [line for line in proxy.log() if "event=transaction-split" in line]
    assert len(told) == 1
    assert "level=warning" in told[0]
    assert f"{A} on s0" in told[0]


def test_a_shard_that_refuses_a_command_executes_none_of_its_own(proxy: Proxy, fleet: Fleet) -> None:
    full = fleet.client(1)
    full.config_set("maxmemory", 1)
    try:
        with proxy.socket() as wire:
            queue(wire, f"SET {A} 1", f"GET {B}", f"SET {B} 2", f"INCR {A}", "ECHO x")
            told = wire.ask("EXEC")
            assert isinstance(told, list)
            first, second, third, *rest = told
            assert (first, rest) == ("OK", [2, b"x"])
            assert second == third
            assert str(second).startswith("EXECABORT shard 's1' executed none of its commands because of: OOM")
            assert wire.ask("GET", A) == b"2"
            wire.ask("DEL", A)
            # The one that watches decides for all.
            assert wire.ask("WATCH", B) == "OK"
            queue(wire, f"SET {A} 1", f"SET {B} 2")
            assert str(wire.ask("EXEC")).startswith("EXECABORT Transaction discarded because of: OOM")
            assert wire.ask("EXISTS", A, B) == 0
            # Nothing is executed anywhere: the whole is what failed.
            fleet.client(0).config_set("maxmemory", 1)
            queue(wire, f"SET {A} 1", f"SET {B} 2")
            assert str(wire.ask("EXEC")).startswith("EXECABORT Transaction discarded because of: OOM")
            assert wire.ask("EXISTS", A, B) == 0
    finally:
        for shard in (0, 1):
            fleet.client(shard).config_set("maxmemory", 0)


def test_nothing_is_sent_when_a_shard_is_down(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as wire:
        fleet.kill(1)
        wait_until(lambda: isinstance(wire.ask("GET", B), ErrorReply), 10, "the loss is seen")
        for words in ([], ["WATCH", A]):
            if words:
                assert wire.ask(*words) == "OK"
            queue(wire, f"SET {A} 1", f"SET {B} 2")
            told = wire.ask("EXEC")
            assert isinstance(told, ErrorReply)
            assert "shard 's1'" in told
            assert "is down" in told
        assert wire.ask("EXISTS", A) == 0


def test_one_packet_keeps_its_order(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        lines = [f"SET {A} 1", f"SET {B} 5", "MULTI", f"INCR {A}", f"INCR {B}", "EXEC", f"INCR {A}", f"INCR {B}"]
        lines += [f"WATCH {A}", "MULTI", f"INCR {A}", f"INCR {B}", "EXEC", f"GET {A}", f"GET {B}"]
        wire.send("".join(line + "\r\n" for line in lines).encode())
        replies = [wire.reply() for _ in lines]
        assert replies[5:8] == [[2, 6], 3, 7]
        assert replies[-3:] == [[4, 8], b"4", b"8"]


def test_each_shards_part_is_atomic(proxy: Proxy) -> None:
    """Two counters of each of two shards are always seen alike, though many clients add to all four."""
    wrong: list[object] = []
    over = threading.Event()

    def add() -> None:
        with proxy.socket() as wire:
            for _ in range(150):
                queue(wire, f"INCR {A}", f"INCR {B}", f"INCR {SECOND_A}", f"INCR {SECOND_B}")
                if not isinstance(wire.ask("EXEC"), list):
                    wrong.append("EXEC failed")

    def look() -> None:
        with proxy.socket() as wire:
            while not over.is_set():
                for pair in ((A, SECOND_A), (B, SECOND_B)):
                    seen = wire.ask("MGET", *pair)
                    if not isinstance(seen, list) or seen[0] != seen[1]:
                        wrong.append(seen)

    adding = [threading.Thread(target=add, daemon=True) for _ in range(4)]
    looking = threading.Thread(target=look, daemon=True)
    for thread in (*adding, looking):
        thread.start()
    for thread in adding:
        thread.join(50)
    over.set()
    looking.join(10)
    assert not wrong
    with proxy.socket() as wire:
        assert wire.ask("MGET", A, B, SECOND_A, SECOND_B) == [b"600"] * 4


def test_many_increment_under_a_watch_and_none_is_lost(proxy: Proxy) -> None:
    """What is watched is on one shard, what else is written on another: both count alike in the end."""
    times, threads_count = 20, 4

    def work() -> None:
        with proxy.socket() as wire:
            done = 0
            while done < times:
                assert wire.ask("WATCH", A) == "OK"
                value = wire.ask("GET", A)
                number = int(value) if isinstance(value, bytes) else 0
                queue(wire, f"SET {A} {number + 1}", f"INCR {C}")
                done += wire.ask("EXEC") is not None

    threads = [threading.Thread(target=work, daemon=True) for _ in range(threads_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    with proxy.socket() as wire:
        total = str(times * threads_count).encode()
        assert wire.ask("MGET", A, C) == [total, total]
