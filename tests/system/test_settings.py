"""CONFIG SET over every shard beside a real server: what has a meaning for a fleet, and what is refused and why."""

from collections.abc import Callable, Iterator

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire
from system.placement import SHARDS

# Setting, a value that is not the default.
SET = [
    ("maxmemory-policy", "allkeys-lru"),
    ("maxmemory-samples", "7"),
    ("notify-keyspace-events", "KEA"),
    ("slowlog-log-slower-than", "5000"),
    ("slowlog-max-len", "64"),
    ("latency-monitor-threshold", "100"),
    ("save", "900 1"),
    ("appendfsync", "always"),
    ("hash-max-listpack-entries", "77"),
    ("list-max-listpack-size", "-1"),
    ("set-max-intset-entries", "99"),
    ("zset-max-listpack-value", "33"),
    ("stream-node-max-entries", "50"),
    ("lazyfree-lazy-expire", "yes"),
    ("lfu-decay-time", "2"),
    ("HZ", "20"),
]

REFUSED = [
    *("timeout", "maxclients", "tcp-keepalive", "client-output-buffer-limit", "proto-max-bulk-len", "requirepass"),
    *("bind", "port", "dir", "dbfilename", "replica-read-only", "masterauth", "cluster-enabled", "databases", "nosuch"),
]


@pytest.fixture
def plain(fleet: Fleet) -> Iterator[Wire]:
    """A connection to one of the servers itself."""
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        yield plain


def setting(fleet: Fleet, shard: int, name: str) -> str:
    """What a shard's own server says of it."""
    (value,) = fleet.client(shard).config_get(name).values()
    assert value is not None
    return value


@pytest.fixture
def kept(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet, whose settings are afterwards as they were."""
    names = [name for name, _ in SET] + ["maxmemory"]
    before = [{name: setting(fleet, shard, name) for name in names} for shard in range(SHARDS)]
    yield fleet
    for shard, settings in enumerate(before):
        for name, value in settings.items():
            fleet.client(shard).config_set(name, value)


@pytest.mark.parametrize("protocol", [2, 3])
def test_settings_of_the_data_are_set_on_every_shard(proxy: Proxy, kept: Fleet, protocol: int) -> None:
    with proxy.socket() as wire:
        wire.ask("HELLO", protocol)
        for name, value in SET:
            assert wire.ask("CONFIG", "SET", name, value) == "OK"
            for shard in range(SHARDS):
                # Servers write the letters of events in an order of their own.
                assert sorted(setting(kept, shard, name)) == sorted(value), name
        several = [word for pair in SET[:3] for word in pair]
        assert wire.ask("CONFIG", "SET", *several) == "OK"


def test_memory_is_divided_so_that_the_fleet_has_what_was_set(proxy: Proxy, kept: Fleet) -> None:
    with proxy.socket() as wire:
        for value, whole in (("4000000002", 4_000_000_002), ("1gb", 1 << 30), ("2000M", 2_000_000_000), ("0", 0)):
            assert wire.ask("CONFIG", "SET", "maxmemory-samples", "5", "maxmemory", value) == "OK"
            parts = [int(setting(kept, shard, "maxmemory")) for shard in range(SHARDS)]
            assert sum(parts) == whole
            assert max(parts) - min(parts) <= 1
            assert wire.ask("CONFIG", "GET", "maxmemory") == [b"maxmemory", str(whole).encode()]
        reply = wire.ask("CONFIG", "SET", "maxmemory", "3")
        assert isinstance(reply, ErrorReply), "of three bytes one shard would get none, which means without bound"
        assert "'maxmemory'" in reply
        assert [setting(kept, shard, "maxmemory") for shard in range(SHARDS)] == ["0"] * SHARDS


def test_what_servers_refuse_is_refused_in_their_words(proxy: Proxy, plain: Wire) -> None:
    with proxy.socket() as wire:
        for words in (
            ["maxmemory", "much"],
            ["maxmemory", "-"],
            ["maxmemory-policy", "nosuch"],
            ["hz", "x"],
            ["hz", "10", "hz", "20"],
            ["hz"],
            ["hz", "10", "maxmemory"],
            ["hz", "10", "maxmemory", "x"],
        ):
            reply = wire.ask("CONFIG", "SET", *words)
            assert isinstance(reply, ErrorReply)
            assert reply == plain.ask("CONFIG", "SET", *words), words


def test_what_concerns_one_server_or_shoal_is_refused_with_a_reason(proxy: Proxy, kept: Fleet) -> None:
    with proxy.socket() as wire:
        for name in REFUSED:
            reply = wire.ask("CONFIG", "SET", "hz", "33", name, "1")
            assert isinstance(reply, ErrorReply)
            assert reply.startswith(f"ERR 'config|set' of '{name}' "), reply
            assert len(reply) > 80, "it says why, and what to do"
        assert all(setting(kept, shard, "hz") == "10" for shard in range(SHARDS))


def test_a_shard_that_refuses_is_named(proxy: Proxy, kept: Fleet) -> None:
    kept.client(1).acl_setuser("default", commands=["-config"], enabled=True, nopass=True)
    try:
        with proxy.socket() as wire:
            replies = [wire.ask("CONFIG", "SET", "hz", "20"), wire.ask("CONFIG", "SET", "maxmemory", "1gb")]
    finally:
        kept.client(1).acl_setuser("default", commands=["+config"], enabled=True, nopass=True)
    for reply in replies:
        assert isinstance(reply, ErrorReply)
        assert reply.startswith("NOPERM ")
        assert reply.endswith(" (failed on 's1'; done on 's0', 's2', 's3')")
    assert [setting(kept, shard, "hz") for shard in range(SHARDS)] == ["20", "10", "20", "20"]


def test_the_slow_log_that_is_set_is_that_of_shoal_too(kept: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy(kept.addresses, options=["--workers", "2"])
    with proxy.socket() as one, proxy.socket() as two:
        assert one.ask("CONFIG", "GET", "slowlog-*") == [
            *(b"slowlog-log-slower-than", b"10000", b"slowlog-max-len", b"128"),
        ]
        assert one.ask("CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "20", "hz", "11") == "OK"
        assert [setting(kept, shard, "slowlog-max-len") for shard in range(SHARDS)] == ["20"] * SHARDS
        for wire in (one, two):
            told = wire.ask("CONFIG", "GET", "slowlog-log-slower-than", "hz")
            assert told in (
                [b"slowlog-log-slower-than", b"0", b"hz", b"11"],
                [b"hz", b"11", b"slowlog-log-slower-than", b"0"],
            )
            wire.ask("SLOWLOG", "RESET")
            for number in range(30):
                wire.ask("GET", f"k{number}")
            assert wire.ask("SLOWLOG", "LEN") == 20
        assert one.ask("CONFIG", "SET", "slowlog-log-slower-than", "-1") == "OK"
        assert one.ask("SLOWLOG", "RESET") == "OK"
        for wire in (one, two):
            wire.ask("GET", "k")
        assert one.ask("SLOWLOG", "LEN") == 0
        assert isinstance(one.ask("CONFIG", "SET", "slowlog-max-len", "many"), ErrorReply)
        assert one.ask("CONFIG", "GET", "slowlog-max-len") == [b"slowlog-max-len", b"20"]
