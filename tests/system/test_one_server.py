"""What one server answers about itself: as from one, or refused with a reason that says what to do instead.

DEBUG is off unless the keyspace turns it on, and then what is known of keys and what clients' own tests need.
"""

import time
from collections.abc import Callable, Iterator

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire
from system.placement import SHARDS, keys_on, one_key_each, shard_of

# Request, and a part of what is to be done instead.
INSTEAD = [
    ("SHUTDOWN NOSAVE", "SIGTERM"),
    ("REPLICAOF NO ONE", "server that is to follow"),
    ("REPLICAOF 127.0.0.1 1", "server that is to follow"),
    ("SLAVEOF 127.0.0.1 1", "server that is to follow"),
    ("FAILOVER", "shard's server directly"),
    ("MIGRATE 127.0.0.1 1 k 0 10", "DUMP and RESTORE"),
    ("PSYNC ? -1", "shard's server directly"),
    ("SYNC", "shard's server directly"),
    ("REPLCONF listening-port 1", "shard's server directly"),
    ("RESTORE-ASKING k 0 x", "shard's server directly"),
    ("MODULE LOAD /x.so", "each shard's server"),
    ("MODULE LOADEX /x.so", "each shard's server"),
    ("MODULE UNLOAD x", "each shard's server"),
    ("SCRIPT DEBUG YES", "shard's server directly"),
    ("DEBUG SLEEP 0", "debug_commands"),
    ("DEBUG OBJECT k", "debug_commands"),
    ("DEBUG JMAP", "debug_commands"),
    ("PFDEBUG GETREG k", "shard's server directly"),
    ("PFSELFTEST", "shard's server directly"),
]

DEBUGGED = """
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
debug_commands = true
"""

HELPS = ["CONFIG", "FUNCTION", "LATENCY", "MEMORY", "MODULE", "OBJECT", "PUBSUB", "SCRIPT", "XGROUP", "XINFO"]


@pytest.fixture
def plain(fleet: Fleet) -> Iterator[Wire]:
    """A connection to one of the servers itself."""
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        yield plain


@pytest.mark.parametrize(("request_text", "instead"), INSTEAD)
def test_a_refusal_says_what_to_do_instead(proxy: Proxy, fleet: Fleet, request_text: str, instead: str) -> None:
    words = request_text.split(" ")
    with proxy.socket() as wire:
        reply = wire.ask(*words)
        assert isinstance(reply, ErrorReply)
        assert reply.startswith("ERR '")
        assert instead in reply
        assert wire.ask("SET", one_key_each()[0], "v") == "OK"
        assert wire.ask("MULTI") == "OK"
        assert isinstance(wire.ask(*words), ErrorReply)
        assert wire.ask("EXEC") == "EXECABORT Transaction discarded because of previous errors."
    assert all(server.running for server in fleet.servers)
    assert all(fleet.client(shard).role()[0] == b"master" for shard in range(SHARDS))


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_role_is_that_of_a_primary_without_replicas(proxy: Proxy, plain: Wire, protocol: int) -> None:
    with proxy.socket() as wire:
        for end in (wire, plain):
            end.ask("HELLO", protocol)
        ours, theirs = wire.ask("ROLE"), plain.ask("ROLE")
        assert isinstance(ours, list)
        assert isinstance(theirs, list)
        assert (ours[0], type(ours[1]), ours[2]) == (theirs[0], type(theirs[1]), theirs[2]) == (b"master", int, [])
        assert wire.ask("ROLE", "x") == plain.ask("ROLE", "x")
        for end in (wire, plain):
            assert end.ask("MULTI") == "OK"
            assert end.ask("ROLE") == "QUEUED"
        assert wire.ask("EXEC") == [ours]


def test_keys_go_to_another_database_of_their_shard(proxy: Proxy, plain: Wire) -> None:
    one, near, far = "{m}one", "{m}near", keys_on(3 - shard_of(b"m"), 1, "far")[0]
    plain.ask("SELECT", 9)
    with proxy.socket() as wire:
        for end, move, back in ((wire, 1, 0), (plain, 10, 9)):
            assert end.ask("SET", one, "v") == "OK"
            assert end.ask("COPY", one, one, "DB", move) == 1
            assert end.ask("COPY", one, near, "DB", move) == 1
            assert end.ask("COPY", one, near, "DB", move) == 0
            assert end.ask("COPY", one, near, "DB", move, "REPLACE") == 1
            assert end.ask("MOVE", one, move) == 0, "it is there already"
            end.ask("DEL", near)
            assert end.ask("COPY", one, near) == 1
            assert end.ask("SELECT", move) == "OK"
            assert [end.ask("GET", key) for key in (one, near)] == [b"v", b"v"]
            assert end.ask("DEL", one) == 1
            assert end.ask("SELECT", back) == "OK"
            assert end.ask("MOVE", one, move) == 1
            assert end.ask("GET", one) is None
            assert isinstance(end.ask("MOVE", near, back), ErrorReply)
            assert isinstance(end.ask("COPY", near, near), ErrorReply)
            assert isinstance(end.ask("MOVE", near, 99), ErrorReply)
        reply = wire.ask("COPY", near, far, "DB", 1)
        assert isinstance(reply, ErrorReply)
        assert reply.startswith("ERR 'copy' with DB is possible on one shard only")
        assert wire.ask("EXISTS", far) == 0


@pytest.mark.parametrize("container", HELPS)
def test_help_is_that_of_a_server(proxy: Proxy, plain: Wire, container: str) -> None:
    with proxy.socket() as wire:
        reply = wire.ask(container, "HELP")
        assert isinstance(reply, list)
        assert reply == plain.ask(container, "HELP")


def test_lolwut_and_time_are_those_of_any_shard(proxy: Proxy, plain: Wire) -> None:
    with proxy.socket() as wire:
        for words in (["LOLWUT"], ["LOLWUT", "VERSION", "5", "1", "1", "1"]):
            assert type(wire.ask(*words)) is type(plain.ask(*words))
        assert wire.ask("MODULE", "LIST") == plain.ask("MODULE", "LIST")


def test_what_a_server_knows_of_an_object_is_asked_of_its_shard(proxy: Proxy, plain: Wire, fleet: Fleet) -> None:
    for shard in range(SHARDS):
        fleet.client(shard).config_set("maxmemory-policy", "allkeys-lfu")
    try:
        with proxy.socket() as wire:
            for key in one_key_each():
                for end in (wire, plain):
                    end.ask("SET", key, "12")
                for sub in ("FREQ", "ENCODING", "REFCOUNT", "IDLETIME"):
                    ours, theirs = wire.ask("OBJECT", sub, key), plain.ask("OBJECT", sub, key)
                    # How often a key was used is counted by chance.
                    assert type(ours) is int if sub == "FREQ" else ours == theirs, sub
                    assert wire.ask("OBJECT", sub, "{" + key + "}none") == plain.ask("OBJECT", sub, "none")
    finally:
        for shard in range(SHARDS):
            fleet.client(shard).config_set("maxmemory-policy", "noeviction")


def test_debug_where_it_is_turned_on(fleet: Fleet, new_proxy: Callable[..., Proxy], plain: Wire) -> None:
    proxy = new_proxy(fleet.addresses, config=DEBUGGED)
    with proxy.socket() as wire:
        for key in one_key_each():
            assert wire.ask("SET", key, "v") == "OK"
            said = str(wire.ask("DEBUG", "OBJECT", key))
            assert said.startswith("Value at:")
            assert "encoding:embstr" in said
        assert wire.ask("debug", "object", "none") == plain.ask("DEBUG", "OBJECT", "none")
        assert wire.ask("DEBUG", "OBJECT") == plain.ask("DEBUG", "OBJECT")
        assert wire.ask("DEBUG", "ERROR", "LOADING not really") == "LOADING not really"
        began = time.monotonic()
        assert wire.ask("DEBUG", "SLEEP", "0.2") == "OK"
        assert 0.2 <= time.monotonic() - began < 5
        for words in (["DEBUG", "JMAP"], ["DEBUG", "SEGFAULT"], ["DEBUG", "RELOAD"], ["DEBUG", "HELP"], ["DEBUG", "x"]):
            reply = wire.ask(*words)
            assert isinstance(reply, ErrorReply)
            assert "OBJECT, SLEEP and ERROR" in reply
        assert wire.ask("MULTI") == "OK"
        assert wire.ask("DEBUG", "OBJECT", one_key_each()[0]) == "QUEUED"
        assert isinstance(wire.ask("EXEC"), list)
        said_of = wire.ask("SHOAL", "EXPLAIN", "DEBUG", "OBJECT", keys_on(2, 1)[0])
        assert isinstance(said_of, list)
        assert "route: sent unchanged to shard s2" in said_of
