"""What shoal keeps on the shards for operations across them is nobody's keys: no client sees, counts or empties it.

Records as they are while operations run are put there by hand, under names of members that do not exist, and taken away
again: the shards do not tell them from real ones.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from harness import ErrorReply, Fleet, Proxy, Wire
from system.placement import SHARDS, keys_on, one_key_each

NewProxy = Callable[..., Proxy]

# As an operation's coordinator would leave them on its home, and on another shard.
TX = "0123456789abcdef-0-1"
KEYS = one_key_each("seen")


@contextmanager
def records(fleet: Fleet) -> Iterator[None]:
    """Every kind of record on every shard, for two seconds at least: then somebody finds that nobody finishes them."""
    for number, server in enumerate(fleet.servers):
        client = server.client()
        assert client.exists("__shoal:m")
        client.sadd("__shoal:fs", TX)
        client.hset("__shoal:k", "kother", f"S {TX}")
        client.hset(f"__shoal:d:{TX}", mapping={"c": "nobody", "h": f"s{number}", "n": 0, "w": 0, "m": 0})
        client.hset(f"__shoal:f:{TX}", mapping={"c": "nobody", "h": f"s{number}", "kother": "S"})
    try:
        yield
    finally:
        for server in fleet.servers:
            server.client().delete("__shoal:fs", "__shoal:k", f"__shoal:d:{TX}", f"__shoal:f:{TX}")


@contextmanager
def connected(proxy: Proxy, protocol: int, database: int = 0) -> Iterator[Wire]:
    """A client whose like has every shard's connection already: a new one waits where records are."""
    with proxy.socket() as wire:
        wire.ask("HELLO", protocol)
        wire.ask("SELECT", database)
        assert wire.ask("DBSIZE") == 0
        yield wire


def scanned(wire: Wire, *options: str | int) -> list[bytes]:
    found: list[bytes] = []
    cursor: str | bytes = "0"
    while cursor != b"0":
        reply = wire.ask("SCAN", cursor, *options)
        assert isinstance(reply, list)
        following, keys = reply
        assert isinstance(following, bytes)
        assert isinstance(keys, list)
        cursor = following
        found += [key for key in keys if isinstance(key, bytes)]
    return found


def members(fleet: Fleet) -> list[dict[bytes | str, bytes | str]]:
    return [server.client().hgetall("__shoal:m") for server in fleet.servers]


@pytest.mark.parametrize("protocol", [2, 3])
def test_an_empty_keyspace_looks_empty(proxy: Proxy, fleet: Fleet, protocol: int) -> None:
    with connected(proxy, protocol) as wire, records(fleet):
        assert wire.ask("DBSIZE") == 0
        assert wire.ask("KEYS", "*") == []
        assert wire.ask("KEYS", "__shoal:*") == []
        assert [wire.ask("RANDOMKEY") for _ in range(8)] == [None] * 8
        for options in ([], ["COUNT", 1], ["MATCH", "__shoal:*"], ["TYPE", "hash"], ["COUNT", 1000, "TYPE", "set"]):
            assert scanned(wire, *options) == []
        text = wire.ask("INFO", "keyspace")
        assert isinstance(text, bytes)
        assert b"keys=" not in text


@pytest.mark.parametrize("protocol", [2, 3])
def test_clients_see_their_own_keys_and_no_others(proxy: Proxy, fleet: Fleet, protocol: int) -> None:
    with connected(proxy, protocol) as wire, records(fleet):
        names = {f"k:{number}".encode() for number in range(100)}
        wire.ask("MSET", *(word for name in names for word in (name, "v")))
        assert wire.ask("DBSIZE") == 100
        shown = wire.ask("KEYS", "*")
        assert isinstance(shown, list)
        assert sorted(key for key in shown if isinstance(key, bytes)) == sorted(names)
        for count in (1, 10, 1000):
            assert set(scanned(wire, "COUNT", count)) == names
        drawn = {key for key in (wire.ask("RANDOMKEY") for _ in range(100)) if isinstance(key, bytes)}
        assert drawn <= names
        text = wire.ask("INFO")
        assert isinstance(text, bytes)
        assert b"\ndb0:keys=100,expires=0" in text


def test_the_only_key_of_a_shard_is_found_among_records(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as wire, records(fleet):
        for key in KEYS:
            wire.ask("SET", key, "v")
            assert [wire.ask("RANDOMKEY") for _ in range(4)] == [key.encode()] * 4
            assert wire.ask("DBSIZE") == 1
            wire.ask("DEL", key)


def test_another_database_has_no_records_and_is_counted_as_it_is(proxy: Proxy, fleet: Fleet) -> None:
    with connected(proxy, 2, database=3) as wire, records(fleet):
        wire.ask("MSET", *(word for key in KEYS for word in (key, "v")))
        assert wire.ask("DBSIZE") == SHARDS
        assert set(scanned(wire)) == {key.encode() for key in KEYS}
        text = wire.ask("INFO", "keyspace")
        assert isinstance(text, bytes)
        assert b"db3:keys=4," in text
        assert b"db0:" not in text


@pytest.mark.parametrize(
    "line",
    [
        "GET __shoal:m", "HGETALL __shoal:m", "DEL a __shoal:m", "TYPE __shoal:m", "OBJECT ENCODING __shoal:m",
        "MEMORY USAGE __shoal:m", "DUMP __shoal:m", "RENAME __shoal:m a", "COPY __shoal:m a", "EXPIRE __shoal:m 1",
        "MOVE __shoal:m 1", "WATCH __shoal:m", "EVAL text 1 __shoal:m", "TOUCH __shoal:m",
        "XREAD STREAMS __shoal:m 0", "XREAD BLOCK 1 STREAMS __shoal:m 0", "BLPOP __shoal:m 1", "SORT a BY __shoal:f:*",
        "SORT a GET # GET __shoal:f:*", "SORT __shoal:fs", "SSCAN __shoal:fs 0", "EXISTS __shoal:k",
        "PFCOUNT a __shoal:m", "SUNIONSTORE __shoal:fs a", "LMOVE a __shoal:m LEFT LEFT", "UNLINK __shoal:m",
    ],
)  # fmt: skip
def test_what_names_a_record_is_refused(proxy: Proxy, fleet: Fleet, line: str) -> None:
    before = members(fleet)
    with proxy.socket() as wire:
        words = line.split(" ")
        assert str(wire.ask(*words)).startswith("ERR keys that begin with '__shoal:' are shoal's own")
        assert wire.ask("MULTI") == "OK"
        if words[0] != "WATCH":
            assert isinstance(wire.ask(*words), ErrorReply)
    assert members(fleet) == before


def test_a_database_with_records_is_not_swapped(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as wire:
        assert "keeps records there" in str(wire.ask("SWAPDB", 0, 1))
        assert wire.ask("SWAPDB", 1, 2) == "OK"
    assert all(members(fleet))


@pytest.mark.parametrize("words", [["FLUSHALL"], ["FLUSHALL", "SYNC"], ["FLUSHDB", "ASYNC"], ["FLUSHDB"]], ids=str)
@pytest.mark.parametrize("database", [0, 3])
def test_a_flush_leaves_who_is_a_member(proxy: Proxy, fleet: Fleet, words: list[str], database: int) -> None:
    before = members(fleet)
    assert all(before)
    with proxy.socket() as wire:
        for number in (0, 3):
            wire.ask("SELECT", number)
            wire.ask("MSET", *(word for key in KEYS for word in (key, "v")))
        wire.ask("SELECT", database)
        assert wire.ask(*words) == "OK"
        assert wire.ask("DBSIZE") == 0
        wire.ask("SELECT", 3 - database)
        assert wire.ask("DBSIZE") == (0 if words[0] == "FLUSHALL" else SHARDS)
    assert members(fleet) == before


ONE = ["FLUSHALL", "SET a 1", "SET b 2", "DBSIZE", "KEYS *", "KEYS a", "RANDOMKEY", "FLUSHDB", "DBSIZE", "RANDOMKEY"]


@pytest.mark.parametrize("protocol", [2, 3])
def test_within_a_transaction_it_is_the_same(
    new_fleet: Callable[..., Fleet], new_proxy: NewProxy, protocol: int
) -> None:
    """Only a keyspace of one shard lets these be queued."""
    fleet = new_fleet(1)
    proxy = new_proxy(fleet.addresses)
    with proxy.socket() as wire, proxy.socket() as watcher:
        wire.ask("HELLO", protocol)
        wire.ask("SET", "a", "0")
        before = members(fleet)
        assert watcher.ask("MONITOR") == "OK"
        for watched in (False, True):
            if watched:
                wire.ask("WATCH", "a")
            assert wire.ask("MULTI") == "OK"
            assert [wire.ask(*line.split(" ")) for line in ONE] == ["QUEUED"] * len(ONE)
            replies = wire.ask("EXEC")
            assert isinstance(replies, list)
            assert isinstance(replies[4], list)
            replies[4].sort()
            assert replies[:6] == ["OK", "OK", "OK", 2, [b"a", b"b"], [b"a"]]
            assert replies[6] in (b"a", b"b")
            assert replies[7:] == ["OK", 0, None]
            assert members(fleet) == before
        wire.ask("ECHO", "the end")
        seen = []
        while "the end" not in (line := str(watcher.reply())):
            seen.append(line)
        assert not any("shoal:" in line or "EVAL" in line.upper() for line in seen)
        assert sum('"DBSIZE"' in line for line in seen) == 4


def test_monitor_shows_what_clients_send(proxy: Proxy) -> None:
    a, b = KEYS[:2]
    with proxy.socket() as watcher, proxy.socket() as wire:
        assert watcher.ask("MONITOR") == "OK"
        lines = [f"SET {a} 1", f"RENAME {a} {b}", "DBSIZE", "RANDOMKEY", "KEYS *", "SCAN 0", "FLUSHALL", "ECHO end"]
        for line in lines:
            assert not isinstance(wire.ask(*line.split(" ")), ErrorReply)
        shown = [str(watcher.reply()).split("] ", 1)[1] for _ in lines]
    assert shown == [" ".join(f'"{word}"' for word in line.split(" ")) for line in lines]


def test_messages_about_records_reach_nobody(proxy: Proxy, fleet: Fleet) -> None:
    a, b = KEYS[:2]
    for server in fleet.servers:
        server.client().config_set("notify-keyspace-events", "KEA")
    with proxy.socket() as listener, proxy.socket() as named, proxy.socket() as wire:
        listener.ask("PSUBSCRIBE", "*")
        named.ask("SUBSCRIBE", "__shoal:ctl")
        channels = wire.ask("PUBSUB", "CHANNELS", "*")
        assert channels == [b"__shoal:ctl"], "what this client has subscribed to"
        assert wire.ask("PUBSUB", "NUMSUB", "__shoal:ctl") == [b"__shoal:ctl", 1]
        wire.ask("SET", a, "1")
        assert wire.ask("RENAME", a, b) == "OK"
        with records(fleet):
            pass
        for server in fleet.servers:
            server.client().publish("__shoal:ctl", "x")
        wire.ask("PUBLISH", "end", "")
        seen: list[list[bytes]] = []
        while not seen or seen[-1][2] != b"end":
            message = listener.reply()
            assert isinstance(message, list)
            seen.append([word for word in message if isinstance(word, bytes)])
        named.command("PING")
        assert named.reply() == [b"pong", b""]
    assert not [message for message in seen if any(b"__shoal:" in word for word in message)]
    assert [b"pmessage", b"*", f"__keyspace@0__:{a}".encode(), b"set"] in seen
    for server in fleet.servers:
        server.client().config_set("notify-keyspace-events", "")


@pytest.mark.parametrize("options", [["BCAST"], ["BCAST", "PREFIX", "__shoal:", "PREFIX", "seen"]], ids=str)
def test_invalidations_of_records_reach_nobody(proxy: Proxy, fleet: Fleet, options: list[str]) -> None:
    (last,) = keys_on(1, 1, "seen:last")
    with proxy.socket() as tracked, proxy.socket() as wire:
        tracked.ask("HELLO", 3)
        assert tracked.ask("CLIENT", "TRACKING", "ON", *options) == "OK"
        with records(fleet):
            wire.ask("SET", KEYS[0], "1")
            wire.ask("RENAME", KEYS[0], KEYS[1])
        wire.ask("SET", last, "1")
        seen: list[str] = []
        while not seen or last not in seen[-1]:
            seen.append(str(tracked.reply()))
    assert any(KEYS[1] in push for push in seen)
    assert not [push for push in seen if "__shoal:" in push]


def test_without_operations_clients_may_have_such_names(new_fleet: Callable[..., Fleet], new_proxy: NewProxy) -> None:
    fleet = new_fleet(2)
    proxy = new_proxy(fleet.addresses, options=["--cross-shard", "off"])
    client: redis.Redis = proxy.client()
    assert client.set("__shoal:m", "mine")
    assert client.dbsize() == 1
    assert client.keys() == [b"__shoal:m"]
    assert list(client.scan_iter()) == [b"__shoal:m"]
    assert client.randomkey() == b"__shoal:m"
    assert client.info("keyspace")["db0"]["keys"] == 1
    assert client.flushall()
    assert client.dbsize() == 0
