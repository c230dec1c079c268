"""How a ring spreads keys: shares, runs of neighbouring ids, and what another ring would move.

Pure arithmetic over `Ring`; `shoal ring` prints what comes out. Nothing here asks a server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shoal.ring import Ring

# Ids that are looked at one after the other, and how many batches there are of them: enough to see runs of 500.
IDS = 10_000
# Ids that fall together on one shard in longer runs than this make a hot shard of a hot stretch of ids. A good hash has
# runs of N / (N - 1).
RUN_MEAN_MAX = 4.0
# Beyond this a shard has so much more than its fair share that it will be full while others are half empty.
IMBALANCE_MAX = 1.5
# With fewer keys, what is seen is chance.
KEYS_FOR_WARNING_MIN = 1_000
NOWHERE = -1


@dataclass(frozen=True)
class Spread:
    """What was found of one keyspace. Lists are in the order of the shards.

    `fair` is the part of all keys that a shard's weight asks for; `is_sample` is false for consecutive ids.
    """

    shares: list[float] | None
    keys: int
    counts: list[int]
    fair: list[float]
    is_sample: bool
    nowhere: int
    run_mean: float
    run_max: int
    ids: str

    @property
    def imbalance(self) -> float:
        """The largest count over the mean one; 1 is even."""
        total = sum(self.counts)
        return max(self.counts) * len(self.counts) / total if total else 0.0

    @property
    def excess(self) -> float:
        """The largest count over what the shard's weight asks for; the imbalance, where weights are equal."""
        total = sum(self.counts)
        return max(count / (total * part) for count, part in zip(self.counts, self.fair, strict=True)) if total else 0.0

    def warnings(self) -> list[str]:
        """What nobody would want, as measured."""
        found = []
        shards = len(self.counts)
        # Where nothing is hashed, neighbours are together on purpose, and consecutive ids from 0 on say nothing.
        by_range = self.shares is None
        if not by_range and shards > 1 and self.run_mean > max(RUN_MEAN_MAX, 2 * shards / (shards - 1)):
            found.append(
                f"{self.run_mean:.0f} consecutive ids ({self.ids}0, {self.ids}1, ...) are on one shard on average: "
                "a stretch of ids that is much used is one hot shard"
            )
        if self.keys >= KEYS_FOR_WARNING_MIN and (self.is_sample or not by_range):
            empty = sum(count == 0 for count in self.counts)
            if empty:
                found.append(f"{empty} of {shards} shards have none of {self.keys} keys")
            if shards > 1 and self.excess > IMBALANCE_MAX:
                fair = "the mean" if len(set(self.fair)) == 1 else "what its weight asks for"
                found.append(f"the fullest shard has {self.excess:.2f} times {fair}")
        if self.nowhere:
            found.append(f"{self.nowhere} of {self.keys} keys are in no range and would be refused")
        return found


def spread(ring: Ring, keys: Sequence[bytes] | None, prefix: str) -> Spread:
    """Over these keys, or over `prefix` with consecutive ids when there are none given."""
    shards = len(ring.keyspace.shards)
    neighbours = ring.indexes([f"{prefix}{number}".encode() for number in range(IDS)])
    sample = ring.indexes(keys) if keys is not None else neighbours
    counted = Counter(NOWHERE if index is None else index for index in sample)
    mean, longest = runs(neighbours)
    weights = sum(shard.weight for shard in ring.keyspace.shards)
    return Spread(
        shares=ring.shares(),
        keys=len(sample),
        counts=[counted[index] for index in range(shards)],
        fair=[shard.weight / weights for shard in ring.keyspace.shards],
        is_sample=keys is not None,
        nowhere=counted[NOWHERE],
        run_mean=mean,
        run_max=longest,
        ids=prefix,
    )


def runs(places: Iterable[int | None]) -> tuple[float, int]:
    """(mean, greatest) length of runs of one place."""
    lengths: list[int] = []
    before: object = object()
    for place in places:
        if place == before:
            lengths[-1] += 1
        else:
            lengths.append(1)
        before = place
    return (sum(lengths) / len(lengths), max(lengths)) if lengths else (0.0, 0)


@dataclass(frozen=True)
class Moves:
    """What would move from one ring to another. `pairs` has (from, to, keys), the largest first."""

    keys: int
    moved: int
    pairs: list[tuple[str, str, int]]


def moves(before: Ring, after: Ring, keys: Sequence[bytes]) -> Moves:
    """Two shards are the same when their addresses are; a key in no range is "nowhere"."""
    names = [_labels(ring) for ring in (before, after)]
    counted: Counter[tuple[str, str]] = Counter()
    for one, other in zip(before.indexes(keys), after.indexes(keys), strict=True):
        pair = (_label(names[0], one), _label(names[1], other))
        if pair[0] != pair[1]:
            counted[pair] += 1
    pairs = [(one, other, count) for (one, other), count in counted.most_common()]
    return Moves(len(keys), sum(counted.values()), pairs)


def _labels(ring: Ring) -> list[str]:
    return [str(shard.endpoint) for shard in ring.keyspace.shards]


def _label(labels: list[str], index: int | None) -> str:
    return "nowhere" if index is None else labels[index]
