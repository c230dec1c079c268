"""What is asked of lists: of one, and from one to another."""

from differential.draw import HUGE, Draw, Op, Words


def push(draw: Draw) -> Words:
    name = draw.pick("RPUSH", "LPUSH", "RPUSH", "LPUSHX", "RPUSHX")
    return [name, draw.key("list"), *draw.members(1, 6), *draw.maybe(0.03, HUGE, HUGE)]


def write(draw: Draw) -> Words:
    key = draw.key("list")
    return draw.choose(
        [draw.pick("LPOP", "RPOP"), key, *draw.maybe(0.4, draw.number(0, 30))],
        ["LSET", key, draw.index(), draw.member()],
        ["LREM", key, draw.number(-2, 2), draw.member()],
        ["LTRIM", key, draw.index(), draw.index()],
        ["LINSERT", key, draw.pick("BEFORE", "AFTER"), draw.member(), draw.member()],
    )


def read(draw: Draw) -> Words:
    key = draw.key("list")
    return draw.choose(
        ["LRANGE", key, draw.index(), draw.index()],
        ["LRANGE", key, 0, -1],
        ["LINDEX", key, draw.index()],
        ["LLEN", key],
        ["LPOS", key, draw.member(), *draw.maybe(0.4, "COUNT", draw.number(0, 3))],
    )


def side(draw: Draw) -> str:
    return draw.pick("LEFT", "RIGHT", "left")


def move(draw: Draw) -> Words:
    source = draw.key("list")
    to = source if draw.chance(0.1) else draw.key("list")
    return draw.choose(["LMOVE", source, to, side(draw), side(draw)], ["RPOPLPUSH", source, to])


def pop_first(draw: Draw) -> Words:
    return ["LMPOP", *draw.counted_keys(1, 4, "list"), side(draw), *draw.maybe(0.5, "COUNT", draw.number(1, 12))]


def pop_or_wait(draw: Draw) -> Words:
    """Waits for a hundredth of a second at most: what is there is taken as without waiting."""
    return draw.choose(
        [draw.pick("BLPOP", "BRPOP"), *draw.keys(1, 3, "list"), "0.01"],
        ["BLMPOP", "0.01", *draw.counted_keys(1, 3, "list"), side(draw), *draw.maybe(0.5, "COUNT", draw.number(1, 9))],
    )


OPS = (Op(8, push), Op(5, write), Op(4, read))
TOGETHER = (Op(7, move), Op(5, pop_first))
WAITING = (Op(1, pop_or_wait),)
FILL = {"list": push}
