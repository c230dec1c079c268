"""The ring as a library: figures of those who had each ring first, and `shoal ring`."""

import json
from pathlib import Path

import pytest

from shoal.cli import main
from shoal.distribution import KINDS, RangePart, RangeTable
from shoal.endpoint import Endpoint
from shoal.errors import NoShardError, UsageError
from shoal.ring import Ring
from shoal.ring_names import ring_name
from shoal.ring_report import runs

NODES = ["127.0.0.1:6381", "127.0.0.1:6382", "127.0.0.1:6383"]
TABLES = [RangeTable("user:", (RangePart("10000", 0), RangePart(None, 2)))]


def places(ring: Ring, keys: list[str]) -> list[int | None]:
    return ring.indexes([key.encode() for key in keys])


# key:0 to key:19, as reckoned from redis-rb's source.
REDIS_RB = {
    "redis-rb-4": "2 2 2 2 0 2 0 1 2 2 1 1 1 1 2 0 0 0 2 2",
    "redis-rb-5-client-0.20": "0 2 0 0 2 2 0 2 1 0 0 0 0 2 1 1 0 1 1 1",
    "redis-rb-5-client-0.21": "1 2 0 1 2 2 1 0 2 1 2 2 2 0 0 0 0 2 0 0",
}


@pytest.mark.parametrize("kind", REDIS_RB)
def test_what_redis_rb_wrote_is_found(kind: str) -> None:
    found = places(Ring.of(kind, NODES), [f"key:{number}" for number in range(20)])
    assert found == [int(index) for index in REDIS_RB[kind].split()]


def test_what_predis_wrote_is_found() -> None:
    nodes = ["127.0.0.1:7000", "127.0.0.1:7001", "127.0.0.1:7002"]
    keys = ["uid:256", "uid:281", "uid:312", "uid:432", "uid:500", "uid:641"]
    assert places(Ring.of("predis", nodes), keys) == [1, 1, 0, 1, 2, 0]
    assert places(Ring.of("predis-ketama", nodes), keys) == [1, 2, 1, 0, 0, 2]


def test_what_twemproxy_wrote_is_found() -> None:
    nodes = [f"127.0.0.1:{port}" for port in range(6380, 6384)]
    keys = [f"key:{number}" for number in range(20)]
    assert places(Ring.of("ketama", nodes, hash="md5"), keys) == [
        int(index) for index in "2 0 3 1 2 0 2 2 0 0 3 0 1 0 0 1 0 3 0 2".split()
    ]
    assert places(Ring.of("ketama", nodes), keys) == [2] * 10 + [0] * 10
    weighted = Ring.of("modula", nodes, weights=[1, 2, 3, 1], names=["server1", "server2", "server3", "server4"])
    assert places(weighted, keys) == [int(index) for index in "3 0 2 2 2 2 1 1 0 1 1 0 2 1 2 2 0 3 0 3".split()]


def test_codis_slots_and_its_tags() -> None:
    ring = Ring.of("codis", NODES[:2])
    assert [ring.locate(key)[2] for key in (b"a", b"foo", b"{}", b"x{}y")] == [579, 289, 0, 0]
    assert ring.shard("a").endpoint == Endpoint("127.0.0.1", 6382)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers(kind: str) -> None:
    ring = Ring.of(kind, NODES, tables=TABLES if kind == "range" else (), fallback="jump" if kind == "range" else None)
    keys = [f"k{number}" for number in range(300)]
    found = places(ring, keys)
    assert set(found) == {0, 1, 2} or kind in ("ketama", "modula"), "each shard has some"
    assert [ring.keyspace.shards.index(shard) for shard in ring.shards(keys)] == found
    shares = ring.shares()
    assert shares is None if kind == "range" else sum(shares or ()) == pytest.approx(1)


def test_a_key_in_no_range() -> None:
    ring = Ring.of("range", NODES, tables=TABLES)
    assert ring.shard("user:10000").port == 6381
    assert ring.shard("user:10001").port == 6383
    with pytest.raises(NoShardError, match="no range of keyspace ring holds 'other'"):
        ring.shard("other")


@pytest.mark.parametrize(
    ("kwargs", "complaint"),
    [
        ({"kind": "chord"}, "no such distribution: chord"),
        ({"kind": "ketama", "hash": "sha1"}, "no such hash function: sha1"),
        ({"kind": "ketama", "weights": [1]}, "3 nodes, but 1 weights"),
        ({"kind": "ketama", "weights": [-1, 1, 1]}, "a weight is 1 to 1000"),
        ({"kind": "jump", "weights": [1, 2, 1]}, "jump does not know weights"),
        ({"kind": "range"}, "needs a table"),
        ({"kind": "range", "tables": [RangeTable("u", (RangePart("9", 0), RangePart("5", 1)))]}, "must ascend"),
        ({"kind": "slots", "hash_tag": "{"}, "two characters"),
    ],
)
def test_what_cannot_be_is_refused(kwargs: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Ring.of(nodes=NODES, **kwargs)  # type: ignore[arg-type]


def test_names_on_the_ring() -> None:
    there, socket = Endpoint("h", 6379), Endpoint("/s.sock", 0)
    assert ring_name("ketama", Endpoint("h", 11211), None, "s0") == "h"
    assert ring_name("ketama", socket, None, "s0") == "/s.sock:"
    assert ring_name("redis-rb-4", there, None, "s0", 2) == "redis://h:6379/2"
    assert ring_name("redis-rb-5-client-0.21", there, None, "s0") == "redis://h:6379"
    assert ring_name("redis-rb-5-client-0.21", Endpoint("::1", 1), None, "s0", 3) == "redis://[::1]:1/3"
    assert ring_name("redis-rb-5-client-0.21", socket, None, "s0", 3) == "unix:///s.sock?db=3"
    assert ring_name("predis", there, None, "s0") == "h:6379"
    assert ring_name("rendezvous", there, None, "s0") == "s0"
    assert ring_name("ketama", there, "mine", "s0") == "mine"


def test_runs_of_neighbours() -> None:
    assert runs([1, 1, 1, 2, 2, None, 1]) == (7 / 4, 3)
    assert runs([]) == (0.0, 0)


def config(file: Path, text: str, count: int = 8) -> Path:
    shards = ", ".join(f'"127.0.0.1:{7001 + index}"' for index in range(count))
    file.write_text(f"[keyspace.main]\n{text}\nshards = [{shards}]\n")
    return file


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    assert main(["ring", *map(str, arguments), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def test_the_traps_of_twemproxys_hashes_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are the facts': runs of about 56 with the default, everything on one shard with crc32."""
    default = shown(capsys, config(tmp_path / "a.toml", 'distribution = "ketama"'))
    assert isinstance(default["run_mean"], float)
    assert 40 < default["run_mean"] < 75
    assert "consecutive ids" in str(default["warnings"])
    one = shown(capsys, config(tmp_path / "b.toml", 'distribution = "ketama"\nhash = "crc32"'))
    assert one["max_over_mean"] == 8.0
    assert "7 of 8 shards have none" in str(one["warnings"])
    good = shown(capsys, config(tmp_path / "c.toml", 'distribution = "ketama"\nhash = "murmur"'))
    assert good["warnings"] == []


def test_what_would_move_is_reckoned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = config(tmp_path / "a.toml", 'distribution = "jump"', 4)
    after = config(tmp_path / "b.toml", 'distribution = "jump"', 5)
    keys = tmp_path / "keys"
    keys.write_text("".join(f"user:{number}\n" for number in range(10_000)))
    moved = shown(capsys, before, "--to", after, "--keys", keys)["move"]
    assert isinstance(moved, dict)
    assert moved["share"] == pytest.approx(0.2, abs=0.02), "one of five"
    assert {pair["to"] for pair in moved["pairs"]} == {"127.0.0.1:7005"}
    assert sum(pair["keys"] for pair in moved["pairs"]) == moved["moved"]
    same = shown(capsys, before, "--to", before)["move"]
    assert isinstance(same, dict)
    assert same["moved"] == 0


def test_for_people_there_are_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path / "a.toml", 'distribution = "rendezvous"', 3)
    assert main(["ring", str(file), "--to", str(config(tmp_path / "b.toml", 'distribution = "slots"', 3))]) == 0
    text = capsys.readouterr().out
    assert "s0" in text
    assert "####" in text
    assert "would move" in text
    assert "->" in text


def test_a_nutcracker_file_is_read_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "n.yml"
    file.write_text("alpha:\n listen: 127.0.0.1:1\n redis: true\n servers:\n - 127.0.0.1:7001:1\n - 127.0.0.1:7002:1\n")
    assert shown(capsys, file)["keyspace"] == "alpha"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--keys", "missing"], "cannot read missing"),
        (["--keys", "/dev/null"], "no key in"),
        (["--scan", "--keys", "x"], "together"),
    ],
)
def test_bad_options(arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ring", str(config(tmp_path / "a.toml", "")), *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_a_shard_that_has_what_its_weight_asks_for_is_no_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "n.yml"
    servers = " - 127.0.0.1:7001:1\n - 127.0.0.1:7002:4\n - 127.0.0.1:7003:1\n"
    file.write_text(f"alpha:\n listen: 127.0.0.1:1\n distribution: modula\n hash: murmur\n servers:\n{servers}")
    found = shown(capsys, file)
    assert found["max_over_mean"] == pytest.approx(2.0, abs=0.1), "four of six, over a third"
    assert found["warnings"] == []


def test_ids_that_were_made_up_say_nothing_of_ranges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = 'range = [{ prefix = "user:", ranges = [{ upto = 20000, shard = "s0" }, { shard = "s1" }] }]'
    file = config(tmp_path / "a.toml", f'distribution = "range"\n{tables}', 2)
    assert shown(capsys, file)["warnings"] == []
    keys = tmp_path / "keys"
    keys.write_text("".join(f"user:{number}\n" for number in range(2000)))
    assert "1 of 2 shards have none of 2000 keys" in str(shown(capsys, file, "--keys", keys)["warnings"])
