"""The part of a keyspace's table that says what happens when a shard fails: the role, and the rules of ejection.

A store never ejects, so settings of ejection in a store are errors: whoever wrote them believes that it does. And only
in a store, where keys stay where they are, can there be operations across shards; there they are the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.topology import Ejection

if TYPE_CHECKING:
    from shoal.config_model import KeyspaceTable
    from shoal.config_placement import Reader
    from shoal.places import Path

# Setting of the file -> field of Ejection.
SETTINGS = {
    "eject_after": "after",
    "retry_after_ms": "retry_after_ms",
    "eject_on_replies": "on_replies",
    "ejected_max": "shards_max",
    "readmit_ms": "readmit_ms",
}


def ejected_max_default(shards: int) -> int:
    """A third of the shards, at least one, never all: with more out, what is left would drown."""
    return min(max(1, shards // 3), shards - 1)


def is_store_of_redis(table: KeyspaceTable) -> bool:
    """Whether a keyspace has operations across shards unless it says otherwise."""
    return table.role == "store" and table.protocol == "redis"


def read_role(reader: Reader, path: Path, table: KeyspaceTable, shards: int) -> Ejection | None:
    """The rules of a cache; None for a store."""
    given = {field: getattr(table, key) for key, field in SETTINGS.items() if getattr(table, key) is not None}
    if table.role == "store":
        for key in SETTINGS:
            if getattr(table, key) is not None:
                reader.wrong((*path, key), 'a store never ejects a shard; this is for role = "cache"')
        return None
    return Ejection(**{"shards_max": ejected_max_default(shards), **given})
