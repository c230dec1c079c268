"""The differential test's own parts, that differences are found, and a part of the run itself.

What is found is shown by sides that are made to differ: one lies about a reply, or holds something else. The long run
is `make test-differential`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from differential import report, scripts, state
from differential.__main__ import AGAINST, pair
from differential.blunders import spoil
from differential.compare import Tolerance, equal
from differential.draw import ALL_KEYS, FAR_MS, Draw, Words
from differential.known import known
from differential.minimise import minimised
from differential.program import Program, Step, generate
from differential.reply import Reply
from differential.run import Difference, Pair, Transactions
from differential.sides import SETTINGS, Shards, Side
from harness import Fleet

# Commands for which several keys may be on several shards: the programs must have them all.
TOGETHER = """
    sunion sinter sdiff sintercard sunionstore sinterstore sdiffstore zunion zinter zdiff zintercard zunionstore
    zinterstore zdiffstore zrangestore rename renamenx copy smove lmove rpoplpush lmpop zmpop bitop pfcount pfmerge
    msetnx msetex lcs geosearchstore georadius georadiusbymember sort mset mget del unlink exists touch multi exec
    watch eval evalsha fcall
""".split()
SINGLE = "set incr hset hexpire rpush sadd zadd xadd pfadd setbit geoadd expire pexpireat persist".split()
KNOWN = frozenset(TOGETHER + SINGLE + "eval_ro fcall_ro get hgetall lrange smembers zrange xrange ttl".split())
ALL = (
    frozenset(str(words[0]).lower() for seed in range(400) for words in [Draw(str(seed)).op(scripts.DONE_WITHIN)])
    | KNOWN
)


def bulk(text: str) -> Reply:
    return Reply("$", text.encode())


def number(value: int) -> Reply:
    return Reply(":", str(value).encode())


def error(text: str) -> Reply:
    return Reply("-", f"ERR {text}".encode())


def array(*parts: Reply, kind: str = "*") -> Reply:
    return Reply(kind, parts)


A, B, C = bulk("a"), bulk("b"), bulk("c")
NIL = Reply("$", None)


# ------------------------------------------------------------------------------------------------------- programs


def test_a_program_is_its_seeds() -> None:
    one, again, other = (generate(seed, ALL) for seed in ("1/5", "1/5", "1/6"))
    assert one == again
    assert one.steps != other.steps
    assert [step for burst in one.bursts() for step in burst] == list(one.steps)


def test_programs_have_every_command_both_protocols_and_both_clients() -> None:
    programs = [generate(f"coverage/{i}", ALL) for i in range(150)]
    asked = Counter(str(step.words[0]).lower() for program in programs for step in program.steps)
    assert not [name for name in TOGETHER + SINGLE if not asked[name]]
    assert {program.protocol for program in programs} == {2, 3}
    assert {program.database for program in programs} == {0, 5}
    assert {program.burst for program in programs} == {1, 2, 8}
    assert {step.client for program in programs for step in program.steps} == {0, 1}


def test_a_burst_is_of_one_client_and_no_longer_than_it_may_be() -> None:
    steps = tuple(Step(client, ["GET", "k"]) for client in (0, 0, 0, 1, 0))
    sizes = [[step.client for step in burst] for burst in Program("", 2, 0, 2, steps).bursts()]
    assert sizes == [[0, 0], [0], [1], [0]]


def test_blunders_leave_nothing_to_chance() -> None:
    for seed in range(200):
        draw = Draw(str(seed))
        assert spoil(draw, ["SRANDMEMBER", "k", 10_000]) == ["SRANDMEMBER", "k", 10_000]
        assert spoil(draw, ["EVAL", "", 0]) == ["EVAL", "", 0]
    assert any(spoil(Draw(str(seed)), ["SET", "k", "v"]) != ["SET", "k", "v"] for seed in range(9))


def test_keys_of_scripts_are_those_of_their_commands() -> None:
    for seed in range(100):
        words = scripts.run(Draw(str(seed)))
        count = words[2]
        assert isinstance(count, int)
        within = scripts.commands_within(words)
        assert within is not None
        assert (
            {key for command in within for key in scripts.keys_of(command)}
            == set(words[3 : 3 + count])
            <= set(ALL_KEYS)
        )


# ------------------------------------------------------------------------------------------------------ comparing

SAME: list[tuple[Words, Reply, Reply]] = [
    (["SUNION", "k"], array(A, B), array(B, A)),
    (["SMEMBERS", "k"], array(A, B, kind="~"), array(B, A, kind="~")),
    (["HGETALL", "k"], array(A, B, C, B), array(C, B, A, B)),
    (["HGETALL", "k"], array(A, B, C, B, kind="%"), array(C, B, A, B, kind="%")),
    (["HRANDFIELD", "k", 9, "WITHVALUES"], array(A, B, C, B), array(C, B, A, B)),
    (["SSCAN", "k", 0], array(bulk("0"), array(A, B)), array(bulk("0"), array(B, A))),
    (["MGET", "k"], array(bulk("HYLL-1--cachedXXregisters")), array(bulk("HYLL-1--CACHEDYYregisters"))),
    (["EVAL", "x", 0], error("a script: on @user_script:5."), error("a script: on @user_script:1.")),
    (["PTTL", "k"], number(100_000), number(100_009)),
    (["TTL", "k"], number(100), number(101)),
    (["HPEXPIRETIME", "k", "FIELDS", 1, "f"], array(number(5_000)), array(number(5_005))),
    (["EVAL", scripts.GOING_ON, 1, "k", 2, "SMEMBERS", "k", 2, "GET", "k"],
     array(array(A, B), A), array(array(B, A), A)),
]  # fmt: skip
DIFFERENT: list[tuple[Words, Reply, Reply]] = [
    (["GET", "k"], A, B),
    (["GET", "k"], NIL, bulk("")),
    (["GET", "k"], bulk("1"), number(1)),
    (["GET", "k"], NIL, Reply("_", None)),
    (["LMPOP", 1, "k", "LEFT"], NIL, Reply("*", None)),
    (["GET", "k"], error("a"), error("b")),
    (["LRANGE", "k", 0, -1], array(A, B), array(B, A)),
    (["ZRANGE", "k", 0, -1], array(A, B), array(B, A)),
    (["MGET", "a", "b"], array(A, B), array(B, A)),
    (["SUNION", "k"], array(A, B), array(A, A)),
    (["SUNION", "k"], array(A, B), array(A, B, kind="~")),
    (["HGETALL", "k"], array(A, B, C, B), array(A, C, B, B)),
    (["GET", "k"], bulk("HYLL-1--cachedXXregisters"), bulk("HYLL-1--cachedXXregister2")),
    (["PTTL", "k"], number(100_000), number(100_050)),
    (["PTTL", "k"], number(-1), number(5)),
    (["PTTL", "k"], number(-1), number(-2)),
    (["TTL", "k"], number(100), number(103)),
    (["PEXPIRETIME", "k"], number(FAR_MS), number(FAR_MS + 1)),
    (["INCR", "k"], number(5), number(6)),
    (["EVAL", "x", 0], error("a script: on @user_script:5."), error("b script: on @user_script:5.")),
    (["GET", "x"], error("a script: on @user_script:5."), error("a script: on @user_script:1.")),
    (["EVAL", scripts.GOING_ON, 1, "k", 2, "LRANGE", "k"], array(array(A, B)), array(array(B, A))),
    (["EVAL", "return 1", 0], array(A, B), array(B, A)),
]  # fmt: skip


@pytest.mark.parametrize(("words", "left", "right"), SAME, ids=[f"{case[0][0]!s}-{i}" for i, case in enumerate(SAME)])
def test_what_servers_do_not_promise_is_ignored(words: Words, left: Reply, right: Reply) -> None:
    assert equal(words, left, right, Tolerance(5.0))


@pytest.mark.parametrize(
    ("words", "left", "right"), DIFFERENT, ids=[f"{case[0][0]!s}-{i}" for i, case in enumerate(DIFFERENT)]
)
def test_what_they_promise_is_not(words: Words, left: Reply, right: Reply) -> None:
    assert not equal(words, left, right, Tolerance(5.0))
    assert equal(words, left, left, Tolerance(5.0))


def test_exec_is_compared_command_by_command() -> None:
    queued = Reply("+", b"QUEUED")
    for name, same in (("SMEMBERS", True), ("LRANGE", False)):
        said = Transactions()
        assert said.equal(Step(0, ["MULTI"]), Reply("+", b"OK"), Reply("+", b"OK"), Tolerance())
        assert said.equal(Step(0, [name, "k"]), queued, queued, Tolerance())
        assert said.equal(Step(1, ["GET", "k"]), A, A, Tolerance())
        assert said.equal(Step(0, ["EXEC"]), array(array(A, B)), array(array(B, A)), Tolerance()) is same


def test_what_is_meant_to_differ_is_no_wider_than_that() -> None:
    syntax = error("syntax error")
    queued = Reply("+", b"QUEUED")
    assert known(["MSET", "k"], queued, syntax, lambda _: syntax)
    assert not known(["MSET", "k"], queued, syntax, lambda _: Reply("+", b"OK"))
    assert not known(["MSET", "k"], Reply("+", b"OK"), syntax, lambda _: syntax)


def test_of_a_program_the_fewest_steps_are_left() -> None:
    program = generate("minimise/1", ALL)
    wanted = program.steps[7], program.steps[20]

    def run(candidate: Program) -> Difference | None:
        found = all(step in candidate.steps for step in wanted)
        return Difference(candidate, None, "state: left", "right") if found else None

    assert run(program) is not None
    least = minimised(program, run, Difference(program, None, "state: left", "right")).program
    assert (least.steps, least.burst) == (wanted, 1)
    # A part that differs in another way is not what was found.
    other = minimised(program, run, Difference(program, None, "shards: left", "right")).program
    assert other == program


# --------------------------------------------------------------------------------------------- differences are found


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two servers that know nothing of each other."""
    with Fleet(tmp_path_factory.mktemp("two"), 2, "valkey", SETTINGS) as fleet:
        yield fleet


@pytest.fixture
def plain(servers: Fleet) -> Side:
    servers.heal()
    return Side("one server", servers.servers[0].host, servers.servers[0].port.number)


@pytest.fixture
def other(servers: Fleet, plain: Side) -> Side:
    return Side("the other", servers.servers[1].host, servers.servers[1].port.number)


@dataclass
class Liar(Side):
    """A side that says something else than its server, where `lie` does."""

    lie: Callable[[Reply], Reply] = field(default=lambda reply: reply)

    def receive(self, client: int, count: int) -> list[Reply]:
        return [self.lie(reply) for reply in super().receive(client, count)]


@dataclass
class Forgetful(Side):
    """A side on which a command is never done."""

    forgets: str = ""

    def send(self, client: int, requests: Sequence[Words]) -> None:  # type: ignore[override]
        super().send(client, [["PING"] if words[0] == self.forgets else words for words in requests])


def program(*requests: Words, protocol: int = 3) -> Program:
    return Program("", protocol, 0, 1, tuple(Step(0, words) for words in requests))


def test_two_servers_cannot_be_told_apart(plain: Side, other: Side) -> None:
    both = Pair(plain, other, None)
    both.prepare()
    for i in range(12):
        assert both.run(generate(f"two/{i}", plain.commands())) is None
    assert both.asked.total() > 300


LIES: list[tuple[str, Words, Callable[[Reply], Reply]]] = [
    ("value", ["GET", "k"], lambda reply: replace(reply, value=b"2")),
    ("kind", ["GET", "k"], lambda reply: Reply("+", reply.value)),
    ("error", ["INCR", "list"], lambda reply: replace(reply, value=b"ERR no")),
    ("nil", ["GET", "none"], lambda _: Reply("$", None)),
    ("order", ["LRANGE", "list", 0, -1], lambda reply: replace(reply, value=reply.parts[::-1])),
    ("one less", ["SMEMBERS", "set"], lambda reply: replace(reply, value=reply.parts[1:])),
    ("list for set", ["SMEMBERS", "set"], lambda reply: Reply("*", reply.value)),
    ("time", ["TTL", "timed"], lambda reply: replace(reply, value=b"90")),
]


@pytest.mark.parametrize(("words", "lie"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_a_lie_about_one_reply_is_found(plain: Side, other: Side, words: Words, lie: Callable[[Reply], Reply]) -> None:
    before: list[Words] = [
        ["MSET", "k", 1, "timed", 1], ["RPUSH", "list", "a", "b"], ["SADD", "set", "a", "b"], ["EXPIRE", "timed", 100],
    ]  # fmt: skip
    asked = 0

    def lie_at_last(reply: Reply) -> Reply:
        nonlocal asked
        asked += 1
        return lie(reply) if asked == len(before) + 1 else reply

    liar = Liar("liar", other.host, other.port, lie=lie_at_last)
    found = Pair(plain, liar, None).run(program(*before, words))
    assert found is not None
    assert found.step == len(before)


@pytest.mark.parametrize("words", [["SET", "k", "v"], ["SADD", "k", "m"], ["HSET", "k", "f", "v"]], ids=str)
def test_a_lost_write_is_found(plain: Side, other: Side, words: Words) -> None:
    liar = Forgetful("forgetful", other.host, other.port, forgets=str(words[0]))
    found = Pair(plain, liar, None).run(program(words))
    assert found is not None


HELD: list[tuple[str, list[Words], list[Words], str]] = [
    ("one side only", [["SET", "k", 1]], [], "k is on one server only"),
    ("other side only", [], [["SET", "k", 1]], "k is on the other only"),
    ("type", [["SET", "k", 1]], [["RPUSH", "k", 1]], "k is a string and a list"),
    ("value", [["SET", "k", 1]], [["SET", "k", 2]], "k (string) holds"),
    ("order", [["RPUSH", "k", 1, 2]], [["RPUSH", "k", 2, 1]], "k (list) holds"),
    ("score", [["ZADD", "k", 1, "a"]], [["ZADD", "k", 2, "a"]], "k (zset) holds"),
    ("no time", [["SET", "k", 1, "EX", 100]], [["SET", "k", 1]], "k expires at"),
    ("time", [["SET", "k", 1, "EX", 100]], [["SET", "k", 1, "EX", 101]], "k expires at"),
    ("exact time", [["SET", "k", 1, "PXAT", FAR_MS]], [["SET", "k", 1, "PXAT", FAR_MS + 1]], "k expires at"),
    ("field's time", [["HSET", "k", "f", 1]], [["HSETEX", "k", "EX", 9, "FIELDS", 1, "f", 1]], "k's fields expire at"),
    ("stream's last id", [["XADD", "k", "1-1", "f", 1]], [["XADD", "k", "1-1", "f", 1], ["XSETID", "k", "9-1"]],
     "k (stream)"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "words"), [case[1:] for case in HELD], ids=[case[0] for case in HELD])
def test_what_is_held_differently_is_found(
    plain: Side, other: Side, left: list[Words], right: list[Words], words: str
) -> None:
    plain.ask_all(left)
    other.ask_all(right)
    found = state.differences(plain, other, Tolerance(50.0), Counter())
    assert [text for text in found if text.startswith(words)]


def test_a_form_counts_only_if_a_restored_value_has_it(plain: Side, other: Side) -> None:
    grown: list[Words] = [["HSET", "k", *range(40)], ["HDEL", "k", *range(2, 40, 2)]]
    small: list[Words] = [["HSET", "k", 0, 1]]
    forms: Counter[str] = Counter()
    # The plain server's has grown and shrunk: restored, it would be small again, as the other's is.
    plain.ask_all(grown)
    other.ask_all(small)
    assert state.differences(plain, other, Tolerance(), forms) == []
    assert forms == {"hash: hashtable is listpack": 1}
    # The other way round nothing explains it.
    plain.ask_all([["DEL", "k"], *small])
    other.ask_all([["DEL", "k"], *grown])
    found = state.differences(plain, other, Tolerance(), forms)
    assert [text.split(";")[0] for text in found] == ["k has another form, and not that of a restored value"]


def test_what_is_on_the_wrong_shard_or_left_over_is_found(servers: Fleet, plain: Side) -> None:
    shards = Shards(servers)
    for side in shards.sides:
        side.ask("HSET", "__shoal:m", "one", "two")
    plain.ask("SET", "elm", 1)
    assert shards.misplaced() == []
    shards.sides[1].ask("SET", "elm", 1)
    plain.ask("SET", "__shoal:f:9", 1)
    assert sorted(shards.misplaced()) == ["__shoal:f:9 is left on shard 0", "elm is on shard 1, and belongs on shard 0"]


# ------------------------------------------------------------------------------------------------------- the run


@pytest.mark.parametrize(("against", "commands"), [("restored", 700), ("shoal1", 700), ("shoal4", 2_500)])
def test_nobody_can_tell_the_other_side_from_one_server(against: str, commands: int) -> None:
    assert against in AGAINST
    with pair("valkey", against) as both:
        known_commands = both.plain.commands()
        number = 0
        while both.asked.total() < commands:
            program = generate(f"ci/{number}", known_commands)
            found = both.run(program if both.shards else program.without_watch())
            assert found is None, report.difference(found, 0, number, against)
            number += 1
