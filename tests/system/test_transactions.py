"""Transactions: what a client is told and what is executed, compared with one plain server.

A scenario runs through shoal on keys of one shard, then on that shard's server directly; the replies must be the same.
"""

import threading
from collections.abc import Callable

import pytest
import redis
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import Reply
from system.placement import keys_on, one_key_each

A, B = keys_on(0, 2, "tx")

# A line per request; `other:` is another client.
SCENARIOS = [
    ["MULTI", f"SET {A} 1", f"INCR {A}", f"GET {A}", "EXEC", f"GET {A}"],
    ["MULTI", "EXEC"],
    ["MULTI", f"SET {A} 1", "EXEC x", f"GET {A}", "EXEC"],
    ["MULTI", "DISCARD x", f"SET {A} 1", "EXEC", f"GET {A}"],
    ["MULTI", f"SET {A} 1", "DISCARD", f"GET {A}", "EXEC"],
    ["EXEC", "DISCARD", "UNWATCH"],
    ["MULTI", "NOPE x", f"SET {A} 1", "EXEC", f"GET {A}"],
    ["MULTI", f"GET {A} {B}", "EXEC", "EXEC"],
    ["MULTI", f"SET {A} x", f"INCR {A}", f"LPUSH {A} 1", f"SET {B} 2", "EXEC", f"GET {B}"],
    ["MULTI", "PING", f"SET {A} 1", "ECHO x", "UNWATCH", f"GET {A}", "CLIENT SETNAME n", "EXEC", "CLIENT GETNAME"],
    ["MULTI", "PING", "EXEC"],
    ["MULTI", f"SET {A} 1", "RESET", "EXEC", f"GET {A}"],
    ["MULTI", f"BLPOP {A} 0", f"RPUSH {A} x", f"BLPOP {A} {B} 0", "EXEC"],
    ["MULTI", f"MSET {A} 1 {B} 2", f"MGET {A} {B}", f"DEL {A} {B}", "EXEC"],
    ["MULTI", f"EVAL return{{KEYS[1],2}} 1 {A}", "EXEC"],
    [f"WATCH {A}", "MULTI", f"SET {A} 1", "EXEC", f"GET {A}"],
    [f"WATCH {A}", f"SET {A} 5", "MULTI", f"SET {A} 1", "EXEC", f"GET {A}"],
    [f"WATCH {A}", f"other:SET {A} 5", "MULTI", f"SET {A} 1", "PING", "EXEC", f"GET {A}", "MULTI", "PING", "EXEC"],
    [f"WATCH {A} {B}", f"other:SET {B} 5", "UNWATCH", "MULTI", f"SET {A} 1", "EXEC", f"GET {A}"],
    [f"WATCH {A}", f"other:SET {A} 5", "MULTI", "DISCARD", "MULTI", f"SET {A} 1", "EXEC"],
    [f"WATCH {A}", f"other:SET {A} 5", "MULTI", "EXEC", "MULTI", "EXEC"],
    [f"WATCH {A}", f"other:SET {A} 5", "MULTI", "NOPE", "EXEC", "MULTI", f"GET {A}", "EXEC"],
    [
        f"WATCH {A}",
        f"WATCH {B}",
        f"other:SET {A} 5",
        "MULTI",
        "PING",
        "EXEC",
        f"WATCH {A}",
        "MULTI",
        f"GET {A}",
        "EXEC",
    ],
]


@pytest.fixture
def off(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> Proxy:
    """Without operations across shards."""
    return new_proxy(fleet.addresses, options=["--cross-shard", "off"])


def run(connect: Callable[[], Wire], scenario: list[str], *, resp3: bool) -> list[Reply]:
    replies: list[Reply] = []
    with connect() as own, connect() as other:
        if resp3:
            own.ask("HELLO", "3")
        for line in scenario:
            if line.startswith("other:"):
                replies.append(other.ask(*line.removeprefix("other:").split(" ")))
            else:
                replies.append(own.ask(*line.split(" ")))
    return replies


@pytest.mark.parametrize("resp3", [False, True], ids=["resp2", "resp3"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=" ; ".join)
def test_as_one_server(proxy: Proxy, fleet: Fleet, scenario: list[str], resp3: bool) -> None:
    server = fleet.servers[0]
    ours = run(proxy.socket, scenario, resp3=resp3)
    fleet.client(0).flushall()
    theirs = run(lambda: Wire(server.host, server.port.number), scenario, resp3=resp3)
    assert ours == theirs


def test_what_may_not_stand_within_a_transaction_in_the_words_of_redis_7(proxy: Proxy) -> None:
    """Valkey has other words, and aborts after the first two."""
    with proxy.socket() as wire:
        assert wire.ask("MULTI") == "OK"
        assert wire.ask("MULTI") == "ERR MULTI calls can not be nested"
        assert wire.ask("WATCH", A) == "ERR WATCH inside MULTI is not allowed"
        assert wire.ask("SET", A, "1") == "QUEUED"
        assert wire.ask("EXEC") == ["OK"]
        assert wire.ask("MULTI") == "OK"
        assert wire.ask("SAVE") == "ERR Command not allowed inside a transaction"
        assert wire.ask("EXEC") == "EXECABORT Transaction discarded because of previous errors."


def test_a_whole_transaction_in_one_packet(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        wire.send(f"SET {A} 1\r\nMULTI\r\nINCR {A}\r\nPING\r\nEXEC\r\nINCR {A}\r\n".encode())
        assert [wire.reply() for _ in range(6)] == ["OK", "OK", "QUEUED", "QUEUED", [2, "PONG"], 3]
        wire.send(f"WATCH {A}\r\nSET {A} 7\r\nMULTI\r\nSET {A} 8\r\nEXEC\r\nGET {A}\r\n".encode())
        assert [wire.reply() for _ in range(6)] == ["OK", "OK", "OK", "QUEUED", None, b"7"]


def test_a_script_without_keys_touches_none_where_the_transaction_is_elsewhere(proxy: Proxy, fleet: Fleet) -> None:
    """What such a script writes has to be found on the home shard: it may run, but not there."""
    key = keys_on(3, 1)[0]
    with proxy.socket() as wire:
        for script in ("return 1", "return redis.call('SET', 'undeclared', 'v')"):
            assert wire.ask("MULTI") == "OK"
            assert wire.ask("INCR", key) == "QUEUED"
            assert wire.ask("EVAL", script, 0) == "QUEUED"
            told = wire.ask("EXEC")
            assert isinstance(told, list)
            if script == "return 1":
                assert told == [1, 1]
            else:
                assert told[0] == 2
                assert isinstance(told[1], ErrorReply)
                assert "must be given every key: undeclared" in told[1]
    assert [fleet.client(shard).exists("undeclared") for shard in range(len(fleet))] == [0] * len(fleet)


def test_a_script_without_keys_is_named_where_it_is_on_another_shard(off: Proxy) -> None:
    """It runs on the home shard, also within a transaction: what it writes has to be found there."""
    key = keys_on(3, 1)[0]
    with off.socket() as wire:
        assert wire.ask("MULTI") == "OK"
        assert wire.ask("SET", key, "1") == "QUEUED"
        assert wire.ask("EVAL", "return 1", 0) == "QUEUED"
        told = wire.ask("EXEC")
        assert isinstance(told, ErrorReply)
        assert "'a script without keys' on 's0'" in told
        assert wire.ask("EXISTS", key) == 0


def test_keys_on_several_shards_are_one_transaction(proxy: Proxy, fleet: Fleet) -> None:
    one, two, *_ = one_key_each("tx")
    scenarios = [
        ["MULTI", f"SET {one} 1", f"SET {two} 2", f"MGET {two} {one}", f"INCR {one}", "PING", "EXEC"],
        [f"WATCH {one}", f"WATCH {two}", f"GET {two}", "MULTI", f"SET {one} 1", f"SET {two} 3", "EXEC"],
        [f"WATCH {one}", f"WATCH {two}", f"other:SET {two} 5", "MULTI", f"SET {one} 1", f"INCR {two}", "EXEC"],
        [f"WATCH {one}", f"WATCH {two}", f"other:SET {two} 5", "UNWATCH", "MULTI", f"RENAME {two} {one}", "EXEC"],
        ["MULTI", f"SET {one} 1", f"SET {two} 2", "NOPE x", "EXEC"],
        ["MULTI", f"SET {one} 1", f"SET {two} x", f"INCR {two}", f"LPUSH {one} 1", "EXEC"],
    ]
    server = fleet.servers[0]
    for scenario in scenarios:
        scenario = [*scenario, f"GET {one}", f"GET {two}", f"DEL {one}", f"DEL {two}"]
        ours = run(proxy.socket, scenario, resp3=False)
        assert ours == run(lambda: Wire(server.host, server.port.number), scenario, resp3=False), scenario


def test_what_concerns_every_shard_aborts_a_transaction(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        assert wire.ask("MULTI") == "OK"
        assert isinstance(wire.ask("DBSIZE"), ErrorReply)
        assert str(wire.ask("EXEC")).startswith("EXECABORT")


def test_without_operations_across_shards_keys_on_several_are_refused_and_nothing_is_executed(off: Proxy) -> None:
    one, two, *_ = one_key_each("tx")
    with off.socket() as wire:
        for word in ("MULTI", f"SET {one} 1", f"SET {two} 2"):
            wire.ask(*word.split(" "))
        told = wire.ask("EXEC")
        assert isinstance(told, ErrorReply)
        assert told.startswith("CROSSSLOT 'exec'")
        assert one in told
        assert two in told
        assert wire.ask("EXISTS", one, two) == 0
        assert wire.ask("WATCH", one) == "OK"
        assert isinstance(wire.ask("WATCH", two), ErrorReply)
        assert wire.ask("MULTI") == "OK"
        assert isinstance(wire.ask("DBSIZE"), ErrorReply)
        assert str(wire.ask("EXEC")).startswith("EXECABORT")


@pytest.mark.parametrize("protocol", [2, 3])
def test_many_increment_under_a_watch_and_none_is_lost(proxy: Proxy, protocol: int) -> None:
    threads_count, times = 6, 30

    def work() -> None:
        with redis.Redis(host=proxy.host, port=proxy.port, protocol=protocol) as client:

            def increment(pipeline: redis.client.Pipeline) -> None:
                value = int(pipeline.get(A) or 0)
                pipeline.multi()
                pipeline.set(A, value + 1)

            for _ in range(times):
                client.transaction(increment, A)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(threads_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    with proxy.client() as client:
        assert int(client.get(A) or 0) == threads_count * times


def test_a_large_transaction_of_redis_py(proxy: Proxy) -> None:
    with proxy.client() as client:
        pipeline = client.pipeline(transaction=True)
        for number in range(2000):
            pipeline.rpush(A, b"x" * 1000 if number % 100 else b"y" * 300_000)
        assert pipeline.execute() == list(range(1, 2001))
        assert client.llen(A) == 2000


def test_a_lost_shard_under_a_watch(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as wire:
        assert wire.ask("WATCH", A) == "OK"
        line = wire.ask("CLIENT", "INFO")
        assert isinstance(line, bytes)
        assert b" multi=-1 watch=1 " in line
        fleet.kill(0)
        wait_until(lambda: isinstance(wire.ask("GET", A), ErrorReply), 10, "the loss is seen")
        assert wire.ask("MULTI") == "OK"
        assert wire.ask("SET", A, "1") == "QUEUED"
        assert wire.ask("EXEC") is None, "nobody knows whether the key changed: nothing is executed"
        assert wire.ask("MULTI") == "OK"
        assert wire.ask("SET", A, "1") == "QUEUED"
        told = wire.ask("EXEC")
        assert isinstance(told, ErrorReply)
        assert "is down" in told
