"""What is left on the shards when all is quiet: no record of an operation, no key where it does not belong.

Flow: `look` scans every shard directly, past the proxies -> `Found`; `check` judges it, a pure function. Keys of the
workload are `{place}name`, and every place is known to be on one shard.
Must stay true: `look` is for a time when nothing runs; a record of an operation under way is no residue.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import Server

from consistency.finding import Verdict, Violation

CHECKER = "residue"

RESERVED = "__shoal:"
# Who is there, and who holds what: kept for as long as the proxies live.
MEMBERS = "__shoal:m"
FENCES = "__shoal:fs"
EPOCH = "__shoal:e"

PLACE = re.compile(r"\{([^}]*)\}")


@dataclass(frozen=True)
class Found:
    """One shard's keys, and how many fences it says there are."""

    shard: str
    keys: tuple[str, ...]
    fences: int = 0


def look(server: Server, shard: str) -> Found:
    """All keys of one shard; asks the server itself."""
    client = server.client()
    keys = tuple(sorted(key.decode() for key in client.scan_iter(count=1000)))
    count = 0
    if FENCES in keys:
        count = client.scard(FENCES) if client.type(FENCES) == b"set" else client.hlen(FENCES)
    return Found(shard, keys, int(str(count)))


def check(found: Sequence[Found], places: Mapping[str, str]) -> Verdict:
    """`places`: from what stands in a key's braces to the name of its shard."""
    violations = []
    for shard in found:
        if shard.fences:
            text = f"{shard.fences} fences are left on {shard.shard}"
            violations.append(Violation(CHECKER, "fence", text))
        for key in shard.keys:
            if key.startswith(RESERVED):
                if key not in (MEMBERS, FENCES, EPOCH):
                    violations.append(Violation(CHECKER, "record", f"{key} is left on {shard.shard}"))
                continue
            place = PLACE.search(key)
            home = places.get(place[1]) if place else None
            if home is None:
                violations.append(Violation(CHECKER, "stranger", f"{key} on {shard.shard} is nobody's"))
            elif home != shard.shard:
                text = f"{key} is on {shard.shard} and belongs on {home}"
                violations.append(Violation(CHECKER, "wrong shard", text))
    return Verdict(CHECKER, sum(len(shard.keys) for shard in found), len(found), 0, tuple(violations))
