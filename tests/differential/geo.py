"""What is asked of places: few of them, some within reach of each other."""

from differential.draw import Draw, Op, Words

PLACES = (
    ("13.361389", "38.115556", "Palermo"), ("15.087269", "37.502669", "Catania"), ("12.758489", "38.788135", "edge"),
    ("14.25", "40.85", "Naples"), ("12.5", "41.9", "Rome"), ("-0.1276", "51.5072", "London"),
    ("2.3522", "48.8566", "Paris"), ("-74.006", "40.7128", "New York"), ("179.9", "-16.5", "Fiji"),
)  # fmt: skip


def place(draw: Draw) -> str:
    return draw.pick(*PLACES)[2]


def fill(draw: Draw) -> Words:
    places = draw.some(1, 5, lambda: draw.pick(*PLACES))
    return ["GEOADD", draw.key("geo"), *(word for place in places for word in place)]


def circle(draw: Draw) -> Words:
    return [draw.pick(10, 200, 500, 3000), draw.pick("km", "km", "mi", "m", "ft")]


def centre(draw: Draw) -> Words:
    if draw.chance(0.5):
        return ["FROMMEMBER", place(draw)]
    longitude, latitude, _ = draw.pick(*PLACES)
    return ["FROMLONLAT", longitude, latitude]


def area(draw: Draw) -> Words:
    if draw.chance(0.6):
        return ["BYRADIUS", *circle(draw)]
    return ["BYBOX", draw.pick(100, 900), *circle(draw)]


def order(draw: Draw) -> Words:
    return [*draw.maybe(0.5, draw.pick("ASC", "DESC")), *draw.maybe(0.3, "COUNT", draw.number(1, 3))]


def read(draw: Draw) -> Words:
    key = draw.key("geo")
    return draw.choose(
        ["GEODIST", key, place(draw), place(draw), draw.pick("km", "m")],
        ["GEOPOS", key, place(draw), place(draw)],
        ["GEOHASH", key, place(draw)],
        ["GEOSEARCH", key, *centre(draw), *area(draw), "ASC", *draw.maybe(0.5, "WITHDIST")],
    )


def store(draw: Draw) -> Words:
    to = draw.key("geo", "zset") if draw.chance(0.7) else draw.key()
    where = [*centre(draw), *area(draw), *order(draw)]
    return ["GEOSEARCHSTORE", to, draw.key("geo"), *where, *draw.maybe(0.4, "STOREDIST")]


def store_radius(draw: Draw) -> Words:
    to = draw.key("geo", "zset") if draw.chance(0.7) else draw.key()
    tail = [*circle(draw), *order(draw), draw.pick("STORE", "STOREDIST"), to]
    if draw.chance(0.5):
        return ["GEORADIUSBYMEMBER", draw.key("geo"), place(draw), *tail]
    longitude, latitude, _ = draw.pick(*PLACES)
    return ["GEORADIUS", draw.key("geo"), longitude, latitude, *tail]


OPS = (Op(4, fill), Op(2, read))
TOGETHER = (Op(5, store), Op(5, store_radius))
FILL = {"geo": fill}
