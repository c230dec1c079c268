"""Where requests go: every command with keys, hash tags, affinity rules, slots, what spans shards, what is unknown.

The judge of "does the right thing" is one plain server: the same requests go to it and to shoal over four of its kind,
and every reply must be equal. The judge of "on the right shard" is CRC16 from Python's own library.
"""

import json
import random
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire
from harness.proxy import program
from harness.wire import Reply, encode
from system.command_examples import Example, read_examples
from system.placement import keys_of, keys_on, shard_of, slot_of

from shoal import _core

NewFleet = Callable[..., Fleet]
NewProxy = Callable[..., Proxy]

# Replies with times or sizes in them: one machine, moments apart.
SIMILAR_WITHIN = 2000


def is_similar(left: Reply, right: Reply) -> bool:
    """Equal but for numbers that are near each other."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return abs(left - right) <= SIMILAR_WITHIN
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(is_similar, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(is_similar(left[key], right[key]) for key in left)
    return left == right


def differences(example: Example, copy: int, plain: Wire, sharded: Wire) -> Iterable[str]:
    """Sends one example to both; what was answered otherwise."""
    base = f"{example.command}:{copy}"
    tag = "{" + base + "}" if example.has_further_keys() else base
    last: Reply = None
    for step in example.steps:
        words = [
            last if word == "@" and isinstance(last, bytes) else tag + word[1:] if word.startswith("%") else word
            for word in step.words
        ]
        last = plain.ask(*words)
        reply = sharded.ask(*words)
        if not (is_similar(last, reply) if step.similar else last == reply and type(last) is type(reply)):
            yield f"{' '.join(map(str, words))}\n    one server: {last!r}\n    shoal:      {reply!r}"


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("flavour", ["valkey", "redis8"])
def test_every_command_with_keys_answers_as_one_server(
    new_fleet: NewFleet, new_proxy: NewProxy, flavour: str, protocol: int
) -> None:
    server = new_fleet(1, flavour=flavour).servers[0]
    fleet = new_fleet(4, flavour=flavour)
    proxy = new_proxy(fleet.addresses)
    with Wire(server.host, server.port.number) as plain, proxy.socket() as sharded:
        for wire in (plain, sharded):
            assert isinstance(wire.ask("HELLO", protocol), dict if protocol == 3 else list)
        found = [
            difference
            for example in read_examples()
            for copy in range(4)
            for difference in differences(example, copy, plain, sharded)
        ]
        assert not found, f"{len(found)} replies differ:\n" + "\n".join(found)
        left = plain.ask("KEYS", "*")
    assert isinstance(left, list)
    for shard in range(4):
        keys = keys_of(fleet, shard)
        assert keys == {key for key in left if isinstance(key, bytes) and shard_of(key) == shard}
        assert len(keys) > 50, "the examples reach every shard"


def test_every_command_with_keys_has_an_example() -> None:
    """Of those that the plain servers here know; modules are on none of them."""
    modules = re.compile(r"^(?:bf|cf|cms|json|ft|tdigest|topk|ts)\.|^ar[a-z]+$")
    # Of Redis versions that no wheel has yet.
    newer = {"delex", "digest", "increx", "lmovem", "sdiffcard", "sunioncard", "xcfgset", "xnack"}
    keyed = {name for name, policy, _, _ in _core.commands() if policy == "keyed" and not modules.search(name)}
    assert keyed - newer == {example.command for example in read_examples()}


def test_keys_are_where_the_slots_say(proxy: Proxy, fleet: Fleet) -> None:
    rng = random.Random(1)
    # Keys of every length and with any bytes in them, braces often.
    alphabet = [*(bytes([byte]) for byte in range(256)), b"{", b"}", b"{}", b"{a}", b"}{"]
    keys = {b"".join(rng.choices(alphabet, k=rng.randint(1, 30))) for _ in range(2000)} | {b"", b"{}", b"{}x", b"{{a}}"}
    ordered = sorted(keys)
    with proxy.socket() as wire:
        wire.send(b"".join(encode("SET", key, "v") for key in ordered))
        assert [wire.reply() for _ in ordered] == ["OK"] * len(ordered)
    for shard in range(4):
        assert keys_of(fleet, shard) == {key for key in keys if shard_of(key) == shard}


def test_key_verb_agrees_with_where_keys_are(proxy: Proxy, fleet: Fleet, new_proxy: NewProxy) -> None:
    config = """
[keyspace.main]
listen = "{listen}"
affinity = ["^bull:([^:]+):", "^rq:", "^(?:unacked|_kombu) => celery"]
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
"""
    own = new_proxy(fleet.addresses, config=config)
    keys = ["user:42", "{user:42}:name", "bull:mail:wait", "bull:mail:active", "rq:a", "rq:b", "é", "{}{x}"]
    keys += ["unacked", "_kombu.binding.celery", "{celery}"]
    client = own.client()
    for key in keys:
        client.set(key, "v")
    shown = subprocess.run(
        [program(), "key", *keys, "--config", own.folder / "shoal.toml", "--json"],
        capture_output=True,
        check=True,
        text=True,
        timeout=20,
    ).stdout
    answers = json.loads(shown)
    rows = answers if isinstance(answers, list) else answers["keys"]
    assert [row["key"] for row in rows] == keys
    for row in rows:
        shard = int(row["shard"].removeprefix("s"))
        assert row["key"].encode() in keys_of(fleet, shard), row
    slots = {row["key"]: row["slot"] for row in rows}
    assert slots["user:42"] == slots["{user:42}:name"] == slot_of(b"user:42")
    assert slots["bull:mail:wait"] == slots["bull:mail:active"] == slot_of(b"mail")
    assert slots["rq:a"] == slots["rq:b"] == slot_of(b"rq:")
    assert slots["unacked"] == slots["_kombu.binding.celery"] == slots["{celery}"] == slot_of(b"celery")
    assert next(row["hashed"] for row in rows if row["key"] == "unacked") == "celery"


def test_affinity_rules_keep_the_keys_of_a_queue_together(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, options=["--affinity", "^bull:([^:]+):", "--affinity", "^rq:"])
    with proxy.socket() as wire:
        for queue in range(20):
            assert wire.ask("RPUSH", f"bull:q{queue}:wait", "job") == 1
            assert wire.ask("RPOPLPUSH", f"bull:q{queue}:wait", f"bull:q{queue}:active") == b"job"
            assert wire.ask("SET", f"plain:{queue}", "v") == "OK"
            assert wire.ask("SADD", f"rq:workers:{queue}", "w") == 1
        assert wire.ask("SUNIONSTORE", "rq:all", *(f"rq:workers:{i}" for i in range(20))) == 1
        explained = wire.ask("SHOAL", "EXPLAIN", "RPOPLPUSH", *far_apart("bull:{}:wait", "bull:{}:active"))
        assert isinstance(explained, list)
        assert "atomicity: strict" in explained, "two queues are not on one shard"
    for shard in range(4):
        for key in keys_of(fleet, shard):
            hashed = re.match(rb"bull:([^:]+):|(rq:)", key)
            expected = next((group for group in hashed.groups() if group), key) if hashed else key
            assert shard_of(expected) == shard, key


def far_apart(first: str, second: str) -> tuple[str, str]:
    """Two keys of the patterns whose queues have different shards, by the name alone."""
    left, right = next(
        (a, b) for a, b in pairwise(map(str, range(100))) if shard_of(a.encode()) != shard_of(b.encode())
    )
    return first.format(left), second.format(right)


def test_slots_given_as_ranges(fleet: Fleet, new_proxy: NewProxy) -> None:
    config = """
[keyspace.main]
listen = "{listen}"
[[keyspace.main.shard]]
address = "{shard0}"
name = "small"
slots = ["0-9", "16000"]
[[keyspace.main.shard]]
address = "{shard1}"
name = "large"
slots = ["10-15999", "16001-16383"]
"""
    proxy = new_proxy(fleet.addresses[:2], config=config)
    wanted = {0, 9, 10, 15999, 16000, 16001, 16383}
    keys: dict[int, bytes] = {}
    number = 0
    while len(keys) < len(wanted):
        key = b"%d" % number
        if slot_of(key) in wanted:
            keys[slot_of(key)] = key
        number += 1
    with proxy.socket() as wire:
        for key in keys.values():
            assert wire.ask("SET", key, "v") == "OK"
        topology = wire.ask("SHOAL", "TOPOLOGY")
    assert keys_of(fleet, 0) == {keys[slot] for slot in (0, 9, 16000)}
    assert keys_of(fleet, 1) == {keys[slot] for slot in (10, 15999, 16001, 16383)}
    assert isinstance(topology, list)
    assert f"shard small {fleet.addresses[0]} slots 0-9,16000 up" in topology
    assert f"shard large {fleet.addresses[1]} slots 10-15999,16001-16383 up" in topology


MULTI_KEY = [
    "MSETNX {} 1 {} 2",
    "RENAME {} {}",
    "COPY {} {}",
    "SMOVE {} {} m",
    "SUNIONSTORE {} {}",
    "SINTER {} {}",
    "ZUNIONSTORE {} 1 {}",
    "ZDIFF 2 {} {}",
    "PFMERGE {} {}",
    "BITOP AND {} {}",
    "LMPOP 2 {} {} LEFT",
    "RPOPLPUSH {} {}",
    "LMOVE {} {} LEFT LEFT",
    "GEOSEARCHSTORE {} {} FROMLONLAT 1 1 BYRADIUS 1 m",
    "GEORADIUS {} 1 1 1 m STORE {}",
    "SORT {} STORE {}",
    "LCS {} {}",
    "EVAL return 2 {} {}",
]


@pytest.fixture(scope="module")
def without(module_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy without operations across shards."""
    with Proxy(tmp_path_factory.mktemp("off"), module_fleet.addresses, options=["--cross-shard", "off"]) as proxy:
        yield proxy


@pytest.mark.parametrize("request_text", MULTI_KEY)
def test_without_operations_across_shards_keys_on_two_are_refused_with_their_slots(
    without: Proxy, fleet: Fleet, request_text: str
) -> None:
    one, two = keys_on(0, 1)[0], keys_on(3, 1)[0]
    words = request_text.format(one, two).split(" ")
    with without.socket() as wire:
        wire.ask("SET", one, "before")
        reply = wire.ask(*words)
        assert isinstance(reply, ErrorReply)
        assert reply.startswith("CROSSSLOT ")
        for key in (one, two):
            assert f"'{key}' in slot {slot_of(key.encode())}" in reply
        assert "{hash tag}" in reply
        assert wire.ask("PING") == "PONG"
        assert "refused" in str(wire.ask("SHOAL", "EXPLAIN", "WATCH", one, two))
        assert 'refused; set cross_shard = "strict"' in str(wire.ask("SHOAL", "EXPLAIN", "EXEC"))
    assert fleet.client(0).get(one) == b"before"
    assert keys_of(fleet, 3) == set()


# What the first key holds; the second holds nothing.
BEFORE = {
    "SET {} before": ["MSETNX", "RENAME", "COPY", "BITOP", "LCS"],
    "SADD {} m n": ["SMOVE", "SUNIONSTORE", "SINTER"],
    "ZADD {} 1 m 2 n": ["ZUNIONSTORE", "ZDIFF"],
    "PFADD {} a b": ["PFMERGE"],
    "RPUSH {} 3 1 2": ["LMPOP", "RPOPLPUSH", "LMOVE", "SORT"],
    "GEOADD {} 1 1 m 2 2 n": ["GEOSEARCHSTORE", "GEORADIUS"],
}


@pytest.fixture(scope="module")
def module_plain(tmp_path_factory: pytest.TempPathFactory, flavour: str) -> Iterator[Wire]:
    with Fleet(tmp_path_factory.mktemp("plain"), 1, flavour) as fleet:
        server = fleet.servers[0]
        with Wire(server.host, server.port.number) as plain:
            yield plain


@pytest.fixture
def plain(module_plain: Wire) -> Wire:
    """One server, empty."""
    assert module_plain.ask("FLUSHALL") == "OK"
    return module_plain


@pytest.mark.parametrize("request_text", [text for text in MULTI_KEY if not text.startswith("EVAL")])
@pytest.mark.parametrize("is_swapped", [False, True], ids=["s0-s3", "s3-s0"])
def test_keys_on_two_shards_are_as_on_one_server(
    proxy: Proxy, plain: Wire, request_text: str, is_swapped: bool
) -> None:
    keys = [keys_on(0, 1)[0], keys_on(3, 1)[0]]
    if is_swapped:
        keys.reverse()
    command = request_text.partition(" ")[0]
    before = next(text for text, commands in BEFORE.items() if command in commands)
    after = [f"{look} {key}" for look in ("TYPE", "DUMP") for key in keys]
    with proxy.socket() as wire:
        for text in (before, request_text, *after):
            words = text.format(*keys).split(" ")
            assert wire.ask(*words) == plain.ask(*words), words


def test_functions_over_shards_are_refused_unless_they_are_wanted(proxy: Proxy) -> None:
    one, two = keys_on(0, 1)[0], keys_on(3, 1)[0]
    with proxy.socket() as wire:
        reply = wire.ask("FCALL", "anything", 2, one, two)
        assert isinstance(reply, ErrorReply)
        assert reply.startswith("CROSSSLOT 'fcall'")
        assert "; set cross_shard_functions = true if functions touch only the keys that they are given" in reply
        assert wire.ask("EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", 2, one, two, "v") == "OK"
        assert (wire.ask("GET", one), wire.ask("GET", two)) == (b"v", None)


def test_a_destination_alone_is_a_whole_pfmerge(proxy: Proxy, fleet: Fleet) -> None:
    key = keys_on(2, 1)[0]
    with proxy.socket() as wire:
        assert wire.ask("PFADD", key, "a", "b") == 1
        assert wire.ask("PFMERGE", key) == "OK"
        assert wire.ask("PFCOUNT", key) == 2
        assert wire.ask("PFMERGE") == "ERR wrong number of arguments for 'pfmerge' command"
    assert keys_of(fleet, 2) == {key.encode()}


def test_explain_names_slot_shard_and_atomicity(proxy: Proxy, fleet: Fleet) -> None:
    one, two = keys_on(0, 1)[0], keys_on(3, 1)[0]
    with proxy.socket() as wire:

        def explain(*words: str) -> str:
            lines = wire.ask("SHOAL", "EXPLAIN", *words)
            assert isinstance(lines, list)
            return "\n".join(str(line) for line in lines)

        assert f"slot {slot_of(one.encode())} shard s0 at {fleet.addresses[0]}" in explain("GET", one)
        assert "atomicity: single" in explain("GET", one)
        assert "atomicity: per-shard" in explain("MGET", one, two)
        assert "atomicity: strict" in explain("RENAME", one, two)
        assert "with keys on several shards: strict" in explain("RENAME", one, one)
        assert "atomicity: refused" in explain("SORT", one, "BY", "w_*", "STORE", two)
        assert "with keys on several shards: strict" in explain("EXEC")
        assert "refused" not in explain("WATCH", one, two)
        assert "cross_shard_functions = true" in explain("FCALL", "anything", "2", one, two)
        assert "atomicity: strict" in explain("EVAL", "return 1", "2", one, two)
        assert "answered by shoal" in explain("PING")
        assert "published on one shard" in explain("PUBLISH", "c", "m")
        assert "on every shard" in explain("SUBSCRIBE", "c")
        assert explain("SET", one, "x")
        assert wire.ask("EXISTS", one) == 0, "nothing is executed"


def test_unknown_commands_are_refused(proxy: Proxy, fleet: Fleet) -> None:
    with proxy.socket() as wire, Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        for words in (
            ["NOSUCH"],
            ["nosuch", "a", "b c"],
            ["GETT", "x"],
            ["", "x"],
            ["CONFIG|GET", "x"],
            ["BF.ADDX", "k"],
        ):
            assert wire.ask(*words) == plain.ask(*words)
        reply = wire.ask("CONFIG", "NOSUCH")
        assert isinstance(reply, ErrorReply)
        assert "unknown subcommand 'NOSUCH'" in reply


def test_unknown_commands_by_their_first_key(fleet: Fleet, new_proxy: NewProxy) -> None:
    config = """
[keyspace.main]
listen = "{listen}"
unknown_commands = "first-key"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
"""
    proxy = new_proxy(fleet.addresses, config=config)
    with proxy.socket() as wire:
        for shard in range(4):
            (key,) = keys_on(shard, 1)
            fleet.client(shard).config_resetstat()
            reply = wire.ask("NO.SUCH", key, "x")
            assert isinstance(reply, ErrorReply)
            assert reply.startswith("ERR unknown command 'NO.SUCH'"), "the shard's own words"
            statistics = fleet.client(shard).info("errorstats")
            assert statistics["errorstat_ERR"]["count"] == 1
        reply = wire.ask("NO.SUCH")
        assert isinstance(reply, ErrorReply)
        assert reply.startswith("ERR unknown command 'NO.SUCH'"), "nothing names a shard"


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_pipeline_over_all_shards_keeps_its_order(proxy: Proxy, protocol: int) -> None:
    with proxy.socket() as wire:
        wire.ask("HELLO", protocol)
        count = 5000
        wire.send(b"".join(encode("SET", f"order:{i}", i) + encode("GET", f"order:{i}") for i in range(count)))
        replies = [wire.reply() for _ in range(2 * count)]
    assert replies == [reply for i in range(count) for reply in ("OK", str(i).encode())]
