"""Commands about the whole keyspace, and those that shards share: SCAN, FLUSHALL, scripts, WAIT, databases.

Every answer is compared with what the shards themselves hold.
"""

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from system.placement import SHARDS, keys_of, one_key_each, shard_of

NewFleet = Callable[..., Fleet]
NewProxy = Callable[..., Proxy]
Words = list[str | bytes | int]

CURSOR_MAX = 2**63 - 1


def fill(wire: Wire, count: int, prefix: str = "k") -> set[bytes]:
    keys = [f"{prefix}:{number}" for number in range(count)]
    assert wire.ask("MSET", *(word for key in keys for word in (key, "v"))) == "OK"
    return {key.encode() for key in keys}


def scan_step(wire: Wire, cursor: int, *options: str | int) -> tuple[int, list[bytes]]:
    reply = wire.ask("SCAN", cursor, *options)
    assert isinstance(reply, list), reply
    following, keys = reply
    assert isinstance(following, bytes)
    assert isinstance(keys, list)
    assert 0 <= int(following) <= CURSOR_MAX
    return int(following), [key for key in keys if isinstance(key, bytes)]


def scan(wire: Wire, *options: str | int) -> list[bytes]:
    cursor, found = scan_step(wire, 0, *options)
    while cursor:
        cursor, keys = scan_step(wire, cursor, *options)
        found += keys
    return found


# ------------------------------------------------------------------------------------------------ the whole keyspace


def test_dbsize_and_keys_add_up(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as wire:
        assert wire.ask("DBSIZE") == 0
        assert wire.ask("KEYS", "*") == []
        keys = fill(wire, 500)
        assert wire.ask("DBSIZE") == 500
        shown = wire.ask("KEYS", "*")
        assert isinstance(shown, list)
        assert len(shown) == 500
        assert {key for key in shown if isinstance(key, bytes)} == keys
        some = wire.ask("KEYS", "k:1?")
        assert isinstance(some, list)
        assert sorted(key for key in some if isinstance(key, bytes)) == [b"k:1%d" % digit for digit in range(10)]
    assert sum(len(keys_of(fleet, shard)) for shard in range(SHARDS)) == 500


@pytest.mark.parametrize("words", [["FLUSHALL"], ["FLUSHALL", "ASYNC"], ["FLUSHDB"], ["FLUSHDB", "SYNC"]], ids=str)
def test_flush_empties_every_shard(proxy: Proxy, fleet: Fleet, words: list[str]) -> None:
    with proxy.socket() as wire:
        fill(wire, 200)
        wire.ask("SELECT", 3)
        fill(wire, 100)
        assert wire.ask(*words) == "OK"
        assert wire.ask("DBSIZE") == 0
        wire.ask("SELECT", 0)
        assert wire.ask("DBSIZE") == (0 if words[0] == "FLUSHALL" else 200)
        assert isinstance(wire.ask("FLUSHALL", "NOW"), ErrorReply)


def test_randomkey_reaches_the_only_key_wherever_it_is(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        assert wire.ask("RANDOMKEY") is None
        for key in one_key_each():
            wire.ask("SET", key, "v")
            assert wire.ask("RANDOMKEY") == key.encode()
            wire.ask("DEL", key)
        keys = fill(wire, 100)
        drawn = [key for key in (wire.ask("RANDOMKEY") for _ in range(400)) if isinstance(key, bytes)]
        assert len(drawn) == 400
        assert set(drawn) <= keys
        assert {shard_of(key) for key in drawn} == set(range(SHARDS))


# ------------------------------------------------------------------------------------------------------------- SCAN


@pytest.mark.parametrize("count", [1, 10, 1000])
@pytest.mark.parametrize("protocol", [2, 3])
def test_scan_returns_every_key(proxy: Proxy, count: int, protocol: int) -> None:
    with proxy.socket() as wire:
        wire.ask("HELLO", protocol)
        keys = fill(wire, 700)
        found = scan(wire, "COUNT", count)
        assert set(found) == keys
        assert scan(wire, "MATCH", "nothing*") == []


def test_scan_of_an_empty_keyspace_ends(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        assert scan(wire) == []


@pytest.mark.parametrize("protocol", [2, 3])
def test_scan_reads_a_small_keyspace_in_one_call(proxy: Proxy, protocol: int) -> None:
    with proxy.socket() as wire:
        wire.ask("HELLO", protocol)
        keys = one_key_each()
        assert wire.ask("MSET", *(word for key in keys for word in (key, "v"))) == "OK"
        cursor, found = scan_step(wire, 0)
        assert (cursor, sorted(found)) == (0, sorted(key.encode() for key in keys))
        assert scan_step(wire, 0, "MATCH", keys[-1]) == (0, [keys[-1].encode()])
        assert scan_step(wire, 0, "TYPE", "list") == (0, [])


def test_scan_asks_no_further_shard_than_count_wants(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        keys = one_key_each()
        assert wire.ask("MSET", *(word for key in keys for word in (key, "v"))) == "OK"
        cursor, found = scan_step(wire, 0, "COUNT", 1)
        assert cursor, "other shards have keys"
        assert len(found) == 1


def test_scan_options_pass_through(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        fill(wire, 100)
        for key in (f"list:{number}" for number in range(50)):
            wire.ask("RPUSH", key, "x")
        assert set(scan(wire, "TYPE", "list")) == {b"list:%d" % number for number in range(50)}
        assert set(scan(wire, "MATCH", "*:7*", "COUNT", 5)) == {
            *(b"%s:%d" % (prefix, number) for prefix in (b"k", b"list") for number in (7,)),
            *(b"k:%d" % number for number in range(70, 80)),
        }
        assert set(scan(wire, "match", "list:4*", "type", "LIST", "count", 1000)) == {
            b"list:4",
            *(b"list:%d" % number for number in range(40, 50)),
        }


@pytest.mark.parametrize("seed", range(3))
def test_scan_returns_keys_that_stay_while_others_come_and_go(proxy: Proxy, seed: int) -> None:
    rng = random.Random(seed)
    with proxy.socket() as wire:
        stay = fill(wire, 3000, "stay")
        found: set[bytes] = set()
        cursor, turns = 0, 0
        while True:
            cursor, keys = scan_step(wire, cursor, "COUNT", rng.choice([1, 10, 100]))
            found.update(keys)
            turns += 1
            number = rng.randrange(100_000)
            if turns % 2:
                # Growing and shrinking tables: the hard case for cursors.
                fill(wire, rng.choice([1, 200]), f"come:{number}")
            else:
                gone = [key for key in found if key.startswith(b"come")]
                wire.ask("DEL", "none", *gone)
            if cursor == 0:
                break
        assert stay <= found


@pytest.mark.parametrize("cursor", ["x", "-1", "18446744073709551616", "4", "4095", "1e3", "", "+0", " 0"])
def test_cursors_that_shoal_did_not_give(proxy: Proxy, cursor: str) -> None:
    """Not a number of ours: an error, as a server has for what is no number. Never somebody else's keys."""
    with proxy.socket() as wire:
        fill(wire, 20)
        assert wire.ask("SCAN", cursor) == "ERR invalid cursor"
        assert wire.ask("PING") == "PONG"


def test_an_old_cursor_goes_on(proxy: Proxy) -> None:
    """A cursor is good for ever, also twice and on another connection, as a server's is."""
    with proxy.socket() as one, proxy.socket() as two:
        keys = fill(one, 400)
        cursor, first = scan_step(one, 0, "COUNT", 50)
        rest: list[list[bytes]] = []
        for wire in (one, two):
            at, found = cursor, list(first)
            while at:
                at, more = scan_step(wire, at, "COUNT", 50)
                found += more
            rest.append(found)
        assert set(rest[0]) == set(rest[1]) == keys


@pytest.mark.parametrize(
    "words", [["SCAN"], ["SCAN", "0", "COUNT"], ["SCAN", "0", "COUNT", "0"], ["SCAN", "0", "NOPE"]]
)
def test_scan_errors_are_the_servers_own(proxy: Proxy, fleet: Fleet, words: list[str]) -> None:
    with proxy.socket() as wire, Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        told = plain.ask(*words)
        assert isinstance(told, ErrorReply)
        assert wire.ask(*words) == told


def test_scan_with_a_shard_down_says_so_and_can_be_resumed(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as wire:
        keys = fill(wire, 400)
        fleet.kill(2)
        found: set[bytes] = set()
        cursor = 0
        while True:
            reply = wire.ask("SCAN", cursor, "COUNT", 100)
            if isinstance(reply, ErrorReply):
                assert "'s2'" in reply
                break
            assert isinstance(reply, list)
            cursor = int(str(reply[0], "ascii") if isinstance(reply[0], bytes) else "0")
            found |= {key for key in reply[1] if isinstance(key, bytes)}  # type: ignore[union-attr]
            assert cursor, "the scan must not end without the keys of shard s2"
        fleet.restart(2)
        wait_until(lambda: not isinstance(wire.ask("SCAN", cursor), ErrorReply), 8, "the same cursor works again")
        while cursor:
            cursor, more = scan_step(wire, cursor, "COUNT", 100)
            found |= set(more)
        assert found == {key for key in keys if shard_of(key) != 2}, "its data was in memory only"


# ---------------------------------------------------------------------------------------------------------- databases


def test_sixteen_databases_are_the_servers_own(proxy: Proxy, fleet: Fleet) -> None:
    keys = one_key_each()
    with proxy.socket() as wire:
        for database in range(16):
            assert wire.ask("SELECT", database) == "OK"
            for key in keys:
                assert wire.ask("SET", key, f"{key} in {database}") == "OK"
            wire.ask("SET", f"only in {database}", "v")
        for database in reversed(range(16)):
            assert wire.ask("SELECT", database) == "OK"
            assert wire.ask("MGET", *keys) == [f"{key} in {database}".encode() for key in keys]
            assert wire.ask("DBSIZE") == SHARDS + 1
            assert set(scan(wire)) == {*(key.encode() for key in keys), b"only in %d" % database}
        with proxy.socket() as other:
            assert other.ask("GET", "only in 0") == b"v", "a new connection begins in database 0"
    for database in (0, 7, 15):
        for shard, key in enumerate(keys):
            assert key.encode() in keys_of(fleet, shard, database)


def test_database_switches_within_a_pipeline(proxy: Proxy) -> None:
    key = one_key_each()[1]
    with proxy.socket() as wire:
        for database in range(16):
            wire.command("SELECT", database)
            wire.command("INCRBY", key, database)
            wire.command("INCRBY", key, 100)
        assert [wire.reply() for _ in range(48)] == [
            reply for database in range(16) for reply in ("OK", database, database + 100)
        ]


@pytest.mark.parametrize("number", ["16", "-1", "x", "", "1000000000000000000000", "1.5"])
def test_select_of_another_database(proxy: Proxy, number: str) -> None:
    with proxy.socket() as wire:
        wire.ask("SELECT", 2)
        fill(wire, 3)
        reply = wire.ask("SELECT", number)
        assert isinstance(reply, ErrorReply)
        assert "out of range" in reply
        assert wire.ask("DBSIZE") == 3, "the old one stays selected"


# ------------------------------------------------------------------------------------------------------------ scripts

SCRIPT = "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])"
SHA = hashlib.sha1(SCRIPT.encode()).hexdigest()


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def scripted(proxy: Proxy, fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A connection; neither proxy nor shards know any script."""
    with proxy.socket() as wire:
        wire.ask("HELLO", request.param)
        assert wire.ask("SCRIPT", "FLUSH") == "OK"
        yield wire


def exists(fleet: Fleet, shard: int, sha: str = SHA) -> bool:
    return list(fleet.client(shard).script_exists(sha)) == [True]


def test_script_load_reaches_every_shard(scripted: Wire, fleet: Fleet) -> None:
    assert scripted.ask("SCRIPT", "EXISTS", SHA) == [0]
    assert scripted.ask("SCRIPT", "LOAD", SCRIPT) == SHA.encode()
    assert all(exists(fleet, shard) for shard in range(SHARDS))
    assert scripted.ask("SCRIPT", "EXISTS", SHA, "0" * 40, SHA.upper()) == [1, 0, 1]
    for key in one_key_each():
        assert scripted.ask("EVALSHA", SHA, 1, key, "v") == b"v"
    assert scripted.ask("SCRIPT", "FLUSH") == "OK"
    assert not any(exists(fleet, shard) for shard in range(SHARDS))
    for key in one_key_each():
        reply = scripted.ask("EVALSHA", SHA, 1, key, "v")
        assert isinstance(reply, ErrorReply)
        assert reply.startswith("NOSCRIPT"), "flushed means forgotten"


def test_a_script_seen_by_one_shard_works_on_all(scripted: Wire, fleet: Fleet) -> None:
    keys = one_key_each()
    assert scripted.ask("EVAL", SCRIPT, 1, keys[0], "a") == b"a"
    assert [exists(fleet, shard) for shard in range(SHARDS)] == [True, False, False, False]
    for key in keys:
        assert scripted.ask("EVALSHA", SHA, 1, key, "b") == b"b"
        assert scripted.ask("EVALSHA", SHA.upper(), 1, key, "c") == b"c"
    assert all(exists(fleet, shard) for shard in range(SHARDS))


def test_a_shard_that_forgot_is_mended_in_the_middle_of_a_pipeline(scripted: Wire, fleet: Fleet) -> None:
    keys = one_key_each()
    assert scripted.ask("SCRIPT", "LOAD", SCRIPT) == SHA.encode()
    fleet.client(1).script_flush()
    expected = []
    for number in range(40):
        key = keys[number % SHARDS]
        scripted.command("EVALSHA", SHA, 1, key, number)
        scripted.command("GET", key)
        expected += [str(number).encode()] * 2
    replies = [scripted.reply() for _ in expected]
    assert replies == expected, "also the GET behind it on the same shard must see what the script wrote"
    assert exists(fleet, 1)


def test_a_restarted_shard_is_given_its_scripts_again(scripted: Wire, fleet: Fleet) -> None:
    keys = one_key_each()
    scripted.ask("SCRIPT", "LOAD", SCRIPT)
    assert scripted.ask("EVALSHA", SHA, 1, keys[3], "v") == b"v"
    fleet.restart(3)
    wait_until(lambda: not isinstance(scripted.ask("GET", keys[3]), ErrorReply), 8, "the shard is used again")
    assert not exists(fleet, 3)
    assert scripted.ask("EVALSHA", SHA, 1, keys[3], "v") == b"v"


def knows(wire: Wire, key: str) -> bool:
    return wire.ask("EVALSHA", SHA, 1, key, "v") == b"v"


def test_a_script_loaded_through_another_worker(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, options=["--workers", "3"])
    wires = [proxy.socket() for _ in range(8)]
    assert wires[0].ask("EVAL", SCRIPT, 1, one_key_each()[0], "v") == b"v"
    # The other workers hear of it by mail, moments later.
    for wire in wires:
        for key in one_key_each():
            wait_until(partial(knows, wire, key), 5, "known to every worker")
    for wire in wires:
        wire.close()


def test_unknown_scripts_are_told_as_a_server_tells_it(scripted: Wire, fleet: Fleet) -> None:
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        requests: list[Words] = [
            ["EVALSHA", "0" * 40, 1, "k"],
            ["EVALSHA", "nonsense", 1, "k"],
            ["EVAL", "return", 1],
            ["EVAL", "return 1", "x", "k"],
            ["EVAL", "return 1", -1, "k"],
            ["EVAL", "return 1", 2, "k"],
            ["EVAL", "this is not lua", 1, "k"],
            ["FCALL", "nosuch", 1, "k"],
            ["SCRIPT", "EXISTS"],
            ["SCRIPT", "LOAD", "this is not lua"],
            ["SCRIPT", "FLUSH", "NOW"],
        ]
        for words in requests:
            assert scripted.ask(*words) == plain.ask(*words), words


def test_scripts_return_everything(scripted: Wire, fleet: Fleet) -> None:
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        if isinstance(scripted.ask("HELLO"), dict):
            plain.ask("HELLO", 3)
        for script in (
            "return {1, 'a', {2, false}, true}",
            "return redis.status_reply('FINE')",
            "return redis.error_reply('MYERR text')",
            "return redis.sha1hex('')",
            "return {double=3.5}",
            "redis.setresp(3); return redis.call('HGETALL', KEYS[1])",
            "return redis.call('NOSUCH')",
        ):
            for key in one_key_each():
                ours, theirs = scripted.ask("EVAL", script, 1, key), plain.ask("EVAL", script, 1, key)
                if isinstance(theirs, ErrorReply):
                    # The words hold the script's hash and line, which are the same; compare them whole.
                    assert isinstance(ours, ErrorReply)
                assert ours == theirs, script


def test_scripts_with_keys_of_one_slot_and_of_none(scripted: Wire) -> None:
    assert scripted.ask("EVAL", "return #KEYS", 3, "{t}a", "{t}b", "{t}c") == 3
    assert scripted.ask("EVAL_RO", "return redis.call('GET', KEYS[1])", 1, "{t}a") is None
    reply = scripted.ask("EVAL_RO", "return redis.call('SET', KEYS[1], 'x')", 1, "{t}a")
    assert isinstance(reply, ErrorReply)
    assert scripted.ask("EVAL", "return 7", 0) == 7


def test_functions_loaded_on_the_servers_work(scripted: Wire, fleet: Fleet) -> None:
    code = """#!lua name=mylib
local function myget(keys) return redis.call('GET', keys[1]) end
local function myset(keys, args) return redis.call('SET', keys[1], args[1]) end
redis.register_function{function_name='myget', callback=myget, flags={'no-writes'}}
redis.register_function('myset', myset)"""
    for shard in range(SHARDS):
        fleet.client(shard).function_load(code, replace=True)
    for key in one_key_each():
        assert scripted.ask("FCALL", "myset", 1, key, "v") == "OK"
        assert scripted.ask("FCALL_RO", "myget", 1, key) == b"v"
        assert isinstance(scripted.ask("FCALL_RO", "myset", 1, key, "v"), ErrorReply)


# --------------------------------------------------------------------------------------------------- WAIT, TIME, rest


def test_wait_counts_the_replicas_of_the_least_replicated_shard(new_fleet: NewFleet, new_proxy: NewProxy) -> None:
    primaries = new_fleet(2)
    replicas = [
        new_fleet(1, settings=(f"replicaof 127.0.0.1 {server.port.number}", "repl-diskless-sync-delay 0"))
        for server in [primaries.servers[0], primaries.servers[0], primaries.servers[1]]
    ]

    def online(shard: int) -> int:
        info = primaries.client(shard).info("replication")
        return sum(info[f"slave{number}"]["state"] == "online" for number in range(int(info["connected_slaves"])))

    wait_until(lambda: (online(0), online(1)) == (2, 1), 20, "the replicas follow")
    proxy = new_proxy(primaries.addresses)
    with proxy.socket() as wire, proxy.socket() as other:
        fill(wire, 50)
        assert wire.ask("WAIT", 1, 5000) == 1
        started = time.monotonic()
        wire.command("WAIT", 2, 700)
        assert other.ask("PING") == "PONG", "others do not wait with it"
        assert other.ask("GET", "k:1") == b"v"
        assert time.monotonic() - started < 0.6
        assert wire.reply() == 1
        assert time.monotonic() - started > 0.6
        assert wire.ask("WAIT", 0, 100) in (0, 1), "never more than there are"
        for words in (["WAIT", "x", "1"], ["WAIT", "1", "-1"], ["WAIT", "1"]):
            assert isinstance(wire.ask(*words), ErrorReply)
    replicas[2].kill(0)
    wait_until(lambda: online(1) == 0, 10, "the replica is gone")
    with proxy.socket() as wire:
        fill(wire, 50)
        assert wire.ask("WAIT", 1, 100) == 0


def test_time_is_now(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        reply = wire.ask("TIME")
        assert isinstance(reply, list)
        seconds, micros = (int(str(part, "ascii")) for part in reply if isinstance(part, bytes))
        assert abs(seconds + micros / 1e6 - time.time()) < 5


def test_time_is_told_while_any_shard_is_up(proxy: Proxy, fleet: Fleet) -> None:
    for shard in (0, 1, 3):
        fleet.kill(shard)
    with proxy.socket() as wire:
        for key in one_key_each():
            wire.ask("GET", key)
        wait_until(lambda: isinstance(wire.ask("TIME"), list), 5, "the shard that is up is asked")
        assert all(isinstance(wire.ask("TIME"), list) for _ in range(10))


def test_streams(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        for key in one_key_each():
            assert wire.ask("XADD", key, "1-1", "f", "v") == b"1-1"
            assert wire.ask("XREAD", "COUNT", 1, "STREAMS", key, 0) == [[key.encode(), [[b"1-1", [b"f", b"v"]]]]]
            assert wire.ask("XGROUP", "CREATE", key, "g", 0) == "OK"
            assert wire.ask("XREADGROUP", "GROUP", "g", "c", "STREAMS", key, ">") == [
                [key.encode(), [[b"1-1", [b"f", b"v"]]]]
            ]
            assert wire.ask("XACK", key, "g", "1-1") == 1
