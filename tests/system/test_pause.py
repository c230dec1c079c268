"""CLIENT PAUSE and UNPAUSE over all workers: the same as on one plain redis-server, which is asked the same."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness.fleet import Fleet
from harness.proxy import Proxy
from harness.wait import wait_until
from harness.wire import ErrorReply, Wire

CONFIG = """
workers = 2
admin = "{admin}"
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}"]
"""

# Below, silence of this length is taken for a request that is held; what is not held answers in far less.
SILENCE_S = 0.4


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two shards and, last, a plain server beside them."""
    with Fleet(tmp_path_factory.mktemp("fleet"), 3, "redis7") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def proxy(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(tmp_path_factory.mktemp("proxy"), fleet.addresses[:2], config=CONFIG) as proxy:
        yield proxy


@pytest.fixture(params=["plain", "shoal"])
def address(request: pytest.FixtureRequest, fleet: Fleet, proxy: Proxy) -> tuple[str, int]:
    host, port = (fleet.addresses[2] if request.param == "plain" else proxy.address).rsplit(":", 1)
    return host, int(port)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("CLIENT PAUSE -1", "ERR timeout is negative"),
        ("CLIENT PAUSE abc", "ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE 10 FOO", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        ("CLIENT PAUSE", "ERR wrong number of arguments for 'client|pause' command"),
        ("CLIENT UNPAUSE now", "ERR wrong number of arguments for 'client|unpause' command"),
    ],
)
def test_what_is_no_pause_is_refused_in_the_servers_words(address: tuple[str, int], words: str, error: str) -> None:
    with Wire(*address) as wire:
        reply = wire.ask(*words.split())
        assert isinstance(reply, ErrorReply)
        assert reply == error


@pytest.mark.parametrize(
    ("words", "is_held"),
    [
        ("SET p v", True), ("DEL p", True), ("MSET p 1 q 2", True), ("PFCOUNT p", True), ("EVAL return~1 0", True),
        ("EVAL return~1 1 p", True), ("GET p", False), ("MGET p q", False), ("PING", False), ("DBSIZE", False),
        ("EVAL_RO return~1 1 p", False), ("SCAN 0", False), ("CLIENT ID", False), ("NOSUCH p", False), ("GET", False),
    ],
)  # fmt: skip
def test_a_pause_of_writes_holds_what_a_server_holds(address: tuple[str, int], words: str, *, is_held: bool) -> None:
    with Wire(*address) as pauser, Wire(*address) as first, Wire(*address) as second:
        pauser.ask("DEL", "p", "q")
        assert pauser.ask("CLIENT", "PAUSE", 100_000, "WRITE") == "OK"
        for wire in (first, second):  # neighbours are on different workers
            wire.command(*(word.replace("~", " ") for word in words.split()))
            assert wire.is_silent(SILENCE_S) == is_held
        assert pauser.ask("CLIENT", "UNPAUSE") == "OK"
        for wire in (first, second):
            wire.reply()
            assert wire.ask("PING") == "PONG"


def test_a_pause_of_everything_ends_by_itself_and_keeps_the_order(address: tuple[str, int]) -> None:
    with Wire(*address) as pauser, Wire(*address) as first, Wire(*address) as second:
        pauser.ask("DEL", "p")
        assert pauser.ask("CLIENT", "PAUSE", 1500) == "OK"
        for wire in (first, second):
            wire.command("PING")
            wire.command("INCR", "p")
            wire.command("CLIENT", "UNPAUSE")
            assert wire.is_silent(SILENCE_S), "also what would end the pause waits"
        for wire in (first, second):
            assert [wire.reply(), type(wire.reply()), wire.reply()] == ["PONG", int, "OK"]
        assert pauser.ask("GET", "p") == b"2"


def test_a_shorter_pause_does_not_shorten_the_longer_one(address: tuple[str, int]) -> None:
    with Wire(*address) as pauser, Wire(*address) as other:
        assert pauser.ask("CLIENT", "PAUSE", 100_000, "WRITE") == "OK"
        assert pauser.ask("CLIENT", "PAUSE", 1, "WRITE") == "OK"
        other.command("SET", "p", "v")
        assert other.is_silent(SILENCE_S)
        assert pauser.ask("CLIENT", "UNPAUSE") == "OK"
        assert other.reply() == "OK"


def test_whoami_and_users_without_users(address: tuple[str, int]) -> None:
    with Wire(*address) as wire:
        assert wire.ask("ACL", "WHOAMI") == b"default"
        assert wire.ask("ACL", "USERS") == [b"default"]


def test_shoal_stops_while_clients_are_paused(fleet: Fleet, tmp_path: Path) -> None:
    with (
        Proxy(tmp_path / "proxy", fleet.addresses[:2], config=CONFIG) as proxy,
        proxy.socket() as pauser,
        proxy.socket() as held,
    ):
        assert pauser.ask("CLIENT", "PAUSE", 100_000, "WRITE") == "OK"
        held.command("SET", "p", "v")
        assert held.is_silent(SILENCE_S)
        assert proxy.stop() == 0
        assert held.until_closed() == b""


def test_who_leaves_while_it_is_held_is_let_go(address: tuple[str, int]) -> None:
    """Else a long pause would keep the places of clients that are gone."""
    with Wire(*address) as other, Wire(*address) as leaver, Wire(*address) as breaker:
        names = (("leaver", leaver), ("breaker", breaker))
        for name, wire in names:
            assert wire.ask("CLIENT", "SETNAME", name) == "OK"
        assert other.ask("CLIENT", "PAUSE", 60_000, "WRITE") == "OK"
        try:
            for _, wire in names:
                wire.command("SET", "held", "v")
                assert wire.is_silent(SILENCE_S)
            leaver.close()
            breaker.reset()
            for name, _ in names:
                wait_until(partial(is_gone, other, name), 5, f"{name} is gone")
        finally:
            other.ask("CLIENT", "UNPAUSE")
        assert other.ask("EXISTS", "held") == 0


def is_gone(wire: Wire, name: str) -> bool:
    return name not in str(wire.ask("CLIENT", "LIST"))
