"""The choices of one program: a seeded source of keys, members, values, scores and times.

Few keys, so that commands meet; each mostly holds one kind of value, so that commands mostly work, and sometimes
another, so that WRONGTYPE happens. Members and fields are few as well, so that sets overlap.
Must stay true: what is drawn depends on the seed alone. Relative times are far apart, and those of `GT` and `LT` differ
from all others, so that no outcome hangs on a millisecond; absolute ones lie so far ahead that they are exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias, TypeVar

Word: TypeAlias = str | bytes | int
Words: TypeAlias = list[Word]
T = TypeVar("T")

# Three or four on each of four shards; `sides` makes sure of it. Two share a hash tag.
KEYS = tuple("alder elm fir acacia oak pine willow linden plum walnut birch {yew}1 {yew}2".split())
# Sorted sets of which all members have the score 0, and nothing else is ever kept there: only of these servers promise
# what a range by name is. On others it depends on the form, which a value that has travelled may have changed.
LEX_KEYS = ("spruce", "cherry", "rowan")
ALL_KEYS = KEYS + LEX_KEYS
KINDS = ("string", "number", "bits", "hll", "hash", "list", "set", "intset", "zset", "geo", "stream")
# How often a key is asked for what it mostly holds.
FAVOURITE = 0.85

# 2100-01-01, in ms: times from here on were given as absolute ones and must come back exactly.
FAR_MS = 4102444800000

LONG = "long-" + "x" * 60  # longer than what stays in a listpack
HUGE = "h" * 4_000  # more than one packet; LCS of two such takes a server 64 MB


@dataclass(frozen=True)
class Op:
    """One way to ask for something, and how often it is chosen beside the others."""

    weight: int
    make: "Callable[[Draw], Words]"


class Draw:
    """One program's source of everything that is left to chance."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self.kinds = {key: self.random.choice(KINDS) for key in KEYS}

    # ------------------------------------------------------------------------------------------------------ choices

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, *choices: T) -> T:
        return self.random.choice(choices)

    def choose(self, *choices: Sequence[Word]) -> Words:
        """One of several requests, or of parts of one."""
        return list(self.random.choice(choices))

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def maybe(self, share: float, *words: Word) -> Words:
        """These words, or none."""
        return list(words) if self.chance(share) else []

    def some(self, low: int, high: int, make: Callable[[], T]) -> list[T]:
        return [make() for _ in range(self.number(low, high))]

    def op(self, ops: Sequence[Op]) -> Words:
        """What one of the ops makes."""
        return self.random.choices(ops, [op.weight for op in ops])[0].make(self)

    # --------------------------------------------------------------------------------------------------------- keys

    def key(self, *kinds: str) -> str:
        """A key that mostly holds one of these kinds; any key without."""
        fitting = [key for key in KEYS if self.kinds[key] in kinds]
        if not fitting or not self.chance(FAVOURITE):
            return self.random.choice(KEYS)
        return self.random.choice(fitting)

    def lex_key(self) -> str:
        """A key of a sorted set without scores."""
        return self.random.choice(LEX_KEYS)

    def keys(self, low: int, high: int, *kinds: str) -> list[str]:
        """Keys, the same one now and then twice."""
        return self.some(low, high, lambda: self.key(*kinds))

    def counted_keys(self, low: int, high: int, *kinds: str) -> Words:
        """Keys behind their number."""
        keys = self.keys(low, high, *kinds)
        return [len(keys), *keys]

    # ------------------------------------------------------------------------------------------------------- values

    def member(self) -> Word:
        """Of sets, lists and sorted sets; a field of a hash."""
        if self.chance(0.03):
            return LONG + str(self.number(0, 3))
        return self.number(-3, 24) if self.chance(0.4) else f"m{self.number(0, 24)}"

    def integer(self) -> int:
        return self.number(-5, 30) if self.chance(0.95) else self.pick(70_000, -(2**40))

    def members(self, low: int, high: int) -> Words:
        """Now and then so many that no listpack holds them."""
        if self.chance(0.06):
            low, high = 20, 60
        return self.some(low, high, self.member)

    def value(self) -> Word:
        """Of a string: text, numbers, bytes, nothing, much."""
        roll = self.random.random()
        if roll < 0.35:
            return self.pick("ohmytext", "mynewtext", "abcdefgh", "text", "axbycz") + self.pick("", "x", "text")
        if roll < 0.6:
            return self.number(-200, 2000)
        if roll < 0.7:
            return self.pick("3.5", "-0.25", "1e3", "007", " 5", "9223372036854775807")
        if roll < 0.85:
            return bytes(self.random.getrandbits(8) for _ in range(self.number(0, 12)))
        if roll < 0.9:
            return LONG
        return HUGE[: self.number(1_000, 4_000)] if self.chance(0.2) else ""

    def score(self) -> Word:
        """Of a member. No -0: a server that restores a large set as a small one makes 0 of it."""
        if self.chance(0.06):
            return self.pick("inf", "-inf", "1e300", "-1e-7", "0.1")
        return self.number(-4, 12) if self.chance(0.7) else f"{self.number(-40, 90) / 8}"

    def bound(self) -> str:
        """An end of a range of scores."""
        return self.pick("-inf", "+inf", "", "(") or f"{self.pick('', '(')}{self.number(-4, 12)}"

    def lex_bound(self) -> str:
        return self.pick("-", "+", f"[m{self.number(0, 24)}", f"(m{self.number(0, 24)}", f"[{self.number(0, 24)}")

    def index(self) -> int:
        return self.number(-6, 8)

    # -------------------------------------------------------------------------------------------------------- times

    def seconds(self) -> int:
        """A relative time that cannot pass while a program runs."""
        return self.number(1, 40) * 1_000

    def seconds_between(self) -> int:
        """The same for what is compared with a time that is set: never equal to one of `seconds`."""
        return self.number(1, 40) * 1_000 + 500

    def at_ms(self) -> int:
        return FAR_MS + self.number(0, 1_000_000_000)

    def at_seconds(self) -> int:
        return self.at_ms() // 1_000

    def past_seconds(self) -> int:
        return self.number(1, 1_000_000_000)

    def lifetime(self) -> Words:
        """EX and its like, as SET has them."""
        return self.choose(
            ["EX", self.seconds()],
            ["PX", self.seconds() * 1_000],
            ["EXAT", self.at_seconds()],
            ["PXAT", self.at_ms()],
        )
