"""Commands that are split over shards: MGET, MSET, DEL, UNLINK, EXISTS, TOUCH, alone and amid everything else.

One plain server is the judge: random pipelines, from a seed, go to it and to shoal, and every reply must be equal.
"""

import random
from collections.abc import Callable, Iterator

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire
from harness.wire import Reply, encode
from system.placement import SHARDS, keys_of, keys_on, one_key_each, shard_of

NewFleet = Callable[..., Fleet]
Words = list[str | bytes | int]


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def wire(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Wire]:
    with proxy.socket() as wire:
        wire.ask("HELLO", request.param)
        yield wire


def test_mget_answers_in_the_order_of_its_keys(wire: Wire, fleet: Fleet) -> None:
    keys = [key for shard in (3, 1, 0, 2) for key in keys_on(shard, 3)]
    random.Random(2).shuffle(keys)
    assert wire.ask("MSET", *(word for key in keys for word in (key, f"value of {key}"))) == "OK"
    asked = [*reversed(keys), "missing", keys[0], keys[0], "missing"]
    expected: Reply = [f"value of {key}".encode() if key != "missing" else None for key in asked]
    assert wire.ask("MGET", *asked) == expected
    for shard in range(SHARDS):
        assert len(keys_of(fleet, shard)) == 3


def test_the_last_of_duplicates_wins(wire: Wire) -> None:
    one, two = one_key_each()[:2]
    assert wire.ask("MSET", one, "first", two, "x", one, "last") == "OK"
    assert wire.ask("MGET", one, two, one) == [b"last", b"x", b"last"]


@pytest.mark.parametrize(("command", "expected"), [("DEL", 4), ("UNLINK", 4), ("EXISTS", 6), ("TOUCH", 6)])
def test_counts_add_up_with_duplicates_and_missing_keys(wire: Wire, command: str, expected: int) -> None:
    keys = one_key_each()
    assert wire.ask("MSET", *(word for key in keys for word in (key, "v"))) == "OK"
    assert wire.ask(command, *keys, "missing", keys[0], keys[3]) == expected
    assert wire.ask("EXISTS", *keys) == (0 if expected == 4 else 4)


def test_a_wrong_type_is_null_for_mget_and_replaced_by_mset(wire: Wire) -> None:
    one, two, three, four = one_key_each()
    wire.ask("RPUSH", one, "x")
    wire.ask("HSET", two, "f", "v")
    wire.ask("SET", three, "text")
    assert wire.ask("MGET", one, two, three, four) == [None, None, b"text", None]
    assert wire.ask("MSET", one, 1, two, 2) == "OK"
    assert wire.ask("MGET", one, two) == [b"1", b"2"]


@pytest.mark.parametrize("words", [["MGET"], ["MSET"], ["MSET", "a"], ["MSET", "a", "1", "b"], ["DEL"], ["EXISTS"]])
def test_wrong_arity_is_told_as_a_server_tells_it(wire: Wire, fleet: Fleet, words: Words) -> None:
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        told = plain.ask(*words)
    assert isinstance(told, ErrorReply)
    assert wire.ask(*words) == told
    assert wire.ask("PING") == "PONG"


def test_an_odd_mset_sets_nothing(wire: Wire) -> None:
    keys = one_key_each()
    assert isinstance(wire.ask("MSET", keys[0], 1, keys[1], 2, keys[2]), ErrorReply)
    assert wire.ask("EXISTS", *keys) == 0


def test_ten_thousand_keys(wire: Wire, fleet: Fleet) -> None:
    keys = [f"many:{number}" for number in range(10_000)]
    assert wire.ask("MSET", *(word for key in keys for word in (key, key.upper()))) == "OK"
    assert [len(keys_of(fleet, shard)) for shard in range(SHARDS)] == [
        sum(shard_of(key.encode()) == shard for key in keys) for shard in range(SHARDS)
    ]
    random.Random(3).shuffle(keys)
    assert wire.ask("MGET", *keys) == [key.upper().encode() for key in keys]
    assert wire.ask("EXISTS", *keys, *keys) == 20_000
    assert wire.ask("UNLINK", *keys[:5000]) == 5000
    assert wire.ask("TOUCH", *keys) == 5000
    assert wire.ask("DEL", *keys) == 5000
    assert [keys_of(fleet, shard) for shard in range(SHARDS)] == [set()] * SHARDS


def test_large_values_are_merged_whole(wire: Wire) -> None:
    rng = random.Random(4)
    values = {f"large:{number}": rng.randbytes(rng.choice([0, 1, 60_000, 70_000, 1_000_000])) for number in range(24)}
    assert wire.ask("MSET", *(word for pair in values.items() for word in pair)) == "OK"
    assert wire.ask("MGET", *values, "missing") == [*values.values(), None]


def test_only_shards_with_keys_are_asked(wire: Wire, fleet: Fleet) -> None:
    keys = keys_on(1, 5)
    for shard in range(SHARDS):
        fleet.client(shard).config_resetstat()
    wire.ask("MGET", *keys)
    calls = [fleet.client(shard).info("commandstats").get("cmdstat_mget", {}).get("calls", 0) for shard in range(4)]
    assert calls == [0, 1, 0, 0]


def random_request(rng: random.Random, keys: list[str]) -> Words:
    """One request of the mixture; what it does depends on the requests before it only."""

    def key() -> str:
        return rng.choice(keys)

    def some() -> list[str]:
        return [key() for _ in range(rng.randint(1, 12))]

    value = rng.choice([b"", b"v", b"\r\n$-1\r\n", b"7", rng.randbytes(rng.choice([3, 100, 5000, 70_000]))])
    writes: list[Words] = [
        ["SET", key(), value],
        ["MSET", *(word for name in some() for word in (name, value))],
        ["DEL", *some()],
        ["UNLINK", *some()],
        ["APPEND", key(), b"+"],
        ["INCR", key()],
        ["RPUSH", key(), value, b"w"],
        ["GETSET", key(), value],
        ["HSET", key(), "field", value],
    ]
    reads: list[Words] = [
        ["GET", key()],
        ["MGET", *some()],
        ["EXISTS", *some()],
        ["TOUCH", *some()],
        ["STRLEN", key()],
        ["LRANGE", key(), 0, -1],
        ["HGETALL", key()],
        ["TYPE", key()],
        ["PING", value],
        ["ECHO", value],
        ["DBSIZE"],
        ["SELECT", rng.choice([0, 0, 1, 15, 99])],
        ["EVAL", "return {KEYS[1], ARGV[1]}", 1, key(), value],
        ["NOSUCH", key()],
        ["GET"],
        ["MSET", key()],
    ]
    return rng.choice(writes if rng.random() < 0.4 else reads)


@pytest.mark.parametrize("seed", range(6))
def test_random_pipelines_answer_as_one_server(proxy: Proxy, new_fleet: NewFleet, seed: int) -> None:
    rng = random.Random(seed)
    server = new_fleet(1).servers[0]
    keys = [f"k{number}" for number in range(30)]
    with Wire(server.host, server.port.number) as plain, proxy.socket() as sharded:
        for wire in (plain, sharded):
            wire.ask("HELLO", 2 + seed % 2)
        for batch in range(40):
            requests = [random_request(rng, keys) for _ in range(rng.choice([1, 2, 50, 300]))]
            data = b"".join(encode(*request) for request in requests)
            plain.send(data)
            expected = [plain.reply() for _ in requests]
            # The same bytes in pieces: where a request is cut must not matter.
            cut = rng.randrange(len(data))
            sharded.send(data[:cut])
            sharded.send(data[cut:])
            for number, request in enumerate(requests):
                reply = sharded.reply()
                if request[0] == "SELECT" and request[1] == 99:
                    assert isinstance(reply, ErrorReply)
                else:
                    assert reply == expected[number], (seed, batch, number, request)
