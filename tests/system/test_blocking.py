"""Commands that wait: one shard's as the shard does them, and keys on several shards as one server would.

A plain server (one of the fleet's own) says what the replies look like.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import encode
from system.placement import keys_on, one_key_each

PRODUCED = 400
CONSUMERS = 12


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def wire(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Wire]:
    with proxy.socket() as wire:
        wire.ask("HELLO", request.param)
        yield wire


@pytest.fixture
def wide(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> Proxy:
    return new_proxy(fleet.addresses, options=["--workers", "3"])


def blocked(proxy: Proxy) -> int:
    with proxy.client() as client:
        return sum("b" in str(line["flags"]) for line in client.client_list())


def until_blocked(proxy: Proxy, count: int = 1) -> None:
    wait_until(lambda: blocked(proxy) == count, 5, f"{count} clients wait")


def plain(fleet: Fleet) -> Wire:
    return Wire(fleet.servers[0].host, fleet.servers[0].port.number)


FORMS = [
    (["RPUSH", "{key}", "v"], ["BLPOP", "{keys}", "0"]),
    (["RPUSH", "{key}", "v", "w"], ["BRPOP", "{keys}", "0"]),
    (["RPUSH", "{key}", "v", "w", "x"], ["BLMPOP", "0", "{count}", "{keys}", "LEFT", "COUNT", "2"]),
    (["ZADD", "{key}", "1.5", "v", "2", "w"], ["BZPOPMIN", "{keys}", "0"]),
    (["ZADD", "{key}", "1.5", "v", "2", "w"], ["BZPOPMAX", "{keys}", "0"]),
    (["ZADD", "{key}", "1", "v", "2", "w"], ["BZMPOP", "0", "{count}", "{keys}", "MIN", "COUNT", "2"]),
]


def filled(words: list[str], key: str, keys: list[str]) -> list[str]:
    out: list[str] = []
    for word in words:
        out += keys if word == "{keys}" else [word.format(key=key, count=len(keys))]
    return out


@pytest.mark.parametrize("over", ["one", "several"])
@pytest.mark.parametrize("waits", [False, True], ids=["at-once", "later"])
@pytest.mark.parametrize(("fill", "take"), FORMS, ids=[take[0] for _, take in FORMS])
def test_replies_are_a_servers_own(
    proxy: Proxy, fleet: Fleet, wire: Wire, fill: list[str], take: list[str], waits: bool, over: str
) -> None:
    keys = one_key_each("b") if over == "several" else keys_on(2, 3, "b")
    key = keys[-1]
    with plain(fleet) as judge, proxy.socket() as other:
        judge.ask("HELLO", 3 if isinstance(wire.ask("HELLO"), dict) else 2)
        here = keys_on(0, len(keys), "judge")
        judge.ask(*filled(fill, here[-1], here))
        expected = judge.ask(*filled(take, here[-1], here))
        judge.ask("DEL", *here)
        if not waits:
            other.ask(*filled(fill, key, keys))
        wire.command(*filled(take, key, keys))
        if waits:
            until_blocked(proxy)
            other.ask(*filled(fill, key, keys))
        reply = wire.reply()
    assert repr(reply) == repr(expected).replace(here[-1], key)
    assert wire.ask("PING") == "PONG"


def test_the_first_key_that_has_something_is_served(wire: Wire) -> None:
    keys = one_key_each("order")
    for key in (keys[1], keys[3]):
        wire.ask("RPUSH", key, f"of {key}")
    assert wire.ask("BLPOP", *keys, 1) == [keys[1].encode(), f"of {keys[1]}".encode()]
    assert wire.ask("BLPOP", *reversed(keys), 1) == [keys[3].encode(), f"of {keys[3]}".encode()]


def test_time_outs(wire: Wire) -> None:
    for keys in (one_key_each("late"), keys_on(1, 2, "late")):
        for words in (["BLPOP", *keys, "0.2"], ["BZMPOP", "0.2", str(len(keys)), *keys, "MIN"]):
            started = time.monotonic()
            assert wire.ask(*words) is None
            assert 0.19 < time.monotonic() - started < 5
        ids = ["0" for _ in keys]
        assert wire.ask("XREAD", "BLOCK", 100, "STREAMS", *keys, *ids) is None


@pytest.mark.parametrize("timeout", ["-1", "x", "", "1e400", "inf", "nan"])
def test_a_bad_time_out_is_told_as_a_server_tells_it(wire: Wire, fleet: Fleet, timeout: str) -> None:
    with plain(fleet) as judge:
        told = judge.ask("BLPOP", "k", "l", timeout)
    assert isinstance(told, ErrorReply)
    assert wire.ask("BLPOP", *one_key_each(), timeout) == told


def test_wrong_types_are_errors_and_moves_are_made(wire: Wire, fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    keys = one_key_each("type")
    wire.ask("SET", keys[1], "text")
    assert str(wire.ask("BLPOP", *keys, 1)).startswith("WRONGTYPE")
    wire.ask("RPUSH", keys[0], "over")
    with new_proxy(fleet.addresses, options=["--cross-shard", "off"]).socket() as off:
        refused = str(off.ask("BLMOVE", keys[0], keys[2], "LEFT", "RIGHT", 1))
    assert refused.startswith("CROSSSLOT")
    assert 'cross_shard = "strict"' in refused
    assert wire.ask("BLMOVE", keys[0], keys[2], "LEFT", "RIGHT", 1) == b"over"
    assert wire.ask("BRPOPLPUSH", keys[2], keys[3], 1) == b"over"
    one, two = keys_on(1, 2, "move")
    wire.ask("RPUSH", one, "v")
    assert wire.ask("BLMOVE", one, two, "LEFT", "RIGHT", 1) == b"v"
    assert wire.ask("BRPOPLPUSH", two, one, 1) == b"v"


@pytest.mark.parametrize("over", ["one", "several"])
def test_unblock(proxy: Proxy, over: str) -> None:
    keys = one_key_each("un") if over == "several" else keys_on(3, 2, "un")
    with proxy.socket() as waiting, proxy.socket() as other:
        number = waiting.ask("CLIENT", "ID")
        assert isinstance(number, int)
        assert other.ask("CLIENT", "UNBLOCK", number) == 0
        for reason, expected in (
            ([], None),
            (["TIMEOUT"], None),
            (["ERROR"], ErrorReply("UNBLOCKED client unblocked via CLIENT UNBLOCK")),
        ):
            waiting.send(encode("BLPOP", *keys, 0) + encode("PING"))
            until_blocked(proxy)

            def unblock(reason: list[str] = reason) -> bool:
                return other.ask("CLIENT", "UNBLOCK", number, *reason) == 1

            wait_until(unblock, 5, "it waits")
            assert waiting.reply() == expected
            assert waiting.reply() == "PONG"


@pytest.mark.parametrize("over", ["one", "several"])
def test_what_comes_after_a_client_has_left_goes_to_another(proxy: Proxy, over: str) -> None:
    keys = one_key_each("left") if over == "several" else keys_on(3, 2, "left")
    with proxy.socket() as other:
        for how in ("close", "reset"):
            gone = proxy.socket()
            gone.command("BLPOP", *keys, 0)
            until_blocked(proxy)
            gone.close() if how == "close" else gone.reset()
            until_blocked(proxy, 0)
            other.ask("RPUSH", keys[-1], how)
            assert other.ask("BLPOP", *keys, 1) == [keys[-1].encode(), how.encode()]


def test_a_shard_that_is_lost_ends_the_wait(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as one, proxy.socket() as several:
        one.command("BLPOP", keys_on(3, 1, "lost")[0], 0)
        several.command("BLPOP", *one_key_each("lost"), 0)
        until_blocked(proxy, 2)
        fleet.kill(3)
        assert "was lost" in str(one.reply())
        told = str(several.reply())
        # It rests, or is just about to look there again.
        assert "shard 's3'" in told
        assert "was lost" in told or "is down" in told


@pytest.mark.parametrize("over", ["one", "several"])
def test_a_client_that_waits_does_not_hold_up_the_stop(
    fleet: Fleet, new_proxy: Callable[..., Proxy], over: str
) -> None:
    stopping = new_proxy(fleet.addresses)
    keys = one_key_each("stop") if over == "several" else keys_on(1, 1, "stop")
    with stopping.socket() as waiting:
        waiting.command("BLPOP", *keys, 0)
        until_blocked(stopping)
        started = time.monotonic()
        stopping.stop()
        assert time.monotonic() - started < 5
        assert b"UNBLOCKED" in waiting.until_closed()


@pytest.mark.parametrize(("push", "pop"), [("RPUSH", "BLPOP"), ("ZADD", "BZPOPMIN")])
def test_every_element_is_taken_once(wide: Proxy, push: str, pop: str) -> None:
    """Many producers and consumers over all shards; each element is seen by exactly one of them."""
    keys = one_key_each("many")
    seen: list[str] = []
    wrong: list[object] = []

    def consume(turn: int) -> None:
        with wide.socket() as wire:
            order = keys[turn % 4 :] + keys[: turn % 4]
            while True:
                reply = wire.ask(pop, *order, "1.5")
                if reply is None:
                    return
                if not isinstance(reply, list) or not isinstance(reply[1], bytes):
                    wrong.append(reply)
                    return
                seen.append(reply[1].decode())

    def produce(turn: int) -> None:
        with wide.socket() as wire:
            for number in range(PRODUCED // 4):
                score = [number] if push == "ZADD" else []
                wire.ask(push, keys[(turn + number) % 4], *score, f"{turn}:{number}")

    threads = [threading.Thread(target=consume, args=(turn,), daemon=True) for turn in range(CONSUMERS)]
    threads += [threading.Thread(target=produce, args=(turn,), daemon=True) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert not wrong
    assert Counter(seen) == Counter(f"{turn}:{number}" for turn in range(4) for number in range(PRODUCED // 4))


def test_waitaof_asks_every_shard(wire: Wire, fleet: Fleet) -> None:
    with plain(fleet) as judge:
        told = judge.ask("WAITAOF", 0, 0, 10)
    assert wire.ask("WAITAOF", 0, 0, 10) == told
