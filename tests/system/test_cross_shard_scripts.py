"""The scripts of the protocol across shards, on real servers of every flavour: what they claim, move, decide and leave.

Two servers, `home` and `away`, each with one proxy's connection in RESP2 or RESP3. What the protocol promises is
checked after each step by looking at the servers' data past the scripts.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from harness import FLAVOURS, ErrorReply, Fleet, Wire
from harness.wire import Reply
from system.cross_shard import SOURCE, Foreign, Shard, array, number, pair, parts, refusal

KEY = b"k\r\n\x00\xff "
TX = "p1-0-1"

Connect = Callable[[int, str], Shard]


@pytest.fixture(scope="module", params=FLAVOURS)
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("two"), 2, request.param) as fleet:
        yield fleet


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def protocol(request: pytest.FixtureRequest) -> int:
    number = request.param
    assert isinstance(number, int)
    return number


@pytest.fixture
def connect(two: Fleet, protocol: int) -> Iterator[Connect]:
    """`connect(i, pid)`: a further connection to server i, for this test; the servers are empty before the first."""
    for server in two.servers:
        server.client().config_set("maxmemory", 0)
    two.heal()
    for server in two.servers:
        server.client().delete("__shoal:m")
    with ExitStack() as stack:
        yield lambda i, pid: stack.enter_context(closing(Shard(two.servers[i], pid, protocol)))


@pytest.fixture
def home(connect: Connect) -> Shard:
    shard = connect(0, "p1")
    parts(shard.join(), b"joined")
    return shard


@pytest.fixture
def away(connect: Connect) -> Shard:
    shard = connect(1, "p1")
    parts(shard.join(), b"joined")
    return shard


def keys(shard: Shard) -> set[bytes]:
    return {key for key in array(shard.wire.ask("KEYS", "*")) if isinstance(key, bytes)}


def state(shard: Shard) -> dict[bytes, Reply]:
    """Everything that a server holds, records too, without how long it has."""
    return {key: shard.wire.ask("DUMP", key) for key in keys(shard)}


def fill(shard: Shard) -> None:
    """From now on the server has no memory left."""
    shard.wire.ask("CONFIG", "SET", "maxmemory", 1)
    assert refusal(shard.wire.ask("SET", "any", "thing")).startswith("OOM")


def empty(shard: Shard) -> None:
    shard.wire.ask("CONFIG", "SET", "maxmemory", 0)


def prepared(shard: Shard, tx: str, claims: dict[bytes, str]) -> list[Reply]:
    """Claims keys, which must be free; their values."""
    return array(parts(shard.prepare(tx, claims), b"prepared")[2])


def prepare_both(home: Shard, away: Shard) -> Reply:
    """Home has `h`, away has KEY and gives its value."""
    prepared(home, TX, {b"h": "X"})
    assert home.watch(TX) == ["OK", 1]
    return prepared(away, TX, {KEY: "Xw"})[0]


def first_written(home: Shard, foreign: list[Foreign], requests: list[list[str | bytes | int]]) -> Reply:
    """Commits; what the first written key of another shard holds then."""
    return array(array(home.commit(TX, foreign, requests)[-1])[-2])[0]


def test_joining_tells_the_servers_version_and_what_is_there(home: Shard, two: Fleet, connect: Connect) -> None:
    version, evicts, members, records = parts(home.join(), b"joined")
    dump = two.client(0).dump("__shoal:m")
    assert isinstance(dump, bytes)
    assert version == int.from_bytes(dump[-10:-8], "little")
    assert (evicts, members, records) == (0, [b"p1"], [])
    prepared(home, TX, {KEY: "X", b"s": "S"})
    other = connect(0, "p2")
    _, _, members, records = parts(other.join(), b"joined")
    assert sorted(map(str, array(members))) == ["b'p1'", "b'p2'"]
    [[tx, kind, fields]] = [array(record) for record in array(records)]
    assert (tx, kind) == (TX.encode(), b"f")
    flat = array(fields)
    assert sorted(map(repr, zip(flat[::2], flat[1::2], strict=True))) == sorted(
        map(repr, [(b"c", b"p1"), (b"h", b"home"), (b"p1", b"other"), (b"k" + KEY, b"X"), (b"ks", b"S")])
    )
    before = state(home)
    stranger = connect(0, "p3")
    # Who does not listen is no obstacle: it has ended without a word.
    listener = connect(0, "p1")
    assert listener.wire.ask("SUBSCRIBE", "__shoal:c:p1") == [b"subscribe", b"__shoal:c:p1", 1]
    [told] = parts(stranger.join("2"), b"other")
    assert isinstance(told, bytes)
    assert re.fullmatch(rb"p1 1@\d+", told)
    assert state(home) == before


@pytest.mark.parametrize(
    ("policy", "memory", "evicts"),
    [("allkeys-lru", 0, 0), ("allkeys-random", 1 << 30, 1), ("volatile-lru", 1 << 30, 0), ("noeviction", 1 << 30, 0)],
)
def test_joining_tells_whether_records_can_be_evicted(home: Shard, policy: str, memory: int, evicts: int) -> None:
    home.wire.ask("CONFIG", "SET", "maxmemory-policy", policy)
    home.wire.ask("CONFIG", "SET", "maxmemory", memory)
    told = parts(home.join(), b"joined")[1]
    home.wire.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    home.wire.ask("CONFIG", "SET", "maxmemory", 0)
    assert told == evicts


@pytest.mark.parametrize(
    ("first", "second", "goes"),
    [("S", "S", True), ("S", "X", False), ("X", "S", False), ("X", "X", False), ("Sw", "S", True), ("S", "Xw", False)],
)
def test_who_may_have_a_key_at_once(home: Shard, first: str, second: str, goes: bool) -> None:
    prepared(home, "t1", {b"a": "X", KEY: first})
    before = state(home)
    reply = home.prepare("t2", {b"b": "X", KEY: second})
    if goes:
        parts(reply, b"prepared")
        assert home.apply("t1") == 1
        assert home.prepare("t3", {KEY: "X"}) == [b"conflict", b"t2"]
        assert home.apply("t2") == 1
    else:
        assert reply == [b"conflict", b"t1"]
        assert state(home) == before
        assert home.apply("t1") == 1
    prepared(home, "t3", {KEY: "X", b"a": "X", b"b": "X"})
    assert home.apply("t3") == 1
    assert keys(home) == {b"__shoal:m"}


def test_a_whole_shard_is_free_or_not(home: Shard) -> None:
    prepared(home, "t1", {KEY: "S"})
    assert home.prepare("t2", {}, scope="a") == [b"conflict", b"t1"]
    assert home.apply("t1") == 1
    parts(home.prepare("t2", {}, scope="a"), b"prepared")
    assert home.prepare("t3", {b"x": "S"}) == [b"conflict", b"t2"]
    assert home.prepare("t3", {}, scope="a") == [b"conflict", b"t2"]
    assert home.apply("t2") == 1
    assert keys(home) == {b"__shoal:m"}


def test_what_is_refused_leaves_nothing(home: Shard, connect: Connect) -> None:
    home.wire.ask("SET", KEY, "v" * 100_000)
    before = state(home)
    [size] = parts(home.prepare(TX, {KEY: "Sw"}, gather_max=100_000), b"large")
    assert 100_000 < number(size) < 200_000
    assert connect(0, "p9").prepare(TX, {KEY: "S"}) == [b"stranger"]
    assert state(home) == before
    prepared(home, TX, {KEY: "S"})
    before = state(home)
    assert "prepared before" in refusal(home.prepare(TX, {b"other": "S"}))
    assert state(home) == before
    # What need not be brought may be of any size.
    assert home.gather(TX, {KEY: "S"}, gather_max=1) == [b"values", [None]]
    parts(home.gather(TX, {KEY: "Sw"}, gather_max=1), b"large")


def test_a_value_changes_shards_and_the_replies_are_natural(home: Shard, away: Shard, protocol: int) -> None:
    away.wire.ask("ZADD", KEY, "1.5", "m")
    value = prepare_both(home, away)
    assert away.gather(TX, {KEY: "Xw", b"h": "X"}) == [b"values", [[-1, pair(value)[1]], None]]
    asked: list[list[str | bytes | int]] = [
        ["ZADD", KEY, 2, "n"],
        ["ZRANGE", KEY, 0, -1, "WITHSCORES"],
        ["LPUSH", KEY, 1],
    ]
    replies = home.commit(TX, [("w", "away", KEY, value)], asked)
    assert replies[:-1] == ["OK"] + ["QUEUED"] * (len(replies) - 2)
    scores: Reply = [[b"m", 1.5], [b"n", 2.0]] if protocol == 3 else [b"m", b"1.5", b"n", b"2"]
    added, ranged, wrong, written, _ = array(replies[-1])[2:]
    assert (added, ranged) == (1, scores)
    assert refusal(wrong).startswith("WRONGTYPE")
    assert keys(home) == {b"__shoal:m", b"__shoal:fs", f"__shoal:d:{TX}".encode()}
    assert away.apply(TX, {KEY: array(written)[0]}) == 1
    away.wire.ask("HELLO", 2)
    assert away.wire.ask("ZRANGE", KEY, 0, -1, "WITHSCORES") == [b"m", b"1.5", b"n", b"2"]
    home.clean(TX)
    assert (keys(home), keys(away)) == ({b"__shoal:m"}, {b"__shoal:m", KEY})


def test_what_a_commit_left_as_it_was_is_not_written_back(home: Shard, away: Shard) -> None:
    """Whole values, times and blind keys: those that changed come back, and only they are in the decision."""
    cases: dict[bytes, list[str | bytes | int]] = {
        b"same": ["APPEND", "same", ""],
        b"longer": ["APPEND", "longer", "w"],
        b"timed": ["GET", "timed"],
        b"later": ["PEXPIRE", "later", 900_000],
        b"for ever": ["PERSIST", "for ever"],
        b"from now on": ["PEXPIRE", "from now on", 1_000],
        b"deleted": ["DEL", "deleted"],
        b"made": ["SET", "made", "v"],
        b"never there": ["DEL", "never there"],
    }
    for name in cases:
        if name not in {b"made", b"never there"}:
            away.wire.ask("SET", name, "v")
        if name in {b"timed", b"later", b"for ever"}:
            away.wire.ask("PEXPIRE", name, 500_000)
    prepared(home, TX, {b"h": "X"})
    home.watch(TX)
    values = prepared(away, TX, dict.fromkeys(cases, "Xw"))
    foreign: list[Foreign] = [("w", "away", name, value) for name, value in zip(cases, values, strict=True)]
    blind: list[Foreign] = [("b", "away", name, None) for name in (b"set", b"left", b"taken")]
    asked: list[list[str | bytes | int]] = [*cases.values(), ["SET", "set", "new"], ["DEL", "taken"]]
    written = array(array(home.commit(TX, [*foreign, *blind], asked)[-1])[-2])
    names = [*cases, b"set", b"left", b"taken"]
    assert {name for name, what in zip(names, written, strict=True) if what == 0} == {
        b"same",
        b"timed",
        b"never there",
        b"left",
    }
    assert {name for name, what in zip(names, written, strict=True) if what is None} == {b"deleted", b"taken"}
    decided = [array(told)[1:] for told in array(parts(home.resolve(TX), b"committed")[0])]
    noted = [name for name, what in zip(names, written, strict=True) if what != 0]
    assert [name for name, _ in decided] == noted
    assert keys(home) == {b"__shoal:m", b"__shoal:fs", f"__shoal:d:{TX}".encode()}
    home.clean(TX)
    # Nothing changed: nothing is decided.
    home.prepare("t2", {b"h": "X"})
    home.watch("t2")
    value: Reply = [-1, pair(values[0])[1]]
    replies = home.commit("t2", [("w", "away", b"same", value), ("b", "away", b"left", None)], [["GET", "same"]])
    assert array(replies[-1])[-3:] == [b"v", [0, 0], 0]
    assert keys(home) == {b"__shoal:m"}


def test_what_is_only_read_leaves_no_decision(home: Shard, away: Shard) -> None:
    away.wire.ask("SADD", KEY, "a", "b")
    prepared(home, TX, {b"h": "X"})
    home.watch(TX)
    [value] = prepared(away, TX, {KEY: "Sw"})
    replies = home.commit(TX, [("-", "away", KEY, value)], [["SUNIONSTORE", "h", KEY]])
    assert array(replies[-1])[2:] == [2, [], 0]
    assert keys(home) == {b"__shoal:m", b"h"}
    assert away.apply(TX) == 1
    assert (keys(away), away.wire.ask("SCARD", KEY)) == ({b"__shoal:m", KEY}, 2)


def build_every_kind(wire: Wire) -> None:
    wire.ask("SET", "number", 12345)
    wire.ask("SET", "text", b"\x00\r\n" * 40)
    wire.ask("SETBIT", "bits", 100_000, 1)
    wire.ask("PFADD", "hll", *range(1000))
    for name, count in (("small", 3), ("large", 2000)):
        members = [f"m{i:040d}" for i in range(count)]
        wire.ask("RPUSH", f"list-{name}", *members)
        wire.ask("SADD", f"set-{name}", *members)
        wire.ask("SADD", f"ints-{name}", *range(count))
        wire.ask("HSET", f"hash-{name}", *(word for member in members for word in (member, "v")))
        wire.ask("ZADD", f"zset-{name}", *(word for i, member in enumerate(members) for word in (f"{i / 3}", member)))
        for i in range(1, count // 2 + 1):
            wire.ask("XADD", f"stream-{name}", f"{i}-1", "f", i)
        wire.ask("XGROUP", "CREATE", f"stream-{name}", "g", "0")
        wire.ask("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", f"stream-{name}", ">")


def test_values_of_every_kind_travel_unchanged(home: Shard, away: Shard) -> None:
    build_every_kind(away.wire)
    names = sorted(keys(away) - {b"__shoal:m"})
    assert len(names) == 4 + 2 * 6
    for name in names[::2]:
        away.wire.ask("PEXPIRE", name, 60_000)

    def looks(names: list[bytes]) -> list[list[Reply]]:
        asked = (["DEBUG", "DIGEST-VALUE"], ["OBJECT", "ENCODING"], ["TYPE"])
        return [[away.wire.ask(*words, name) for words in asked] for name in names]

    def dumps(names: list[bytes]) -> list[Reply]:
        # The order within a table of hashes is not part of a value.
        ordered = [name for name in names if away.wire.ask("OBJECT", "ENCODING", name) != b"hashtable"]
        assert len(ordered) > len(names) / 2
        return [away.wire.ask("DUMP", name) for name in ordered]

    def times(names: list[bytes]) -> list[Reply]:
        return [away.wire.ask("PEXPIRETIME", name) for name in names]

    before = looks(names), dumps(names), times(names)
    prepared(home, TX, {b"h": "X"})
    home.watch(TX)
    moved = [b"moved " + name for name in names]
    values = prepared(away, TX, dict.fromkeys([*names, *moved], "Xw"))
    foreign: list[Foreign] = [("w", "away", name, value) for name, value in zip([*names, *moved], values, strict=True)]
    executed = array(
        home.commit(TX, foreign, [["RENAME", old, new] for old, new in zip(names, moved, strict=True)])[-1]
    )
    assert executed[1 + len(names) : -2] == ["OK"] * len(names)
    written = array(executed[-2])
    assert written[: len(names)] == [None] * len(names)
    assert away.apply(TX, dict(zip([*names, *moved], written, strict=True))) == 1
    assert away.wire.ask("EXISTS", *names) == 0
    # Instants to the millisecond: what came a little later each time would never come at all for a key in constant use.
    assert (looks(moved), dumps(moved), times(moved)) == before


def test_a_key_that_is_moved_away_is_gone_where_it_was(home: Shard, away: Shard) -> None:
    away.wire.ask("SET", KEY, "v", "PX", 100_000)
    home.wire.ask("SET", "h", "old")
    value = prepare_both(home, away)
    # What lies at home under a foreign name is garbage.
    home.wire.ask("RPUSH", KEY, "garbage")
    replies = home.commit(TX, [("w", "away", KEY, value)], [["RENAME", KEY, "h"]])
    assert array(replies[-1])[2:] == ["OK", [None], 0]
    assert home.wire.ask("GET", "h") == b"v"
    assert 50_000 < number(home.wire.ask("PTTL", "h")) <= 100_000
    assert home.resolve(TX) == [b"committed", [[b"away", KEY, None]]]
    assert away.apply(TX, {KEY: None}) == 1
    assert away.wire.ask("EXISTS", KEY) == 0


def test_a_decision_keeps_the_time_to_the_millisecond(home: Shard, away: Shard) -> None:
    until = 4_102_444_800_123
    away.wire.ask("SET", KEY, "v", "PXAT", until)
    value = prepare_both(home, away)
    foreign: list[Foreign] = [("w", "away", KEY, value), ("b", "away", b"gone", None)]
    home.commit(TX, foreign, [["APPEND", KEY, "w"], ["DEL", "gone"]])

    [[shard, key, held], gone] = [array(told) for told in array(parts(home.resolve(TX), b"committed")[0])]
    assert (shard, key, gone) == (b"away", KEY, [b"away", b"gone", None])
    assert pair(held)[0] == until
    assert away.apply(TX, {KEY: held}) == 1
    assert away.wire.ask("PEXPIRETIME", KEY) == until


def test_a_time_that_has_passed_on_the_way_leaves_no_key(home: Shard, away: Shard) -> None:
    away.wire.ask("SET", KEY, "v", "PX", 900_000)
    dump = pair(prepare_both(home, away))[1]
    assert away.apply(TX, {KEY: [1_000, dump]}) == 1
    assert away.wire.ask("EXISTS", KEY) == 0


def test_a_time_beyond_the_numbers_of_scripts_is_no_error(home: Shard, away: Shard) -> None:
    away.wire.ask("SET", KEY, "v", "PXAT", 2**62)
    until, _ = pair(prepare_both(home, away))
    assert until == 2**53 - 1


def test_whoever_decides_first_wins(home: Shard, away: Shard, connect: Connect) -> None:
    away.wire.ask("SET", KEY, "v")
    value = prepare_both(home, away)
    recovery = connect(0, "p2")
    assert recovery.resolve(TX) == [b"undone"]
    before = state(home)
    assert home.commit(TX, [("w", "away", KEY, value)], [["SET", "h", "new"]])[-1] is None
    assert state(home) == before == {b"__shoal:m": before[b"__shoal:m"]}
    assert recovery.resolve(TX) == [b"undone"]
    assert away.apply(TX) == 1
    assert (away.wire.ask("GET", KEY), away.gather(TX, {KEY: "Xw"})) == (b"v", [b"gone"])
    # The other way round.
    value = prepare_both(home, away)
    assert array(home.commit(TX, [("w", "away", KEY, value)], [["SET", KEY, "new"]])[-1])[-3] == "OK"
    [[_, _, held]] = [array(told) for told in array(parts(recovery.resolve(TX), b"committed")[0])]
    assert away.apply(TX, {KEY: held}) == 1
    assert away.wire.ask("GET", KEY) == b"new"


def test_an_operation_that_was_given_up_does_not_break_the_next_on_its_connection(home: Shard) -> None:
    prepared(home, "t1", {b"h": "X"})
    home.watch("t1")
    assert home.apply("t1") == 1
    prepared(home, "t2", {b"h": "X"})
    home.watch("t2")
    assert array(home.commit("t2", [], [["SET", "h", "v"]])[-1])[0] == "OK"


def test_applying_twice_changes_nothing(home: Shard, away: Shard) -> None:
    away.wire.ask("SET", KEY, "v")
    value = prepare_both(home, away)
    replies = home.commit(TX, [("w", "away", KEY, value)], [["SET", KEY, "new"]])
    held = array(array(replies[-1])[-2])[0]
    assert away.apply(TX, {KEY: held}) == 1
    away.wire.ask("SET", KEY, "later")
    prepared(away, "t2", {KEY: "X"})
    assert (away.apply(TX, {KEY: held}), away.apply(TX), away.wire.ask("GET", KEY)) == (0, 0, b"later")
    assert away.prepare("t3", {KEY: "X"}) == [b"conflict", b"t2"]


def test_an_apply_that_fails_keeps_the_claim(away: Shard) -> None:
    prepared(away, TX, {KEY: "X", b"l": "X"})
    held: Reply = [-1, b"no dump"]
    assert "DUMP payload" in refusal(away.apply(TX, {KEY: held}))
    assert away.prepare("t2", {b"l": "X"}) == [b"conflict", TX.encode()]
    assert away.apply(TX, {KEY: None}) == 1


def test_a_full_shard_refuses_before_anything_happened(home: Shard, away: Shard) -> None:
    away.wire.ask("SET", KEY, "v")
    before = state(away)
    fill(away)
    assert "OOM" in refusal(away.prepare(TX, {KEY: "Xw"}))
    assert state(away) == before
    empty(away)
    value = prepare_both(home, away)
    fill(home)
    before = state(home)
    replies = home.commit(TX, [("w", "away", KEY, value)], [["SET", "h", "new"]])
    assert refusal(replies[-1]).startswith("EXECABORT")
    assert any(isinstance(reply, ErrorReply) and reply.startswith("OOM") for reply in replies[1:-1])
    assert state(home) == before
    assert (home.apply(TX), away.apply(TX)) == (1, 1)


def test_memory_that_runs_out_before_exec_refuses_all_of_it(home: Shard, away: Shard, two: Fleet) -> None:
    away.wire.ask("SET", KEY, "v")
    value = prepare_both(home, away)
    before = state(home)
    full = two.client(0)
    replies = home.commit(TX, [("w", "away", KEY, value)], [["PERSIST", KEY]], lambda: full.config_set("maxmemory", 1))
    assert replies[1:-1] == ["QUEUED"] * (len(replies) - 2)
    assert "OOM" in refusal(replies[-1])
    assert state(home) == before
    assert (home.apply(TX), away.apply(TX)) == (1, 1)


def test_a_full_shard_takes_what_is_decided(home: Shard, away: Shard, two: Fleet, connect: Connect) -> None:
    """Nothing that is queued takes memory, as servers see it; so EXEC runs on a full shard, and must do all of it."""
    home.wire.ask("SET", "h", "v")
    prepared(home, TX, {b"h": "X"})
    home.watch(TX)
    prepared(away, TX, {KEY: "X"})
    fill(away)
    full = two.client(0)
    replies = home.commit(
        TX, [("w", "away", KEY, None)], [["RENAME", "h", KEY]], lambda: full.config_set("maxmemory", 1)
    )
    removed, renamed, written, _ = array(replies[-1])
    assert (removed, renamed) == (0, "OK")
    [held] = array(written)
    assert home.resolve(TX) == [b"committed", [[b"away", KEY, held]]]
    assert away.apply(TX, {KEY: held}) == 1
    assert away.wire.ask("GET", KEY) == b"v"
    assert home.wire.ask("EXISTS", "h", KEY) == 0
    home.clean(TX)
    # A proxy that starts anew may come and others be evicted, or nobody could read or delete.
    assert parts(connect(0, "p2").join(), b"joined")[3] == []
    assert home.evict("p2") == 1
    assert home.wire.ask("HKEYS", "__shoal:m") == [b"p1"]


def test_a_server_that_refuses_writes_refuses_the_commit(home: Shard, away: Shard) -> None:
    """Without its replicas: even where all that is queued is the client's read."""
    prepared(home, TX, {b"h": "S"})
    home.watch(TX)
    home.wire.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    before = state(home)
    replies = home.commit(TX, [], [["GET", "h"]])
    home.wire.ask("CONFIG", "SET", "min-replicas-to-write", 0)
    assert "NOREPLICAS" in refusal(replies[-1]) or "EXECABORT" in refusal(replies[-1])
    assert state(home) == before
    assert home.apply(TX) == 1


def test_scripts_that_a_server_forgot_and_data_that_somebody_flushed(home: Shard, away: Shard, two: Fleet) -> None:
    away.wire.ask("SET", KEY, "v")
    value = prepare_both(home, away)
    for i in (0, 1):
        two.client(i).script_flush()
    held = first_written(home, [("w", "away", KEY, value)], [["SET", KEY, 1]])
    for i in (0, 1):
        two.client(i).script_flush()
    assert away.apply(TX, {KEY: held}) == 1
    home.clean(TX)
    value = prepare_both(home, away)
    two.client(0).flushall()
    assert home.commit(TX, [("w", "away", KEY, value)], [["SET", KEY, 2]])[-1] is None
    assert home.prepare(TX, {b"h": "X"}) == [b"stranger"]
    assert (home.resolve(TX), home.apply(TX), keys(home)) == ([b"undone"], 0, set())
    assert (away.apply(TX), away.wire.ask("GET", KEY)) == (1, b"1")
    value = prepare_again(home, away)
    held = first_written(home, [("w", "away", KEY, value)], [["SET", KEY, 3]])
    two.client(1).flushall()
    # What it had claimed is gone with everything else: it has nothing to be applied to.
    assert (away.apply(TX, {KEY: held}), away.gather(TX, {}), keys(away)) == (0, [b"gone"], set())


def prepare_again(home: Shard, away: Shard) -> Reply:
    parts(home.join(), b"joined")
    return prepare_both(home, away)


def test_a_coordinator_that_was_given_up_does_nothing_later(home: Shard, away: Shard, connect: Connect) -> None:
    """It has claimed away's key and sleeps; another proxy evicts it, decides, gives the key back; then it goes on."""
    away.wire.ask("SET", KEY, "v")
    prepared(away, TX, {KEY: "Xw"})
    recovery = [connect(i, "p2") for i in (0, 1)]
    for shard in recovery:
        parts(shard.join(), b"joined")
    assert [shard.evict("p1") for shard in recovery] == [1, 1]
    assert recovery[0].resolve(TX) == [b"undone"]
    assert recovery[1].apply(TX) == 1
    before = [state(shard) for shard in recovery]
    with pytest.raises(ConnectionError):
        home.prepare(TX, {b"h": "X"})
    again = [connect(i, "p1") for i in (0, 1)]
    assert [shard.prepare(TX, {KEY: "X"}) for shard in again] == [[b"stranger"]] * 2
    assert again[1].apply(TX, {KEY: None}) == 0
    assert [state(shard) for shard in recovery] == before
    assert recovery[1].wire.ask("GET", KEY) == b"v"


def test_a_coordinator_that_was_given_up_after_its_commit_is_finished_by_another(
    home: Shard, away: Shard, connect: Connect
) -> None:
    away.wire.ask("SET", KEY, "v")
    value = prepare_both(home, away)
    late = first_written(home, [("w", "away", KEY, value)], [["SET", KEY, "new"]])
    recovery = [connect(i, "p2") for i in (0, 1)]
    records = parts(recovery[0].join(), b"joined")[3]
    assert array(records)[0] == [TX.encode(), b"d", [b"c", b"p1", b"h", b"home", b"p1", b"other"]]
    parts(recovery[1].join(), b"joined")
    assert [shard.evict("p1") for shard in recovery] == [1, 1]
    [[_, _, held]] = [array(told) for told in array(parts(recovery[0].resolve(TX), b"committed")[0])]
    assert recovery[1].apply(TX, {KEY: held}) == 1
    recovery[0].clean(TX)
    recovery[1].wire.ask("SET", KEY, "later")
    zombie = connect(1, "p1")
    assert (zombie.apply(TX, {KEY: late}), zombie.wire.ask("GET", KEY)) == (0, b"later")
    assert keys(recovery[0]) == {b"__shoal:m"}


def test_who_is_being_evicted_counts_until_its_connections_are_gone(home: Shard, connect: Connect) -> None:
    other = connect(0, "p2")
    parts(other.join(), b"joined")
    assert home.run("MARK", "p2", "1") is None
    # Its connections live, so it must be told; but it begins nothing.
    members, *_ = parts(home.prepare("t1", {b"h": "X"}), b"prepared")
    assert sorted(map(str, array(members))) == ["b'p1'", "b'p2'"]
    assert other.prepare("t2", {b"x": "X"}) == [b"stranger"]
    parts(connect(0, "p3").join(), b"joined")
    # It has joined again before its connections were ended: it is a member, and stays one.
    parts(other.join(), b"joined")
    assert home.run("UNLIST", "p2", "1") is None
    parts(other.prepare("t2", {b"x": "X"}), b"prepared")
    assert home.evict("p2") == 1
    assert sorted(map(str, array(home.wire.ask("HKEYS", "__shoal:m")))) == ["b'p1'", "b'p3'"]
    assert home.run("MARK", "unknown", "1") is None
    assert home.wire.ask("HLEN", "__shoal:m") == 2


def test_members_are_told_if_there_are_others(home: Shard, away: Shard, two: Fleet, connect: Connect) -> None:
    with Wire(two.servers[0].host, two.servers[0].port.number) as listener:
        listener.ask("SUBSCRIBE", "__shoal:ctl")
        for tx in ("t1", "t2"):
            # Alone: nobody is told.
            prepared(home, tx, {b"h": "X"})
            assert home.apply(tx) == 1
        parts(connect(0, "p2").join(), b"joined")
        members, *_ = parts(home.prepare("t3", {b"h": "X"}), b"prepared")
        assert sorted(map(str, array(members))) == ["b'p1'", "b'p2'"]
        home.watch("t3")
        home.commit("t3", [], [["PING"]])
        prepared(home, "t4", {b"h": "X"})
        assert home.apply("t4") == 1
        prepared(home, "t5", {b"h": "X"})
        assert home.resolve("t5") == [b"undone"]
        told = [array(listener.reply())[2] for _ in range(6)]
    assert told == [f"{what} t{i}".encode() for i in (3, 4, 5) for what in ("fence", "released")]


def test_many_keys_and_long_values(home: Shard, away: Shard) -> None:
    names = [f"key {i}".encode() for i in range(9_000)]
    long = b"0123456789abcdef" * (5 << 16)
    away.wire.ask("SET", names[0], long)
    prepared(home, TX, {b"h": "X"})
    home.watch(TX)
    values = prepared(away, TX, dict.fromkeys(names, "Xw"))
    assert [value is not None for value in values[:2]] == [True, False]
    foreign = [("w", "away", name, value) for name, value in zip(names, values, strict=True)]
    replies = home.commit(
        TX, foreign, [["APPEND", names[0], "!"], ["MSET", *(word for name in names[1:] for word in (name, 1))]]
    )
    *_, length, done, written, _ = array(replies[-1])
    assert (length, done) == (len(long) + 1, "OK")
    assert len(array(parts(home.resolve(TX), b"committed")[0])) == len(names)
    assert away.apply(TX, dict(zip(names, array(written), strict=True))) == 1
    assert away.wire.ask("STRLEN", names[0]) == len(long) + 1
    assert away.wire.ask("EXISTS", *names) == len(names)
    home.clean(TX)
    assert keys(home) == {b"__shoal:m"}
    assert away.wire.ask("EXISTS", "__shoal:k", "__shoal:fs", f"__shoal:f:{TX}") == 0


def test_a_user_needs_what_the_core_says_it_needs(home: Shard, away: Shard, two: Fleet, connect: Connect) -> None:
    head = "".join(line for line in (SOURCE / "wire.rs").read_text().splitlines() if line.startswith("//!"))
    listed = re.search(r"What the servers' user needs.*?`(\+[^`]*)`", head)
    assert listed
    rights = re.findall(r"\+[\w|]+", listed[1])
    away.wire.ask("SET", KEY, "v")
    for shard in (home, away):
        limits = ("reset", "on", ">secret", "~*", "&*", *rights, "+append")
        assert shard.wire.ask("ACL", "SETUSER", "proxy", *limits) == "OK"
        assert shard.wire.ask("AUTH", "proxy", "secret") == "OK"
        parts(shard.join(), b"joined")
    parts(connect(0, "p2").join(), b"joined")
    value = prepare_both(home, away)
    parts(away.gather(TX, {KEY: "Xw"}), b"values")
    foreign: list[Foreign] = [("w", "away", KEY, value), ("b", "away", b"left", None)]
    held = first_written(home, foreign, [["APPEND", KEY, "w"]])
    parts(home.resolve(TX), b"committed")
    assert away.apply(TX, {KEY: held}) == 1
    home.clean(TX)
    assert home.evict("p2") == 1
    assert array(home.wire.ask("SUBSCRIBE", "__shoal:ctl"))[0] == b"subscribe"
    for i in (0, 1):
        assert two.client(i).acl_deluser("proxy") == 1
