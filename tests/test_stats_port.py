"""Twemproxy's statistics: the shape is that of the real nutcracker, to the blank, and a port that keeps answering."""

import json
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Fleet, Port, Proxy, wait_until
from harness.nutcracker import Nutcracker

from shoal import _core, stats_port
from shoal.endpoint import Endpoint, parse_endpoint
from shoal.errors import ListenError
from shoal.metrics import Declaration, Sample
from shoal.nutcracker import keyspace_name, parse_pools, topology_of
from shoal.stats_port import Names, StatsPort, snapshot, text
from shoal.topology import Topology

POOLS = """\
zeta:
  listen: {}
  redis: true
  servers:
   - 127.0.0.1:7001:1 bb
   - 127.0.0.1:7002:1 a
my pool:
  listen: {}
  servers:
   - 127.0.0.1:11211:1
   - /tmp/s.sock:1
"""

DECLARATIONS = [
    Declaration("shoal_clients_connected", "gauge", "help", ["keyspace"]),
    Declaration("shoal_clients_accepted_total", "counter", "help", ["keyspace"]),
    Declaration("shoal_shard_requests_total", "counter", "help", ["keyspace", "shard"]),
    Declaration("shoal_shard_in_flight", "gauge", "help", ["keyspace", "shard"]),
    Declaration("shoal_shard_failed_total", "counter", "help", ["keyspace", "shard"]),
    Declaration("shoal_shard_connections", "gauge", "help", ["keyspace", "shard"]),
    Declaration("shoal_shard_ejections_total", "counter", "help", ["keyspace", "shard"]),
    Declaration("shoal_shard_ejected_at_ms", "gauge", "help", ["keyspace", "shard"]),
]


class Counters:
    """A proxy that has counted this."""

    def __init__(self, samples: Sequence[Sample] = ()) -> None:
        self.counted = samples

    def samples(self) -> Sequence[Sample]:
        return self.counted


def topology(one: str = "127.0.0.1:1", two: str = "127.0.0.1:2") -> tuple[Topology, Names]:
    pools = parse_pools(POOLS.format(one, two), "n.yml")
    return topology_of(pools), Names({keyspace_name(pool.name): pool.name for pool in pools})


def fetch(endpoint: Endpoint) -> str:
    with socket.create_connection((endpoint.host, endpoint.port), 5) as connection, connection.makefile("r") as stream:
        return stream.read()


def shape(answer: str) -> str:
    """The text without what differs from run to run."""
    return re.sub(r'"(source|version)":"[^"]*"', r'"\1":""', re.sub(r":\d+", ":0", answer))


def test_the_shape_is_that_of_the_real_nutcracker(tmp_path: Path) -> None:
    one, two = Port.take(), Port.take()
    file = tmp_path / "nutcracker.yml"
    file.write_text(POOLS.format(one, two))
    with Nutcracker(tmp_path, file, [str(one), str(two)]) as nutcracker:
        theirs = fetch(Endpoint("127.0.0.1", nutcracker.stats.number))
    one.release()
    two.release()
    plan, names = topology()
    ours = text(snapshot(plan, [], [], names, 7, 107))
    assert shape(ours) == shape(theirs)
    assert (json.loads(ours)["uptime"], json.loads(ours)["timestamp"]) == (7, 107)


def test_numbers_arrive_where_twemproxy_has_them() -> None:
    plan, names = topology()
    samples = [
        Sample(0, 3, ["zeta"]),
        Sample(0, 1, [keyspace_name("my pool")]),
        Sample(1, 20, ["zeta"]),
        Sample(2, 10, ["zeta", "a"]),
        Sample(3, 2, ["zeta", "a"]),
        Sample(4, 4, ["zeta", "a"]),
        Sample(4, 5, ["zeta", "bb"]),
        Sample(5, 6, ["zeta", "a"]),
        Sample(6, 1, ["zeta", "bb"]),
        Sample(7, 1_700_000_000_123, ["zeta", "bb"]),
    ]
    content = json.loads(text(snapshot(plan, DECLARATIONS, samples, names, 0, 0)))
    zeta = content["zeta"]
    assert (content["curr_connections"], content["total_connections"]) == (3 + 1 + 6, 20)
    assert (zeta["client_connections"], zeta["server_ejects"], zeta["forward_error"]) == (3, 1, 9)
    assert (zeta["a"]["requests"], zeta["a"]["out_queue"], zeta["a"]["server_connections"]) == (10, 2, 6)
    # Microseconds of the Unix clock.
    assert (zeta["bb"]["server_ejected_at"], zeta["a"]["server_ejected_at"]) == (1_700_000_000_123_000, 0)
    assert content["my pool"]["client_connections"] == 1, "pools have Twemproxy's names"
    assert list(content["my pool"])[6:] == ["127.0.0.1", "/tmp/s.sock:"], "and so have servers"


@contextmanager
def answering(counters: Counters) -> Iterator[StatsPort]:
    plan, names = topology()
    port = StatsPort(Endpoint("127.0.0.1", 0))
    try:
        port.start(plan, counters, names)
        yield port
    finally:
        port.stop()


def test_each_connection_gets_what_is_counted_by_then() -> None:
    index = [one.name for one in _core.metric_declarations()].index("shoal_clients_connected")
    counters = Counters()
    with answering(counters) as port:
        assert json.loads(fetch(port.endpoint))["zeta"]["client_connections"] == 0
        counters.counted = [Sample(index, 5, ["zeta"])]
        assert json.loads(fetch(port.endpoint))["zeta"]["client_connections"] == 5


def test_who_does_not_wait_for_the_answer_disturbs_nobody() -> None:
    with answering(Counters()) as port:
        for _ in range(20):
            socket.create_connection((port.endpoint.host, port.endpoint.port), 5).close()
        with socket.create_connection((port.endpoint.host, port.endpoint.port), 5) as silent:
            assert json.loads(fetch(port.endpoint))["service"] == "nutcracker"
            assert silent.recv(1) == b"{"


def test_a_port_that_stopped_can_be_had_again_and_one_in_use_cannot() -> None:
    with answering(Counters()) as port:
        endpoint = port.endpoint
        with pytest.raises(ListenError, match=str(endpoint.port)):
            StatsPort(endpoint)
    port.stop()
    with pytest.raises(OSError, match="refused"):
        fetch(endpoint)
    StatsPort(endpoint).stop()


FILE = """\
alpha:
  listen: {listen}
  redis: true
  servers:
   - {shard0}:1 one
   - {shard1}:1 two
"""


def test_serve_answers_at_its_stats_port(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy(fleet.addresses[:2], nutcracker=FILE, options=["--stats-port", "0"])
    stats = parse_endpoint(proxy.ready["stats"])
    client = proxy.client()
    for number in range(20):
        assert client.set(f"{number * 7919}", "value")

    def counted() -> bool:
        pool = json.loads(fetch(stats))["alpha"]
        # A shard may have been greeted too.
        return bool(pool["client_connections"] == 1 and pool["one"]["requests"] + pool["two"]["requests"] >= 20)

    wait_until(counted, 10, "the requests are in the statistics")
    pool = json.loads(fetch(stats))["alpha"]
    for server, shard in (("one", fleet.servers[0]), ("two", fleet.servers[1])):
        assert pool[server]["server_connections"] >= 1
        assert pool[server]["request_bytes"] > 30 * int(shard.client().dbsize()) > 0


def test_every_counter_that_is_asked_for_exists() -> None:
    """A name that the core does not know would be 0 for ever."""
    plan, _ = topology()
    asked: set[str] = set()

    class Noting(dict[tuple[str, ...], int]):
        def get(self, key: tuple[str, ...], default: int = 0) -> int:  # type: ignore[override]
            asked.add(f"shoal_{key[0]}")
            return default

    for keyspace in plan.keyspaces:
        stats_port._pool(keyspace, Noting())
    assert len(asked) > 10
    assert asked <= {declaration.name for declaration in _core.metric_declarations()}
