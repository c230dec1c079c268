"""Slots are dealt evenly, and a topology that contradicts itself cannot be made."""

import dataclasses
import random
from collections.abc import Sequence

import pytest

from shoal.distribution import SlotRange, by_slots
from shoal.endpoint import Endpoint, parse_endpoint
from shoal.errors import TopologyError
from shoal.topology import SLOT_COUNT, Keyspace, Shard, Topology, User, deal_slots, parse_slots


def owners(slots: Sequence[SlotRange]) -> list[list[int]]:
    """The slow, obvious view: for each slot, who owns it."""
    table: list[list[int]] = [[] for _ in range(SLOT_COUNT)]
    for part in slots:
        for slot in range(part.first, part.last + 1):
            table[slot].append(part.shard)
    return table


def keyspace(**changes: object) -> Keyspace:
    shards = tuple(Shard(f"s{index}", "127.0.0.1", 7001 + index) for index in range(3))
    made = Keyspace("main", "127.0.0.1", 6380, shards, by_slots(deal_slots(3)))
    if "slots" in changes:
        changes["distribution"] = by_slots(changes.pop("slots"))  # type: ignore[arg-type]
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]  # any field


def complaints(*keyspaces: Keyspace) -> str:
    with pytest.raises(TopologyError) as caught:
        Topology(keyspaces)
    assert caught.value.exit_code == 2
    return "\n".join(caught.value.lines())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 16, 100, 1000, 4096, SLOT_COUNT])
def test_slots_are_dealt_evenly(count: int) -> None:
    slots = deal_slots(count)
    assert [len(owned) for owned in owners(slots)] == [1] * SLOT_COUNT
    assert [part.shard for part in slots] == list(range(count)), "contiguous, in the order of the shards"
    sizes = {part.count for part in slots}
    assert max(sizes) - min(sizes) <= 1


def test_slots_are_cut_where_redis_cli_cuts_them() -> None:
    assert [str(part) for part in deal_slots(3)] == ["0-5460", "5461-10922", "10923-16383"]
    assert [str(part) for part in deal_slots(4)] == ["0-4095", "4096-8191", "8192-12287", "12288-16383"]


@pytest.mark.parametrize("count", [0, -1, SLOT_COUNT + 1])
def test_slots_cannot_be_dealt_to_so_many(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 16384"):
        deal_slots(count)


def test_the_owner_of_a_slot_is_the_one_of_the_table() -> None:
    made = keyspace()
    table = owners(made.slots)
    for slot in (0, 1, 5460, 5461, 10922, 10923, 16383):
        assert made.shard_of(slot) is made.shards[table[slot][0]]
    with pytest.raises(ValueError, match="no such slot"):
        made.shard_of(SLOT_COUNT)


def test_a_sound_topology_is_accepted_and_carries_its_epoch() -> None:
    topology = Topology((keyspace(),))
    assert topology.epoch == 1
    assert topology.keyspace("main").listen == Endpoint("127.0.0.1", 6380)
    with pytest.raises(dataclasses.FrozenInstanceError):
        topology.epoch = 2  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(200))
def test_slots_are_refused_exactly_when_some_have_not_one_owner(seed: int) -> None:
    """Against the naive table, with ranges that are cut, moved, dropped and doubled at random."""
    chance = random.Random(seed)
    slots = list(deal_slots(3))
    for _ in range(chance.randrange(4)):
        index = chance.randrange(len(slots))
        part = slots[index]
        match chance.randrange(4):
            case 0:
                middle = chance.randint(part.first, part.last)
                slots[index : index + 1] = [
                    piece
                    for piece in (SlotRange(part.first, middle, part.shard), SlotRange(middle + 1, part.last, 0))
                    if piece.first <= piece.last
                ]
            case 1:
                slots[index] = dataclasses.replace(part, last=min(SLOT_COUNT - 1, part.last + chance.randrange(3)))
            case 2:
                slots[index] = dataclasses.replace(part, first=max(0, part.first - chance.randrange(3)))
            case _ if len(slots) > 3 and chance.random() < 0.3:
                del slots[index]
    chance.shuffle(slots)
    table = owners(slots)
    sound = all(len(owned) == 1 for owned in table) and {owned[0] for owned in table} == {0, 1, 2}
    if sound:
        Topology((keyspace(slots=tuple(slots)),))
    else:
        assert complaints(keyspace(slots=tuple(slots)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"slots": deal_slots(3)[:2]}, "slots 10923-16383 belong to no shard"),
        ({"slots": deal_slots(3)[1:]}, "slots 0-5460 belong to no shard"),
        ({"slots": deal_slots(2)}, "shard s2 owns no slot"),
        ({"slots": (*deal_slots(3), SlotRange(7, 7, 2))}, "slot 7 belongs to s0 and s2"),
        ({"slots": (*deal_slots(3), SlotRange(5, 6, 0))}, "slots 5-6 belong to s0 twice"),
        ({"slots": (*deal_slots(3), SlotRange(0, 1, 9))}, "not a range of slots of a shard: 0-1 of shard number 9"),
        ({"shards": ()}, "there is no shard"),
        ({"shards": tuple(Shard("a", "h", port) for port in (1, 2, 3))}, 'two shards are called "a"'),
        ({"shards": tuple(Shard(name, "h", 1) for name in "abc")}, "shards a and b have the same address h:1"),
        (
            {"shards": (Shard("a", "localhost", 1), Shard("b", "127.0.0.1", 1), Shard("c", "h", 1))},
            "shards a and b have the same address 127.0.0.1:1",
        ),
        ({"shards": tuple(Shard(f"s{i}", "h", i, username="u") for i in (1, 2, 3))}, "s1 has a username but no passw"),
        ({"name": "a b"}, 'not a keyspace name: "a b"'),
        ({"users": (User("u", "1"), User("u", "2"))}, 'two users are called "u"'),
        ({"users": (User("u", ""),)}, 'user "u" has an empty password'),
        ({"timeout_ms": -1}, "timeout_ms cannot be negative"),
        ({"max_clients": 0}, "max_clients must be at least 1"),
        ({"listen_port": 7002}, "shard s1 is 127.0.0.1:7002, where keyspace main itself listens"),
        ({"listen_host": "0.0.0.0", "listen_port": 7002}, "where keyspace main itself listens"),
    ],
)
def test_a_contradiction_is_named(changes: dict[str, object], expected: str) -> None:
    assert expected in complaints(keyspace(**changes))


def test_all_contradictions_are_named_at_once() -> None:
    bad = keyspace(slots=deal_slots(2), timeout_ms=-1, users=(User("u", ""),))
    text = complaints(bad, keyspace(name="other"))
    for part in ("owns no slot", "negative", "empty password", "keyspace.other.listen: listens on 127.0.0.1:6380"):
        assert part in text
    assert "there is no keyspace" in complaints()


def test_keyspaces_on_one_port_of_all_interfaces_collide() -> None:
    text = complaints(keyspace(), keyspace(name="b", listen_host="0.0.0.0"))
    assert "keyspace.b.listen: listens on 0.0.0.0:6380, as keyspace main does" in text
    Topology((keyspace(listen_port=0), keyspace(name="b", listen_port=0)))  # port 0: each gets one of its own


def test_no_password_in_a_repr() -> None:
    shards = (Shard("a", "h", 1, "me", "hidden-one"),)
    topology = Topology((keyspace(shards=shards, slots=deal_slots(1), users=(User("u", "hidden-two"),)),))
    assert "hidden" not in repr(topology)


@pytest.mark.parametrize(
    ("text", "expected"), [("0", (0, 0)), ("0-16383", (0, 16383)), ("5-5", (5, 5)), (" 7 - 9 ", (7, 9))]
)
def test_slots_are_read(text: str, expected: tuple[int, int]) -> None:
    assert parse_slots(text) == expected


@pytest.mark.parametrize("text", ["", "-", "1-", "-1", "a", "1-2-3", "16384", "0-16384", "9-8", "1,2", "٣"])
def test_what_is_no_range_of_slots_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"slot|range"):
        parse_slots(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:6380", "127.0.0.1", 6380),
        ("localhost:1", "localhost", 1),
        ("redis-0.redis.svc:65535", "redis-0.redis.svc", 65535),
        ("[::1]:6380", "::1", 6380),
        ("[0:0::1]:6380", "::1", 6380),
    ],
)
def test_an_endpoint_is_read_and_written(text: str, host: str, port: int) -> None:
    endpoint = parse_endpoint(text)
    assert (endpoint.host, endpoint.port) == (host, port)
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not host:port"),
        ("127.0.0.1", "not host:port"),
        (":6380", "not host:port"),
        ("a:b", "not a port"),
        ("a:0", "between 1 and 65535"),
        ("a:65536", "between 1 and 65535"),
        ("::1:6380", "in brackets"),
        ("[::g]:1", "not an IPv6 address"),
        ("a b:1", "not a host name"),
        ("unix:/run/redis.sock", "absolute path"),
        ("/" + "x" * 107, "at most 107 bytes"),
        ("redis://h:1", "not a URL"),
    ],
)
def test_what_is_no_endpoint_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_endpoint(text)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="not a URL") as caught:
        parse_endpoint("redis://user:hidden@h:1")
    assert "hidden" not in str(caught.value)
    with pytest.raises(ValueError, match="not a host name") as caught:
        parse_endpoint("user:hidden@h:1".replace("user:", "user"))
    assert "hidden" not in str(caught.value)
