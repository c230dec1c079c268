"""Client-side caching: CLIENT TRACKING through the proxy as on one server, also when a shard goes away.

A plain server (one of the fleet's own) is the judge wherever one server can be: the same steps are done there, and what
the tracked client is given, replies and invalidations in their order, must be the same. After each write of somebody
else the tracked client asks for something on the same shard: what the shard has told before comes before that reply.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import Reply, encode
from redis.cache import CacheConfig
from system.placement import SHARDS, keys_on, one_key_each

ALL: Reply = [b"invalidate", None]


def plain(fleet: Fleet) -> Wire:
    return Wire(fleet.servers[0].host, fleet.servers[0].port.number)


def invalidation(*keys: str) -> Reply:
    return [b"invalidate", [key.encode() for key in keys]]


def is_push(reply: Reply) -> bool:
    return isinstance(reply, list) and bool(reply) and reply[0] in (b"invalidate", b"tracking-redir-broken")


class Tracked:
    """A connection of RESP3 whose pushes are kept apart from its replies, and both in their order in `seen`."""

    def __init__(self, wire: Wire, *options: str) -> None:
        self.wire = wire
        self.seen: list[Reply] = []
        self.pushes: list[Reply] = []
        self.ask("HELLO", 3)
        if options:
            assert self.ask("CLIENT", "TRACKING", "ON", *options) == "OK"
        self.seen.clear()

    def ask(self, *words: str | bytes | int) -> Reply:
        self.wire.command(*words)
        while is_push(reply := self._next()):
            pass
        return reply

    def _next(self) -> Reply:
        reply = self.wire.reply()
        self.seen.append(reply)
        if is_push(reply):
            self.pushes.append(reply)
        return reply

    def until(self, *wanted: Reply) -> None:
        """Reads until all of these have been told."""
        missing = [push for push in wanted if push not in self.pushes]
        while missing:
            push = self._next()
            missing = [other for other in missing if other != push]

    def forget(self) -> None:
        self.pushes.clear()
        self.seen.clear()


@pytest.fixture
def wide(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> Proxy:
    return new_proxy(fleet.addresses, options=["--workers", "2"])


@pytest.fixture
def tracked(proxy: Proxy) -> Iterator[Tracked]:
    with proxy.socket() as wire:
        yield Tracked(wire)


# ------------------------------------------------------------------------------------------------ beside one server

# `R:` is the tracked client, `W:` somebody else; `a`, `b`, `c` are keys of one shard.
SCENES = {
    "a read key": ["", "R:GET a", "W:SET a 1", "W:SET a 2", "R:GET a", "W:DEL a", "W:SET b 1"],
    "one's own write": ["", "R:GET a", "R:SET a 1", "R:GET a", "R:GET b", "R:MSET a 1 b 2"],
    "noloop": ["NOLOOP", "R:GET a", "R:SET a 1", "R:GET a", "W:SET a 2", "R:GET a", "R:DEL a"],
    "several keys": ["", "R:MGET a b c", "W:MSET a 1 c 2", "R:HGETALL b", "W:HSET b f v", "W:RENAME a c"],
    "a script": ["", "R:EVAL 'return redis.call(\"get\",KEYS[1])' 1 a", "W:SET a 1", "W:EVAL 'return 1' 1 a"],
    "a script's write": ["", "R:GET a", "W:EVAL 'redis.call(\"set\",KEYS[1],1) redis.call(\"set\",KEYS[1],2)' 1 a"],
    "a transaction": ["", "R:MULTI", "R:GET a", "R:GET b", "R:EXEC", "W:SET a 1", "W:SET b 1"],
    "in a transaction": ["", "R:GET a", "R:GET b", "W:MULTI", "W:SET a 1", "W:SET b 2", "W:SET a 3", "W:EXEC"],
    "its own": ["", "R:GET a", "R:MULTI", "R:SET a 1", "R:GET a", "R:EXEC", "W:SET a 2"],
    "a watch": ["", "R:WATCH a", "R:GET a", "R:MULTI", "R:GET b", "R:EXEC", "W:SET b 1", "W:SET a 1"],
    "a broken watch": ["", "R:WATCH a", "W:SET a 1", "R:MULTI", "R:GET b", "R:EXEC", "W:SET b 1"],
    "a watch given up": ["", "R:WATCH a", "R:UNWATCH", "R:GET a", "W:SET a 1", "R:MULTI", "R:PING", "R:EXEC"],
    "a discarded watch": ["", "R:WATCH a", "R:MULTI", "R:DISCARD", "R:GET a", "W:SET a 1"],
    "optin": ["OPTIN", "R:GET a", "W:SET a 1", "R:CLIENT CACHING YES", "R:GET a", "R:GET b", "W:SET a 2", "W:SET b 1"],
    "optin of many": ["OPTIN", "R:CLIENT CACHING YES", "R:MGET a b", "R:GET c", "W:MSET a 1 b 2 c 3"],
    "optin of a transaction": [
        "OPTIN", "R:CLIENT CACHING YES", "R:MULTI", "R:GET a", "R:GET b", "R:EXEC", "R:GET c", "W:MSET a 1 b 1 c 1",
    ],
    "optin survives CLIENT": ["OPTIN", "R:CLIENT CACHING YES", "R:CLIENT GETNAME", "R:GET a", "W:SET a 1"],
    "optin is used up": ["OPTIN", "R:CLIENT CACHING YES", "R:PING", "R:GET a", "W:SET a 1"],
    "optin of a script": [
        "OPTIN", "R:CLIENT CACHING YES", "R:EVAL 'return redis.call(\"get\",KEYS[1])' 1 a", "R:GET b", "W:MSET a 1 b 1",
    ],
    "optout": ["OPTOUT", "R:GET a", "R:CLIENT CACHING NO", "R:GET b", "R:GET c", "W:MSET a 1 b 2 c 3"],
    "bcast": ["BCAST", "W:SET a 1", "R:GET b", "W:SET b 1", "W:SET b 2", "R:SET c 1"],
    "bcast noloop": ["BCAST NOLOOP", "W:SET a 1", "R:SET c 1", "W:SET c 1"],
    "prefixes": ["BCAST PREFIX {t}a PREFIX {t}b", "W:SET a 1", "W:SET b 1", "W:SET c 1", "R:SET a 2"],
    "more prefixes": [
        "BCAST PREFIX {t}a", "W:SET b 1", "R:CLIENT TRACKING ON BCAST PREFIX {t}b", "W:SET b 2", "W:SET a 1",
        "R:CLIENT TRACKINGINFO",
    ],
    "other options": ["", "R:GET a", "R:CLIENT TRACKING ON NOLOOP", "R:SET a 1", "R:GET a", "R:SET a 2", "W:SET a 3"],
    "off": ["", "R:GET a", "R:CLIENT TRACKING OFF", "W:SET a 1", "R:GET a", "W:SET a 2"],
    "reset": ["", "R:GET a", "R:RESET", "R:HELLO-3", "W:SET a 1", "R:CLIENT TRACKINGINFO"],
    "replies off": ["", "R:GET a", "R:CLIENT REPLY SKIP", "W:SET a 1", "W:SET a 2"],
}  # fmt: skip


def words_of(line: str, tag: str) -> list[str]:
    """The words of a line; single letters are keys."""
    words: list[str] = []
    for index, part in enumerate(line.split("'")):
        words += [part] if index % 2 else part.split()
    keyed = [f"{{{tag}}}{word}" if word in {"a", "b", "c"} else word for word in words]
    return [word.replace("{t}", f"{{{tag}}}") for word in keyed]


def done(connect: Callable[[], Wire], scene: list[str], tag: str) -> list[Reply]:
    """What the tracked client is given."""
    with connect() as wire, connect() as other:
        tracked = Tracked(wire)
        tracked.ask("CLIENT", "TRACKING", "ON", *words_of(scene[0], tag))
        for step in scene[1:]:
            who, line = step.split(":", 1)
            if line == "HELLO-3":
                tracked.ask("HELLO", 3)
                tracked.seen.pop()
            elif who == "R" and line.endswith("SKIP"):
                tracked.wire.command(*words_of(line, tag))
                tracked.wire.command("PING")
            elif who == "R":
                tracked.ask(*words_of(line, tag))
            else:
                assert not isinstance(other.ask(*words_of(line, tag)), ErrorReply)
                tracked.ask("EXISTS", f"{{{tag}}}nothing")
        tracked.ask("EXISTS", f"{{{tag}}}nothing")
        return tracked.seen


@pytest.mark.parametrize("name", SCENES)
def test_a_tracked_client_is_given_what_one_server_gives(proxy: Proxy, fleet: Fleet, name: str) -> None:
    for shard in (0, 3):
        tag = keys_on(shard, 1, "tag")[0]
        expected = done(lambda: plain(fleet), SCENES[name], tag)
        fleet.client(0).flushall()
        assert done(proxy.socket, SCENES[name], tag) == expected
        fleet.heal()


ARGUED = [
    ["CLIENT TRACKING"], ["CLIENT TRACKING ON x"], ["CLIENT TRACKING x"], ["CLIENT TRACKING OFF"],
    ["CLIENT TRACKING ON PREFIX a"], ["CLIENT TRACKING ON BCAST OPTIN"], ["CLIENT TRACKING ON OPTIN OPTOUT"],
    ["CLIENT TRACKING ON REDIRECT 99999999"], ["CLIENT TRACKING ON REDIRECT x"], ["CLIENT TRACKING ON REDIRECT 0"],
    ["CLIENT TRACKING ON REDIRECT -1"], ["CLIENT TRACKING ON REDIRECT"], ["CLIENT TRACKING ON PREFIX"],
    ["CLIENT TRACKING ON BCAST PREFIX ab PREFIX abc"], ["CLIENT TRACKING ON BCAST PREFIX ab PREFIX ab"],
    ["CLIENT TRACKING ON BCAST PREFIX ab", "CLIENT TRACKING ON BCAST PREFIX abc", "CLIENT TRACKINGINFO"],
    ["CLIENT TRACKING ON BCAST", "CLIENT TRACKING ON BCAST PREFIX abc", "CLIENT TRACKINGINFO"],
    ["CLIENT TRACKING ON BCAST PREFIX b PREFIX a", "CLIENT TRACKING ON BCAST PREFIX c", "CLIENT TRACKINGINFO"],
    ["CLIENT TRACKING ON BCAST", "CLIENT TRACKING ON", "CLIENT TRACKINGINFO"],
    ["CLIENT TRACKING ON", "CLIENT TRACKING ON BCAST"],
    ["CLIENT TRACKING ON OPTIN", "CLIENT TRACKING ON OPTOUT", "CLIENT TRACKING ON", "CLIENT TRACKINGINFO"],
    ["CLIENT TRACKING on optin noloop", "CLIENT TRACKINGINFO", "CLIENT CACHING YES", "CLIENT TRACKINGINFO", "PING",
     "CLIENT TRACKINGINFO"],
    ["CLIENT TRACKING ON OPTOUT", "CLIENT CACHING YES", "CLIENT CACHING no", "CLIENT TRACKINGINFO", "CLIENT CACHING x"],
    ["CLIENT CACHING YES"], ["CLIENT CACHING x"], ["CLIENT CACHING"], ["CLIENT TRACKING ON", "CLIENT CACHING YES"],
    ["CLIENT TRACKING ON", "CLIENT CACHING NO"], ["CLIENT TRACKINGINFO"], ["CLIENT TRACKINGINFO x"],
    ["CLIENT GETREDIR"], ["CLIENT TRACKING ON", "CLIENT GETREDIR", "CLIENT TRACKING OFF", "CLIENT GETREDIR"],
    ["CLIENT TRACKING ON", "RESET", "CLIENT GETREDIR"], ["CLIENT TRACKING OFF x"], ["CLIENT TRACKING OFF OPTIN"],
    ["MULTI", "CLIENT GETREDIR", "CLIENT TRACKINGINFO", "EXEC"],
]  # fmt: skip


@pytest.mark.parametrize("proto", [2, 3])
@pytest.mark.parametrize("lines", ARGUED, ids="; ".join)
def test_arguments_are_judged_as_by_a_server(proxy: Proxy, fleet: Fleet, lines: list[str], proto: int) -> None:
    with proxy.socket() as ours, plain(fleet) as theirs:
        for wire in (ours, theirs):
            wire.ask("HELLO", proto)
        for line in lines:
            assert ours.ask(*line.split()) == theirs.ask(*line.split()), line


# ------------------------------------------------------------------------------------------------- over many shards


def test_keys_of_several_shards(tracked: Tracked, proxy: Proxy) -> None:
    keys = one_key_each("many")
    tracked.ask("CLIENT", "TRACKING", "ON")
    assert tracked.ask("MGET", *keys) == [None] * SHARDS
    with proxy.socket() as other:
        for key in keys:
            other.ask("SET", key, "v")
    tracked.until(*(invalidation(key) for key in keys))
    assert tracked.ask("MGET", *keys) == [b"v"] * SHARDS


def test_bcast_tells_of_every_shard(tracked: Tracked, proxy: Proxy) -> None:
    keys = one_key_each("wide")
    tracked.ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "wide:")
    with proxy.socket() as other:
        other.ask("MSET", *[word for key in [*keys, *one_key_each("else")] for word in (key, "v")])
    tracked.until(*(invalidation(key) for key in keys))
    assert len(tracked.pushes) == SHARDS


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_flushing_forgets_everything(tracked: Tracked, proxy: Proxy, command: str) -> None:
    key = one_key_each()[1]
    tracked.ask("CLIENT", "TRACKING", "ON")
    tracked.ask("GET", key)
    with proxy.socket() as other:
        other.ask(command)
    tracked.until(ALL)
    tracked.ask("GET", key)
    tracked.forget()
    assert tracked.ask(command) == "OK"
    tracked.until(ALL)


def test_a_key_that_expires(tracked: Tracked, proxy: Proxy) -> None:
    key = one_key_each()[2]
    tracked.ask("CLIENT", "TRACKING", "ON")
    tracked.ask("SET", key, "v", "PX", "20")
    assert tracked.ask("GET", key) in (b"v", None)
    tracked.until(invalidation(key))


def test_other_databases(tracked: Tracked, proxy: Proxy) -> None:
    key, other_key = keys_on(1, 2, "db")
    tracked.ask("CLIENT", "TRACKING", "ON")
    tracked.ask("GET", key)
    tracked.ask("SELECT", 3)
    tracked.ask("GET", other_key)
    with proxy.socket() as other:
        other.ask("SET", key, "in 0")
        tracked.until(invalidation(key))
        other.ask("SELECT", 3)
        other.ask("SET", other_key, "in 3")
        tracked.until(invalidation(other_key))
    assert tracked.ask("GET", other_key) == b"in 3"
    assert tracked.ask("GET", key) is None


def test_streams_are_tracked_also_when_read_with_a_wait(tracked: Tracked, proxy: Proxy) -> None:
    one, two = one_key_each("stream")[:2]
    with proxy.socket() as other:
        for key in (one, two):
            other.ask("XADD", key, "1-1", "f", "v")
        tracked.ask("CLIENT", "TRACKING", "ON")
        assert isinstance(tracked.ask("XREAD", "STREAMS", one, two, "0", "0"), dict)
        other.ask("XADD", one, "2-1", "f", "v")
        other.ask("XADD", two, "2-1", "f", "v")
        tracked.until(invalidation(one), invalidation(two))
        tracked.forget()
        # What a read that waits gives is not tracked, so it may not be kept.
        for keys in ([one], [one, two]):
            tracked.ask("XREAD", "BLOCK", 1000, "STREAMS", *keys, *("0" for _ in keys))
            tracked.until(invalidation(*keys))
            assert is_push(tracked.seen[-1]), "behind the reply"


def test_invalidations_come_also_while_a_request_waits(tracked: Tracked, proxy: Proxy) -> None:
    key, queue = one_key_each("busy")[:2]
    tracked.ask("CLIENT", "TRACKING", "ON")
    tracked.ask("GET", key)
    tracked.wire.command("BLPOP", queue, 0)
    with proxy.socket() as other:
        other.ask("SET", key, "v")
        tracked.until(invalidation(key))
        other.ask("RPUSH", queue, "e")
    assert tracked.wire.reply() == [queue.encode(), b"e"]


def test_a_watch_from_before_is_broken_not_lost(proxy: Proxy) -> None:
    """EXEC would have to read on the connection that watches, where nothing is tracked."""
    key = one_key_each()[1]
    with proxy.socket() as wire:
        wire.ask("HELLO", 3)
        wire.ask("WATCH", key)
        wire.ask("CLIENT", "TRACKING", "ON")
        wire.ask("MULTI")
        wire.ask("GET", key)
        assert wire.ask("EXEC") is None
        wire.ask("MULTI")
        wire.ask("GET", key)
        assert wire.ask("EXEC") == [None]


def test_resp2_without_a_redirection_is_told_nothing_until_it_speaks_resp3(proxy: Proxy) -> None:
    key = one_key_each()[3]
    for mode in ([], ["BCAST"]):
        with proxy.socket() as wire, proxy.socket() as other:
            assert wire.ask("CLIENT", "TRACKING", "ON", *mode) == "OK"
            wire.ask("GET", key)
            other.ask("SET", key, "1")
            assert wire.ask("GET", key) == b"1"
            wire.ask("HELLO", 3)
            # Nobody remembers what it read before.
            assert wire.reply() == ALL
            told = Tracked(wire)
            told.ask("GET", key)
            if mode:
                told.until(ALL)
            other.ask("SET", key, "2")
            told.until(invalidation(key))


# ------------------------------------------------------------------------------------------------------- redirection


@pytest.mark.parametrize("mode", [[], ["BCAST"], ["BCAST", "PREFIX", "re"], ["OPTIN"], ["NOLOOP"]], ids=" ".join)
@pytest.mark.parametrize("proto", [2, 3])
def test_invalidations_go_to_another_client(wide: Proxy, proto: int, mode: list[str]) -> None:
    keys = one_key_each("re")
    with wide.socket() as reader, wide.socket() as same, wide.socket() as next_one, wide.socket() as other:
        reader.ask("HELLO", proto)
        for wire in (same, next_one):
            target = Tracked(wire)
            number = target.ask("CLIENT", "ID")
            assert isinstance(number, int)
            assert reader.ask("CLIENT", "TRACKING", "ON", *mode, "REDIRECT", number) == "OK"
            assert reader.ask("CLIENT", "GETREDIR") == number
            for key in keys:
                if mode == ["OPTIN"]:
                    assert reader.ask("CLIENT", "CACHING", "YES") == "OK"
                reader.ask("GET", key)
            other.ask("MSET", *[word for key in keys for word in (key, "v")])
            target.until(*(invalidation(key) for key in keys))
            assert reader.ask("PING") == "PONG", "nothing came there"
            assert reader.ask("MGET", *keys) == [b"v"] * SHARDS
            if mode == ["NOLOOP"]:
                target.forget()
                reader.ask("SET", keys[0], "own")
                other.ask("SET", keys[0], "first")
                reader.ask("GET", keys[1])
                other.ask("SET", keys[1], "last")
                target.until(invalidation(keys[1]))
                assert invalidation(keys[0]) not in target.pushes
            reader.ask("CLIENT", "TRACKING", "OFF")


@pytest.mark.parametrize("proto", [2, 3])
def test_a_client_of_resp2_is_told_while_it_is_subscribed(wide: Proxy, fleet: Fleet, proto: int) -> None:
    key, next_key = keys_on(0, 2, "channel")
    seen: list[list[Reply]] = []
    for connect in (partial(plain, fleet), wide.socket):
        with connect() as reader, connect() as target, connect() as other:
            number = target.ask("CLIENT", "ID")
            assert isinstance(number, int)
            reader.ask("HELLO", proto)
            assert reader.ask("CLIENT", "TRACKING", "ON", "REDIRECT", number) == "OK"
            reader.ask("GET", next_key)
            other.ask("SET", next_key, "nobody is told")
            reader.ask("GET", key)
            assert target.ask("PING") == "PONG"
            told = [target.ask("SUBSCRIBE", "__redis__:invalidate")]
            other.ask("SET", key, "v")
            told.append(target.reply())
            reader.ask("GET", key)
            other.ask("FLUSHALL")
            told.append(target.reply())
            told.append(target.ask("UNSUBSCRIBE"))
            seen.append(told)
    assert seen[1] == seen[0]
    assert seen[1][1] == [b"message", b"__redis__:invalidate", [key.encode()]]


def test_a_redirection_whose_client_left_is_broken(wide: Proxy, fleet: Fleet) -> None:
    key = keys_on(0, 1, "left")[0]
    for proto in (2, 3):
        for connect in (wide.socket, partial(plain, fleet)):
            for _ in range(2):
                with connect() as wire, connect() as other:
                    wire.ask("HELLO", proto)
                    with connect() as target:
                        number = target.ask("CLIENT", "ID")
                        assert isinstance(number, int)
                        assert wire.ask("CLIENT", "TRACKING", "ON", "REDIRECT", number) == "OK"

                    def is_gone(number: int = number, other: Wire = other) -> bool:
                        listed = other.ask("CLIENT", "LIST")
                        return isinstance(listed, bytes) and b"id=%d " % number not in listed

                    wait_until(is_gone, 5, "the client has left")
                    wire.ask("GET", key)
                    other.ask("SET", key, "v")
                    if proto == 3:
                        assert wire.reply() == [b"tracking-redir-broken", number]

                    def is_broken(wire: Wire = wire) -> bool:
                        return b"broken_redirect" in str(wire.ask("CLIENT", "TRACKINGINFO")).encode()

                    wait_until(is_broken, 5, "it is known to be broken")
                    line = wire.ask("CLIENT", "INFO")
                    assert isinstance(line, bytes)
                    assert b" flags=tR " in line
                    assert b" redir=%d " % number in line


def test_connections_are_given_back(proxy: Proxy, fleet: Fleet) -> None:
    def on_shards(field: str) -> int:
        infos = [fleet.client(shard).info("clients") for shard in range(SHARDS)]
        return sum(int(info[field]) for info in infos)

    with proxy.socket() as wire, proxy.socket() as target:
        before = on_shards("connected_clients")
        number = target.ask("CLIENT", "ID")
        assert isinstance(number, int)
        for end in (["CLIENT", "TRACKING", "OFF"], ["RESET"], ["QUIT"]):
            assert wire.ask("CLIENT", "TRACKING", "ON", "BCAST", "REDIRECT", number) == "OK"
            assert on_shards("tracking_clients") == SHARDS
            info = target.ask("INFO", "clients")
            assert isinstance(info, bytes)
            assert b"tracking_clients:1\r\n" in info
            line = wire.ask("CLIENT", "INFO")
            assert isinstance(line, bytes)
            assert b" flags=tB " in line
            wire.ask(*end)
            wait_until(lambda: on_shards("connected_clients") <= before, 5, "the connections are closed")
            info = target.ask("INFO", "clients")
            assert isinstance(info, bytes)
            assert b"tracking_clients:0\r\n" in info


# ------------------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("redirected", [False, True], ids=["own", "redirected"])
def test_a_lost_shard_takes_everything_with_it(wide: Proxy, fleet: Fleet, redirected: bool) -> None:
    keys = one_key_each("lost")
    with wide.socket() as reader, wide.socket() as wire, wide.socket() as other:
        told = Tracked(wire)
        number = told.ask("CLIENT", "ID")
        assert isinstance(number, int)
        who = reader if redirected else wire
        options = ["REDIRECT", str(number)] if redirected else []

        def ask(*words: str) -> Reply:
            return who.ask(*words) if redirected else told.ask(*words)

        assert ask("CLIENT", "TRACKING", "ON", *options) == "OK"
        ask("MGET", *keys)
        fleet.kill(1)
        told.until(ALL)
        assert isinstance(ask("GET", keys[1]), ErrorReply)
        other.ask("SET", keys[2], "v")
        told.until(invalidation(keys[2]))
        fleet.restart(1)
        wait_until(lambda: ask("GET", keys[1]) is None, 8, "the shard is back")
        wait_until(lambda: other.ask("SET", keys[1], "v") == "OK", 8, "it is back for the other worker too")
        told.until(invalidation(keys[1]))


@pytest.mark.parametrize("is_down_before", [False, True])
def test_bcast_goes_on_when_a_shard_comes_back(proxy: Proxy, fleet: Fleet, is_down_before: bool) -> None:
    key = one_key_each("back")[2]
    if is_down_before:
        fleet.kill(2)
        with proxy.socket() as other:
            wait_until(lambda: isinstance(other.ask("GET", key), ErrorReply), 5, "it is known to be down")
    with proxy.socket() as wire, proxy.socket() as other:
        tracked = Tracked(wire, "BCAST")
        if not is_down_before:
            fleet.kill(2)
            tracked.until(ALL)
            tracked.forget()
        fleet.restart(2)
        tracked.until(ALL)
        wait_until(lambda: other.ask("SET", key, "v") == "OK", 8, "the shard is back")
        tracked.until(invalidation(key))


def test_a_shard_that_does_not_track_is_told_of(proxy: Proxy, fleet: Fleet) -> None:
    key = one_key_each("no")[1]
    direct = Wire(fleet.servers[1].host, fleet.servers[1].port.number)
    assert direct.ask("ACL", "SETUSER", "default", "-client|tracking") == "OK"
    try:
        with proxy.socket() as wire:
            tracked = Tracked(wire)
            assert tracked.ask("CLIENT", "TRACKING", "ON") == "OK"
            reply = tracked.ask("GET", key)
            assert isinstance(reply, ErrorReply)
            assert "NOPERM" in reply
            tracked.ask("CLIENT", "TRACKING", "OFF")
            reply = tracked.ask("CLIENT", "TRACKING", "ON", "BCAST")
            assert isinstance(reply, ErrorReply)
            assert "NOPERM" in reply
            assert tracked.ask("CLIENT", "GETREDIR") == -1
            assert tracked.ask("GET", key) is None
    finally:
        direct.ask("ACL", "SETUSER", "default", "+client|tracking")
        direct.close()


# ------------------------------------------------------------------------------------------------------ redis-py, load


def test_the_cache_of_redis_py_with_its_defaults(
    new_fleet: Callable[..., Fleet], new_proxy: Callable[..., Proxy]
) -> None:
    fleet = new_fleet(SHARDS, "redis8")
    proxy = new_proxy(fleet.addresses, options=["--workers", "2"])
    keys = one_key_each("py")
    cached = proxy.client(protocol=3, cache_config=CacheConfig(), decode_responses=True)
    other = proxy.client()
    other.mset(dict.fromkeys(keys, "old"))
    assert [cached.get(key) for key in keys] == ["old"] * SHARDS
    assert cached.mget(keys) == ["old"] * SHARDS
    cache = cached.get_cache()
    assert cache is not None
    assert cache.size == SHARDS + 1
    # From the cache: no shard is asked.
    before = sum(int(fleet.client(shard).info("stats")["keyspace_hits"]) for shard in range(SHARDS))
    assert cached.get(keys[0]) == "old"
    assert sum(int(fleet.client(shard).info("stats")["keyspace_hits"]) for shard in range(SHARDS)) == before

    def sees(key: str, value: str | None) -> bool:
        return bool(cached.get(key) == value)

    for key in keys:
        other.set(key, "new")
        wait_until(partial(sees, key, "new"), 5, "the other client's write is seen")
    wait_until(lambda: cached.mget(keys) == ["new"] * SHARDS, 5, "in replies over shards too")
    other.flushall()
    wait_until(partial(sees, keys[1], None), 5, "so is a flush")


class Reader(threading.Thread):
    """Keeps what it reads until it is told to forget it, as client libraries do: pipelines over all shards."""

    def __init__(self, proxy: Proxy, keys: list[str], seed: int) -> None:
        super().__init__(daemon=True)
        self.wire = proxy.socket()
        self.keys = keys
        self.chance = random.Random(seed)
        self.cache: dict[str, Reply] = {}
        self.asked: list[str] = []
        self.stops = threading.Event()
        self.rounds = 0

    def run(self) -> None:
        self.wire.ask("HELLO", 3)
        self.wire.ask("CLIENT", "TRACKING", "ON")
        while not self.stops.is_set():
            self.read(self.chance.sample(self.keys, 12))
            self.rounds += 1

    def read(self, keys: list[str]) -> None:
        """One pipeline; a part of it in one request over all shards."""
        single, several = keys[:6], keys[6:]
        self.wire.send(b"".join(encode("GET", key) for key in single) + encode("MGET", *several))
        for key in single:
            self.keep(key, self.next())
        values = self.next()
        for index, key in enumerate(several):
            self.keep(key, values[index] if isinstance(values, list) else values)

    def keep(self, key: str, value: Reply) -> None:
        if isinstance(value, ErrorReply):
            self.cache.pop(key, None)
        else:
            self.cache[key] = value

    def next(self) -> Reply:
        while is_push(reply := self.wire.reply()):
            self.take(reply)
        return reply

    def take(self, push: Reply) -> None:
        assert isinstance(push, list)
        names = push[1]
        if names is None:
            self.cache.clear()
            return
        assert isinstance(names, list)
        for name in names:
            assert isinstance(name, bytes)
            self.cache.pop(name.decode(), None)

    def settle(self, key: str) -> bool:
        """Reads what is under way: a request to the same shard comes behind it. False: the shard is not there."""
        self.wire.command("EXISTS", key)
        return self.next() == 0


@pytest.mark.parametrize("killed", [False, True], ids=["in peace", "with a shard lost"])
def test_nobody_keeps_a_value_that_has_changed(wide: Proxy, fleet: Fleet, killed: bool) -> None:
    keys = [key for shard in range(SHARDS) for key in keys_on(shard, 10, "stale")]
    readers = [Reader(wide, keys, seed) for seed in range(4)]
    for reader in readers:
        reader.start()
    end = time.monotonic() + 4
    kill_at = time.monotonic() + 1.5 if killed else end
    number = 0
    with wide.socket() as writer:
        chance = random.Random(99)
        while time.monotonic() < end:
            batch = [chance.choice(keys) for _ in range(8)]
            writer.send(b"".join(encode("SET", key, number + index) for index, key in enumerate(batch)))
            for _ in batch:
                assert writer.reply() == "OK" or killed
            number += len(batch)
            if time.monotonic() > kill_at:
                kill_at = end
                fleet.kill(1)
                fleet.restart(1)
        quiet = one_key_each("quiet")
        wait_until(lambda: writer.ask("GET", quiet[1]) is None, 8, "every shard is used")
        for reader in readers:
            reader.stops.set()
            reader.join(10)
            assert not reader.is_alive()
            for key in quiet:
                wait_until(partial(reader.settle, key), 8, "nothing more is under way from that shard")
        truth = {key: writer.ask("GET", key) for key in keys}
    for reader in readers:
        assert reader.rounds > 10
        stale = {key: value for key, value in reader.cache.items() if truth[key] != value}
        assert not stale
        reader.wire.close()
