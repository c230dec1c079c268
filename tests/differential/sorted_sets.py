"""What is asked of sorted sets. Ranges by name are asked of `LEX_KEYS` only."""

from differential.draw import Draw, Op, Word, Words

ZSETS = ("zset", "geo")


def pairs(draw: Draw, low: int, high: int) -> Words:
    return [word for member in draw.members(low, high) for word in (draw.score(), member)]


def fill(draw: Draw) -> Words:
    return ["ZADD", draw.key("zset"), *pairs(draw, 1, 6)]


def fill_lex(draw: Draw) -> Words:
    return ["ZADD", draw.lex_key(), *(word for name in draw.members(1, 8) for word in ("0", name))]


def add(draw: Draw) -> Words:
    options: Words = [*draw.maybe(0.5, draw.pick("NX", "XX", "GT", "LT")), *draw.maybe(0.4, "CH")]
    if draw.chance(0.2):
        return ["ZADD", draw.key("zset"), *options, "INCR", draw.score(), draw.member()]
    return ["ZADD", draw.key("zset"), *options, *pairs(draw, 1, 4)]


def write(draw: Draw) -> Words:
    key = draw.key("zset")
    return draw.choose(
        ["ZINCRBY", key, draw.score(), draw.member()],
        ["ZREM", key, *draw.members(1, 4)],
        [draw.pick("ZPOPMIN", "ZPOPMAX"), key, *draw.maybe(0.5, draw.number(0, 5))],
        ["ZREMRANGEBYRANK", key, draw.index(), draw.index()],
        ["ZREMRANGEBYSCORE", key, draw.bound(), draw.bound()],
        ["ZREMRANGEBYLEX", draw.lex_key(), draw.lex_bound(), draw.lex_bound()],
    )


def range_words(draw: Draw, key: str) -> Words:
    """A key and what is wanted of it, as ZRANGE and ZRANGESTORE have it."""
    roll = draw.number(0, 2)
    ends: list[Word] = [draw.index(), draw.index()]
    by: Words = []
    if roll == 1:
        ends, by = [draw.bound(), draw.bound()], ["BYSCORE"]
    elif roll == 2:
        key = draw.lex_key()
        ends, by = [draw.lex_bound(), draw.lex_bound()], ["BYLEX"]
    limit = draw.maybe(0.4 if by else 0.03, "LIMIT", draw.number(0, 3), draw.number(-1, 5))
    return [key, *ends, *by, *draw.maybe(0.3, "REV"), *limit]


def read(draw: Draw) -> Words:
    key = draw.key(*ZSETS)
    return draw.choose(
        ["ZRANGE", *range_words(draw, key), *draw.maybe(0.5, "WITHSCORES")],
        ["ZRANGE", key, 0, -1, "WITHSCORES"],
        [draw.pick("ZRANGEBYSCORE", "ZREVRANGEBYSCORE"), key, draw.bound(), draw.bound()],
        [draw.pick("ZSCORE", "ZRANK", "ZREVRANK"), key, draw.member()],
        ["ZMSCORE", key, *draw.members(1, 3)],
        ["ZCARD", key],
        ["ZCOUNT", key, draw.bound(), draw.bound()],
        ["ZRANDMEMBER", key, 10_000, *draw.maybe(0.5, "WITHSCORES")],
    )


def weighted(draw: Draw, keys: Words) -> Words:
    weights: Words = []
    if draw.chance(0.4):
        count = len(keys) - 1
        weights = ["WEIGHTS", *draw.some(count, count, lambda: draw.pick("1", "2", "0.5", "-1", "inf", "0"))]
    return [*keys, *weights, *draw.maybe(0.4, "AGGREGATE", draw.pick("SUM", "MIN", "MAX", "min"))]


def sources(draw: Draw) -> Words:
    """Sorted sets, and plain sets now and then, whose members count as of score 1."""
    return draw.counted_keys(1, 4, *(("set", "intset") if draw.chance(0.1) else ZSETS))


def combine(draw: Draw) -> Words:
    if draw.chance(0.3):
        return ["ZDIFF", *sources(draw), *draw.maybe(0.5, "WITHSCORES")]
    return [draw.pick("ZUNION", "ZINTER"), *weighted(draw, sources(draw)), *draw.maybe(0.5, "WITHSCORES")]


def count(draw: Draw) -> Words:
    return ["ZINTERCARD", *sources(draw), *draw.maybe(0.5, "LIMIT", draw.number(0, 5))]


def destination(draw: Draw) -> str:
    return draw.key("zset") if draw.chance(0.7) else draw.key()


def store(draw: Draw) -> Words:
    if draw.chance(0.3):
        return ["ZDIFFSTORE", destination(draw), *sources(draw)]
    return [draw.pick("ZUNIONSTORE", "ZINTERSTORE"), destination(draw), *weighted(draw, sources(draw))]


def store_lex(draw: Draw) -> Words:
    """What leaves the keys without scores as they are to be."""
    one, other, to = draw.lex_key(), draw.lex_key(), draw.lex_key()
    return draw.choose(
        ["ZRANGESTORE", to, one, draw.lex_bound(), draw.lex_bound(), "BYLEX"],
        [draw.pick("ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"), to, 2, one, other],
        ["RENAME", one, to],
        ["COPY", one, to, "REPLACE"],
        [draw.pick("ZUNION", "ZDIFF"), 2, one, draw.key("zset", "set")],
    )


def store_range(draw: Draw) -> Words:
    return ["ZRANGESTORE", destination(draw), *range_words(draw, draw.key(*ZSETS))]


def pop_first(draw: Draw) -> Words:
    tail = draw.maybe(0.5, "COUNT", draw.number(1, 9))
    return ["ZMPOP", *draw.counted_keys(1, 4, *ZSETS), draw.pick("MIN", "MAX", "max"), *tail]


def pop_or_wait(draw: Draw) -> Words:
    """Waits for a hundredth of a second at most: what is there is taken as without waiting."""
    return draw.choose(
        [draw.pick("BZPOPMIN", "BZPOPMAX"), *draw.keys(1, 3, "zset"), "0.01"],
        ["BZMPOP", "0.01", *draw.counted_keys(1, 3, "zset"), draw.pick("MIN", "MAX")],
    )


OPS = (Op(6, fill), Op(4, fill_lex), Op(3, add), Op(4, write), Op(5, read))
TOGETHER = (Op(7, combine), Op(3, count), Op(8, store), Op(7, store_range), Op(3, store_lex), Op(5, pop_first))
WAITING = (Op(1, pop_or_wait),)
FILL = {"zset": fill}
