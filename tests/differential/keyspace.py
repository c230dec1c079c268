"""What is asked of keys, whatever they hold: names, copies, times, and sorting."""

from differential.draw import Draw, Op, Words


def remove(draw: Draw) -> Words:
    return [draw.pick("DEL", "UNLINK"), *draw.keys(1, 4)]


def touch(draw: Draw) -> Words:
    return [draw.pick("EXISTS", "TOUCH"), *draw.keys(1, 5)]


def rename(draw: Draw) -> Words:
    source = draw.key()
    return [draw.pick("RENAME", "RENAMENX"), source, source if draw.chance(0.06) else draw.key()]


def copy(draw: Draw) -> Words:
    source = draw.key()
    return ["COPY", source, source if draw.chance(0.04) else draw.key(), *draw.maybe(0.5, "REPLACE")]


def expire(draw: Draw) -> Words:
    key = draw.key()
    if draw.chance(0.3):  # compared with the time that is set
        return ["EXPIRE", key, draw.seconds_between(), draw.pick("NX", "XX", "GT", "LT")]
    return draw.choose(
        ["EXPIRE", key, draw.seconds()],
        ["PEXPIRE", key, draw.seconds() * 1000],
        ["EXPIREAT", key, draw.at_seconds()],
        ["PEXPIREAT", key, draw.at_ms()],
        ["PEXPIREAT", key, draw.at_ms(), draw.pick("NX", "XX", "GT", "LT")],
        ["PERSIST", key],
        [draw.pick("EXPIRE", "EXPIREAT", "PEXPIREAT"), key, draw.pick(-1, 0, 1)] if draw.chance(0.3) else ["TTL", key],
    )


def read(draw: Draw) -> Words:
    return [draw.pick("TYPE", "TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "EXISTS"), draw.key()]


def whole(draw: Draw) -> Words:
    """Of all keys together: nothing of what shoal keeps on its shards may be seen."""
    return draw.choose(["DBSIZE"], ["KEYS", "*"], ["KEYS", "*e*"])


def sort(draw: Draw) -> Words:
    words: Words = ["SORT", draw.key("list", "set", "intset", "zset")]
    words += draw.maybe(0.4, "LIMIT", draw.number(0, 3), draw.number(-1, 6))
    words += [*draw.maybe(0.3, draw.pick("DESC", "ASC")), *draw.maybe(0.7, "ALPHA")]
    to = draw.key("list") if draw.chance(0.7) else draw.key()
    return words + draw.maybe(0.85, "STORE", to)


OPS = (Op(6, expire), Op(3, read))
TOGETHER = (Op(5, remove), Op(4, touch), Op(9, rename), Op(8, copy), Op(7, sort))
# Not within transactions: there a server answers for itself.
WHOLE = (Op(1, whole),)
