"""Distributions as the configuration means them: which kind, and what that kind needs to know.

A frozen value that satisfies `_core.DistributionSpec` by attribute; the arithmetic is the core's alone, so that the
proxy, `shoal.ring` and the command line can never disagree about a key. Here is what each kind is called, which of them
exist for data that another client wrote, and which hash tag each expects.

Rejected: a class for each kind. Nothing in the control plane asks for more than the kind's name and its data.
"""

from __future__ import annotations

from dataclasses import dataclass

# Each kind, and what it is for.
KINDS: dict[str, str] = {
    "slots": "16384 slots by CRC16, as Redis Cluster",
    "codis": "1024 slots by CRC32, as Codis",
    "ketama": "a ring of MD5 points, as Twemproxy",
    "modula": "hash modulo weights, as Twemproxy",
    "random": "any shard; for a cache only",
    "redis-rb-4": "the ring of redis-rb up to 4.8: CRC32 points",
    "redis-rb-5-client-0.20": "the ring of redis-rb from 5.0 on with redis-client up to 0.20: MD5 points",
    "redis-rb-5-client-0.21": "the same with redis-client from 0.21 on, which writes addresses without /0",
    "predis": "the HashRing of Predis: CRC32 points",
    "predis-ketama": "the KetamaRing of Predis: MD5 points",
    "range": "tables of ids",
    "jump": "jump consistent hash: no table, shards are added at the end",
    "rendezvous": "highest random weight: any shard may come or go",
}
# Twemproxy's hash functions, in its order.
HASHES = ("one_at_a_time md5 crc16 crc32 crc32a fnv1_64 fnv1a_64 fnv1_32 fnv1a_32 hsieh murmur jenkins").split()
HASH_DEFAULT = "fnv1a_64"

# What a key's hash tag is unless the configuration says otherwise: that of the clients whose data it is.
TAG_DEFAULT = {"codis": "codis", "ketama": "none", "modula": "none", "random": "none"} | dict.fromkeys(
    ("redis-rb-4", "redis-rb-5-client-0.20", "redis-rb-5-client-0.21"), "redis-rb"
)
BRACES = "{}"
# Kinds that know weights, and kinds that hash the names of shards.
WEIGHTED = ("ketama", "modula", "predis", "predis-ketama", "rendezvous")
RINGED = (*WEIGHTED, "redis-rb-4", "redis-rb-5-client-0.20", "redis-rb-5-client-0.21")


@dataclass(frozen=True, order=True)
class SlotRange:
    """The slots `first` to `last`, both included, of the shard with this index."""

    first: int
    last: int
    shard: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class RangePart:
    """The ids from `first` to `last`, both included, of the shard with this index.

    Without `first` it begins after the part before it, or is open below; without `last` it is open above.
    """

    last: str | None
    shard: int
    first: str | None = None


@dataclass(frozen=True)
class RangeTable:
    """The ids of one kind of object: what follows `prefix` in a key."""

    prefix: str
    parts: tuple[RangePart, ...]
    numeric: bool = True


@dataclass(frozen=True)
class Distribution:
    """How the keys of a keyspace are spread over its shards."""

    kind: str = "slots"
    hash: str = HASH_DEFAULT
    signed_char: bool = True
    slots: tuple[SlotRange, ...] = ()
    tables: tuple[RangeTable, ...] = ()
    fallback: Distribution | None = None

    @property
    def has_slots(self) -> bool:
        return self.kind in ("slots", "codis")


def by_slots(ranges: tuple[SlotRange, ...]) -> Distribution:
    """Redis Cluster's slots, owned so."""
    return Distribution("slots", slots=ranges)
