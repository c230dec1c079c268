"""From a seed to a program: what two clients ask, one after the other, in which protocol, and how much at once.

A program first fills keys, then draws commands of all tables, half of them with several keys, some with something
wrong, some within transactions, with and without WATCH, with the other client in between.
Must stay true: a program is complete before it is run, and any part of it is a program too, and can be minimised.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from differential import blunders, geo, hashes, keyspace, lists, scripts, sets, sorted_sets, streams, strings
from differential.draw import KEYS, Draw, Op, Words

ALONE = (
    *strings.OPS, *hashes.OPS, *lists.OPS, *sets.OPS, *sorted_sets.OPS, *geo.OPS, *streams.OPS, *keyspace.OPS,
)  # fmt: skip
TOGETHER = (
    *strings.TOGETHER, *lists.TOGETHER, *sets.TOGETHER, *sorted_sets.TOGETHER, *geo.TOGETHER, *keyspace.TOGETHER,
)  # fmt: skip
OUTSIDE = (*keyspace.WHOLE, *lists.WAITING, *sorted_sets.WAITING)
FILL = {
    **strings.FILL, **hashes.FILL, **lists.FILL, **sets.FILL, **sorted_sets.FILL, **geo.FILL, **streams.FILL,
}  # fmt: skip

# Shares of what a program does after its keys are filled.
TRANSACTION_SHARE = 0.07
SCRIPT_SHARE = 0.07
OUTSIDE_SHARE = 0.03
TOGETHER_SHARE = 0.55
BLUNDER_SHARE = 0.06
OTHER_CLIENT_SHARE = 0.1

STEPS = (30, 90)
BURST_MAX = 8


@dataclass(frozen=True)
class Step:
    """One request of client 0 or 1."""

    client: int
    words: Words


@dataclass(frozen=True)
class Program:
    """Steps of one client that follow each other are sent together, up to `burst` of them."""

    seed: str
    protocol: int
    database: int
    burst: int
    steps: tuple[Step, ...]

    def without_watch(self) -> "Program":
        """Where keys are written without a change, watches mean nothing."""
        return replace(self, burst=1, steps=tuple(step for step in self.steps if step.words[0] != "WATCH"))

    def bursts(self) -> Iterator[tuple[Step, ...]]:
        """The steps in the groups in which they are sent."""
        start = 0
        for end in range(1, len(self.steps) + 1):
            full = end - start == self.burst
            if full or end == len(self.steps) or self.steps[end].client != self.steps[start].client:
                yield self.steps[start:end]
                start = end


def generate(seed: str, known: Collection[str]) -> Program:
    """The program of a seed, of the commands (in lower case) that the server knows."""
    draw = Draw(seed)
    protocol = draw.pick(2, 3)
    database = 5 if draw.chance(0.03) else 0
    burst = draw.pick(1, 1, 2, BURST_MAX)
    steps = [step for kind in draw.kinds.values() for step in fill(draw, kind)]
    steps += [Step(0, words) for words in draw.some(0, 2, lambda: sorted_sets.fill_lex(draw))]
    length = draw.number(*STEPS)
    while len(steps) < length:
        steps += some_steps(draw, known)
    return Program(seed, protocol, database, burst, tuple(steps))


def fill(draw: Draw, kind: str) -> list[Step]:
    return [Step(0, words) for words in draw.some(0, 2, lambda: FILL[kind](draw))]


def some_steps(draw: Draw, known: Collection[str]) -> list[Step]:
    client = 1 if draw.chance(OTHER_CLIENT_SHARE) else 0
    if draw.chance(TRANSACTION_SHARE):
        return transaction(draw, known, client)
    return [Step(client, request(draw, known))]


def request(draw: Draw, known: Collection[str], *, within: bool = False) -> Words:
    """One request; `within` a transaction only what may be asked there."""
    while True:
        roll = draw.random.random()
        if roll < SCRIPT_SHARE:
            words = draw.op(scripts.OPS)
        elif roll < SCRIPT_SHARE + OUTSIDE_SHARE and not within:
            words = draw.op(OUTSIDE)
        else:
            words = draw.op(TOGETHER if draw.chance(TOGETHER_SHARE) else ALONE)
        if str(words[0]).lower() in known:
            return blunders.spoil(draw, words) if draw.chance(BLUNDER_SHARE) else words


def transaction(draw: Draw, known: Collection[str], client: int) -> list[Step]:
    """MULTI to EXEC, or to something else; with WATCH before, and somebody who changes what is watched.

    Without MULTI and WATCH inside it: after these Redis goes on and Valkey aborts; shoal does as Redis.
    """
    mine: list[Step] = []
    if draw.chance(0.5):
        watched = draw.keys(1, 3)
        mine.append(Step(client, ["WATCH", *watched]))
        if draw.chance(0.3):
            mine.append(Step(client, request(draw, known)))
        if draw.chance(0.4):
            mine.append(Step(1 - client, disturb(draw, draw.pick(*watched))))
        mine += [Step(client, ["UNWATCH"])] if draw.chance(0.1) else []
    mine.append(Step(client, ["MULTI"]))
    for _ in range(draw.number(0, 6)):
        mine.append(Step(client, request(draw, known, within=True)))
        if draw.chance(0.06):
            mine.append(Step(1 - client, request(draw, known)))
    ends = draw.choose(*[["EXEC"]] * 9, ["DISCARD"], ["EXEC", "EXEC"], ["DISCARD", "EXEC"])
    return mine + [Step(client, [end]) for end in ends]


def disturb(draw: Draw, key: str) -> Words:
    """Changes this key, or does something that looks like it."""
    return draw.choose(
        ["SET", key, draw.value()],
        ["DEL", key],
        ["RENAME", draw.key(), key],
        ["COPY", draw.key(), key, "REPLACE"],
        ["EXPIRE", key, draw.seconds()],
        ["GET", key],
        ["SUNIONSTORE", key, draw.key("set"), draw.key("set")],
        ["MSET", key, draw.value(), draw.key(), draw.value()],
    )


__all__ = ["KEYS", "Op", "Program", "Step", "generate"]
