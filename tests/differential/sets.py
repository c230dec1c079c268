"""What is asked of sets: of one, of several, and from several into one. Sets of integers have a form of their own."""

from differential.draw import Draw, Op, Words

SETS = ("set", "intset")


def fill(draw: Draw) -> Words:
    return ["SADD", draw.key("set"), *draw.members(1, 8)]


def fill_integers(draw: Draw) -> Words:
    high = 40 if draw.chance(0.06) else 8
    return ["SADD", draw.key("intset"), *draw.some(1, high, draw.integer)]


def write(draw: Draw) -> Words:
    key = draw.key(*SETS)
    return draw.choose(["SREM", key, *draw.members(1, 4)], ["SREM", key, *draw.members(1, 4)], ["SPOP", key, 10_000])


def read(draw: Draw) -> Words:
    key = draw.key(*SETS)
    return draw.choose(
        ["SMEMBERS", key],
        ["SCARD", key],
        ["SISMEMBER", key, draw.member()],
        ["SMISMEMBER", key, *draw.members(1, 4)],
        ["SRANDMEMBER", key, 10_000],
        ["SSCAN", key, 0, "COUNT", 10_000],
    )


def combine(draw: Draw) -> Words:
    return [draw.pick("SUNION", "SINTER", "SDIFF"), *draw.keys(1, 4, *SETS)]


def count(draw: Draw) -> Words:
    return ["SINTERCARD", *draw.counted_keys(1, 3, *SETS), *draw.maybe(0.5, "LIMIT", draw.number(0, 5))]


def store(draw: Draw) -> Words:
    to = draw.key(*SETS) if draw.chance(0.7) else draw.key()
    return [draw.pick("SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE"), to, *draw.keys(1, 4, *SETS)]


def move(draw: Draw) -> Words:
    source = draw.key(*SETS)
    return ["SMOVE", source, source if draw.chance(0.05) else draw.key(*SETS), draw.member()]


OPS = (Op(6, fill), Op(5, fill_integers), Op(3, write), Op(3, read))
TOGETHER = (Op(7, combine), Op(4, count), Op(8, store), Op(6, move))
FILL = {"set": fill, "intset": fill_integers}
