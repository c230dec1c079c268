"""What one server does for itself, asked once: each shard does it, and the answer is what one server gives."""

from collections.abc import Callable, Iterator

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from system.placement import SHARDS, one_key_each, shard_of

COUNTER = (
    "#!lua name=count\nredis.register_function('fleet_count', function() return redis.call('INCR', 'keyless') end)"
)
SINGLE = ["atomicity: single"]
LIBRARY = "#!lua name=fleet\nredis.register_function('fleet_get', function(keys) return redis.call('GET', keys[1]) end)"


@pytest.fixture
def plain(fleet: Fleet) -> Iterator[Wire]:
    """A connection to one of the servers itself."""
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        yield plain


def unsaved(fleet: Fleet) -> list[int]:
    """For each shard how many changes it has not saved."""
    return [int(fleet.client(shard).info("persistence")["rdb_changes_since_last_save"]) for shard in range(SHARDS)]


def is_saving(fleet: Fleet) -> bool:
    states = [fleet.client(shard).info("persistence") for shard in range(SHARDS)]
    return any(state["rdb_bgsave_in_progress"] or state["aof_rewrite_in_progress"] for state in states)


@pytest.mark.parametrize("words", [["SAVE"], ["BGSAVE"], ["BGSAVE", "SCHEDULE"]], ids=" ".join)
def test_every_shard_saves(proxy: Proxy, fleet: Fleet, words: list[str]) -> None:
    with proxy.socket() as wire:
        for key in one_key_each():
            assert wire.ask("SET", key, "v") == "OK"
        assert all(unsaved(fleet))
        assert wire.ask(*words) == ("OK" if words == ["SAVE"] else "Background saving started")
        wait_until(lambda: not any(unsaved(fleet)) and not is_saving(fleet), 10, "every shard has saved")
        oldest = min(int(fleet.client(shard).lastsave().timestamp()) for shard in range(SHARDS))
        assert wire.ask("LASTSAVE") == oldest


def test_every_shard_rewrites_its_log(proxy: Proxy, fleet: Fleet, plain: Wire) -> None:
    theirs = plain.ask("BGREWRITEAOF")
    wait_until(lambda: not is_saving(fleet), 10, "the one shard has rewritten its log")
    with proxy.socket() as wire:
        assert wire.ask("BGREWRITEAOF") == theirs
    wait_until(lambda: not is_saving(fleet), 10, "every shard has rewritten its log")
    for shard in range(SHARDS):
        assert fleet.client(shard).info("persistence")["aof_last_bgrewrite_status"] == "ok"


def test_functions_are_loaded_on_every_shard_and_deleted_there(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as wire:
        assert wire.ask("FUNCTION", "FLUSH") == "OK"
        assert wire.ask("FUNCTION", "LOAD", LIBRARY) == b"fleet"
        assert isinstance(wire.ask("FUNCTION", "LOAD", LIBRARY), ErrorReply)
        assert wire.ask("FUNCTION", "LOAD", "REPLACE", LIBRARY) == b"fleet"
        for key in one_key_each():
            assert wire.ask("SET", key, key) == "OK"
            assert wire.ask("FCALL", "fleet_get", 1, key) == key.encode()
        kept = wire.ask("FUNCTION", "DUMP")
        assert isinstance(kept, bytes)
        assert wire.ask("FUNCTION", "DELETE", "fleet") == "OK"
        assert all(fleet.client(shard).function_list() == [] for shard in range(SHARDS))
        assert wire.ask("FUNCTION", "RESTORE", kept) == "OK"
        assert all(len(fleet.client(shard).function_list()) == 1 for shard in range(SHARDS))
        assert wire.ask("FUNCTION", "FLUSH", "SYNC") == "OK"
        assert all(fleet.client(shard).function_list() == [] for shard in range(SHARDS))


def test_databases_are_swapped_on_every_shard(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    keys = one_key_each()
    for server in fleet.servers:
        server.client().flushall()
    proxy = new_proxy(fleet.addresses, options=["--cross-shard", "off"])
    with proxy.socket() as wire:
        for key in keys:
            assert wire.ask("SET", key, "zero") == "OK"
        assert wire.ask("SWAPDB", 0, 1) == "OK"
        assert wire.ask("DBSIZE") == 0
        assert wire.ask("SELECT", 1) == "OK"
        assert wire.ask("MGET", *keys) == [b"zero"] * len(keys)
        assert wire.ask("SWAPDB", 0, 1) == "OK"
        assert wire.ask("DBSIZE") == 0


def test_statistics_are_reset_on_every_shard(proxy: Proxy, fleet: Fleet, plain: Wire) -> None:
    with proxy.socket() as wire:
        for key in one_key_each():
            wire.ask("GET", key)
        assert all(fleet.client(shard).info("stats")["keyspace_misses"] for shard in range(SHARDS))
        assert wire.ask("CONFIG", "RESETSTAT") == "OK"
        assert all(fleet.client(shard).info("stats")["keyspace_misses"] == 0 for shard in range(SHARDS))
        assert wire.ask("MEMORY", "PURGE") == "OK"
        assert wire.ask("LATENCY", "RESET") == 0
        assert wire.ask("MODULE", "LIST") == plain.ask("MODULE", "LIST")


def test_a_script_without_keys_runs_on_one_shard_always_the_same(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as wire:
        assert wire.ask("EVAL", "return 1", 0) == 1
        assert wire.ask("EVAL", "return ARGV[1]", 0, "a") == b"a"
        for number in range(8):
            assert wire.ask("EVAL", "return redis.call('INCR', 'keyless')", 0, f"argument {number}") == number + 1
    assert [fleet.client(shard).get("keyless") for shard in range(SHARDS)].count(None) == SHARDS - 1


HOMED = """
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
affinity = ["^rq:"]
home_shard = "s2"
"""


def test_a_script_without_keys_runs_on_the_home_shard_that_was_chosen(
    fleet: Fleet, new_proxy: Callable[..., Proxy]
) -> None:
    proxy = new_proxy(fleet.addresses, config=HOMED)
    with proxy.socket() as wire:
        wire.ask("FUNCTION", "LOAD", "REPLACE", COUNTER)
        assert wire.ask("EVAL", "return redis.call('INCR', 'keyless')", 0) == 1
        assert wire.ask("EVAL", "return redis.call('INCR', 'keyless')", 0, "no rule knows this") == 2
        assert wire.ask("FCALL", "fleet_count", 0) == 3
        assert wire.ask("EVAL", "return redis.call('INCR', 'ruled')", 0, "rq:queue") == 1
        assert [fleet.client(shard).get("keyless") for shard in range(SHARDS)] == [None, None, b"3", None]
        ruled = shard_of(b"rq:")
        assert ruled != 2, "or this shows nothing"
        assert fleet.client(ruled).get("ruled") == b"1"
        said = wire.ask("SHOAL", "EXPLAIN", "EVAL", "return 1", 0)
        assert said == ["command: eval", "no key: the home shard", "route: sent unchanged to shard s2", *SINGLE]
        said = wire.ask("SHOAL", "EXPLAIN", "FCALL", "fleet_count", 0, "rq:queue")
        assert isinstance(said, list)
        assert said[1:3] == [
            "no key: its first argument belongs to 'rq:' by an affinity rule",
            f"route: sent unchanged to shard s{ruled}",
        ]
        wire.ask("FUNCTION", "FLUSH")
