"""What shoal keeps on its shards is not seen through it: in no list of keys, in no count, and by no draw."""

import pytest
from harness import Fleet, Proxy, Wire
from harness.wire import Reply
from system.placement import one_key_each

# As the shards hold them: lasting ones, and those of a transaction that is going on.
RECORDS = (
    ("HSET", "__shoal:m", "somebody", "1"), ("SADD", "__shoal:fs", "tx"), ("HSET", "__shoal:k", "kx", "X tx"),
    ("HSET", "__shoal:f:tx", "c", "somebody"), ("HSET", "__shoal:d:tx", "w", "0"),
)  # fmt: skip


@pytest.fixture
def records(fleet: Fleet) -> None:
    """All kinds of them on every shard."""
    for server in fleet.servers:
        with Wire(server.host, server.port.number) as wire:
            for words in RECORDS:
                assert isinstance(wire.ask(*words), int)


def scanned(wire: Wire, *words: str) -> set[Reply]:
    """All keys, page by page."""
    found: list[bytes] = []
    cursor: Reply = b"0"
    while True:
        assert isinstance(cursor, bytes)
        reply = wire.ask("SCAN", cursor, *words)
        assert isinstance(reply, list)
        cursor, page = reply
        assert isinstance(page, list)
        found += [key for key in page if isinstance(key, bytes)]
        if cursor == b"0":
            assert len(found) == len(set(found))
            return set(found)


@pytest.mark.parametrize("protocol", [2, 3])
def test_only_keys_of_clients_are_seen(proxy: Proxy, records: None, protocol: int) -> None:
    with proxy.socket() as wire:
        wire.ask("HELLO", protocol)
        assert (wire.ask("DBSIZE"), wire.ask("KEYS", "*"), wire.ask("RANDOMKEY")) == (0, [], None)
        assert scanned(wire) == set()
        # A key may have the words in it, not at its beginning.
        keys = {*one_key_each(), "see __shoal:m"}
        for key in keys:
            assert wire.ask("SET", key, 1) == "OK"
        names = {key.encode() for key in keys}
        assert wire.ask("DBSIZE") == len(names)
        listed = wire.ask("KEYS", "*")
        assert isinstance(listed, list)
        assert (len(listed), {key for key in listed if isinstance(key, bytes)}) == (len(names), names)
        assert scanned(wire) == scanned(wire, "COUNT", "1") == names
        assert scanned(wire, "MATCH", "__shoal:*") == set()
        assert wire.ask("KEYS", "__shoal:*") == []
        drawn = {wire.ask("RANDOMKEY") for _ in range(40)}
        assert drawn <= names
        assert len(drawn) > 1


def test_other_databases_have_no_records_and_the_same_answers(proxy: Proxy, records: None) -> None:
    with proxy.socket() as wire:
        assert wire.ask("SELECT", 3) == "OK"
        assert wire.ask("SET", "k", 1) == "OK"
        assert (wire.ask("DBSIZE"), wire.ask("KEYS", "*"), wire.ask("RANDOMKEY")) == (1, [b"k"], b"k")
        assert scanned(wire) == {b"k"}
