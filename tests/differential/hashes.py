"""What is asked of hashes; fields may have times of their own."""

from differential.draw import Draw, Op, Words


def pairs(draw: Draw, low: int, high: int) -> Words:
    return [word for field in draw.members(low, high) for word in (field, draw.value())]


def fields(draw: Draw) -> Words:
    found = draw.some(1, 3, draw.member)
    return ["FIELDS", len(found), *found]


def fill(draw: Draw) -> Words:
    return ["HSET", draw.key("hash"), *pairs(draw, 1, 6)]


def write(draw: Draw) -> Words:
    key = draw.key("hash")
    return draw.choose(
        ["HSETNX", key, draw.member(), draw.value()],
        ["HMSET", key, *pairs(draw, 1, 3)],
        ["HINCRBY", key, draw.member(), draw.number(-9, 9)],
        ["HINCRBYFLOAT", key, draw.member(), "1.25"],
        ["HDEL", key, *draw.members(1, 4)],
        ["HGETDEL", key, *fields(draw)],
    )


def read(draw: Draw) -> Words:
    key = draw.key("hash")
    return draw.choose(
        ["HGET", key, draw.member()],
        ["HMGET", key, *draw.members(1, 4)],
        ["HGETALL", key],
        [draw.pick("HKEYS", "HVALS", "HLEN"), key],
        [draw.pick("HEXISTS", "HSTRLEN"), key, draw.member()],
        ["HRANDFIELD", key, 10_000, *draw.maybe(0.5, "WITHVALUES")],
        ["HSCAN", key, 0, "COUNT", 10_000],
    )


def expire(draw: Draw) -> Words:
    key, tail = draw.key("hash"), fields(draw)
    if draw.chance(0.3):  # compared with the time that is set
        return ["HEXPIRE", key, draw.seconds_between(), draw.pick("NX", "XX", "GT", "LT"), *tail]
    time: Words = draw.choose(
        ["HEXPIRE", key, draw.seconds()],
        ["HPEXPIRE", key, draw.seconds() * 1000],
        ["HEXPIREAT", key, draw.at_seconds()],
        ["HPEXPIREAT", key, draw.at_ms()],
        ["HEXPIREAT", key, draw.past_seconds()],
    )
    return time + tail


def set_with_time(draw: Draw) -> Words:
    content = pairs(draw, 1, 3)
    return [
        "HSETEX", draw.key("hash"), *draw.maybe(0.2, draw.pick("FNX", "FXX")), *draw.lifetime(), "FIELDS",
        len(content) // 2, *content,
    ]  # fmt: skip


def times(draw: Draw) -> Words:
    name = draw.pick("HTTL", "HPTTL", "HEXPIRETIME", "HPEXPIRETIME", "HPERSIST")
    return [name, draw.key("hash"), *fields(draw)]


def get_and_expire(draw: Draw) -> Words:
    return ["HGETEX", draw.key("hash"), *draw.choose(draw.lifetime(), ["PERSIST"], []), *fields(draw)]


OPS = (Op(8, fill), Op(6, write), Op(5, read), Op(3, expire), Op(2, set_with_time), Op(2, times), Op(1, get_and_expire))
FILL = {"hash": fill}
