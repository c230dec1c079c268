"""What is asked of strings: values, numbers, bits, HyperLogLogs, and several of them at once."""

from differential.draw import Draw, Op, Words

TEXT = ("string", "number", "bits")


def set_(draw: Draw) -> Words:
    options = [*draw.maybe(0.2, draw.pick("NX", "XX")), *draw.maybe(0.2, "GET")]
    options += draw.choose(draw.lifetime(), ["KEEPTTL"]) if draw.chance(0.3) else []
    return ["SET", draw.key(*TEXT), draw.value(), *options]


def set_number(draw: Draw) -> Words:
    return ["SET", draw.key("number"), draw.number(-100, 100)]


def set_if_equal(draw: Draw) -> Words:
    return ["SET", draw.key(*TEXT), draw.value(), "IFEQ", draw.value()]


def set_with_time(draw: Draw) -> Words:
    key, value = draw.key(*TEXT), draw.value()
    return draw.choose(["SETEX", key, draw.seconds(), value], ["PSETEX", key, draw.seconds() * 1000, value])


def get(draw: Draw) -> Words:
    return [draw.pick("GET", "STRLEN", "GETDEL", "GET", "GET"), draw.key(*TEXT)]


def get_and_expire(draw: Draw) -> Words:
    return ["GETEX", draw.key(*TEXT), *draw.choose(draw.lifetime(), ["PERSIST"], [])]


def get_and_set(draw: Draw) -> Words:
    return [draw.pick("GETSET", "SETNX", "APPEND"), draw.key(*TEXT), draw.value()]


def count(draw: Draw) -> Words:
    key, by = draw.key("number"), draw.number(-9, 9)
    return draw.choose(
        ["INCR", key],
        ["DECR", key],
        ["INCRBY", key, by],
        ["DECRBY", key, by],
        ["INCRBYFLOAT", key, draw.pick("0.5", "x")],
    )


def part(draw: Draw) -> Words:
    key = draw.key(*TEXT)
    return draw.choose(
        ["GETRANGE", key, draw.index(), draw.index()], ["SETRANGE", key, draw.number(0, 60), draw.value()]
    )


def bits(draw: Draw) -> Words:
    key = draw.key("bits")
    return draw.choose(
        ["SETBIT", key, draw.number(0, 300), draw.number(0, 1)],
        ["SETBIT", key, draw.number(0, 300), 1],
        ["GETBIT", key, draw.number(0, 300)],
        ["BITCOUNT", key],
        ["BITPOS", key, draw.number(0, 1), draw.index()],
        ["BITFIELD", key, "INCRBY", "u8", draw.number(0, 90), draw.number(1, 99), "GET", "i5", "3"],
    )


def combine_bits(draw: Draw) -> Words:
    name = draw.pick("AND", "OR", "XOR", "NOT", "and")
    if draw.chance(0.05):
        name = draw.pick("DIFF", "DIFF1", "ANDOR", "ONE", "NAND")  # those of newer Redis, and none
    sources = draw.keys(1, 1 if name == "NOT" and draw.chance(0.9) else 4, *TEXT)
    return ["BITOP", name, draw.key(*TEXT), *sources]


def add_to_hll(draw: Draw) -> Words:
    if draw.chance(0.05):  # dense, with many registers in use
        return ["PFADD", draw.key("hll"), *(f"{draw.number(0, 9)}-{i}" for i in range(400))]
    return ["PFADD", draw.key("hll"), *draw.members(0, 6)]


def count_hll(draw: Draw) -> Words:
    return ["PFCOUNT", *draw.keys(1, 4, "hll")]


def merge_hll(draw: Draw) -> Words:
    return ["PFMERGE", draw.key("hll"), *draw.keys(0, 3, "hll")]


def pairs(draw: Draw) -> Words:
    return [word for key in draw.keys(1, 5, *TEXT) for word in (key, draw.value())]


def set_many(draw: Draw) -> Words:
    return [draw.pick("MSET", "MSET", "MSETNX"), *pairs(draw)]


def set_new(draw: Draw) -> Words:
    """More often new than `set_many` would be."""
    return ["MSETNX", *(word for _ in range(draw.number(2, 3)) for word in (draw.key(), draw.value()))]


def set_many_with_time(draw: Draw) -> Words:
    words = pairs(draw)
    tail = draw.maybe(0.4, draw.pick("NX", "XX"))
    return ["MSETEX", len(words) // 2, *words, *tail, *draw.choose(draw.lifetime(), ["KEEPTTL"], [])]


def get_many(draw: Draw) -> Words:
    return ["MGET", *draw.keys(1, 6, *TEXT)]


def common(draw: Draw) -> Words:
    words: Words = ["LCS", draw.key("string"), draw.key("string")]
    if draw.chance(0.3):
        return words + draw.maybe(0.5, "LEN")
    tail = [*draw.maybe(0.6, "MINMATCHLEN", draw.number(-1, 5)), *draw.maybe(0.5, "WITHMATCHLEN")]
    return [*words, "IDX", *tail]


OPS = (
    Op(6, set_), Op(3, set_number), Op(1, set_if_equal), Op(2, set_with_time), Op(5, get), Op(2, get_and_expire),
    Op(3, get_and_set), Op(4, count), Op(3, part), Op(5, bits), Op(5, add_to_hll),
)  # fmt: skip
TOGETHER = (
    Op(6, combine_bits), Op(4, count_hll), Op(4, merge_hll), Op(4, set_many), Op(3, set_new), Op(4, set_many_with_time),
    Op(4, get_many), Op(4, common),
)  # fmt: skip
# What a key of each kind is filled with at first.
FILL = {"string": set_, "number": set_number, "bits": bits, "hll": add_to_hll}
