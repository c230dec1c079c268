"""A script that does not end: SCRIPT KILL, FUNCTION KILL and FUNCTION STATS reach its shard all the same.

Servers say BUSY and take a kill only when a script has run for busy-reply-threshold, which is short here.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from system.placement import keys_on, one_key_each

ENDLESS = "#!lua name=endless\nredis.register_function('endless', function() while true do end end)"
LOOP = "while true do end"
WRITING = "redis.call('SET', KEYS[1], 'v') while true do end"

CONFIG = """
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
timeout_ms = 1000
"""


@pytest.fixture
def impatient(fleet: Fleet) -> Fleet:
    """Servers that are busy with a script after a tenth of a second."""
    for shard in range(len(fleet)):
        fleet.client(shard).config_set("lua-time-limit", 100)
    return fleet


@pytest.fixture
def plain(impatient: Fleet) -> Iterator[Wire]:
    """A connection to a server of the fleet."""
    with Wire(impatient.servers[0].host, impatient.servers[0].port.number) as plain:
        yield plain


@contextmanager
def running(proxy: Proxy, *words: str | int) -> Iterator[list[object]]:
    """A request that does not end by itself; its reply is in the list when the block is left."""
    replies: list[object] = []

    def run() -> None:
        with proxy.socket(30) as wire:
            replies.append(wire.ask(*words))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield replies
    thread.join(30)
    assert not thread.is_alive()


def killed(wire: Wire, family: str) -> bool:
    reply = wire.ask(family, "KILL")
    assert reply == "OK" or (isinstance(reply, ErrorReply) and reply.startswith("NOTBUSY")), reply
    return reply == "OK"


@pytest.mark.parametrize("family", ["SCRIPT", "FUNCTION"])
def test_where_nothing_runs_the_answer_is_that_of_one_server(
    proxy: Proxy, impatient: Fleet, plain: Wire, family: str
) -> None:
    with proxy.socket() as wire:
        for protocol in (2, 3):
            for end in (wire, plain):
                end.ask("HELLO", protocol)
            reply = wire.ask(family, "KILL")
            assert reply == plain.ask(family, "KILL")
            assert isinstance(reply, ErrorReply)
            assert wire.ask("FUNCTION", "STATS") == plain.ask("FUNCTION", "STATS")


@pytest.mark.parametrize("family", ["SCRIPT", "FUNCTION"])
def test_what_runs_on_one_shard_is_killed_there(proxy: Proxy, impatient: Fleet, family: str) -> None:
    key = keys_on(2, 1)[0]
    others = [other for other in one_key_each() if other != key]
    with proxy.socket() as wire:
        assert wire.ask("FUNCTION", "LOAD", "REPLACE", ENDLESS) == b"endless"
        call: list[str | int] = ["EVAL", LOOP, 1, key] if family == "SCRIPT" else ["FCALL", "endless", 1, key]
        with running(proxy, *call) as replies:
            wait_until(lambda: killed(wire, family), 10, "it runs and is killed")
        assert len(replies) == 1
        assert isinstance(replies[0], ErrorReply)
        assert "killed by user" in replies[0]
        assert wire.ask("SET", key, "v") == "OK"
        assert wire.ask("MGET", *others) == [None] * len(others)


def test_the_statistics_say_what_runs_wherever_it_does(proxy: Proxy, impatient: Fleet) -> None:
    key = keys_on(3, 1)[0]
    with proxy.socket() as wire:
        wire.ask("HELLO", 3)
        assert wire.ask("FUNCTION", "LOAD", "REPLACE", ENDLESS) == b"endless"
        with running(proxy, "FCALL", "endless", 1, key):

            def runs() -> object:
                said = wire.ask("FUNCTION", "STATS")
                assert isinstance(said, dict)
                return said[b"running_script"]

            said = wait_until(runs, 10, "a shard says that it runs")
            assert isinstance(said, dict)
            assert said[b"name"] == b"endless"
            assert said[b"command"][:2] == [b"FCALL", b"endless"]
            wait_until(lambda: killed(wire, "FUNCTION"), 10, "it is killed")


def test_what_has_written_cannot_be_killed(proxy: Proxy, impatient: Fleet) -> None:
    key = keys_on(1, 1)[0]
    with proxy.socket() as wire, running(proxy, "EVAL", WRITING, 1, key):

        def refusal() -> bool:
            reply = wire.ask("SCRIPT", "KILL")
            assert isinstance(reply, ErrorReply)
            return reply.startswith("UNKILLABLE ")

        wait_until(refusal, 10, "the shard says that it may not be killed")
        impatient.kill(1)


def test_a_shard_that_was_given_up_for_its_script_is_reached(impatient: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    """The shared connection is lost at timeout_ms, and while the server is busy no new one is of use."""
    proxy = new_proxy(impatient.addresses, config=CONFIG)
    key = keys_on(0, 1)[0]
    with proxy.socket() as wire:
        with running(proxy, "EVAL", LOOP, 1, key) as replies:
            pass
        assert isinstance(replies[0], ErrorReply)
        assert "was lost" in replies[0]
        assert isinstance(wire.ask("GET", key), ErrorReply)
        assert killed(wire, "SCRIPT")
        wait_until(lambda: wire.ask("GET", key) is None, 10, "the shard is used again")


def test_a_shard_that_cannot_be_asked_is_named_where_none_was_killed(proxy: Proxy, impatient: Fleet) -> None:
    impatient.kill(1)
    with proxy.socket() as wire:
        for family in ("SCRIPT", "FUNCTION"):
            reply = wire.ask(family, "KILL")
            assert isinstance(reply, ErrorReply)
            assert "shard 's1'" in reply
        with running(proxy, "EVAL", LOOP, 1, keys_on(2, 1)[0]):
            # The others' answers do not matter when one was killed.
            wait_until(lambda: wire.ask("SCRIPT", "KILL") == "OK", 10, "it is killed")
