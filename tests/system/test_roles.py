"""Store and cache are two contracts: what clients see of a shard that dies, freezes and comes back.

Real servers and a real shoal of two workers. Times in the configuration are short; tests wait for conditions.
"""

import json
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
from harness.fleet import Fleet
from harness.proxy import Proxy
from harness.wait import wait_until

from shoal.config import parse_config
from shoal.ring import Ring

SHARDS = 4
KEYS = [f"key:{number}" for number in range(400)]

CONFIG = """
workers = 2
admin = "{admin}"
[keyspace.main]
listen = "{listen}"
distribution = "ketama"
hash = "murmur"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
timeout_ms = 400
probe_interval_ms = 100
"""
CACHE = """
role = "cache"
eject_after = 2
retry_after_ms = 300
readmit_ms = 600
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), SHARDS) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def healed(fleet: Fleet) -> None:
    fleet.heal()


def proxy_of(fleet: Fleet, folder: Path, more: str = "") -> Proxy:
    return Proxy(folder / "proxy", fleet.addresses, config=CONFIG + more)


def owners(fleet: Fleet) -> dict[str, int]:
    """The shard of each key, as the ring has it."""
    text = CONFIG.format(
        admin="127.0.0.1:1", listen="127.0.0.1:2", **{f"shard{i}": a for i, a in enumerate(fleet.addresses)}
    )
    ring = Ring(parse_config(text, Path("shoal.toml")).topology.keyspace("main"))
    found = ring.indexes([key.encode() for key in KEYS])
    return {key: index for key, index in zip(KEYS, found, strict=True) if index is not None}


def metric(proxy: Proxy, name: str, shard: int) -> int:
    with urllib.request.urlopen(f"http://{proxy.admin}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    wanted = f'{name}{{keyspace="main",shard="s{shard}"}} '
    (value,) = [line.removeprefix(wanted) for line in text.splitlines() if line.startswith(wanted)]
    return int(value)


def topology(client: redis.Redis) -> list[str]:
    lines = client.execute_command("SHOAL", "TOPOLOGY")  # type: ignore[no-untyped-call]  # redis-py's
    return [line.decode() for line in lines]


def is_gone(client: redis.Redis, shard: int) -> bool:
    return "ejected" in topology(client)[1 + shard]


def all_are_in(client: redis.Redis) -> bool:
    return not any(word in line for line in topology(client) for word in ("ejected", "returning"))


def fill(client: redis.Redis) -> None:
    client.mset(dict.fromkeys(KEYS, "value"))


def serves_all(client: redis.Redis) -> bool:
    try:
        for key in KEYS[:100]:
            client.get(key)
    except redis.ResponseError:
        return False
    return True


def test_a_store_gives_errors_for_the_keys_of_a_dead_shard_and_for_no_others(fleet: Fleet, tmp_path: Path) -> None:
    with proxy_of(fleet, tmp_path) as proxy:
        client = proxy.client()
        fill(client)
        fleet.kill(2)
        where = owners(fleet)
        wait_until(lambda: "down" in topology(client)[3], 10, "the shard is seen to be down")
        for _ in range(3):
            for key in KEYS:
                if where[key] == 2:
                    with pytest.raises(redis.ResponseError, match=r"shard 's2' at .* (is down|was lost)"):
                        client.get(key)
                else:
                    assert client.get(key) == b"value"
        assert metric(proxy, "shoal_shard_ejections_total", 2) == 0
        fleet.restart(2)
        wait_until(lambda: serves_all(client), 10, "it is served again")
        assert all(client.set(key, "new") for key in KEYS)
        assert {key for key in KEYS if fleet.client(2).get(key) is not None} == {key for key in KEYS if where[key] == 2}


def test_a_cache_moves_the_keys_of_a_dead_shard_only_and_back_again(fleet: Fleet, tmp_path: Path) -> None:
    for server in fleet.servers:
        server.client().flushall()  # also what a store's proxy has kept there
    with proxy_of(fleet, tmp_path, CACHE) as proxy:
        clients = [proxy.client() for _ in range(2)]  # one a worker
        fill(clients[0])
        where = owners(fleet)
        share = sum(index == 1 for index in where.values()) / len(KEYS)
        assert 0.1 < share < 0.4, "about a quarter is its own"
        fleet.kill(1)
        wait_until(lambda: metric(proxy, "shoal_shard_ejected", 1) == 1, 10, "it is ejected")
        for client in clients:
            wait_until(partial(is_gone, client, 1), 10, "all see it")
            # Every key is served; those of the others are still where they were.
            values = {key: client.get(key) for key in KEYS}
            assert {key for key, value in values.items() if value is None} == {key for key in KEYS if where[key] == 1}
        assert all(clients[0].set(key, "meanwhile") for key in KEYS)
        assert [clients[1].get(key) for key in KEYS] == [b"meanwhile"] * len(KEYS), "both workers agree"
        assert clients[0].dbsize() == len(KEYS), "every shard that is in"
        assert set(clients[0].scan_iter(count=1000)) == {key.encode() for key in KEYS}
        with pytest.raises(redis.ResponseError, match="shard 's1' is ejected"):
            clients[0].flushall()
        with urllib.request.urlopen(f"http://{proxy.admin}/readyz", timeout=10) as answer:
            assert json.load(answer)["shards_up"] == SHARDS - 1
        fleet.restart(1)
        wait_until(lambda: metric(proxy, "shoal_shard_readmissions_total", 1) == 1, 20, "it is readmitted")
        assert metric(proxy, "shoal_shard_share_sixteenths", 1) == 16
        for client in clients:
            wait_until(partial(all_are_in, client), 10, "all see it")
        assert all(clients[1].set(key, "home") for key in KEYS)
        assert {key for key in KEYS if fleet.client(1).get(key) == b"home"} == {key for key in KEYS if where[key] == 1}


def test_a_dead_shard_does_not_flap(fleet: Fleet, tmp_path: Path) -> None:
    """Twemproxy lets it in again and again, and some requests fail each time. Here no request fails once it is out."""
    with proxy_of(fleet, tmp_path, CACHE) as proxy:
        client = proxy.client()
        fill(client)
        fleet.kill(0)
        wait_until(lambda: serves_all(client) and metric(proxy, "shoal_shard_ejected", 0) == 1, 10, "it is out")
        connects = metric(proxy, "shoal_shard_connects_total", 0)
        # Many retries later, and long after retry_after_ms, it was not let in once.
        wait_until(
            lambda: serves_all(client) and metric(proxy, "shoal_shard_connects_total", 0) > connects + 4,
            30,
            "it is tried",
        )
        assert metric(proxy, "shoal_shard_ejections_total", 0) == 1
        assert metric(proxy, "shoal_shard_readmissions_total", 0) == 0


def test_a_frozen_shard_is_ejected_by_its_time_outs(fleet: Fleet, tmp_path: Path) -> None:
    with proxy_of(fleet, tmp_path, CACHE) as proxy:
        client = proxy.client()
        fill(client)
        fleet.stop(3)
        try:
            wait_until(lambda: metric(proxy, "shoal_shard_ejected", 3) == 1, 20, "it is ejected")
            assert metric(proxy, "shoal_shard_timeouts_total", 3) >= 2
            wait_until(lambda: serves_all(client), 10, "every key is served")
        finally:
            fleet.cont(3)
        wait_until(lambda: metric(proxy, "shoal_shard_share_sixteenths", 3) == 16, 20, "it has its keys back")


def test_no_more_are_ejected_than_may_be(fleet: Fleet, tmp_path: Path) -> None:
    with proxy_of(fleet, tmp_path, CACHE + "ejected_max = 1\n") as proxy:
        client = proxy.client()
        fill(client)
        fleet.kill(0)
        wait_until(lambda: metric(proxy, "shoal_shard_ejected", 0) == 1, 10, "the first is ejected")
        fleet.kill(1)
        wait_until(lambda: "event=ejection-refused" in proxy.stderr.read_text(), 10, "the second is not")
        mine = next(key for key, index in owners(fleet).items() if index == 1)
        with pytest.raises(redis.ResponseError, match="shard 's1' at"):
            client.get(mine)
        assert metric(proxy, "shoal_shard_ejected", 1) == 0


def test_connections_and_the_first_request(fleet: Fleet, tmp_path: Path) -> None:
    """preconnect off: no connection before there is something to ask; connections: several, each client on its own."""
    with proxy_of(fleet, tmp_path, "connections = 3\npreconnect = false\ndatabase = 5\n") as proxy:
        assert all(metric(proxy, "shoal_shard_connects_total", shard) == 0 for shard in range(SHARDS))
        clients = [proxy.client() for _ in range(12)]
        for number, client in enumerate(clients):
            # What a client wrote it reads, in a pipeline too: it stays on one connection.
            for turn in range(20):
                with client.pipeline(transaction=False) as pipeline:
                    pipeline.set("shared", f"{number}:{turn}")
                    pipeline.get("shared")
                    replies = pipeline.execute()
                assert replies[1] == f"{number}:{turn}".encode()
        where = next(i for i in range(SHARDS) if fleet.client(i, db=5).exists("shared"))
        # Two workers, three connections each, and the main one of database 0.
        lines = str(fleet.client(where).execute_command("CLIENT", "LIST"))  # type: ignore[no-untyped-call]  # redis-py's
        assert lines.count(" db=5 ") >= 4
        assert fleet.client(where).exists("shared") == 0, "clients begin in database 5"
        clients[0].execute_command("RESET")  # type: ignore[no-untyped-call]  # redis-py's
        assert clients[0].exists("shared") == 1, "and are back there after RESET"
