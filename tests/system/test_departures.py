"""Clients that leave while they wait: what was taken for them at that moment is not lost.

A client here ends its side of the connection and then reads on until the other side has closed as well, so that every
element is accounted for: it came to somebody, or it lies where it lay.
"""

import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from harness import Fleet, Proxy, Wire, wait_until
from harness.wire import encode
from system.placement import keys_on, one_key_each

PRODUCED = 600
LEAVERS = 6

FORMS = [
    (["RPUSH", "{key}", "{value}"], ["BLPOP", "{keys}", "0"]),
    (["LPUSH", "{key}", "{value}"], ["BRPOP", "{keys}", "0"]),
    (["RPUSH", "{key}", "{value}"], ["BLMPOP", "0", "{count}", "{keys}", "RIGHT", "COUNT", "3"]),
    (["ZADD", "{key}", "1.25", "{value}"], ["BZPOPMIN", "{keys}", "0"]),
    (["ZADD", "{key}", "1.25", "{value}"], ["BZMPOP", "0", "{count}", "{keys}", "MAX", "COUNT", "2"]),
]


@pytest.fixture
def wide(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> Proxy:
    return new_proxy(fleet.addresses, options=["--workers", "2"])


def filled(words: list[str], keys: list[str], key: str = "", value: str = "") -> list[str]:
    out: list[str] = []
    for word in words:
        out += keys if word == "{keys}" else [word.format(key=key, value=value, count=len(keys))]
    return out


def scored(fleet: Fleet, key: str) -> dict[object, object]:
    found: Any = fleet.client(1).zrange(key, 0, -1, withscores=True)
    return dict(found)


def elements(data: bytes) -> list[str]:
    return [found.decode() for found in re.findall(rb"e\d+:\d+", data)]


@pytest.mark.parametrize("over", ["one", "several"])
@pytest.mark.parametrize(("give", "take"), FORMS, ids=[take[0] for _, take in FORMS])
def test_every_element_is_somewhere(wide: Proxy, fleet: Fleet, give: list[str], take: list[str], over: str) -> None:
    keys = one_key_each("gone") if over == "several" else keys_on(2, 3, "gone")
    seen: list[str] = []
    over_now = threading.Event()

    def leave(turn: int) -> None:
        chance = random.Random(turn)
        while not over_now.is_set():
            with wide.socket() as wire:
                if turn % 2:
                    wire.ask("HELLO", 3)
                wire.command(*filled(take, keys))
                wire.is_silent(chance.random() * 0.003)
                wire.socket.shutdown(socket.SHUT_WR)
                seen.extend(elements(wire.until_closed()))

    def produce(turn: int) -> None:
        with wide.socket() as wire:
            for number in range(PRODUCED // 3):
                wire.ask(*filled(give, keys, keys[(turn + number) % len(keys)], f"e{turn}:{number}"))

    leavers = [threading.Thread(target=leave, args=(turn,), daemon=True) for turn in range(LEAVERS)]
    producers = [threading.Thread(target=produce, args=(turn,), daemon=True) for turn in range(3)]
    for thread in (*leavers, *producers):
        thread.start()
    for thread in producers:
        thread.join(50)
    over_now.set()
    for thread in leavers:
        thread.join(10)

    def left() -> list[str]:
        kind = "ZRANGE" if give[0] == "ZADD" else "LRANGE"
        found: list[str] = []
        for shard in range(4):
            server = fleet.servers[shard]
            with Wire(server.host, server.port.number) as direct:
                for key in keys:
                    rest = direct.ask(kind, key, 0, -1)
                    items = rest if isinstance(rest, list) else []
                    found += [item.decode() for item in items if isinstance(item, bytes)]
        return found

    made = Counter(f"e{turn}:{number}" for turn in range(3) for number in range(PRODUCED // 3))
    wait_until(lambda: Counter(seen + left()) == made, 5, "every element is with one client, or where it lay")


def test_scores_and_order_stay(wide: Proxy, fleet: Fleet) -> None:
    """What is put back lies where it lay, with the score that it had."""
    a_list, a_set = keys_on(1, 2, "kept")
    scores = {b"a": 0.1, b"b": 1e300, b"c": -7.25}
    with wide.socket() as other:
        for _ in range(100):
            with wide.socket() as wire:
                wire.command("BLMPOP", 0, 1, a_list, "LEFT", "COUNT", 2)
                other.ask("RPUSH", a_list, "one", "two", "three")
                wire.socket.shutdown(socket.SHUT_WR)
                taken = wire.until_closed()
            left = wait_until(lambda: other.ask("LRANGE", a_list, 0, -1), 5, "a list")
            if taken:
                assert left == [b"three"]
            else:
                wait_until(lambda: other.ask("LRANGE", a_list, 0, -1) == [b"one", b"two", b"three"], 5, "all")
            other.ask("DEL", a_list)
            with wide.socket() as wire:
                wire.command("BZMPOP", 0, 1, a_set, "MIN", "COUNT", 2)
                other.ask("ZADD", a_set, *(word for name, score in scores.items() for word in (str(score), name)))
                wire.socket.shutdown(socket.SHUT_WR)
                taken = wire.until_closed()
            if not taken:
                wait_until(lambda: scored(fleet, a_set) == scores, 5, "all")
            other.ask("DEL", a_set)


def test_a_connection_whose_client_has_left_serves_the_next(wide: Proxy, fleet: Fleet) -> None:
    """The shard ends the wait; the connection is used again instead of being made anew."""
    key = keys_on(0, 1, "again")[0]
    for _ in range(20):
        with wide.socket() as wire:
            wire.command("BLPOP", key, 0)
            wait_until(lambda: fleet.client(0).info("clients")["blocked_clients"] == 1, 5, "it waits")
        wait_until(lambda: fleet.client(0).info("clients")["blocked_clients"] == 0, 5, "nobody waits")
    connected = fleet.client(0).info("clients")["connected_clients"]
    # For each of two workers the main connection and one for those who wait, and those of this test.
    assert connected <= 4 + 3


@pytest.mark.parametrize("end", ["closes", "resets"])
@pytest.mark.parametrize("over", ["one", "several"])
def test_nothing_is_taken_for_who_left_with_much_unread(wide: Proxy, fleet: Fleet, over: str, end: str) -> None:
    """Behind what waits more was sent than shoal reads ahead: the end of the connection lies behind that."""
    keys = one_key_each("unread") if over == "several" else keys_on(1, 1, "unread")
    with wide.socket() as other:
        wire = wide.socket()
        wire.ask("CLIENT", "SETNAME", "leaves")
        wire.command("BLPOP", *keys, 0)
        # More than is read ahead, and no more than the kernel takes of what is not read: behind that no end arrives.
        wire.send(encode("ECHO", "x" * 1000) * 1100)
        wait_until(lambda: "blocked_clients:1" in str(other.ask("INFO", "clients")), 5, "it waits")
        (wire.reset if end == "resets" else wire.close)()
        wait_until(lambda: "name=leaves" not in str(other.ask("CLIENT", "LIST")), 5, "it has left")
        assert other.ask("RPUSH", keys[0], "kept") == 1
        # A shard that has not heard of the end yet gives it once more; then it is put back.
        wait_until(lambda: other.ask("LRANGE", keys[0], 0, -1) == [b"kept"], 5, "the element is there")
        other.ask("DEL", keys[0])
