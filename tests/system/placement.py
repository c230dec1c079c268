"""Where keys belong, judged without the core: CRC16 from Python's own library and the hash-tag rule written down anew.

Everything here is about slots dealt evenly over four shards, which is what the shared fleet has.
"""

import binascii

from harness import Fleet

SLOTS = 16384
SHARDS = 4


def slot_of(key: bytes) -> int:
    """The slot by the rule of Redis Cluster."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS


def shard_of(key: bytes) -> int:
    return slot_of(key) * SHARDS // SLOTS


def keys_on(shard: int, count: int, prefix: str = "key") -> list[str]:
    """So many keys of that shard, always the same ones."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        key = f"{prefix}:{number}"
        if shard_of(key.encode()) == shard:
            found.append(key)
        number += 1
    return found


def one_key_each(prefix: str = "key") -> list[str]:
    """A key of each shard, in the order of the shards."""
    return [keys_on(shard, 1, prefix)[0] for shard in range(SHARDS)]


def keys_of(fleet: Fleet, shard: int, database: int = 0) -> set[bytes]:
    """What a shard really holds for clients."""
    return fleet.servers[shard].held(database)
