"""What is asked of streams, with ids that the program gives: the servers' own hold the time of day."""

from differential.draw import Draw, Op, Words


def entry(draw: Draw) -> str:
    return f"{draw.number(1, 40)}-{draw.pick('1', '2', '*')}"


def fill(draw: Draw) -> Words:
    head = draw.maybe(0.2, "MAXLEN", draw.pick(3, 10))
    return ["XADD", draw.key("stream"), *head, entry(draw), draw.member(), draw.value()]


def write(draw: Draw) -> Words:
    key = draw.key("stream")
    return draw.choose(
        ["XDEL", key, f"{draw.number(1, 40)}-1"],
        ["XTRIM", key, "MAXLEN", draw.number(0, 6)],
        ["XSETID", key, f"{draw.number(20, 60)}-1"],
        ["XGROUP", "CREATE", key, draw.pick("g1", "g2"), draw.pick("0", "$"), *draw.maybe(0.3, "MKSTREAM")],
        ["XGROUP", draw.pick("DESTROY", "SETID"), key, "g1", *draw.maybe(0.5, "0")],
        ["XREADGROUP", "GROUP", draw.pick("g1", "g2"), "ann", "COUNT", 2, "STREAMS", key, ">"],
        ["XACK", key, "g1", f"{draw.number(1, 40)}-1"],
    )


def read(draw: Draw) -> Words:
    key = draw.key("stream")
    return draw.choose(
        ["XLEN", key],
        ["XRANGE", key, "-", "+"],
        ["XREVRANGE", key, "+", draw.number(0, 40), "COUNT", 2],
        ["XREAD", "COUNT", 3, "STREAMS", key, 0],
        ["XPENDING", key, "g1"],
    )


OPS = (Op(5, fill), Op(3, write), Op(2, read))
FILL = {"stream": fill}
