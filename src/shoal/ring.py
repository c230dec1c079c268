"""The ring: which shard holds a key, for a program that has no proxy in between or wants to know where one would go.

The arithmetic is the data plane's own (`_core.Ring`), so this and a proxy with the same keyspace always agree.

    ring = Ring.of("ketama", ["10.0.0.1:6379", "10.0.0.2:6379"], hash="fnv1a_64")
    ring.shard("user:1000").endpoint         # 10.0.0.1:6379
    Ring(load_config(Path("shoal.toml")).topology.keyspace("main")).shards(keys)

Rejected: a second implementation in Python. It would be slower, and one day different.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoal.core import require_core
from shoal.distribution import BRACES, HASH_DEFAULT, KINDS, TAG_DEFAULT, WEIGHTED, Distribution, RangeTable
from shoal.endpoint import parse_endpoint
from shoal.errors import NoShardError, UsageError
from shoal.ring_names import ring_name
from shoal.topology import CODIS_SLOT_COUNT, WEIGHT_MAX, Keyspace, Shard, deal_slots

if TYPE_CHECKING:
    from shoal import _core


class Ring:
    """Where the keys of one keyspace go. Immutable; safe to share between threads.

    Raises UsageError when the keyspace cannot be served so (a weight of 0, ranges with gaps, ...).
    """

    def __init__(self, keyspace: Keyspace) -> None:
        self.keyspace = keyspace
        self._core = _make(keyspace)

    @classmethod
    def of(
        cls,
        kind: str,
        nodes: Sequence[str],
        *,
        weights: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        hash: str = HASH_DEFAULT,  # noqa: A002  (what Twemproxy and the configuration call it)
        signed_char: bool = True,
        hash_tag: str | None = None,
        database: int = 0,
        tables: Sequence[RangeTable] = (),
        fallback: str | None = None,
    ) -> Ring:
        """The ring of this kind (see `shoal.distribution.KINDS`) over these nodes ("host:port" or "/socket").

        `weights` and `names` are per node; `names` replaces what the ring would hash for each. `hash_tag` is two
        characters, "" for none; left out, it is that of the client whose ring it is. `database` is part of what
        redis-rb hashes. `tables` and `fallback` are for the kind "range". Raises UsageError.
        """
        if kind not in KINDS:
            raise UsageError(f"no such distribution: {kind} (there are {', '.join(KINDS)})")
        if not nodes:
            raise UsageError("a ring needs a node")
        if weights is not None and not all(1 <= weight <= WEIGHT_MAX for weight in weights):
            raise UsageError(f"a weight is 1 to {WEIGHT_MAX}")
        if weights is not None and kind not in WEIGHTED and any(weight != 1 for weight in weights):
            raise UsageError(f"{kind} does not know weights (these do: {', '.join(WEIGHTED)})")
        for given, what in ((weights, "weights"), (names, "names")):
            if given is not None and len(given) != len(nodes):
                raise UsageError(f"{len(nodes)} nodes, but {len(given)} {what}")
        shards = []
        for index, node in enumerate(nodes):
            try:
                endpoint = parse_endpoint(node)
            except ValueError as error:
                raise UsageError(str(error)) from None
            explicit = names[index] if names is not None else None
            hashed = ring_name(kind, endpoint, explicit, node, database)
            weight = weights[index] if weights is not None else 1
            shards.append(Shard(f"s{index}", endpoint.host, endpoint.port, weight=weight, ring_name=hashed))
        back = distribution_of(fallback, len(nodes), hash, signed_char) if fallback is not None else None
        made = distribution_of(kind, len(nodes), hash, signed_char, tuple(tables), back)
        tag = TAG_DEFAULT.get(kind, BRACES) if hash_tag is None else (hash_tag or "none")
        return cls(Keyspace("ring", "127.0.0.1", 0, tuple(shards), made, hash_tag=tag))

    def shard(self, key: str | bytes) -> Shard:
        """The shard that holds a key. Raises NoShardError when no range does."""
        index = self._core.locate(_bytes(key))[3]
        if index is None:
            raise NoShardError(f"no range of keyspace {self.keyspace.name} holds {key!r}")
        return self.keyspace.shards[index]

    def shards(self, keys: Sequence[str | bytes]) -> list[Shard]:
        """The shard of each key, in their order. Raises NoShardError for the first that no range holds."""
        found = []
        for key, index in zip(keys, self.indexes([_bytes(key) for key in keys]), strict=True):
            if index is None:
                raise NoShardError(f"no range of keyspace {self.keyspace.name} holds {key!r}")
            found.append(self.keyspace.shards[index])
        return found

    def indexes(self, keys: Sequence[bytes]) -> list[int | None]:
        """For each key the index of its shard in `keyspace.shards`; None when no range holds it. Quick for many."""
        return self._core.shards_of(keys)

    def locate(self, key: bytes) -> tuple[bytes, str, int | None, int | None]:
        """(what is hashed, word, number, shard index), as `_core.Ring.locate`."""
        return self._core.locate(key)

    def shares(self) -> list[float] | None:
        """Each shard's share of the hash space, adding up to 1; None for ranges, of which that cannot be said."""
        return self._core.shares()


def distribution_of(
    kind: str,
    shards: int,
    hash: str = HASH_DEFAULT,  # noqa: A002
    signed_char: bool = True,
    tables: tuple[RangeTable, ...] = (),
    fallback: Distribution | None = None,
) -> Distribution:
    """A distribution with its slots, if it has any, dealt evenly."""
    if kind == "slots":
        return Distribution(kind, slots=deal_slots(shards))
    if kind == "codis":
        return Distribution(kind, slots=deal_slots(shards, CODIS_SLOT_COUNT))
    return Distribution(kind, hash, signed_char, tables=tables, fallback=fallback)


def _make(keyspace: Keyspace) -> _core.Ring:
    require_core()
    from shoal import _core

    try:
        return _core.Ring(keyspace)
    except (ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key
