"""What clients do: random operations on few hot keys that are on different shards, as words and as model commands.

Flow: `Workload.next(now)` -> `Plan`: which checker it is for, the words for the wire, and the commands of the model
that say the same. Chance comes from a seeded generator, so a client's operations are those of its seed (what they meet
is not: the other clients and the clock have a say).
Keys are `{place}name`: a place is a hash tag that is known to be on one shard; a group of keys has one name in all
places.
Groups of the search (`wgl`) and lists are new after a while, so that searches stay small and lists short.
Must stay true: a value is written once, ever; a checker knows by a value who wrote it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from consistency.history import Command

Form: TypeAlias = Literal["one", "multi", "watch"]

REGISTER = "register"
APPEND = "append"
BANK = "bank"
TOKENS = "tokens"
EQUAL = "equal"
COUNTERS = "counters"

# How often each comes, in a hundred.
SHARES = {REGISTER: 34, APPEND: 24, BANK: 10, TOKENS: 12, EQUAL: 12, COUNTERS: 8}

REGISTER_WINDOW_NS = 100_000_000
APPEND_WINDOW_NS = 500_000_000

MEMBERS = ("a", "b", "c", "d")
DEPOSIT = 1000
TOKENS_PER_PLACE = 3
# Long enough to be served by others, short enough to leave their time to other operations.
BLOCKED_S = "0.02"

# Exchanges two texts, one of which may be missing.
SWAP = """\
local a = redis.call('GET', KEYS[1])
local b = redis.call('GET', KEYS[2])
if b then redis.call('SET', KEYS[1], b) else redis.call('DEL', KEYS[1]) end
if a then redis.call('SET', KEYS[2], a) else redis.call('DEL', KEYS[2]) end
return {a, b}"""


@dataclass(frozen=True)
class Plan:
    """One operation to be done."""

    workload: str
    kind: str
    form: Form
    commands: tuple[Command, ...]  # for the model
    words: tuple[Command, ...] = ()  # for the wire; empty: the commands themselves
    reads: int = 0  # form "watch": so many of the commands come between WATCH and MULTI

    @property
    def sent(self) -> tuple[Command, ...]:
        return self.words or self.commands


def at(place: str, name: str) -> str:
    return f"{{{place}}}{name}"


class Workload:
    """One client's operations in one round. `name` is unique among all clients of the run."""

    def __init__(self, seed: str, name: str, round_number: int, places: Sequence[str], started: int) -> None:
        self.random = random.Random(seed)
        self.name = name
        self.round = round_number
        self.places = list(places)
        self.started = started
        self.values = 0

    def next(self, now: int) -> Plan:
        """What to do at this time (nanoseconds)."""
        workload = self.random.choices(list(SHARES), list(SHARES.values()))[0]
        elapsed = now - self.started
        if workload == REGISTER:
            return self.register(f"r{self.round}w{elapsed // REGISTER_WINDOW_NS}")
        if workload == APPEND:
            return self.append(f"r{self.round}a{elapsed // APPEND_WINDOW_NS}")
        if workload == BANK:
            return self.bank()
        if workload == TOKENS:
            return self.tokens()
        return self.equal() if workload == EQUAL else self.counters()

    def value(self) -> str:
        self.values += 1
        return f"{self.name}.{self.values}"

    def some(self, name: str, least: int = 1, most: int | None = None) -> list[str]:
        """Keys of one name in several places, in any order."""
        count = self.random.randint(least, min(most or len(self.places), len(self.places)))
        return [at(place, name) for place in self.random.sample(self.places, count)]

    def one(self, name: str) -> str:
        return self.some(name, 1, 1)[0]

    # ------------------------------------------------------------------------------------ for the search: anything

    def register(self, window: str) -> Plan:
        return self.random.choice((self.texts, self.texts, self.sets, self.lists))(window)

    def texts(self, window: str) -> Plan:
        name = window + "s"
        roll = self.random.random()
        if roll < 0.25:
            commands = tuple(self.text_command(name) for _ in range(self.random.randint(2, 4)))
            return Plan(REGISTER, "MULTI texts", "multi", commands)
        if roll < 0.32:
            return self.compare_and_set(name)
        if roll < 0.42:
            first, second = self.some(name, 2, 2)
            words = ("EVAL", SWAP, "2", first, second)
            return Plan(REGISTER, "EVAL swap", "one", (("SWAP", first, second),), (words,))
        command = self.text_command(name)
        return Plan(REGISTER, command[0], "one", (command,))

    def text_command(self, name: str) -> Command:
        def pairs(keys: list[str]) -> list[str]:
            return [word for key in keys for word in (key, self.value())]

        makers: list[Callable[[], Command]] = [
            lambda: ("GET", self.one(name)),
            lambda: ("SET", self.one(name), self.value()),
            lambda: ("APPEND", self.one(name), self.value()),
            lambda: ("MGET", *self.some(name, 2)),
            lambda: ("MGET", *self.some(name, 2)),
            lambda: ("MSET", *pairs(self.some(name, 2))),
            lambda: ("MSETNX", *pairs(self.some(name, 2))),
            lambda: ("DEL", *self.some(name, 1)),
            lambda: ("EXISTS", *self.some(name, 2)),
            lambda: ("RENAME", *self.some(name, 2, 2)),
            lambda: ("RENAMENX", *self.some(name, 2, 2)),
            lambda: ("COPY", *self.some(name, 2, 2), "REPLACE"),
        ]
        return self.random.choice(makers)()

    def compare_and_set(self, name: str) -> Plan:
        keys = self.some(name, 2, 3)
        reads = tuple(("GET", key) for key in keys)
        writes = tuple(("SET", key, self.value()) for key in self.random.sample(keys, 2))
        return Plan(REGISTER, "WATCH texts", "watch", reads + writes, reads=len(reads))

    def sets(self, window: str) -> Plan:
        name = window + "m"
        roll = self.random.random()
        if roll < 0.15:
            keys = self.some(name, 2)
            commands = (("SADD", keys[0], self.random.choice(MEMBERS)), *(("SMEMBERS", key) for key in keys))
            return Plan(REGISTER, "MULTI sets", "multi", commands)
        makers: list[Callable[[], Command]] = [
            lambda: ("SADD", self.one(name), self.random.choice(MEMBERS)),
            lambda: ("SREM", self.one(name), self.random.choice(MEMBERS)),
            lambda: ("SMEMBERS", self.one(name)),
            lambda: ("SMOVE", *self.some(name, 2, 2), self.random.choice(MEMBERS)),
            lambda: (self.random.choice(("SUNION", "SINTER", "SDIFF")), *self.some(name, 2)),
            lambda: (self.random.choice(("SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE")), *self.some(name, 2)),
        ]
        command = self.random.choice(makers)()
        return Plan(REGISTER, command[0], "one", (command,))

    def lists(self, window: str) -> Plan:
        name = window + "l"
        roll = self.random.random()
        if roll < 0.2:
            commands = tuple(("LRANGE", key, "0", "-1") for key in self.some(name, 2))
            return Plan(REGISTER, "MULTI LRANGE", "multi", commands)
        ends = ("LEFT", "RIGHT")
        makers: list[Callable[[], Command]] = [
            lambda: ("RPUSH", self.one(name), self.value()),
            lambda: ("LPOP", self.one(name)),
            lambda: ("LRANGE", self.one(name), "0", "-1"),
            lambda: ("LMOVE", *self.some(name, 2, 2), self.random.choice(ends), self.random.choice(ends)),
            lambda: ("RPOPLPUSH", *self.some(name, 2, 2)),
            lambda: ("LMPOP", "2", *self.some(name, 2, 2), "LEFT"),
            lambda: ("BLPOP", *self.some(name, 2, 2), BLOCKED_S),
        ]
        command = self.random.choice(makers)()
        return Plan(REGISTER, command[0], "one", (command,))

    # ------------------------------------------------------------------------------------- one idea, one checker

    def append(self, name: str) -> Plan:
        commands: list[Command] = []
        for _ in range(self.random.randint(1, 4)):
            key = self.one(name)
            reads = self.random.random() < 0.5
            commands.append(("LRANGE", key, "0", "-1") if reads else ("RPUSH", key, self.value()))
        if len(commands) == 1:
            return Plan(APPEND, commands[0][0], "one", tuple(commands))
        if self.random.random() < 0.15:
            reads_first = sorted(commands, key=lambda command: command[0])
            count = sum(command[0] == "LRANGE" for command in commands)
            if 0 < count < len(commands):
                return Plan(APPEND, "WATCH LRANGE RPUSH", "watch", tuple(reads_first), reads=count)
        return Plan(APPEND, "MULTI RPUSH LRANGE", "multi", tuple(commands))

    def bank(self) -> Plan:
        name = f"r{self.round}bank"
        if self.random.random() < 0.5:
            source, target = self.some(name, 2, 2)
            amount = str(self.random.randint(1, 20))
            return Plan(BANK, "transfer", "multi", (("DECRBY", source, amount), ("INCRBY", target, amount)))
        return snapshot_texts(BANK, name, self.places, multi=self.random.random() < 0.3)

    def tokens(self) -> Plan:
        pool = self.random.choice(("set", "list", "name"))
        name = f"r{self.round}{pool}"
        roll = self.random.random()
        if pool == "name":
            if roll < 0.4:
                places = self.names(name)
                words = ("RENAMENX", *self.random.sample(places, 2))
                return Plan(TOKENS, "RENAMENX", "one", (words,))
            return snapshot(TOKENS, pool, self.round, self.places)
        if roll > 0.6:
            return snapshot(TOKENS, pool, self.round, self.places)
        source, target = (key + ":0" for key in self.some(name, 2, 2))
        if pool == "set":
            place = self.random.choice(self.places)
            words = ("SMOVE", source, target, f"{place}.{self.random.randrange(TOKENS_PER_PLACE)}")
        elif roll < 0.3:
            words = ("LMOVE", source, target, "LEFT", "RIGHT")
        else:
            words = ("RPOPLPUSH", source, target)
        return Plan(TOKENS, words[0], "one", (words,))

    def names(self, name: str) -> list[str]:
        return [f"{at(place, name)}:{number}" for place in self.places for number in (0, 1)]

    def equal(self) -> Plan:
        name = f"r{self.round}equal"
        keys = [at(place, name) for place in self.places]
        roll = self.random.random()
        value = self.value()
        if roll < 0.25:
            return Plan(EQUAL, "MSET", "one", (("MSET", *(word for key in keys for word in (key, value))),))
        if roll < 0.35:
            return Plan(EQUAL, "MULTI SET", "multi", tuple(("SET", key, value) for key in keys))
        if roll < 0.6:
            return Plan(EQUAL, "GET", "one", (("GET", self.random.choice(keys)),))
        if roll < 0.7:
            return Plan(EQUAL, "MULTI GET", "multi", tuple(("GET", key) for key in keys))
        return Plan(EQUAL, "MGET", "one", (("MGET", *self.some(name, 2)),))

    def counters(self) -> Plan:
        pair, alone = f"r{self.round}pair", f"r{self.round}alone"
        roll = self.random.random()
        if roll < 0.3:
            return Plan(COUNTERS, "INCRBY", "one", (("INCRBY", self.one(alone), "1"),))
        if roll < 0.55:
            commands = tuple(("INCRBY", at(place, pair), "1") for place in self.places)
            return Plan(COUNTERS, "MULTI INCRBY", "multi", commands)
        if roll < 0.7:
            return Plan(COUNTERS, "MGET", "one", (("MGET", *self.some(alone, 2)),))
        return snapshot_texts(COUNTERS, pair, self.places, multi=roll < 0.8, kind="snapshot pair")


def snapshot_texts(workload: str, name: str, places: Sequence[str], *, multi: bool, kind: str = "snapshot") -> Plan:
    """All keys of one name, read at one instant."""
    keys = [at(place, name) for place in places]
    if multi:
        return Plan(workload, kind, "multi", tuple(("GET", key) for key in keys))
    return Plan(workload, kind, "one", (("MGET", *keys),))


def snapshot(workload: str, pool: str, round_number: int, places: Sequence[str]) -> Plan:
    """A pool's tokens, read at one instant."""
    keys = [at(place, f"r{round_number}{pool}") for place in places]
    if pool == "name":
        words = ("MGET", *(f"{key}:{number}" for key in keys for number in (0, 1)))
        return Plan(workload, "snapshot name", "one", (words,))
    if pool == "set":
        return Plan(workload, "snapshot set", "multi", tuple(("SMEMBERS", key + ":0") for key in keys))
    return Plan(workload, "snapshot list", "multi", tuple(("LRANGE", key + ":0", "0", "-1") for key in keys))


def opening(round_number: int, places: Sequence[str]) -> list[Plan]:
    """What is there before anything moves: deposits and tokens. Each must come out ok."""
    plans = []
    for place in places:
        bank = at(place, f"r{round_number}bank")
        plans.append(Plan(BANK, "open", "one", (("MSET", bank, str(DEPOSIT)),)))
    tokens = {place: [f"{place}.{number}" for number in range(TOKENS_PER_PLACE)] for place in places}
    for pool, name in (("set", "SADD"), ("list", "RPUSH")):
        keys = {place: at(place, f"r{round_number}{pool}") + ":0" for place in places}
        plans += [Plan(TOKENS, "open", "one", ((name, keys[place], *tokens[place]),)) for place in places]
    # Half of the names are free.
    names = [at(place, f"r{round_number}name") + ":0" for place in places]
    plans += [Plan(TOKENS, "open", "one", (("MSET", key, place),)) for key, place in zip(names, places, strict=True)]
    return plans


def closing(round_number: int, places: Sequence[str], used: Sequence[Command]) -> list[Plan]:
    """Reads of everything, for the end of a round; `used` are the commands of the round's lists and groups."""
    plans = [
        snapshot_texts(BANK, f"r{round_number}bank", places, multi=True),
        *(snapshot(TOKENS, pool, round_number, places) for pool in ("set", "list", "name")),
        Plan(EQUAL, "MGET", "one", (("MGET", *(at(place, f"r{round_number}equal") for place in places)),)),
        Plan(COUNTERS, "MGET", "one", (("MGET", *(at(place, f"r{round_number}alone") for place in places)),)),
        snapshot_texts(COUNTERS, f"r{round_number}pair", places, multi=False, kind="snapshot pair"),
    ]
    names = {word.split("}", 1)[1] for command in used for word in command[1:] if word.startswith("{")}
    for name in sorted(names):
        keys = [at(place, name) for place in places]
        # A window's name ends with its type: text, member of a set, list; a list of transactions with a digit.
        if name.endswith("s"):
            plans.append(Plan(REGISTER, "MGET", "one", (("MGET", *keys),)))
        elif name.endswith("m"):
            plans.append(Plan(REGISTER, "MULTI SMEMBERS", "multi", tuple(("SMEMBERS", key) for key in keys)))
        else:
            workload = REGISTER if name.endswith("l") else APPEND
            plans.append(Plan(workload, "MULTI LRANGE", "multi", tuple(("LRANGE", key, "0", "-1") for key in keys)))
    return plans
