"""Waiting clients and operations across shards on the same keys: no element is taken twice, none is lost.

Elements are numbered. They are pushed, moved between shards by operations, taken by clients that wait in every way
there is, and by clients that leave while they wait. In the end what was taken and what is left is what was pushed.
"""

import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import cycle
from typing import Any

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import Reply
from system.placement import one_key_each

ELEMENTS = 1200
MOVING = ("BLMOVE", "BRPOPLPUSH")

LISTS = [
    ("BLPOP", "{a}", "{b}", "{c}", "{s}"),
    ("BRPOP", "{b}", "{a}", "{b}", "{s}"),
    ("BLMPOP", "{s}", "3", "{a}", "{b}", "{c}", "RIGHT", "COUNT", "2"),
    ("BLMOVE", "{a}", "{b}", "LEFT", "RIGHT", "{s}"),
    ("BRPOPLPUSH", "{b}", "{c}", "{s}"),
]
SORTED = [
    ("BZPOPMIN", "{a}", "{b}", "{c}", "{s}"),
    ("BZPOPMAX", "{c}", "{b}", "{s}"),
    ("BZMPOP", "{s}", "2", "{b}", "{c}", "MAX", "COUNT", "3"),
]
# What the keys hold: l a list or a sorted set, o something else.
HELD = ["", "a:l", "b:l", "c:l", "a:l b:l", "b:l c:l", "a:o b:l", "a:l b:o", "a:l c:o", "b:o", "a:o", "b:o c:l"]


class Race:
    """One race: everybody in a thread, all at once."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.keys = one_key_each("race")[:3]
        # On the shards of the first two: what BLMOVE moves to.
        self.beside = [f"beside:{{{key}}}" for key in self.keys[:2]]
        self.is_over = threading.Event()
        self.moved = 0

    def connect(self) -> Wire:
        return self.proxy.socket()

    def push(self, start: int) -> None:
        with closing(self.connect()) as wire:
            for number, key in zip(range(start, start + ELEMENTS), cycle(self.keys), strict=False):
                wire.ask("RPUSH", key, number)

    def move(self, orders: list[tuple[str, ...]]) -> int:
        """Until the race is over; how many operations did something."""
        done = 0
        with closing(self.connect()) as wire:
            for order in cycle(orders):
                if self.is_over.is_set():
                    return done
                reply = wire.ask(*order)
                assert not isinstance(reply, ErrorReply) or reply == "ERR no such key" or not_done(reply), (
                    order,
                    reply,
                )
                done += reply == 1 or isinstance(reply, bytes)
        raise AssertionError

    def take(self, order: tuple[str, ...]) -> list[bytes]:
        """Waits again and again, until the race is over and nothing comes."""
        taken: list[bytes] = []
        with closing(self.connect()) as wire:
            while True:
                was_over = self.is_over.is_set()
                reply = wire.ask(*order)
                assert not isinstance(reply, ErrorReply) or not_done(reply), (order, reply)
                if isinstance(reply, list) and order[0] not in MOVING:
                    taken += elements(reply)
                elif reply is None and was_over:
                    return taken

    def take_and_leave(self, order: tuple[str, ...]) -> list[bytes]:
        """Ends its side after a moment, and reads what was given to it before the proxy noticed."""
        taken: list[bytes] = []
        chance = random.Random(str(order))
        while not self.is_over.is_set():
            with closing(self.connect()) as wire:
                wire.command(*order)
                if wire.is_silent(chance.random() * 0.004):
                    wire.socket.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    reply = wire.reply()
                    assert not isinstance(reply, ErrorReply) or not_done(reply), (order, reply)
                    taken += elements(reply) if isinstance(reply, list) else []
        return taken


def not_done(reply: ErrorReply) -> bool:
    """There was nothing to move, or it was held up for too long by operations on its keys, which never end here."""
    return reply == "ERR no such key" or reply.startswith("TRYAGAIN")


def elements(reply: list[Any]) -> list[bytes]:
    """What was taken, of the reply to any of the commands."""
    behind = reply[1]
    return list(behind) if isinstance(behind, list) else [behind]


def left(fleet: Fleet, keys: list[str]) -> Iterator[bytes]:
    for shard in range(len(fleet)):
        for key in keys:
            found = fleet.client(shard).lrange(key, 0, -1)
            assert isinstance(found, list)
            yield from (element for element in found if isinstance(element, bytes))


@pytest.mark.parametrize("workers", [1, 3])
def test_every_element_is_taken_once(fleet: Fleet, new_proxy: Callable[..., Proxy], workers: int) -> None:
    race = Race(new_proxy(fleet.addresses, options=["--workers", str(workers)]))
    one, two, three = race.keys
    beside, other = race.beside
    moves = [
        [("LMOVE", one, two, "LEFT", "RIGHT"), ("RENAMENX", two, three), ("RPOPLPUSH", three, one)],
        [("RENAMENX", three, other), ("LMOVE", beside, three, "RIGHT", "LEFT"), ("RENAMENX", other, one)],
        [("LMOVE", two, beside, "LEFT", "LEFT"), ("RENAMENX", one, other), ("LMOVE", other, three, "LEFT", "LEFT")],
    ]
    waits: list[tuple[str, ...]] = [
        ("BLPOP", one, "0.2"),
        ("BRPOP", two, "0.2"),
        ("BLPOP", three, beside, "0.2"),
        ("BLPOP", three, two, one, other, "0.2"),
        ("BLMPOP", "0.2", "2", two, other, "LEFT", "COUNT", "2"),
        ("BLMOVE", one, beside, "LEFT", "RIGHT", "0.2"),
        ("BLMOVE", two, other, "LEFT", "RIGHT", "0.2"),
        ("BLMOVE", three, two, "LEFT", "RIGHT", "0.2"),
        ("BRPOPLPUSH", one, three, "0.2"),
    ]
    with ThreadPoolExecutor(32) as pool:
        taking: list[Future[list[bytes]]] = [pool.submit(race.take, order) for order in waits]
        taking += [pool.submit(race.take_and_leave, order) for order in waits[:4]]
        moving = [pool.submit(race.move, orders) for orders in moves]
        pushing = [pool.submit(race.push, start * ELEMENTS) for start in range(3)]
        try:
            for future in pushing:
                future.result(60)
            # Nothing is pushed any more; what goes round is taken.
            wait_until(lambda: not any(left(fleet, [*race.keys, *race.beside])) or any_done(taking), 20, "all is taken")
        finally:
            race.is_over.set()
        taken = [element for future in taking for element in future.result(20)]
        moved = sum(future.result(20) for future in moving)
    everything = Counter(int(element) for element in [*taken, *left(fleet, [*race.keys, *race.beside])])
    expected = range(3 * ELEMENTS)
    assert {number: count for number, count in everything.items() if count != 1} == {}, "taken twice"
    assert sorted(set(expected) - set(everything)) == [], "lost"
    assert moved > 0


def any_done(futures: list[Future[list[bytes]]]) -> bool:
    """Somebody failed: it is not worth waiting for the rest."""
    return any(future.done() for future in futures)


def fill(wire: Wire, keys: dict[str, str], held: str, is_sorted: bool) -> None:
    """Puts into the keys what is said."""
    for number, said in enumerate(held.split()):
        name, kind = said.split(":")
        key = keys[name]
        if kind == "o":
            wire.ask("SET", key, "text")
        elif is_sorted:
            wire.ask("ZADD", key, number + 1, f"{name}1", f"{number}.5", f"{name}2", number, f"{name}3")
        else:
            wire.ask("RPUSH", key, f"{name}1", f"{name}2", f"{name}3")


def contents(wire: Wire, keys: dict[str, str]) -> list[Reply]:
    """What the keys hold."""
    found: list[Reply] = []
    for key in keys.values():
        kind = wire.ask("TYPE", key)
        found.append(wire.ask("LRANGE", key, 0, -1) if kind == "list" else kind)
        if kind == "zset":
            found.append(wire.ask("ZRANGE", key, 0, -1, "WITHSCORES"))
    return found


def said(order: tuple[str, ...], keys: dict[str, str], seconds: str) -> list[str]:
    return [word.format(**keys, s=seconds) for word in order]


@pytest.fixture
def both(fleet: Fleet, new_fleet: Callable[..., Fleet], new_proxy: Callable[..., Proxy]) -> Iterator[tuple[Wire, Wire]]:
    """A connection to one server, and one to the proxy."""
    one = new_fleet(1).servers[0]
    proxy = new_proxy(fleet.addresses)
    with Wire(one.host, one.port.number) as plain, proxy.socket() as across:
        yield plain, across


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_is_taken_at_once_is_what_one_server_gives(both: tuple[Wire, Wire], protocol: int) -> None:
    for wire in both:
        wire.ask("HELLO", protocol)
    keys = dict(zip("cab", one_key_each("same")[:3], strict=True))
    for order in (*LISTS, *SORTED):
        for held in HELD:
            replies = []
            for wire in both:
                wire.ask("FLUSHALL")
                fill(wire, keys, held, order in SORTED)
                replies.append((wire.ask(*said(order, keys, "0.02")), contents(wire, keys)))
            assert replies[0] == replies[1], (order, held)


# What happens while a client waits; l is added by a list's or a sorted set's command.
MEANWHILE: list[list[tuple[str, ...]]] = [
    [("l", "a")],
    [("l", "b")],
    [("l", "c"), ("l", "a")],
    [("l", "b"), ("l", "b"), ("l", "c")],
]
# The same, where no key is waited for that is of another kind then: of that servers think differently.
TARGET_SPOILT: list[tuple[str, list[tuple[str, ...]]]] = [
    ("BLMOVE", [("SET", "b", "text"), ("l", "a")]),
    ("BRPOPLPUSH", [("SET", "c", "text"), ("l", "b")]),
]


def happens(wire: Wire, keys: dict[str, str], event: tuple[str, ...], is_sorted: bool) -> None:
    key = keys[event[1]]
    if event[0] != "l":
        wire.ask(event[0], key, *event[2:])
    elif is_sorted:
        wire.ask("ZADD", key, 1, "v")
    else:
        wire.ask("RPUSH", key, "v")


def waited(
    wire: Wire, other: Wire, order: list[str], happen: Sequence[Callable[[], None]], served_at: int | None
) -> tuple[int, Reply]:
    """What a client that waits is given while things happen, and at which; if that is known, it is waited for."""
    wire.command(*order)
    wait_until(lambda: b"flags=b" in bytes_of(other.ask("CLIENT", "LIST")), 5, "it waits")
    before, reply = len(happen), None
    for number, event in enumerate(happen):
        event()
        if before == len(happen) and (served_at == number or (served_at is None and not wire.is_silent(0.1))):
            before, reply = number, wire.reply()
    return (before, reply) if before < len(happen) else (before, wire.reply())


def bytes_of(reply: Reply) -> bytes:
    assert isinstance(reply, bytes)
    return reply


def test_who_waits_is_given_what_one_server_gives(both: tuple[Wire, Wire]) -> None:
    """What happens does so one after the other, with time for what one server gives."""
    plain, across = both
    keys = dict(zip("cab", one_key_each("then")[:3], strict=True))
    for order in (*LISTS, *SORTED):
        spoilt = [events for name, events in TARGET_SPOILT if name == order[0]]
        for events in (*MEANWHILE, *spoilt):
            served_at: int | None = None
            found = []
            for wire in (plain, across):
                host, port = wire.socket.getpeername()
                with Wire(host, port) as other:
                    other.ask("FLUSHALL")
                    happen = [partial(happens, other, keys, event, order in SORTED) for event in events]
                    served_at, reply = waited(wire, other, said(order, keys, "1"), happen, served_at)
                    found.append((reply, contents(other, keys)))
            assert found[0] == found[1], (order, events)
