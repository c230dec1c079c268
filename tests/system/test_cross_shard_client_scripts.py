"""Scripts and transactions of clients over several shards: what they are given they have, and nothing else."""

from collections.abc import Callable, Iterator

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire
from system.placement import one_key_each

NewProxy = Callable[..., Proxy]

CONFIG = """
[keyspace.main]
listen = "{listen}"
cross_shard = "strict"
cross_shard_functions = true
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
"""
MOVE = "redis.call('SET', KEYS[2], redis.call('GET', KEYS[1]) .. ARGV[1]) return redis.call('DEL', KEYS[1])"


@pytest.fixture
def wire(fleet: Fleet, new_proxy: NewProxy) -> Iterator[Wire]:
    with new_proxy(fleet.addresses, config=CONFIG).socket() as wire:
        yield wire


def test_a_script_has_its_keys_wherever_they_are(wire: Wire) -> None:
    one, two, three, _ = one_key_each()
    wire.ask("SET", one, "v")
    assert wire.ask("EVAL", MOVE, 2, one, two, "!") == 1
    assert wire.ask("MGET", one, two) == [None, b"v!"]
    # What EVAL has shown can be named, as on one server.
    sha = wire.ask("SCRIPT", "LOAD", MOVE)
    assert isinstance(sha, bytes)
    assert wire.ask("EVALSHA", sha, 2, two, three, "?") == 1
    assert wire.ask("GET", three) == b"v!?"
    assert wire.ask("EVAL", "return redis.call('MGET', KEYS[1], KEYS[2])", 2, one, three) == [None, b"v!?"]


def test_another_key_is_an_error_and_not_a_write_at_home(wire: Wire, fleet: Fleet) -> None:
    keys = one_key_each()
    script = "redis.call('SET', KEYS[1], 'new') redis.call('SET', ARGV[1], 'garbage')"
    wire.ask("SET", keys[3], "kept")
    refused = wire.ask("EVAL", script, 2, keys[0], keys[1], keys[3])
    assert isinstance(refused, ErrorReply)
    assert f"must be given every key: {keys[3]}" in refused
    # As with any error of a script, what it did before stays done.
    assert wire.ask("MGET", keys[0], keys[3]) == [b"new", b"kept"]
    assert sum(fleet.client(i).exists(keys[3]) for i in range(len(fleet))) == 1


def test_a_script_in_a_transaction_over_shards_is_held_too(wire: Wire) -> None:
    """Alone it runs on its key's shard; here perhaps not, so what it reads besides its key would not be there."""
    one, two, three, four = one_key_each()
    for key in (one, two, three, four):
        wire.ask("SET", key, "kept")
    assert wire.ask("MULTI") == "OK"
    for words in (
        ["SET", one, "1"],
        ["SET", two, "2"],
        ["EVAL", "return redis.pcall('GET', ARGV[1]).err", 1, three, four],
        ["EVAL", "return redis.call('GET', KEYS[1])", 1, three],
    ):
        assert wire.ask(*words) == "QUEUED"
    done = wire.ask("EXEC")
    assert isinstance(done, list)
    assert done[:2] == ["OK", "OK"]
    assert done[2:] == [f"ERR a script with keys on several shards must be given every key: {four}".encode(), b"kept"]
    assert wire.ask("MGET", one, two, three) == [b"1", b"2", b"kept"]
