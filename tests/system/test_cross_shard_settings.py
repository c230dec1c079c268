"""What a keyspace says of operations across shards: which keys are shoal's own, and what is refused without them."""

from collections.abc import Callable

from harness import ErrorReply, Fleet, Proxy
from system.placement import keys_on

NewProxy = Callable[..., Proxy]

CONFIG = """
[keyspace.main]
listen = "{{listen}}"
unknown_commands = "first-key"
debug_commands = true
{settings}
shards = ["{{shard0}}", "{{shard1}}", "{{shard2}}", "{{shard3}}"]
"""
OURS = "__shoal:f:1"
# Every way by which a key comes to a shard.
REQUESTS = [
    f"GET {OURS}",
    f"SET {OURS} v",
    f"MGET {OURS}",
    f"MGET {{k}} {OURS}",
    f"MSET {{k}} v {OURS} v",
    f"DEL {OURS}",
    f"SUNION {{k}} {OURS}",
    f"RENAME {{k}} {OURS}",
    f"SORT {{k}} STORE {OURS}",
    f"OBJECT ENCODING {OURS}",
    f"MEMORY USAGE {OURS}",
    f"EVAL x 1 {OURS}",
    f"FCALL f 1 {OURS}",
    f"XREAD STREAMS {OURS} 0",
    f"XREAD BLOCK 1 STREAMS {OURS} 0",
    f"XGROUP CREATE {OURS} g 0",
    f"BLPOP {{k}} {OURS} 1",
    f"BLMOVE {OURS} {{k}} LEFT LEFT 1",
    f"WATCH {OURS}",
    f"DEBUG OBJECT {OURS}",
    f"NO.SUCH {OURS}",
    f"TYPE {OURS}",
]


def test_keys_of_ours_are_not_for_clients(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=CONFIG.format(settings=""))
    said = "ERR keys that begin with '__shoal:' are shoal's own; choose another name"
    for request in REQUESTS:
        words = request.format(k=keys_on(0, 1)[0]).split(" ")
        with proxy.socket() as wire:
            assert wire.ask(*words) == said, request
            assert wire.ask("MULTI") == "OK"
            assert isinstance(wire.ask(*words), ErrorReply), request
            aborted = wire.ask("EXEC")
            # Servers refuse WATCH there and go on.
            assert aborted == [] if words[0] == "WATCH" else str(aborted).startswith("EXECABORT"), request


def test_what_only_looks_like_one_of_ours_is_a_key(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        for key in ("__shoal", "__shoal;f", "_shoal:f", "x__shoal:f", "{__shoal:f}", "__SHOAL:f", "__shoal\0"):
            assert wire.ask("SET", key, "v") == "OK"
            assert wire.ask("MGET", key, "other") == [b"v", None]


def test_without_operations_across_shards_the_setting_is_named(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=CONFIG.format(settings='cross_shard = "off"'))
    one, two = keys_on(0, 1)[0], keys_on(3, 1)[0]
    with proxy.socket() as wire:
        assert wire.ask("SET", OURS, "v") == "OK", "a key like any other"
        assert wire.ask("GET", OURS) == b"v"
        reply = wire.ask("RENAME", one, two)
        assert isinstance(reply, ErrorReply)
        assert reply.startswith(f"CROSSSLOT 'rename' has keys on different shards: '{one}' in slot ")
        assert '; set cross_shard = "strict", or give them a common {hash tag} or an affinity rule' in reply
        reply = wire.ask("FCALL", "anything", "2", one, two)
        assert isinstance(reply, ErrorReply)
        assert '; set cross_shard = "strict", and cross_shard_functions = true if functions touch only the ' in reply
        assert "cross-shard off" in str(wire.ask("SHOAL", "TOPOLOGY"))
        lines = str(wire.ask("SHOAL", "EXPLAIN", "RENAME", one, one))
        assert 'with keys on several shards: refused; set cross_shard = "strict"' in lines


def test_a_cache_is_not_told_of_a_setting_that_it_cannot_have(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=CONFIG.format(settings='role = "cache"'))
    one, two = keys_on(0, 1)[0], keys_on(3, 1)[0]
    with proxy.socket() as wire:
        for words in (["RENAME", one, two], ["EVAL", "return 1", "2", one, two]):
            reply = wire.ask(*words)
            assert isinstance(reply, ErrorReply)
            assert reply.startswith("CROSSSLOT ")
            assert "cross_shard" not in reply
        assert wire.ask("SET", OURS, "v") == "OK"


def test_what_could_be_split_is_one_operation_where_that_is_wanted(fleet: Fleet, new_proxy: NewProxy) -> None:
    one, two = keys_on(0, 1)[0], keys_on(3, 1)[0]
    settings = 'multi_key = "strict"\ncross_shard_functions = true'
    for given, expected in (("", "per-shard"), (settings, "strict")):
        proxy = new_proxy(fleet.addresses, config=CONFIG.format(settings=given))
        with proxy.socket() as wire:
            for words in (["MGET", one, two], ["DEL", one, two], ["MSET", one, "1", two, "2"]):
                assert f"atomicity: {expected}" in str(wire.ask("SHOAL", "EXPLAIN", *words))
            called = str(wire.ask("SHOAL", "EXPLAIN", "FCALL", "anything", "2", one, two))
            assert ("atomicity: strict" in called) == bool(given)
            assert "cross-shard strict" in str(wire.ask("SHOAL", "TOPOLOGY"))
