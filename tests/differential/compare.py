"""When two replies to one request count as equal: always when they are the same, and else only for a reason given here.

The reasons: servers promise no order for the members of sets and hashes; a HyperLogLog remembers its last count, which
is no part of its value, and need not remember a count that was made of a copy; shoal holds scripts over shards to their
keys by words of its own before theirs, so that an error tells another line and name of the script; a time that was
given as a relative one began at another instant on each side. `Tolerance` says how far apart these instants can be: the
longest that one group of requests took from the first byte sent to the last one read, on both sides, as it was
measured. Times that were given as absolute ones must be the same.
Must stay true: what is ignored is named by its command; an error's text, a type, an order that is promised never is.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from differential import scripts
from differential.draw import FAR_MS, Words
from differential.reply import Reply

# Elements in any order; pairs in any order; a cursor and one of these behind it.
ELEMENTS = {"SUNION", "SINTER", "SDIFF", "SMEMBERS", "HKEYS", "HVALS", "KEYS"}
PAIRS = {"HGETALL"}
# The same where the request has a count, and so asks for several of which servers choose; the programs ask for all.
COUNTED = {"SPOP", "SRANDMEMBER", "HRANDFIELD", "ZRANDMEMBER"}
SCANS = {"SSCAN": 1, "HSCAN": 2, "ZSCAN": 2, "SCAN": 1}

# What answers with times -> its unit in ms, and whether it answers with an instant.
TIMES = {
    "TTL": (1000, False), "PTTL": (1, False), "EXPIRETIME": (1000, True), "PEXPIRETIME": (1, True),
    "HTTL": (1000, False), "HPTTL": (1, False), "HEXPIRETIME": (1000, True), "HPEXPIRETIME": (1, True),
}  # fmt: skip


# As the servers end the error of a script: Redis names it, Valkey does not.
SCRIPT_LINE = re.compile(rb" script: (?:[0-9a-f]{40}, )?on @user_script:\d+\.$")


@dataclass
class Tolerance:
    """How far apart both sides' instants can be, in ms: starts with the clock's grain, grows with what is measured."""

    ms: float = 2.0

    def measured(self, seconds: float) -> None:
        self.ms = max(self.ms, seconds * 1000 + 2.0)


def equal(words: Words, left: Reply, right: Reply, tolerance: Tolerance) -> bool:
    """Whether both are valid answers to one request in one state. Of EXEC, see `equal_transactions`."""
    if left == right:
        return True
    if scripts.is_call(words):
        left, right = without_line(left), without_line(right)
        if left == right:
            return True
    within = scripts.commands_within(words)
    if within is not None:
        return equal_all(within, left, right, tolerance)
    name = str(words[0]).upper()
    if name in TIMES:
        return equal_times(name, left, right, tolerance)
    return canonical(words, left) == canonical(words, right)


def without_line(reply: Reply) -> Reply:
    """An error without where in a script it happened; of an array the same of its parts."""
    if reply.is_error:
        return Reply(reply.kind, SCRIPT_LINE.sub(b"", reply.text))
    return Reply(reply.kind, tuple(map(without_line, reply.parts))) if reply.parts else reply


def without_count(reply: Reply) -> Reply:
    """The reply, or its parts, without what a HyperLogLog remembers: 8 of the 16 bytes that it begins with."""
    if reply.parts:
        return Reply(reply.kind, tuple(map(without_count, reply.parts)))
    if reply.text.startswith(b"HYLL"):
        return Reply(reply.kind, reply.text[:8] + reply.text[16:])
    return reply


def equal_all(requests: Iterable[Words], left: Reply, right: Reply, tolerance: Tolerance) -> bool:
    """The same of an array with one reply for each request, as transactions and our scripts give it."""
    requests = list(requests)
    if left.kind != right.kind or not len(left.parts) == len(right.parts) == len(requests):
        return False
    return all(map(equal, requests, left.parts, right.parts, [tolerance] * len(requests)))


def equal_times(name: str, left: Reply, right: Reply, tolerance: Tolerance) -> bool:
    if left.kind != right.kind or len(left.parts) != len(right.parts):
        return False
    if left.parts:  # one time for each field
        return all(equal_times(name, *pair, tolerance) for pair in zip(left.parts, right.parts, strict=True))
    if left.kind != ":":
        return left == right
    unit, instant = TIMES[name]
    one, other = int(left.text), int(right.text)
    if one < 0 or other < 0 or (instant and max(one, other) * unit >= FAR_MS):
        return one == other
    # An instant is apart by what setting it was; what is left of a time also by what asking for it was.
    allowed = tolerance.ms * (1 if instant else 2)
    return abs(one - other) <= allowed if unit == 1 else abs(one - other) * unit <= allowed + unit


def canonical(words: Words, reply: Reply) -> Reply:
    """The reply with what comes in no promised order in a fixed one, and without what HyperLogLogs remember."""
    reply = without_count(reply)
    name = str(words[0]).upper()
    if name in ELEMENTS or (name in COUNTED and len(words) > 2):
        pairs = name != "SPOP" and str(words[-1]).upper().startswith("WITH") and reply.kind == "*"
        # RESP3 has an array of pairs here, RESP2 one after the other.
        flat = pairs and not any(part.kind == "*" for part in reply.parts)
        return sorted_reply(reply, 2 if flat else 1)
    if name in PAIRS:
        return sorted_reply(reply, 2)
    if name in SCANS and len(reply.parts) == 2:
        cursor, found = reply.parts
        return Reply(reply.kind, (cursor, sorted_reply(found, SCANS[name])))
    return reply


def sorted_reply(reply: Reply, step: int) -> Reply:
    """An aggregate with its parts sorted, in groups of `step`; other replies as they are."""
    if not reply.parts or len(reply.parts) % step:
        return reply
    groups = [reply.parts[at : at + step] for at in range(0, len(reply.parts), step)]
    return Reply(reply.kind, tuple(part for group in sorted(groups, key=repr) for part in group))
