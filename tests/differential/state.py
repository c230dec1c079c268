"""Everything that a side holds: each key's type, content, time and form, read as a client reads it.

Flow: three rounds of requests (names; types, times, forms; contents) -> `Held` for each key -> what differs, in words.
A form (OBJECT ENCODING) may differ in one way only: a value that has been on another shard came there by DUMP and
RESTORE, and a server that restores a value chooses its form anew. So the plain server is asked to do just that with its
own value; the form that it then has is the only other one that counts, and is counted.
"""

from collections import Counter
from dataclasses import dataclass

from differential.compare import Tolerance, canonical, equal_times
from differential.draw import Words
from differential.reply import Reply
from differential.sides import Side

# How all of a type's content is read, before and after the key; of a stream its entries, its counters and its groups.
CONTENT: dict[bytes, tuple[tuple[str, Words], ...]] = {
    b"string": (("GET", []),),
    b"hash": (("HGETALL", []),),
    b"list": (("LRANGE", [0, -1]),),
    b"set": (("SMEMBERS", []),),
    b"zset": (("ZRANGE", [0, -1, "WITHSCORES"]),),
    b"stream": (("XRANGE", ["-", "+"]), ("XINFO STREAM", []), ("XINFO GROUPS", [])),
}


@dataclass(frozen=True)
class Held:
    """What is under one key."""

    type: bytes
    expires: Reply
    encoding: bytes
    content: tuple[Reply, ...]
    field_times: Reply | None


def read(side: Side) -> dict[bytes, Held]:
    """All that a side holds. Raises OSError."""
    keys = sorted(side.all_keys())
    questions: list[Words] = [
        [*question, key] for key in keys for question in (["TYPE"], ["PEXPIRETIME"], ["OBJECT", "ENCODING"])
    ]
    heads = side.ask_all(questions)
    kinds = [(heads[at].text, heads[at + 1], heads[at + 2].text) for at in range(0, len(heads), 3)]
    wanted: list[Words] = [
        [*question.split(), key, *rest]
        for key, (kind, _, _) in zip(keys, kinds, strict=True)
        for question, rest in CONTENT.get(kind, ())
    ]
    answers = list(map(canonical, wanted, side.ask_all(wanted)))
    held: dict[bytes, Held] = {}
    for key, (kind, expires, encoding) in zip(keys, kinds, strict=True):
        content = [answers.pop(0) for _ in CONTENT.get(kind, ())]
        held[key] = Held(kind, expires, encoding, tuple(content), field_times(side, key, kind, content))
    return held


def field_times(side: Side, key: bytes, kind: bytes, content: list[Reply]) -> Reply | None:
    """When each field of a hash expires, in the order of the content."""
    fields = [part.text for part in content[0].parts[::2]] if kind == b"hash" else []
    return side.ask("HPEXPIRETIME", key, "FIELDS", len(fields), *fields) if fields else None


def differences(plain: Side, shoal: Side, tolerance: Tolerance, forms: Counter[str]) -> list[str]:
    """What both sides do not hold alike. Forms that a restored value may have are added to `forms`."""
    left, right = read(plain), read(shoal)
    found = [f"{_name(key)} is on {plain.name} only ({left[key].type.decode()})" for key in left if key not in right]
    found += [f"{_name(key)} is on {shoal.name} only ({right[key].type.decode()})" for key in right if key not in left]
    for key in left.keys() & right.keys():
        found += _held_differently(_name(key), left[key], right[key], tolerance)
        if left[key].type == right[key].type and left[key].encoding != right[key].encoding:
            words = f"{left[key].type.decode()}: {left[key].encoding.decode()} is {right[key].encoding.decode()}"
            if right[key].encoding in _encodings_when_restored(plain, key):
                forms[words] += 1
            else:
                found.append(f"{_name(key)} has another form, and not that of a restored value; {words}")
    return found + _whole(shoal, set(right))


def _held_differently(name: str, left: Held, right: Held, tolerance: Tolerance) -> list[str]:
    if left.type != right.type:
        return [f"{name} is a {left.type.decode()} and a {right.type.decode()}"]
    found = []
    for one, other in zip(left.content, right.content, strict=True):
        if one != other:
            found.append(f"{name} ({left.type.decode()}) holds {one.shown()} and {other.shown()}")
    if not equal_times("PEXPIRETIME", left.expires, right.expires, tolerance):
        found.append(f"{name} expires at {left.expires.shown()} and {right.expires.shown()}")
    times = left.field_times, right.field_times
    if not found and times[0] and times[1] and not equal_times("HPEXPIRETIME", times[0], times[1], tolerance):
        found.append(f"{name}'s fields expire at {times[0].shown()} and {times[1].shown()}")
    return found


def _encodings_when_restored(plain: Side, key: bytes) -> set[bytes]:
    """The forms that a server gives to its own value, restored.

    Under the same name, since short values are kept together with it, and with its time or none, since that is kept
    there as well. The program is over, so the key itself may be used.
    """
    dumped, expires = plain.ask_all([["DUMP", key], ["PEXPIRETIME", key]])
    forms = set[bytes]()
    for time in {b"0", expires.text if expires.text != b"-1" else b"0"}:
        restored: list[Words] = [["RESTORE", key, time, dumped.text, "REPLACE", "ABSTTL"], ["OBJECT", "ENCODING", key]]
        forms.add(plain.ask_all(restored)[1].text)
    return forms


def _whole(shoal: Side, keys: set[bytes]) -> list[str]:
    """Whether shoal counts and lists what it holds, and nothing of its own."""
    found = []
    size = shoal.ask("DBSIZE").text
    if size != str(len(keys)).encode():
        found.append(f"DBSIZE says {size.decode()} of {len(keys)} keys")
    cursor, scanned = b"0", list[bytes]()
    while True:
        cursor_reply, page = shoal.ask("SCAN", cursor, "COUNT", 1000).parts
        cursor = cursor_reply.text
        scanned += [part.text for part in page.parts]
        if cursor == b"0":
            break
    if set(scanned) != keys:
        found.append(f"SCAN and KEYS differ: {sorted(set(scanned) ^ keys)}")
    return found


def _name(key: bytes) -> str:
    return key.decode(errors="backslashreplace")
