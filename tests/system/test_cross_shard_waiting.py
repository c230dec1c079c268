"""Waiting clients and operations across shards on the same keys: no element is taken twice, none is lost.

Elements are numbered. They are pushed, moved between shards by operations, taken by clients that wait in every way
there is, and by clients that leave while they wait. In the end what was taken and what is left is what was pushed.
"""

import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import cycle
from typing import Any

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from system.placement import one_key_each

ELEMENTS = 1200


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
                if isinstance(reply, list) and order[0] != "BLMOVE":
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
