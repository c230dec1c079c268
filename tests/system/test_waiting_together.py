"""Many clients that wait at once: who is served first, what one element costs, and how waits end early."""

import os
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.fleet import Server
from system.placement import keys_on, one_key_each

WAITING = 40
ENTRIES = 300


@pytest.fixture
def wide(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> Proxy:
    return new_proxy(fleet.addresses, options=["--workers", "3"])


def blocked(proxy: Proxy) -> int:
    with proxy.client() as client:
        return sum("b" in str(line["flags"]) for line in client.client_list())


def until_blocked(proxy: Proxy, count: int) -> None:
    wait_until(lambda: blocked(proxy) == count, 5, f"{count} clients wait")


def keys_over(over: str, prefix: str) -> list[str]:
    return one_key_each(prefix) if over == "several" else keys_on(2, 4, prefix)


def calls(fleet: Fleet, command: str) -> int:
    total = 0
    for shard in range(len(fleet)):
        statistics = fleet.client(shard).info("commandstats")
        total += statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"]
    return total


@pytest.mark.parametrize("over", ["one", "several"])
@pytest.mark.parametrize(("give", "take"), [("RPUSH", "BLPOP"), ("ZADD", "BZPOPMIN")])
def test_who_waits_longest_is_served_first(
    fleet: Fleet, new_proxy: Callable[..., Proxy], give: str, take: str, over: str
) -> None:
    """Within one worker; `one` is the shard's own order."""
    proxy = new_proxy(fleet.addresses, options=["--workers", "1"])
    keys = keys_over(over, "first")
    with ExitStack() as stack, proxy.socket() as other:
        waiting: list[Wire] = []
        for count in range(WAITING):
            wire = stack.enter_context(proxy.socket())
            wire.command(take, *keys, 0)
            waiting.append(wire)
            # A wait over several shards begins when it is read; one on one shard, when the shard has it.
            until_blocked(proxy, count + 1)
            if over == "one":
                wait_until(lambda: blocked_there(fleet) == len(waiting), 5, "the shard has it")
        until_blocked(proxy, WAITING)
        for shard in range(4):
            fleet.client(shard).config_resetstat()
        for number, wire in enumerate(waiting):
            key = keys[number % 4]
            other.ask(give, key, *([1] if give == "ZADD" else []), f"v{number}")
            reply = wire.reply()
            assert isinstance(reply, list)
            assert reply[:2] == [key.encode(), f"v{number}".encode()]
            silent = [later.socket for later in waiting[number + 1 :]]
            assert not select.select(silent, [], [], 0)[0]
        if over == "several":
            # Each element costs a few requests, not some for everybody who waits.
            asked = calls(fleet, "exists") + calls(fleet, take.lower()[1:])
            assert asked < WAITING * 16


def blocked_there(fleet: Fleet) -> int:
    return sum(int(fleet.client(shard).info("clients")["blocked_clients"]) for shard in range(4))


def test_those_who_wait_for_the_same_keys_share_connections(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy(fleet.addresses, options=["--workers", "1"])
    keys = one_key_each("share")
    with ExitStack() as stack:
        for _ in range(WAITING):
            wire = stack.enter_context(proxy.socket())
            wire.command("BLPOP", *keys, 0)
        until_blocked(proxy, WAITING)
        for shard in range(4):
            # The main connection, one on which the shard tells, and this test's own.
            connected = fleet.client(shard).info("clients")["connected_clients"]
            assert connected <= 2 + 2, connected


def told(fleet: Fleet, shard: int) -> bool:
    return int(fleet.client(shard).info("clients")["tracking_clients"]) > 0


def kept_alive(proxy: Proxy, server: Server) -> list[float]:
    """Of the proxy's connections to a server: how soon the kernel asks whether the other end is there, in seconds."""
    seconds: list[float] = []
    for line in Path(f"/proc/{proxy.pid}/net/tcp").read_text().splitlines()[1:]:
        _, _, far, state, _, timer = line.split()[:6]
        if far == f"0100007F:{server.port.number:04X}" and state == "01" and timer.startswith("02:"):
            seconds.append(int(timer[3:], 16) / os.sysconf("SC_CLK_TCK"))
    return seconds


def test_a_host_that_is_gone_does_not_keep_a_client_waiting_for_ever(proxy: Proxy, fleet: Fleet) -> None:
    """On a connection on which a request waits nothing can be asked: the kernel asks, and soon."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("the kernel's list of timers is Linux'")
    with proxy.socket() as waiting:
        waiting.command("BLPOP", keys_on(1, 1, "host")[0], 0)
        wait_until(lambda: any(soon <= 15 for soon in kept_alive(proxy, fleet.servers[1])), 5, "it is asked")


def test_a_type_that_changes_meanwhile_does_not_end_the_wait(wide: Proxy, fleet: Fleet) -> None:
    keys = one_key_each("type")
    with wide.socket() as waiting, wide.socket() as other:
        waiting.command("BLPOP", *keys, 0)
        wait_until(lambda: all(told(fleet, shard) for shard in range(4)), 5, "every shard is to tell")
        other.ask("SET", keys[2], "text")
        other.ask("ZADD", keys[1], "1", "m")
        wait_until(lambda: fleet.client(1).info("errorstats").get("errorstat_WRONGTYPE"), 5, "it looked")
        other.ask("DEL", keys[2])
        other.ask("RPUSH", keys[2], "v")
        assert waiting.reply() == [keys[2].encode(), b"v"]


def test_a_groups_consumers_over_all_shards_see_each_entry_once(wide: Proxy) -> None:
    keys = one_key_each("group")
    seen: list[str] = []
    wrong: list[object] = []
    with wide.socket() as wire:
        for key in keys:
            assert wire.ask("XGROUP", "CREATE", key, "g", "$", "MKSTREAM") == "OK"

    def consume(turn: int) -> None:
        with wide.socket() as wire:
            order = keys[turn % 4 :] + keys[: turn % 4]
            ask = ["XREADGROUP", "GROUP", "g", f"c{turn}", "COUNT", "3", "BLOCK", "1500", "STREAMS", *order, *">>>>"]
            while True:
                reply: Any = wire.ask(*ask)
                if reply is None:
                    return
                if not isinstance(reply, list):
                    wrong.append(reply)
                    return
                for name, entries in reply:
                    for number, (_, value) in entries:
                        seen.append(value.decode())
                        if wire.ask("XACK", name, "g", number) != 1:
                            wrong.append((name, number))

    def produce(turn: int) -> None:
        with wide.socket() as wire:
            for number in range(ENTRIES // 3):
                wire.ask("XADD", keys[(turn + number) % 4], "*", "f", f"{turn}:{number}")

    threads = [threading.Thread(target=consume, args=(turn,), daemon=True) for turn in range(9)]
    threads += [threading.Thread(target=produce, args=(turn,), daemon=True) for turn in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert not wrong
    assert Counter(seen) == Counter(f"{turn}:{number}" for turn in range(3) for number in range(ENTRIES // 3))
    with wide.socket() as wire:
        for key in keys:
            pending = wire.ask("XPENDING", key, "g")
            assert isinstance(pending, list)
            assert pending[0] == 0


@pytest.mark.parametrize("over", ["one", "several"])
def test_a_client_that_is_killed_while_it_waits(wide: Proxy, over: str) -> None:
    keys = keys_over(over, "kill")
    with ExitStack() as stack, wide.socket() as other:
        victims = [stack.enter_context(wide.socket()) for _ in range(6)]
        numbers = [wire.ask("CLIENT", "ID") for wire in victims]
        for wire in victims:
            wire.command("BLPOP", *keys, 0)
        until_blocked(wide, 6)
        for number in numbers:
            assert isinstance(number, int)
            assert other.ask("CLIENT", "KILL", "ID", number) == 1
        assert [wire.until_closed() for wire in victims] == [b""] * 6
        until_blocked(wide, 0)
        assert other.ask("RPUSH", keys[3], "v") == 1
        assert other.ask("BLPOP", *keys, 1) == [keys[3].encode(), b"v"]


@pytest.mark.parametrize("over", ["one", "several"])
def test_waits_of_every_worker_are_ended_from_one_connection(wide: Proxy, over: str) -> None:
    keys = keys_over(over, "un")
    with ExitStack() as stack, wide.socket() as other:
        waiting = [stack.enter_context(wide.socket()) for _ in range(9)]
        numbers = [wire.ask("CLIENT", "ID") for wire in waiting]
        for wire in waiting:
            wire.command("BZMPOP", "0", len(keys), *keys, "MIN")
        until_blocked(wide, 9)
        for turn, (wire, number) in enumerate(zip(waiting, numbers, strict=True)):
            assert isinstance(number, int)
            is_error = turn % 2 == 1
            assert other.ask("CLIENT", "UNBLOCK", number, "ERROR" if is_error else "TIMEOUT") == 1
            expected = ErrorReply("UNBLOCKED client unblocked via CLIENT UNBLOCK") if is_error else None
            assert wire.reply() == expected
            assert wire.ask("PING") == "PONG"
            assert other.ask("CLIENT", "UNBLOCK", number) == 0


@pytest.mark.parametrize("over", ["one", "several"])
def test_a_client_that_ends_its_side_while_it_waits_is_let_go_as_a_server_lets_it_go(
    wide: Proxy, fleet: Fleet, over: str
) -> None:
    keys = keys_over(over, "half")
    server = fleet.servers[0]
    with Wire(server.host, server.port.number) as judge, wide.socket() as wire, wide.socket() as other:
        for each in (judge, wire):
            each.command("BLPOP", *keys, 0)
        until_blocked(wide, 1)
        for each in (judge, wire):
            each.socket.shutdown(socket.SHUT_WR)
        assert wire.until_closed() == judge.until_closed() == b""
        assert other.ask("RPUSH", keys[0], "v") == 1
        assert other.ask("LRANGE", keys[0], 0, -1) == [b"v"]
