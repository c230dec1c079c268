"""A shard that comes back empty: it is given the functions and scripts again that the fleet has.

And commands that every shard carries out, where some cannot: the error names them, and those that did it.
"""

from collections.abc import Callable, Iterator
from hashlib import sha1
from typing import Any

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import encode
from system.placement import SHARDS, keys_on, one_key_each

LIBRARY = """#!lua name=kept
redis.register_function('kept_get', function(keys) return redis.call('GET', keys[1]) end)
redis.register_function{function_name='kept_ro', callback=function(keys) return 1 end, flags={'no-writes'}}"""
OTHER = "#!lua name=other\nredis.register_function('other_one', function() return 'first' end)"
OTHER_AGAIN = "#!lua name=other\nredis.register_function('other_one', function() return 'second' end)"


@pytest.fixture
def plain(fleet: Fleet) -> Iterator[Wire]:
    """A connection to one of the servers itself."""
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        yield plain


@pytest.fixture
def clean(proxy: Proxy, fleet: Fleet) -> Proxy:
    """No functions anywhere."""
    for shard in range(SHARDS):
        fleet.client(shard).function_flush()
    return proxy


def replaced(wire: Wire, fleet: Fleet, shard: int, key: str) -> None:
    """Kills a shard and starts it empty, until shoal uses it again."""
    fleet.kill(shard)
    assert isinstance(wire.ask("GET", key), ErrorReply)
    fleet.restart(shard)
    assert fleet.client(shard).function_list() == []
    wait_until(lambda: wire.ask("SET", key, "new") == "OK", 10, "the shard is used again")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("protocol", [2, 3])
def test_a_shard_that_comes_back_empty_gets_its_functions_again(
    fleet: Fleet, clean: Proxy, new_proxy: Callable[..., Proxy], workers: int, protocol: int
) -> None:
    proxy = new_proxy(fleet.addresses, options=["--workers", str(workers)])
    key = keys_on(2, 1)[0]
    with proxy.socket() as wire, proxy.socket() as second:
        for end in (wire, second):
            end.ask("HELLO", protocol)
        for library in (LIBRARY, OTHER):
            assert isinstance(wire.ask("FUNCTION", "LOAD", library), bytes)
        assert wire.ask("SET", key, "old") == "OK"
        assert wire.ask("FCALL", "kept_get", 1, key) == b"old"
        assert second.ask("FCALL_RO", "kept_ro", 1, key) == 1
        replaced(wire, fleet, 2, key)
        wait_until(lambda: second.ask("GET", key) == b"new", 10, "the other worker uses it too")
        # The last of them is sent behind the first in one piece.
        wire.send(encode("FCALL", "kept_get", 1, key) + encode("FCALL", "other_one", 1, key) + encode("GET", key))
        assert [wire.reply() for _ in range(3)] == [b"new", b"first", b"new"]
        assert second.ask("FCALL_RO", "kept_ro", 1, key) == 1
        assert len(fleet.client(2).function_list()) == 2


def test_a_shard_that_comes_back_empty_gets_its_scripts_again(proxy: Proxy, fleet: Fleet) -> None:
    key = keys_on(1, 1)[0]
    with proxy.socket() as wire:
        sha = wire.ask("SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])")
        assert isinstance(sha, bytes)
        replaced(wire, fleet, 1, key)
        assert wire.ask("EVALSHA", sha, 1, key) == b"new"


def test_what_the_shard_has_is_left_as_it_is(clean: Proxy, fleet: Fleet) -> None:
    key = keys_on(3, 1)[0]
    with clean.socket() as wire:
        wire.ask("FUNCTION", "LOAD", OTHER)
        wire.ask("FUNCTION", "LOAD", LIBRARY)
        replaced(wire, fleet, 3, key)
        fleet.client(3).function_load(OTHER_AGAIN)
        assert wire.ask("FCALL", "other_one", 1, key) == b"second"
        assert wire.ask("FCALL", "kept_get", 1, key) == b"new"


def test_a_function_that_nobody_has_is_unknown_as_on_one_server(clean: Proxy, plain: Wire) -> None:
    with clean.socket() as wire:
        for key in one_key_each():
            for _ in range(2):
                assert wire.ask("FCALL", "nobody", 1, key) == plain.ask("FCALL", "nobody", 1, key)


def test_the_list_and_the_dump_are_whole_while_a_shard_has_lost_them(clean: Proxy, fleet: Fleet, plain: Wire) -> None:
    key = keys_on(0, 1)[0]
    with clean.socket() as wire:
        for library in (LIBRARY, OTHER):
            wire.ask("FUNCTION", "LOAD", library)
        before = told(wire)
        assert len(before) == 2
        assert before == told(plain)
        replaced(wire, fleet, 0, key)
        assert told(wire) == before
        dump = wire.ask("FUNCTION", "DUMP")
        assert isinstance(dump, bytes)
        assert wire.ask("FUNCTION", "RESTORE", dump, "REPLACE") == "OK"
        assert len(fleet.client(0).function_list()) == 2
        assert len(told(wire, "LIBRARYNAME", "oth*")) == 1


def test_the_list_is_told_while_a_shard_is_down(clean: Proxy, fleet: Fleet) -> None:
    with clean.socket() as wire:
        wire.ask("FUNCTION", "LOAD", LIBRARY)
        before = told(wire)
        fleet.kill(1)
        assert isinstance(wire.ask("GET", keys_on(1, 1)[0]), ErrorReply)
        assert told(wire) == before
        assert isinstance(wire.ask("FUNCTION", "DUMP"), bytes)
        refusal = wire.ask("FUNCTION", "LOAD", OTHER)
        assert isinstance(refusal, ErrorReply)
        assert "shard 's1'" in refusal
        assert told(wire) == before, "nothing was loaded anywhere"


def test_a_script_that_ran_on_one_shard_exists_as_on_one_server(proxy: Proxy, fleet: Fleet, plain: Wire) -> None:
    shas = [sha1(b"return 12").hexdigest(), sha1(b"return 13").hexdigest(), "none"]
    with proxy.socket() as wire:
        for end in (wire, plain):
            assert end.ask("SCRIPT", "FLUSH") == "OK"
        assert wire.ask("EVAL", "return 12", 1, keys_on(2, 1)[0]) == 12
        plain.ask("EVAL", "return 12", 0)
        assert wire.ask("SCRIPT", "EXISTS", *shas) == plain.ask("SCRIPT", "EXISTS", *shas) == [1, 0, 0]
        assert [wire.ask("EVALSHA", shas[0], 1, key) for key in one_key_each()] == [12] * SHARDS
        assert wire.ask("SCRIPT", "FLUSH") == "OK"
        assert wire.ask("SCRIPT", "EXISTS", *shas) == [0, 0, 0]


def told(wire: Wire, *words: str) -> dict[object, object]:
    """FUNCTION LIST by the libraries' names; a server lists the functions of one in any order."""
    reply: Any = wire.ask("FUNCTION", "LIST", "WITHCODE", *words)
    return {library[1]: [*library[2:5], sorted(map(repr, library[5])), *library[6:]] for library in reply}


def test_what_some_shards_refuse_is_told_with_their_names(clean: Proxy, fleet: Fleet) -> None:
    fleet.client(1).function_load(OTHER)
    with clean.socket() as wire:
        assert (
            wire.ask("FUNCTION", "LOAD", OTHER)
            == "ERR Library 'other' already exists (failed on 's1'; done on 's0', 's2', 's3')"
        )
        # All of them say the same now: then it is as from one server.
        assert wire.ask("FUNCTION", "LOAD", OTHER) == "ERR Library 'other' already exists"
        assert wire.ask("FUNCTION", "LOAD", "REPLACE", OTHER) == b"other"


@pytest.mark.parametrize("words", ["FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "CONFIG RESETSTAT", "SCRIPT LOAD return"])
def test_what_a_shard_may_not_do_is_told_with_its_name(
    fleet: Fleet, new_proxy: Callable[..., Proxy], words: str
) -> None:
    proxy = new_proxy(fleet.addresses, options=["--cross-shard", "off"])
    keys = one_key_each()
    rule = words.lower().split(" ")[0]
    with proxy.socket() as wire:
        for key in keys:
            assert wire.ask("SET", key, "v") == "OK"
        for shard in (0, 2):
            fleet.client(shard).acl_setuser("default", commands=[f"-{rule}"], enabled=True, nopass=True)
        try:
            reply = wire.ask(*words.split(" "))
        finally:
            for shard in (0, 2):
                fleet.client(shard).acl_setuser("default", commands=[f"+{rule}"], enabled=True, nopass=True)
        assert isinstance(reply, ErrorReply)
        assert reply.startswith("NOPERM ")
        assert reply.endswith(" (failed on 's0', 's2'; done on 's1', 's3')")
        if rule not in ("config", "script"):
            assert [wire.ask("EXISTS", key) for key in keys] == [1, 0, 1, 0]
        if rule == "swapdb":
            fleet.client(1).swapdb(0, 1)
            fleet.client(3).swapdb(0, 1)
