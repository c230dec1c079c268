"""FLUSHALL and FLUSHDB over several shards: one operation, which others see whole or not at all."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from harness import FLAVOURS, ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import Reply
from system.cross_shard import Shard, array, parts, refusal
from system.placement import one_key_each

NewProxy = Callable[..., Proxy]
Connect = Callable[[int, str], Shard]

CONFIG = """
workers = 2
[keyspace.main]
listen = "{listen}"
multi_key = "strict"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
"""
KEYS = one_key_each()
TX = "p1-0-1"


def records(fleet: Fleet) -> set[bytes | str]:
    """What there is of ours beside the lists of members."""
    found: set[bytes | str] = set()
    for server in fleet.servers:
        found |= set(server.client().keys("__shoal:*")) - {b"__shoal:m"}
    return found


def members(fleet: Fleet) -> list[dict[bytes | str, bytes | str]]:
    return [server.client().hgetall("__shoal:m") for server in fleet.servers]


# What two proxies may tell their clients when one has ended the other's connections, because it was slow to answer.
PASSING = ("TRYAGAIN", "ERR shard '", "ERR connection to shard '", "ERR outcome unknown")


def tried(wire: Wire, *words: str) -> Reply:
    """Until it is not told to come again."""
    while str(reply := wire.ask(*words)).startswith(PASSING):
        pass
    return reply


# ------------------------------------------------------------------------------------------------- through the proxy


class Crew:
    """Clients of several proxies at once: some write all keys, some empty everything, some look."""

    def __init__(self, proxies: list[Proxy], rounds: int) -> None:
        self.proxies = proxies
        self.rounds = rounds
        self.seen: list[Reply] = []
        self.wrong: list[str] = []
        self.doomed: Proxy | None = None

    def run(self, *, kill: Proxy | None = None) -> None:
        roles = (self.write, self.empty, self.look, self.look, self.move)
        self.doomed = kill
        threads = [
            threading.Thread(target=self.guarded, args=(role, proxy, number), daemon=True)
            for number, role in enumerate(roles)
            for proxy in self.proxies
        ]
        for thread in threads:
            thread.start()
        if kill is not None:
            wait_until(lambda: len(self.seen) > self.rounds // 4, 30, "they are at work")
            kill.kill()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "somebody waits for ever"

    def guarded(self, role: Callable[[Wire, random.Random], None], proxy: Proxy, number: int) -> None:
        chance = random.Random(number)
        try:
            with proxy.socket(timeout=30) as wire:
                for _ in range(self.rounds):
                    role(wire, chance)
        except OSError as error:
            if proxy is not self.doomed:
                self.wrong.append(repr(error))

    def write(self, wire: Wire, chance: random.Random) -> None:
        value = str(chance.random())
        self.expect(tried(wire, "MSET", *(word for key in KEYS for word in (key, value))), "OK")

    def empty(self, wire: Wire, chance: random.Random) -> None:
        words = chance.choice([["FLUSHALL"], ["FLUSHALL", "ASYNC"], ["FLUSHDB"], ["FLUSHDB", "SYNC"]])
        self.expect(tried(wire, *words), "OK")

    def move(self, wire: Wire, chance: random.Random) -> None:
        """A value that is somewhere is not lost but by being emptied, and never twice there."""
        one, other = chance.sample([f"{{{key}}}moved" for key in KEYS], 2)
        tried(wire, "SET", one, "v")
        reply = tried(wire, "RENAME", one, other)
        self.expect("OK" if reply == "ERR no such key" else reply, "OK")

    def look(self, wire: Wire, _: random.Random) -> None:
        reply = tried(wire, "MGET", *KEYS)
        self.seen.append(reply)
        if not isinstance(reply, list) or any(value != reply[0] for value in reply):
            self.wrong.append(f"some and not others: {reply!r}")

    def expect(self, reply: Reply, expected: str) -> None:
        if reply != expected:
            self.wrong.append(str(reply))


def test_others_see_all_keys_or_none(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxies = [new_proxy(fleet.addresses, config=CONFIG) for _ in range(2)]
    before = members(fleet)
    crew = Crew(proxies, rounds=60)
    for _ in range(5):
        crew.run()
        assert not crew.wrong
        if len({reply == [None] * 4 for reply in crew.seen}) == 2:
            break
    else:
        pytest.fail("keys were never seen, or always")
    wait_until(lambda: not records(fleet), 10, "nothing is left of the operations")
    assert members(fleet) == before
    with proxies[0].socket() as wire:
        assert wire.ask("FLUSHALL") == "OK"
    assert [server.held() for server in fleet.servers] == [set()] * 4


def test_a_proxy_that_dies_leaves_nothing_half_empty(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxies = [new_proxy(fleet.addresses, config=CONFIG) for _ in range(2)]
    crew = Crew(proxies, rounds=60)
    crew.run(kill=proxies[0])
    assert not crew.wrong
    wait_until(lambda: not records(fleet), 20, "what the dead one had begun is finished")
    with proxies[1].socket() as wire:
        values = wire.ask("MGET", *KEYS)
        assert isinstance(values, list)
        assert len({str(value) for value in values}) == 1


def test_a_shard_that_may_not_be_emptied_keeps_the_others_as_they_are(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=CONFIG)
    with proxy.socket() as wire:
        assert wire.ask("MSET", *(word for key in KEYS for word in (key, "v"))) == "OK"
        fleet.client(2).acl_setuser("default", commands=["-flushall"], enabled=True, nopass=True)
        try:
            reply = wire.ask("FLUSHALL")
        finally:
            fleet.client(2).acl_setuser("default", commands=["+flushall"], enabled=True, nopass=True)
        assert isinstance(reply, ErrorReply)
        assert wire.ask("MGET", *KEYS) == [b"v"] * 4
        wait_until(lambda: not records(fleet), 10, "nothing is left of it")
        for words in (["FLUSHALL", "NOW"], ["FLUSHALL", ""], ["FLUSHDB", "SYNC", "SYNC"]):
            assert wire.ask(*words) == "ERR syntax error"
        assert wire.ask("DBSIZE") == 4


def test_what_is_not_one_operation_waits_for_those_that_are(fleet: Fleet, new_proxy: NewProxy) -> None:
    """Another database's keys have no part in operations; on a shard that evicts there are none."""
    proxy = new_proxy(fleet.addresses, config=CONFIG)
    with proxy.socket() as wire:
        for database in (0, 3):
            wire.ask("SELECT", database)
            for key in KEYS:
                wire.ask("SET", key, "v")
        assert wire.ask("FLUSHDB") == "OK"
        wire.ask("SELECT", 0)
        assert wire.ask("DBSIZE") == 4
        fleet.client(1).sadd("__shoal:fs", "somebody-0-1")
        fleet.client(1).hset("__shoal:f:somebody-0-1", mapping={"c": "somebody", "h": "s1", "kx": "X"})
        fleet.client(1).hset("__shoal:k", "kx", "X somebody-0-1")
        assert tried(wire, "FLUSHALL") == "OK", "somebody is dead, and what was begun is undone"
        assert not records(fleet)
        assert wire.ask("DBSIZE") == 0


# ---------------------------------------------------------------------------------------------- the scripts themselves


@pytest.fixture(scope="module", params=FLAVOURS)
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("two"), 2, request.param) as fleet:
        yield fleet


@pytest.fixture
def pair(two: Fleet) -> Iterator[tuple[Shard, Shard]]:
    for server in two.servers:
        server.client().flushall()
    with ExitStack() as stack:
        shards = [stack.enter_context(closing(Shard(server))) for server in two.servers]
        for shard in shards:
            parts(shard.join(), b"joined")
            shard.wire.ask("SET", "key", "v")
        yield shards[0], shards[1]


def claim(pair: tuple[Shard, Shard], redo: str) -> None:
    for shard in pair:
        assert array(shard.prepare(TX, {}, scope="a", redo=redo))[0] == b"prepared"
    assert pair[0].watch(TX) == ["OK", 1]


def names(shard: Shard) -> set[bytes]:
    return {key for key in array(shard.wire.ask("KEYS", "*")) if isinstance(key, bytes)}


@pytest.mark.parametrize("redo", ["FLUSHALL", "flushdb ASYNC", "FLUSHALL SYNC"])
def test_a_commit_empties_home_and_what_it_decided_the_others(pair: tuple[Shard, Shard], redo: str) -> None:
    home, away = pair
    claim(pair, redo)
    told = array(array(home.join())[4])[0]
    assert array(told)[:2] == [TX.encode(), b"f"], "others are told of it"
    assert array(home.commit(TX, [], [], redo=redo)[-1])[0] == "OK"
    assert names(home) == {b"__shoal:m", b"__shoal:fs", f"__shoal:d:{TX}".encode()}
    assert home.prepare("t2", {}, scope="a", redo=redo) == [b"conflict", TX.encode()]
    assert away.prepare("t2", {b"key": "S"}) == [b"conflict", TX.encode()]
    assert home.resolve(TX) == [b"committed", []]
    assert away.wire.ask("GET", "key") == b"v"
    assert (away.apply(TX), away.apply(TX)) == (1, 0)
    home.clean(TX)
    assert names(home) == names(away) == {b"__shoal:m"}
    assert home.wire.ask("HKEYS", "__shoal:m") == [b"p1"]


def test_undone_it_has_emptied_nothing(pair: tuple[Shard, Shard]) -> None:
    home, away = pair
    claim(pair, "FLUSHALL")
    assert home.resolve(TX) == [b"undone"]
    assert home.commit(TX, [], [], redo="FLUSHALL")[-1] is None
    assert (away.release(TX), away.release(TX)) == (1, 0)
    assert names(home) == names(away) == {b"__shoal:m", b"key"}


def test_who_cannot_be_emptied_claims_nothing(pair: tuple[Shard, Shard], two: Fleet) -> None:
    home, _ = pair
    two.client(0).acl_setuser("default", commands=["-flushall"], enabled=True, nopass=True)
    reply = home.prepare(TX, {}, scope="a", redo="FLUSHALL")
    two.client(0).acl_setuser("default", commands=["+flushall"], enabled=True, nopass=True)
    assert "syntax" not in refusal(reply)
    assert refusal(home.prepare(TX, {}, scope="a", redo="NOSUCHCOMMAND"))
    assert names(home) == {b"__shoal:m", b"key"}


def test_records_that_are_decided_are_in_the_way(pair: tuple[Shard, Shard], two: Fleet) -> None:
    home, _ = pair
    two.client(0).sadd("__shoal:fs", "t9")
    two.client(0).hset("__shoal:d:t9", "w", 0)
    assert home.prepare(TX, {}, scope="a", redo="FLUSHALL") == [b"conflict", b"t9"]


def test_a_full_server_is_emptied(pair: tuple[Shard, Shard], two: Fleet) -> None:
    home, away = pair
    claim(pair, "FLUSHALL")
    for i in (0, 1):
        two.client(i).config_set("maxmemory", 1)
    try:
        replies = home.commit(TX, [], [], redo="FLUSHALL")
        assert isinstance(replies[-1], ErrorReply | list)
        is_done = isinstance(replies[-1], list)
        if is_done:
            assert away.apply(TX) == 1
            home.clean(TX)
    finally:
        for i in (0, 1):
            two.client(i).config_set("maxmemory", 0)
    assert (b"key" in names(home)) is not is_done
    assert (b"key" in names(away)) is not is_done
