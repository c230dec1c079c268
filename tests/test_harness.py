"""The harness itself: a test tool that lies makes every test above it worthless.

Real servers, no proxy: `Fault` stands between a raw connection and a server here.
"""

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from harness import FLAVOURS, Clock, ErrorReply, Fault, Fleet, Mischief, Server, Wire, wait_until

NewFleet = Callable[..., Fleet]
NewFault = Callable[..., Fault]

BIG = b"x" * 300_000


def connect(fault: Fault) -> Wire:
    return Wire("127.0.0.1", fault.port.number)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_flavour_starts_and_speaks_both_protocols(new_fleet: NewFleet, flavour: str) -> None:
    fleet = new_fleet(1, flavour=flavour)
    server = fleet.servers[0]
    with Wire(server.host, server.port.number) as wire:
        assert wire.ask("HSET", "h", "a", 1, "b", 2) == 2
        assert wire.ask("HGETALL", "h") == [b"a", b"1", b"b", b"2"]
        hello = wire.ask("HELLO", 3)
        assert isinstance(hello, dict)
        assert hello[b"proto"] == 3
        assert wire.ask("HGETALL", "h") == {b"a": b"1", b"b": b"2"}
        assert wire.ask("GET", "nothing") is None
        assert isinstance(wire.ask("NOSUCH"), ErrorReply)


def test_a_killed_server_comes_back_on_its_port_with_its_data(new_fleet: NewFleet) -> None:
    fleet = new_fleet(1, settings=("appendonly yes", "appendfsync always"))
    fleet.client(0).set("key", "value")
    pid, address = fleet.servers[0].pid, fleet.servers[0].address
    fleet.kill(0, signal.SIGKILL)
    assert not fleet.servers[0].running
    fleet.restart(0)
    assert fleet.client(0).get("key") == b"value"
    assert fleet.servers[0].address == address
    assert fleet.servers[0].pid != pid


def test_a_frozen_server_takes_bytes_and_answers_when_it_goes_on(fleet: Fleet) -> None:
    server = fleet.servers[0]
    with Wire(server.host, server.port.number) as wire:
        assert wire.ask("PING") == "PONG"
        fleet.stop(0)
        wire.command("PING")
        assert wire.is_silent(0.1)
        fleet.cont(0)
        assert wire.reply() == "PONG"


@pytest.mark.parametrize("order", ["first", "second"])
def test_each_test_finds_the_fleet_whole_and_empty(fleet: Fleet, order: str) -> None:
    assert [fleet.client(i).dbsize() for i in range(len(fleet))] == [0] * len(fleet)
    fleet.client(1).set("left", order)
    fleet.kill(2)
    fleet.stop(3)


def test_a_relay_without_mischief_changes_nothing(fleet: Fleet, new_fault: NewFault) -> None:
    with connect(new_fault(fleet.servers[0])) as wire:
        assert wire.ask("SET", "big", BIG) == "OK"
        assert wire.ask("GET", "big") == BIG


def test_dribbled_bytes_all_arrive_in_order(fleet: Fleet, new_fault: NewFault) -> None:
    fault = new_fault(fleet.servers[0], seed=7)
    fault.replies = fault.requests = Mischief(dribble=3)
    with connect(fault) as wire:
        value = bytes(range(256))
        assert wire.ask("SET", "k", value) == "OK"
        assert wire.ask("GET", "k") == value


@pytest.mark.parametrize("count", [0, 1, 7, 4096])
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_cut_lets_exactly_so_many_bytes_pass(fleet: Fleet, new_fault: NewFault, count: int, how: str) -> None:
    fault = new_fault(fleet.servers[0])
    fleet.client(0).set("big", BIG)
    fault.replies = Mischief(cut_after=count, cut_with="fin" if how == "fin" else "rst")
    with connect(fault) as wire:
        wire.command("GET", "big")
        data = wire.until_closed()
    # A reset may discard what has not been read yet; it never lets more through.
    assert len(data) == count if how == "fin" else len(data) <= count
    assert fault.connections == 0


def test_a_stall_holds_replies_until_it_is_over(fleet: Fleet, new_fault: NewFault) -> None:
    fault = new_fault(fleet.servers[0])
    with connect(fault) as wire:
        assert wire.ask("PING") == "PONG"
        fault.replies = Mischief(stall=True)
        wire.command("INCR", "counter")
        wait_until(lambda: fleet.client(0).get("counter") == b"1", 5, "the request arrives although replies stall")
        assert wire.is_silent(0.1)
        fault.replies = Mischief()
        assert wire.reply() == 1


def test_a_delay_keeps_the_order(fleet: Fleet, new_fault: NewFault) -> None:
    fault = new_fault(fleet.servers[0])
    fault.requests = Mischief(delay_s=0.05)
    with connect(fault) as wire:
        for _ in range(5):
            wire.command("INCR", "n")
        assert [wire.reply() for _ in range(5)] == [1, 2, 3, 4, 5]


def test_refusal_and_cut_from_outside(fleet: Fleet, new_fault: NewFault) -> None:
    fault = new_fault(fleet.servers[0])
    with connect(fault) as wire:
        assert wire.ask("PING") == "PONG"
        fault.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(fault)
        assert wire.ask("PING") == "PONG"
        assert fault.cut() == 1
        assert wire.until_closed() == b""
    fault.accept()
    with connect(fault) as wire:
        assert wire.ask("PING") == "PONG"
    assert fault.accepted == 2


def test_wait_until_fails_with_its_message_and_the_last_reason() -> None:
    def never() -> bool:
        raise AssertionError("the reason")

    with pytest.raises(AssertionError, match=r"not within 0\.01 s: the moon is full") as caught:
        wait_until(never, 0.01, "the moon is full")
    assert str(caught.value.__cause__) == "the reason"


def shows(server: Server, seconds: int) -> bool:
    """Whether the server's time is so far from ours."""
    found: tuple[int, int] = server.client().time()
    return abs(found[0] - time.time() - seconds) < 60


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_clock_jumps_under_a_running_server(tmp_path: Path, flavour: str) -> None:
    clock = Clock(tmp_path, "server")
    server = Server(tmp_path / "server", flavour, env=clock.environment)
    server.start()
    try:
        server.ready()
        for seconds in (3600, -3600, 0):
            clock.move(seconds)
            wait_until(partial(shows, server, seconds), 5, "the server's time jumps")
    finally:
        server.end(signal.SIGKILL)
        server.port.release()
