"""Every distribution, served: keys that clients write through shoal are on the servers where the ring says they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from harness.fleet import Fleet
from harness.proxy import Proxy

from shoal.config import load_config
from shoal.distribution import KINDS
from shoal.ring import Ring

SHARDS = 3
KEYS = [
    *(f"user:{number}" for number in range(0, 30_000, 37)),
    *(f"k{{{number}}}x" for number in range(100)),
    *(f"{{{number}}}y" for number in range(100)),
    "x{}y",
    "\u00ff\u20ac",
]

CONFIG = """
[keyspace.main]
listen = "{listen}"
distribution = "KIND"
MORE
shards = ["{shard0}", "{shard1}", "{shard2}"]
"""
RANGE = (
    'fallback = "modula"\nhash = "md5"\n'
    'range = [{ prefix = "user:", ranges = [{ upto = 10000, shard = "s2" }, { upto = 20000, shard = "s0" }] }]'
)
CASES = [
    *((kind, RANGE if kind == "range" else "") for kind in KINDS if kind != "random"),
    ("ketama", 'hash = "crc16"\nhash_tag = "{}"'),
    ("modula", 'hash = "hsieh"\nsigned_char = false\nhash_tag = "{x"'),
    ("slots", 'affinity = ["^user:([0-9]+)"]'),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), SHARDS) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def empty(fleet: Fleet) -> None:
    fleet.heal()


@pytest.mark.parametrize(("kind", "more"), CASES)
def test_keys_are_where_the_ring_says(fleet: Fleet, tmp_path: Path, kind: str, more: str) -> None:
    config = CONFIG.replace("KIND", kind).replace("MORE", more)
    with Proxy(tmp_path / "proxy", fleet.addresses, config=config) as proxy:
        client = proxy.client()
        for start in range(0, len(KEYS), 100):
            client.mset({key: key for key in KEYS[start : start + 100]})
        ring = Ring(load_config(tmp_path / "proxy" / "shoal.toml").topology.keyspace("main"))
        where = ring.indexes([key.encode() for key in KEYS])
        for shard in range(SHARDS):
            wanted = {key.encode() for key, index in zip(KEYS, where, strict=True) if index == shard}
            assert fleet.servers[shard].held() == wanted
            assert wanted, "each shard has some"
        assert client.mget(KEYS) == [key.encode() for key in KEYS]
        owner = ring.shard("user:42")
        lines = client.execute_command("SHOAL", "EXPLAIN", "GET", "user:42")  # type: ignore[no-untyped-call]  # redis-py's
        assert lines[1].decode().endswith(f"shard {owner.name} at {owner.endpoint}")


def test_random_serves_from_any_shard(fleet: Fleet, tmp_path: Path) -> None:
    config = CONFIG.replace("KIND", "random").replace("MORE", 'role = "cache"')
    with Proxy(tmp_path / "proxy", fleet.addresses, config=config) as proxy:
        client = proxy.client()
        for _ in range(60):
            client.set("one", "value")
        assert all(fleet.client(shard).get("one") == b"value" for shard in range(SHARDS)), "written often enough"
        lines = client.execute_command("SHOAL", "EXPLAIN", "GET", "one")  # type: ignore[no-untyped-call]  # redis-py's
        assert lines[1:3] == [b"key: 'one' on any shard", b"route: sent unchanged to any shard"]
        assert all(client.mget("one", "one") == [b"value", b"value"] for _ in range(20))


def test_a_key_in_no_range_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    more = 'range = [{ prefix = "user:", ranges = [{ upto = 10, shard = "s0" }, { upto = 20, shard = "s2" }] }]'
    config = CONFIG.replace("KIND", "range").replace("MORE", more)
    with Proxy(tmp_path / "proxy", fleet.addresses, config=config) as proxy:
        client = proxy.client()
        assert client.mset({"user:10": "a", "user:11": "b"})
        assert (fleet.client(0).get("user:10"), fleet.client(2).get("user:11")) == (b"a", b"b")
        for command in (("GET", "user:21"), ("MGET", "user:1", "other"), ("EVAL", "return 1", 1, "other")):
            with pytest.raises(redis.ResponseError, match="no range of this keyspace holds"):
                client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's
