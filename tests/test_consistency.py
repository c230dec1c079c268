"""The history checkers themselves: histories that must fail, each with its anomaly, and histories that must pass.

Good ones come from the model, by running a workload one operation after the other and drawing the intervals so that
they overlap; then each is spoilt in one place, and the checker must say so. The model is compared with a real server.
Must stay true: no checker is trusted that has not been seen to complain.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from consistency import (
    appends,
    conservation,
    counters,
    faults,
    history,
    judge,
    model,
    registers,
    report,
    residue,
    wgl,
    workload,
)
from consistency.client import Client
from consistency.finding import Verdict
from consistency.history import History, Operation, Outcome, Reply
from consistency.rig import Shape
from harness import Fleet

TESTS = Path(__file__).resolve().parent
PLACES = ("p0", "p1", "p2", "p3")
CLIENTS = 6
MILLISECOND = 1_000_000

Step = tuple[str, Reply]
Check = Callable[[Sequence[Operation]], Verdict]


def op(invoked: int, completed: int | None, *steps: Step, outcome: Outcome = "ok", kind: str = "") -> Operation:
    """Of one client, `GET a` and its reply for each command. Without an end its outcome is unknown."""
    outcome = "info" if completed is None else outcome
    commands = tuple(tuple(words.split()) for words, _ in steps)
    replies = tuple(reply for _, reply in steps) if outcome == "ok" else ()
    return Operation("c", "any", kind or commands[0][0], commands, invoked, completed, outcome, replies)


def shapes(check: Check, *operations: Operation) -> list[str]:
    return [violation.shape for violation in check(History.of(operations)).violations]


# ------------------------------------------------------------------------------------------------------ the search

LINEARIZABLE = {
    "nothing": [],
    "one after the other": [op(0, 1, ("SET a 1", "OK")), op(2, 3, ("GET a", "1")), op(4, 5, ("DEL a b", 1))],
    "a read before a write that overlaps": [op(0, 9, ("SET a 1", "OK")), op(1, 2, ("GET a", None))],
    "a read after a write that overlaps": [op(0, 9, ("SET a 1", "OK")), op(1, 2, ("GET a", "1"))],
    "an unknown write that came late": [
        op(0, None, ("SET a 1", "OK")),
        op(1, 2, ("GET a", None)),
        op(3, 4, ("GET a", "1")),
    ],
    "an unknown write that never came": [op(0, None, ("RENAME a b", "OK")), op(1, 2, ("MGET a b", (None, None)))],
    "a failed write": [op(0, 1, ("SET a 1", "OK"), outcome="fail"), op(2, 3, ("GET a", None))],
    "two orders, of which one fits": [
        op(0, 9, ("SET a 1", "OK")),
        op(0, 9, ("SET a 2", "OK")),
        op(0, 9, ("RENAME a b", "OK")),
        op(10, 11, ("MGET a b", ("1", "2"))),
    ],
    "an error is an answer": [op(0, 1, ("RENAME a b", model.NO_SUCH_KEY))],
}

NOT_LINEARIZABLE = {
    "a stale read": [op(0, 1, ("SET a 1", "OK")), op(2, 3, ("GET a", None))],
    "a lost write": [op(0, 1, ("SET a 1", "OK")), op(2, 3, ("SET b 1", "OK")), op(4, 5, ("MGET a b", (None, "1")))],
    "reads in two orders": [
        op(0, 9, ("SET a 1", "OK")),
        op(0, 9, ("SET a 2", "OK")),
        op(1, 2, ("GET a", "1")),
        op(3, 4, ("GET a", "2")),
        op(5, 6, ("GET a", "1")),
    ],
    "half of an MSET": [op(0, 9, ("MSET a 1 b 1", "OK")), op(1, 2, ("MGET a b", ("1", None)))],
    "halves in two orders": [
        op(0, 9, ("MSET a 1 b 1", "OK")),
        op(1, 2, ("GET b", "1")),
        op(3, 4, ("GET a", None)),
    ],
    "a renamed key in both places": [
        op(0, 1, ("SET a 1", "OK")),
        op(2, 9, ("RENAME a b", "OK")),
        op(3, 4, ("GET b", "1")),
        op(5, 6, ("GET a", "1")),
    ],
    "an element in neither list": [
        op(0, 1, ("RPUSH a 1", 1)),
        op(2, 9, ("LMOVE a b LEFT RIGHT", "1")),
        op(3, 4, ("LRANGE a 0 -1", ()), ("LRANGE b 0 -1", ())),
    ],
    "a failed write that was done": [op(0, 1, ("SET a 1", "OK"), outcome="fail"), op(2, 3, ("GET a", "1"))],
    "an unknown operation that was done by half": [
        op(0, 1, ("SADD a x", 1)),
        op(2, None, ("SMOVE a b x", 1)),
        op(9, 10, ("SMEMBERS a", ("x",)), ("SMEMBERS b", ("x",))),
    ],
    "an unknown operation that was undone": [
        op(0, None, ("MSET a 1 b 1", "OK")),
        op(1, 2, ("MGET a b", ("1", "1"))),
        op(3, 4, ("MGET a b", (None, None))),
    ],
    "write skew": [
        op(0, 9, ("GET a", None), ("SET b 1", "OK")),
        op(0, 9, ("GET b", None), ("SET a 1", "OK")),
    ],
    "a lost update": [op(0, 9, ("INCRBY a 1", 1)), op(0, 9, ("INCRBY a 1", 1))],
    "a script over two versions": [
        op(0, 1, ("MSET a 1 b 2", "OK")),
        op(2, 3, ("SWAP a b", ("1", "2"))),
        op(4, 5, ("MGET a b", ("2", "2"))),
    ],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_the_search_finds_an_order(name: str) -> None:
    assert wgl.check(History.of(LINEARIZABLE[name])).good


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_the_search_finds_none(name: str) -> None:
    found = wgl.check(History.of(NOT_LINEARIZABLE[name]))
    assert [violation.shape for violation in found.violations] == ["not linearizable"]
    assert found.violations[0].operations


def test_the_search_names_the_operation_that_no_order_gets_past() -> None:
    stale = op(6, 7, ("GET a", "1"))
    found = wgl.check(History.of([op(0, 1, ("SET a 1", "OK")), op(2, 3, ("SET a 2", "OK")), stale]))
    assert found.violations[0].operations[0].commands == (("GET", "a"),)
    assert "#2" in found.violations[0].text


def test_keys_that_are_never_used_together_are_searched_apart() -> None:
    operations = [op(0, 9, ("SET a 1", "OK")), op(0, 9, ("SET b 1", "OK")), op(0, 9, ("MGET b c", (None, None)))]
    assert sorted(len(group) for group in wgl.groups(History.of(operations))) == [1, 2]


def test_a_search_that_takes_too_long_is_undecided_and_no_pass() -> None:
    # Any of 2^20 subsets of the unknown writes may have been done, and none explains the read.
    writes = [op(0, None, (f"APPEND a {number}", 0)) for number in range(20)]
    found = wgl.check(History.of([*writes, op(1, 2, ("GET a", "no"))]), steps_max=1000)
    assert (found.undecided, found.violations, found.good) == (1, (), False)


# ---------------------------------------------------------------------------------------- transactions of appends

TRANSACTIONS = {
    "G0": [
        op(0, 9, ("RPUSH a 1", 1), ("RPUSH b 1", 2)),
        op(0, 9, ("RPUSH a 2", 2), ("RPUSH b 2", 1)),
        op(10, 11, ("LRANGE a 0 -1", ("1", "2")), ("LRANGE b 0 -1", ("2", "1"))),
    ],
    "G1a": [op(0, 1, ("RPUSH a 1", 1), outcome="fail"), op(2, 3, ("LRANGE a 0 -1", ("1",)))],
    "G1b": [op(0, 9, ("RPUSH a 1", 1), ("RPUSH a 2", 2)), op(1, 2, ("LRANGE a 0 -1", ("1",)))],
    "G1c": [
        op(0, 9, ("RPUSH a 1", 1), ("LRANGE b 0 -1", ("1",))),
        op(0, 9, ("RPUSH b 1", 1), ("LRANGE a 0 -1", ("1",))),
    ],
    "G-single": [
        op(0, 9, ("RPUSH a 1", 1), ("RPUSH b 1", 1)),
        op(0, 9, ("LRANGE a 0 -1", ("1",)), ("LRANGE b 0 -1", ())),
        op(10, 11, ("LRANGE b 0 -1", ("1",))),
    ],
    "G2": [
        op(0, 9, ("LRANGE a 0 -1", ()), ("RPUSH b 1", 1)),
        op(0, 9, ("LRANGE b 0 -1", ()), ("RPUSH a 1", 1)),
        op(10, 11, ("LRANGE a 0 -1", ("1",)), ("LRANGE b 0 -1", ("1",))),
    ],
    "G0-realtime": [
        op(0, 1, ("RPUSH a 1", 1)),
        op(2, 3, ("RPUSH a 2", 1)),
        op(4, 5, ("LRANGE a 0 -1", ("2", "1"))),
    ],
    "G1c-realtime": [
        op(0, 1, ("LRANGE a 0 -1", ("1",))),
        op(2, 3, ("RPUSH a 1", 1)),
    ],
    "G-single-realtime": [
        op(0, 1, ("RPUSH a 1", 1)),
        op(2, 3, ("LRANGE a 0 -1", ())),
        op(4, 5, ("LRANGE a 0 -1", ("1",))),
    ],
    "G2-realtime": [
        # The last one misses the second, and that the first, which was over before the last began.
        op(0, 1, ("RPUSH b 1", 1)),
        op(0, 9, ("RPUSH a 1", 1), ("LRANGE b 0 -1", ())),
        op(2, 9, ("LRANGE a 0 -1", ())),
        op(10, 11, ("LRANGE a 0 -1", ("1",)), ("LRANGE b 0 -1", ("1",))),
    ],
    "incompatible order": [
        op(0, 9, ("RPUSH a 1", 1)),
        op(0, 9, ("RPUSH a 2", 2)),
        op(10, 11, ("LRANGE a 0 -1", ("1", "2"))),
        op(10, 11, ("LRANGE a 0 -1", ("2", "1"))),
    ],
    "duplicate": [op(0, 9, ("RPUSH a 1", 1)), op(10, 11, ("LRANGE a 0 -1", ("1", "1")))],
    "garbage": [op(0, 9, ("LRANGE a 0 -1", ("1",)))],
    "internal": [op(0, 9, ("RPUSH a 1", 1), ("LRANGE a 0 -1", ()))],
    "lost append": [op(0, 1, ("RPUSH a 1", 1)), op(2, 3, ("LRANGE a 0 -1", ()))],
}


@pytest.mark.parametrize("shape", TRANSACTIONS)
def test_an_anomaly_of_transactions_is_named(shape: str) -> None:
    assert shape in shapes(appends.check, *TRANSACTIONS[shape])


@pytest.mark.parametrize("shape", ["G0", "G1c", "G-single", "G2", "G0-realtime", "G1c-realtime", "G2-realtime"])
def test_a_cycle_is_named_once_and_by_its_plainest_shape(shape: str) -> None:
    assert shapes(appends.check, *TRANSACTIONS[shape]) == [shape]


def test_a_cycle_says_which_transactions_and_why() -> None:
    (found,) = appends.check(History.of(TRANSACTIONS["G2"])).violations
    assert "#0 -rw(a)-> #1 -rw(b)-> #0" in found.text or "#1 -rw(b)-> #0 -rw(a)-> #1" in found.text
    assert {operation.number for operation in found.operations} == {0, 1}


def test_unknown_transactions_count_once_they_were_seen() -> None:
    unknown = op(0, None, ("RPUSH a 1", 1), ("RPUSH b 1", 1))
    none, whole = ((), ()), (("1",), ("1",))
    for a, b in (none, whole):
        assert not shapes(appends.check, unknown, op(1, 2, ("LRANGE a 0 -1", a), ("LRANGE b 0 -1", b)))
    half = op(1, 2, ("LRANGE a 0 -1", ("1",)), ("LRANGE b 0 -1", ()))
    later = op(3, 4, ("LRANGE b 0 -1", ("1",)))
    assert shapes(appends.check, unknown, half, later) == ["G-single"]


def test_half_of_an_unknown_transaction_is_found_though_the_rest_never_comes() -> None:
    unknown = op(0, None, ("RPUSH a 1", 1), ("RPUSH b 1", 1))
    half = op(1, 2, ("LRANGE a 0 -1", ("1",)), ("LRANGE b 0 -1", ()))
    assert shapes(appends.check, unknown, half) == ["G-single"]


# ------------------------------------------------------------------------------------- equal, conserved, counted


def test_a_torn_read_is_found() -> None:
    write = op(0, 9, ("MSET {x}e 1 {y}e 1", "OK"))
    assert not shapes(registers.check, write, op(1, 2, ("MGET {x}e {y}e", (None, None))))
    assert shapes(registers.check, write, op(1, 2, ("MGET {x}e {y}e", ("1", None)))) == ["torn read"]
    assert shapes(registers.check, write, op(1, 2, ("GET {x}e", "1"), ("GET {y}e", None))) == ["torn read"]


def test_an_equal_read_that_goes_back_is_found() -> None:
    first, second = op(0, 1, ("MSET {x}e 1 {y}e 1", "OK")), op(2, 9, ("MSET {x}e 2 {y}e 2", "OK"))
    old, new = ("MGET {x}e {y}e", ("1", "1")), ("MGET {x}e {y}e", ("2", "2"))
    assert not shapes(registers.check, first, second, op(3, 4, old), op(5, 6, new))
    assert shapes(registers.check, first, second, op(3, 4, new), op(5, 6, old)) == ["back in time"]
    assert shapes(registers.check, first, second, op(3, 4, ("GET {x}e", "2")), op(5, 6, ("GET {y}e", "1")))
    assert shapes(registers.check, first, second, op(10, 11, old)) == ["back in time"]
    assert shapes(registers.check, first, op(2, 3, ("MGET {x}e {y}e", (None, None)))) == ["back in time"]


def test_a_write_that_must_have_been_visible_is_found() -> None:
    # 1 is there before and after 2 was written and acknowledged, and 1 was written once.
    write = [op(0, 1, ("MSET {x}e 1 {y}e 1", "OK")), op(4, 5, ("MSET {x}e 2 {y}e 2", "OK"))]
    assert shapes(registers.check, *write, op(8, 9, ("GET {x}e", "1"))) == ["back in time"]


def test_values_of_nobody_are_found() -> None:
    assert shapes(registers.check, op(0, 1, ("GET {x}e", "1"))) == ["garbage"]
    failed = op(0, 1, ("MSET {x}e 1", "OK"), outcome="fail")
    assert shapes(registers.check, failed, op(2, 3, ("GET {x}e", "1"))) == ["garbage"]
    assert not shapes(registers.check, op(0, None, ("MSET {x}e 1", "OK")), op(2, 3, ("GET {x}e", "1")))
    assert "read from the future" in shapes(
        registers.check, op(0, 1, ("GET {x}e", "1")), op(2, 3, ("MSET {x}e 1", "OK"))
    )


def test_money_that_is_missing_is_found() -> None:
    opened = [op(0, 1, (f"MSET {place} 10", "OK"), kind="open") for place in ("a", "b")]
    whole, half = ("MGET a b", ("7", "13")), ("MGET a b", ("7", "10"))
    assert not shapes(conservation.check_bank, *opened, op(2, 3, whole, kind="snapshot"))
    assert shapes(conservation.check_bank, *opened, op(2, 3, half, kind="snapshot")) == ["money"]
    assert "-3" in conservation.check_bank([*opened, op(2, 3, half, kind="snapshot")]).violations[0].text


@pytest.mark.parametrize(
    "snapshot",
    [
        [("SMEMBERS {a}set:0", ("x",)), ("SMEMBERS {b}set:0", ())],
        [("SMEMBERS {a}set:0", ("x", "y")), ("SMEMBERS {b}set:0", ("y",))],
        [("SMEMBERS {a}set:0", ()), ("SMEMBERS {b}set:0", ("x", "z"))],
    ],
    ids=["lost", "doubled", "exchanged"],
)
def test_tokens_that_are_not_the_same_are_found(snapshot: list[Step]) -> None:
    opened = op(0, 1, ("SADD {a}set:0 x y", 2), kind="open")
    moved = [("SMEMBERS {a}set:0", ("x",)), ("SMEMBERS {b}set:0", ("y",))]
    assert not shapes(conservation.check_tokens, opened, op(2, 3, *moved, kind="snapshot set"))
    assert shapes(conservation.check_tokens, opened, op(2, 3, *snapshot, kind="snapshot set")) == ["token"]


@pytest.mark.parametrize(
    ("shape", "operations"),
    [
        ("lost increment", [op(0, 1, ("INCRBY a 1", 1)), op(2, 3, ("MGET a", (None,)))]),
        ("lost increment", [op(0, 1, ("INCRBY a 1", 1)), op(0, 1, ("INCRBY a 1", 2)), op(2, 3, ("INCRBY a 1", 2))]),
        ("back in time", [op(0, 9, ("INCRBY a 1", 1)), op(1, 2, ("GET a", "1")), op(3, 4, ("GET a", None))]),
        ("too many", [op(0, 1, ("INCRBY a 1", 2))]),
        ("too many", [op(0, 1, ("INCRBY a 1", 0), outcome="fail"), op(2, 3, ("GET a", "1"))]),
        ("same answer", [op(0, 9, ("INCRBY a 1", 1)), op(0, 9, ("INCRBY a 1", 1))]),
        (
            "torn pair",
            [
                op(0, 9, ("INCRBY a 1", 1), ("INCRBY b 1", 1)),
                op(1, 2, ("MGET a b", ("1", None)), kind="snapshot pair"),
            ],
        ),
    ],
)
def test_a_counter_that_is_wrong_is_found(shape: str, operations: list[Operation]) -> None:
    assert shape in shapes(counters.check, *operations)


def test_a_counter_may_or_may_not_have_what_is_unknown() -> None:
    unknown = op(0, None, ("INCRBY a 1", 1))
    for value in (None, "1"):
        assert not shapes(counters.check, unknown, op(5, 6, ("GET a", value)))
    assert shapes(counters.check, unknown, op(5, 6, ("GET a", "2"))) == ["too many"]


def test_residue_is_found() -> None:
    places = {"x": "shard 0", "y": "shard 1"}
    clean = residue.Found("shard 0", ("__shoal:m", "{x}a"))
    assert residue.check([clean], places).good
    for key, shape in (
        ("__shoal:f:17", "record"),
        ("__shoal:d:17", "record"),
        ("{y}a", "wrong shard"),
        ("lost", "stranger"),
        ("{z}a", "stranger"),
    ):
        found = residue.check([replace(clean, keys=(*clean.keys, key))], places)
        assert [violation.shape for violation in found.violations] == [shape]
    assert [v.shape for v in residue.check([replace(clean, fences=1)], places).violations] == ["fence"]


# --------------------------------------------------------------------------------- whole histories, good and spoilt


def good_history(seed: int, count: int = 1500) -> History:
    """What a perfect server would have given: one operation after the other, seen by clients that wait for replies."""
    chance = random.Random(seed)
    clients = [workload.Workload(f"{seed} {name}", f"c{name}", 0, PLACES, 0) for name in range(CLIENTS)]
    free = [0] * CLIENTS
    state: model.State = {}
    found: list[Operation] = []
    instant = 0

    def do(plan: workload.Plan, client: int) -> None:
        nonlocal state, instant
        instant = max(instant, free[client]) + chance.randint(1, MILLISECOND)
        invoked = max(free[client], instant - chance.randint(1, 4 * MILLISECOND)) + 1
        completed = max(instant, invoked) + chance.randint(1, 4 * MILLISECOND)
        free[client] = completed
        outcome: Outcome = chance.choices(("ok", "info", "fail"), (96, 3, 1))[0] if plan.kind != "open" else "ok"
        replies: tuple[Reply, ...] = ()
        if outcome == "ok" or (outcome == "info" and chance.random() < 0.5):
            state, replies = model.apply(state, plan.commands)
        shown = replies if outcome == "ok" else ()
        names = (f"c{client}", plan.workload, plan.kind)
        found.append(Operation(*names, plan.commands, invoked, completed, outcome, shown))

    for plan in workload.opening(0, PLACES):
        do(plan, 0)
    free = [max(free)] * CLIENTS
    for _ in range(count):
        client = chance.randrange(CLIENTS)
        do(clients[client].next(instant), client)
    free = [max(free)] * CLIENTS
    groups = (workload.REGISTER, workload.APPEND)
    used = [command for operation in found if operation.workload in groups for command in operation.commands]
    for plan in workload.closing(0, PLACES, used):
        do(plan, 0)
    return History.of(found)


@pytest.mark.parametrize("seed", range(6))
def test_a_good_history_passes_every_checker(seed: int) -> None:
    for verdict in judge.judge(good_history(seed)):
        assert verdict.operations > 100
        assert verdict.good, "\n".join(map(str, verdict.violations))


def changed(found: History, operation: Operation, replies: tuple[Reply, ...]) -> History:
    return History.of(replace(other, replies=replies) if other is operation else other for other in found)


def a_read(found: History, name: str, kind: str, chance: random.Random, least: int = 0) -> Operation:
    """One operation of this kind that shows so much."""
    candidates = [
        operation
        for operation in found
        if (operation.workload, operation.kind, operation.outcome) == (name, kind, "ok")
        and len(str(operation.replies)) > least
    ]
    return chance.choice(candidates)


def drop_an_append(found: History, chance: random.Random) -> History:
    """The end of a list, acknowledged, is gone from every read."""
    reads = [o for o in found if o.workload == workload.APPEND and o.kind == "MULTI LRANGE"]
    last = chance.choice([o for o in reads if any(o.replies)])
    at = next(at for at, reply in enumerate(last.replies) if isinstance(reply, tuple) and reply)
    key, reply = last.commands[at][1], last.replies[at]
    assert isinstance(reply, tuple)
    gone = reply[-1]

    def without(operation: Operation) -> Operation:
        replies = tuple(
            tuple(part for part in shown if part != gone) if isinstance(shown, tuple) and command[1] == key else shown
            for command, shown in zip(operation.commands, operation.replies, strict=False)
        )
        return replace(operation, replies=replies, outcome="ok" if replies else operation.outcome)

    writer = next(o for o in found if any(gone in command for command in o.commands))
    return History.of(replace(o, outcome="ok") if o is writer and not o.replies else without(o) for o in found)


def expose_half(found: History, chance: random.Random) -> History:
    """A read of all shows one part as it was before."""
    operation = a_read(found, workload.EQUAL, "MGET", chance, least=30)
    (reply,) = operation.replies
    assert isinstance(reply, tuple)
    return changed(found, operation, ((None, *reply[1:]),))


def stale_read(found: History, chance: random.Random) -> History:
    """The last read of the register workload's texts shows nothing of what there is."""
    operation = [o for o in found if o.workload == workload.EQUAL and o.outcome == "ok"][-1]
    return changed(found, operation, tuple((None,) * len(PLACES) for _ in operation.replies))


def swap_two_reads(found: History, chance: random.Random) -> History:
    """Two counters' reads, of which the later saw more, answer in each other's place."""
    reads = [o for o in found if o.workload == workload.COUNTERS and o.kind == "snapshot pair" and o.outcome == "ok"]
    reads = [o for o in reads if o.commands[0][0] == "MGET"]
    first, last = reads[len(reads) // 3], reads[-1]
    assert first.replies != last.replies
    return changed(changed(found, first, last.replies), last, first.replies)


def steal(found: History, chance: random.Random) -> History:
    operation = a_read(found, workload.BANK, "snapshot", chance)
    (first, *rest) = operation.replies[0] if isinstance(operation.replies[0], tuple) else operation.replies
    taken = (str(int(str(first)) - 1), *rest)
    return changed(found, operation, (taken,) if len(operation.commands) == 1 else taken)


def double_a_token(found: History, chance: random.Random) -> History:
    operation = a_read(found, workload.TOKENS, "snapshot list", chance)
    first, second, *rest = operation.replies
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    return changed(found, operation, ((*first, "p0.0"), second, *rest))


def wrong_end_of_a_group(found: History, chance: random.Random) -> History:
    """At the end of a window a key that is there was not, or the reverse."""
    operation = a_read(found, workload.REGISTER, "MULTI SMEMBERS", chance)
    first, *rest = operation.replies
    return changed(found, operation, (("a",) if first == () else (), *rest))


SPOILT = {
    drop_an_append: "serializable",
    expose_half: "all-equal",
    stale_read: "all-equal",
    swap_two_reads: "counters",
    steal: "bank",
    double_a_token: "tokens",
    wrong_end_of_a_group: "linearizable",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_a_history_that_is_spoilt_in_one_place_fails(spoil: Callable[..., History], seed: int) -> None:
    spoilt = spoil(good_history(seed), random.Random(seed))
    assert [verdict.checker for verdict in judge.judge(spoilt) if verdict.violations] == [SPOILT[spoil]]


# ---------------------------------------------------------------------------------- the model, files and verdicts


@pytest.mark.parametrize("seed", range(3))
def test_the_model_answers_as_a_server_does(fleet: Fleet, seed: int) -> None:
    server = fleet.servers[0]
    source = workload.Workload(f"{seed}", "c0", 0, PLACES, 0)
    client = Client("c0", [(server.host, server.port.number)], f"{seed}")
    state: model.State = {}
    seen = set()
    assert client.connect()
    for plan in [*workload.opening(0, PLACES), *(source.next(0) for _ in range(1200))]:
        assert client.connect()
        done = client.do(plan)
        state, replies = model.apply(state, plan.commands)
        assert (done.outcome, done.replies) == ("ok", replies), plan
        seen |= {name for name, *_ in plan.commands}
    client.close()
    assert seen == set(model.COMMANDS)


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    found = good_history(1, 200)
    path = tmp_path / "history.jsonl"
    history.save(found, path)
    assert history.load([path]) == found
    path.write_text(path.read_text()[:-10])
    assert len(history.load([path])) == len(found) - 1


def run_of(kind: str, seconds: float, *words: str) -> dict[str, Any]:
    """The verdict of `make test-consistency` as a program prints it."""
    command = [sys.executable, "-m", "consistency", "--json", "--seed", "1", "--kind", kind, "--seconds", str(seconds)]
    command += words
    found = subprocess.run(
        command, cwd=TESTS.parent, env={**os.environ, "PYTHONPATH": f"{TESTS}:."}, capture_output=True, check=False
    )
    assert found.returncode in (0, 1), found.stderr.decode()
    verdict: dict[str, Any] = json.loads(found.stdout)
    # Without fences it is the finding that is wanted.
    wanted = bool(verdict["violations"]) if "--fence-off" in words else verdict["good"]
    assert wanted == (found.returncode == 0)
    return verdict


def test_one_server_passes() -> None:
    verdict = run_of("plain", 2)
    assert verdict["violations"] == []
    assert verdict["good"], verdict


def test_one_shard_passes_with_faults() -> None:
    verdict = run_of("one-shard", 11, "--faults", "kill a shard, reset", "--proxies", "2")
    assert verdict["violations"] == []
    assert verdict["good"], verdict
    assert set(verdict["faults"]) == {"kill a shard", "reset connections"}


def test_operations_over_shards_pass() -> None:
    verdict = run_of("strict", 6, "--faults", "none")
    assert verdict["violations"] == []
    assert verdict["good"], verdict


def test_operations_over_shards_pass_while_a_proxy_ends() -> None:
    verdict = run_of("strict", 11, "--faults", "kill a proxy", "--proxies", "2")
    assert verdict["violations"] == []
    assert verdict["faults"]["kill a proxy"] > 0


def test_without_fences_operations_over_shards_do_not_pass() -> None:
    assert run_of("strict", 8, "--fence-off")["violations"]


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in faults.ALL}) == len(faults.ALL)
    assert [fault.name for fault in faults.chosen(["kill at prepared", "stop a shard"])] == [
        "kill at prepared",
        "stop a shard",
    ]
    assert faults.chosen(["all"]) == list(faults.ALL)


def test_a_keyspace_that_splits_transactions_does_not_pass() -> None:
    found = {violation["checker"] for violation in run_of("per-shard", 4)["violations"]}
    assert {"serializable", "all-equal"} <= found


def test_a_run_is_good_only_if_everything_was_done_once() -> None:
    good = Verdict("any", 1)
    done, refused = op(0, 1, ("SET a 1", "OK")), op(0, 1, ("GET a", None), outcome="fail")

    def tally(*rounds: tuple[Operation, Verdict]) -> report.Tally:
        made = report.Tally(Shape(), 1)
        for operation, verdict in rounds:
            made.add(History.of([operation]), [verdict], 1.0)
        return made

    assert not tally().good
    assert tally((done, good)).good
    assert tally((done, good), (refused, good)).untested == ["any: GET"]
    assert not tally((done, good), (refused, good)).good
    undecided = tally((done, Verdict("any", 1, groups=50, undecided=1)))
    assert not undecided.good
    assert "too many of them: any" in report.words(undecided)
