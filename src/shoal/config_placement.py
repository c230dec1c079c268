"""The part of a keyspace's table that says where keys go: distribution, hash, hash tag, affinity, weights, ranges.

    KeyspaceTable, shards -> Distribution, affinity rules and the text of `hash_tag`, or problems with their places

Each kind knows some settings and not others; a setting that would do nothing is an error, because whoever wrote it
meant something. What two ranges mean together (overlaps, gaps) is judged by the core, which has to search them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shoal.affinity_presets import PRESETS
from shoal.core import check_affinity, limit
from shoal.distribution import (
    BRACES,
    HASH_DEFAULT,
    HASHES,
    KINDS,
    TAG_DEFAULT,
    Distribution,
    RangePart,
    RangeTable,
    SlotRange,
)
from shoal.topology import SLOT_COUNTS, deal_slots, parse_slots

if TYPE_CHECKING:
    from shoal import config_model
    from shoal.config_model import KeyspaceTable
    from shoal.places import Path
    from shoal.topology import Keyspace

HASHED = ("ketama", "modula")
# Kinds that a keyspace by range may fall back to: all that place every key.
FALLBACKS = tuple(kind for kind in KINDS if kind not in ("range", "random"))

# What is wrong with hashes that people use unawares. Measured over consecutive ids.
TRAPS = {
    ("ketama", "fnv1a_64"): "puts about 56 consecutive ids on one shard, so one range of ids is one hot shard",
    ("ketama", "fnv1_64"): "puts about 540 consecutive ids on one shard, and twice as many keys on some as on others",
    ("ketama", "crc16"): "puts about 23 consecutive ids on one shard",
    ("ketama", "crc32"): "puts every key on one shard: its 15 bits all lie before the ring's first points",
}


class Reader(Protocol):
    """What is used of `config._Reader`."""

    warnings: list[str]

    def wrong(self, path: Path, text: str) -> None: ...
    def has_left_out(self, path: Path, key: str) -> bool: ...


def read_distribution(reader: Reader, path: Path, table: KeyspaceTable, names: list[str]) -> Distribution | None:
    """The distribution over shards of these names; None when it cannot be built, and then why has been said."""
    kind = table.distribution
    if kind not in KINDS:
        reader.wrong((*path, "distribution"), f"must be one of {', '.join(KINDS)}")
        # Any will do to find out what else is wrong.
        return Distribution("jump")
    hash_name = _hash(reader, path, table, kind)
    slots = _slots(reader, path, table, kind)
    tables = _tables(reader, path, table, kind, names)
    fallback = _fallback(reader, path, table, len(names))
    if hash_name is None or slots is None or tables is None:
        return None
    signed = table.signed_char is not False
    return Distribution(kind, hash_name, signed, slots, tables, fallback)


def read_tag(reader: Reader, path: Path, table: KeyspaceTable) -> str:
    """`hash_tag` as the core takes it."""
    given = table.hash_tag
    if given is None:
        return TAG_DEFAULT.get(table.distribution, BRACES)
    if given == "":
        return "none"
    if len(given.encode()) != 2:
        reader.wrong((*path, "hash_tag"), 'must be two characters, as in "{}", or "" for none')
        return BRACES
    return given


def read_affinity(reader: Reader, path: Path, table: KeyspaceTable) -> tuple[str, ...]:
    """The rules in the order in which they are tried: those of the file, then those of the presets it names."""
    rules = list(table.affinity)
    for index, rule in enumerate(table.affinity):
        complaint = check_affinity(rule)
        if complaint is not None:
            reader.wrong((*path, "affinity", index), complaint)
    for index, name in enumerate(table.affinity_presets):
        place = (*path, "affinity_presets", index)
        if name not in PRESETS:
            reader.wrong(place, f'there is no preset "{name}" (there are {", ".join(PRESETS)})')
        elif name in table.affinity_presets[:index]:
            reader.wrong(place, f'"{name}" is there already')
        else:
            rules += PRESETS[name].rules
    if len(rules) > limit("AFFINITY_RULES_MAX"):
        reader.wrong((*path, "affinity"), f"at most {limit('AFFINITY_RULES_MAX')} rules, those of presets included")
    return tuple(rules)


def trap(keyspace: Keyspace) -> str | None:
    """What is wrong with a keyspace's hash, if something is known to be."""
    distribution = keyspace.distribution.fallback or keyspace.distribution
    return TRAPS.get((distribution.kind, distribution.hash)) if len(keyspace.shards) > 1 else None


def _hash(reader: Reader, path: Path, table: KeyspaceTable, kind: str) -> str | None:
    hashes = kind in HASHED or table.fallback in HASHED
    for key, given in (("hash", table.hash), ("signed_char", table.signed_char)):
        if given is not None and not hashes:
            reader.wrong(
                (*path, key), f'distribution "{kind}" has its own hash; only {" and ".join(HASHED)} choose one'
            )
    if table.hash is not None and table.hash not in HASHES:
        reader.wrong((*path, "hash"), f"must be one of {', '.join(HASHES)}")
        return None
    return table.hash or HASH_DEFAULT


def _slots(reader: Reader, path: Path, table: KeyspaceTable, kind: str) -> tuple[SlotRange, ...] | None:
    """Dealt evenly, unless the shards say which they own; then all of them must."""
    entries = table.shard or []
    count = SLOT_COUNTS.get(kind)
    if any(reader.has_left_out((*path, "shard", index), "slots") for index in range(len(entries))):
        return None
    if count is None:
        owners = [index for index, entry in enumerate(entries) if entry.slots is not None]
        for index in owners:
            reader.wrong((*path, "shard", index, "slots"), f'distribution "{kind}" has no slots')
        return None if owners else ()
    shards = len(entries) or len(table.shards or ())
    if all(entry.slots is None for entry in entries):
        if not 1 <= shards <= count:
            reader.wrong((*path, "shards"), f"{count} slots cannot be dealt to {shards} shards")
            return None
        return deal_slots(shards, count)
    parts: list[SlotRange] = []
    sound = True
    for index, entry in enumerate(entries):
        if entry.slots is None:
            reader.wrong((*path, "shard", index), "has no slots, though other shards have: give them to all or to none")
            sound = False
        for position, text in enumerate(entry.slots or ()):
            try:
                parts.append(SlotRange(*parse_slots(text, count), index))
            except ValueError as error:
                reader.wrong((*path, "shard", index, "slots", position), str(error))
                sound = False
    return tuple(sorted(parts)) if sound else None


def _fallback(reader: Reader, path: Path, table: KeyspaceTable, shards: int) -> Distribution | None:
    kind = table.fallback
    if kind is None:
        return None
    if table.distribution != "range":
        reader.wrong((*path, "fallback"), 'only distribution "range" has a fallback')
    elif kind not in FALLBACKS:
        reader.wrong((*path, "fallback"), f"must be one of {', '.join(FALLBACKS)}")
    else:
        count = SLOT_COUNTS.get(kind)
        dealt = deal_slots(shards, count) if count is not None and 1 <= shards <= count else ()
        return Distribution(kind, table.hash or HASH_DEFAULT, table.signed_char is not False, dealt)
    return None


def _tables(
    reader: Reader, path: Path, table: KeyspaceTable, kind: str, names: list[str]
) -> tuple[RangeTable, ...] | None:
    place = (*path, "range")
    if kind != "range":
        if table.range is not None:
            reader.wrong(place, f'is for distribution = "range", and this is "{kind}"')
        return ()
    if reader.has_left_out(path, "range"):
        return None
    if not table.range:
        example = 'range = [{ prefix = "user:", ranges = [{ upto = 10000, shard = "s0" }, { shard = "s1" }] }]'
        reader.wrong(place, f"a distribution by range needs a table: {example}")
        return None
    found = [_table(reader, (*place, index), entry, names) for index, entry in enumerate(table.range)]
    whole = tuple(one for one in found if one is not None)
    return whole if len(whole) == len(found) else None


def _table(reader: Reader, path: Path, entry: config_model.RangeTable, names: list[str]) -> RangeTable | None:
    numeric = entry.ids == "number"
    parts: list[RangePart] = []
    sound = True
    for index, part in enumerate(entry.ranges):
        place = (*path, "ranges", index)
        if part.shard not in names:
            reader.wrong((*place, "shard"), f'there is no shard "{part.shard}" (there are {some(names)})')
            sound = False
        for key, bound in (("from", part.begin), ("upto", part.upto)):
            complaint = _bound_problem(bound, numeric)
            if complaint is not None:
                reader.wrong((*place, key), complaint)
                sound = False
        if sound:
            first = None if part.begin is None else str(part.begin)
            last = None if part.upto is None else str(part.upto)
            parts.append(RangePart(last, names.index(part.shard), first))
    return RangeTable(entry.prefix, tuple(parts), numeric) if sound else None


def _bound_problem(bound: int | str | None, numeric: bool) -> str | None:
    if bound is None:
        return None
    if not numeric:
        return None if isinstance(bound, str) else f'ids are text here: write "{bound}"'
    text = str(bound)
    if not (text.isascii() and text.isdigit()):
        return f'ids are numbers here, 0 or more: "{text}" is none (for text say ids = "text")'
    return None


def some(names: list[str]) -> str:
    """Names for a complaint: the first few."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def open_warnings(keyspace: Keyspace) -> list[str]:
    """Keys that a keyspace by range refuses, and perhaps not on purpose."""
    distribution = keyspace.distribution
    if distribution.kind != "range" or distribution.fallback is not None:
        return []
    where = f"keyspace.{keyspace.name}"
    closed = [table.prefix for table in distribution.tables if table.parts[-1].last is not None]
    warnings = [f"{where}: keys that begin with none of the tables' prefixes are refused: there is no fallback"]
    if closed:
        warnings.append(f'{where}: ids of "{closed[0]}" past its last range are refused: there is no fallback')
    return warnings
