"""`shoal ring --scan`: the sample is what real servers hold, and a server that cannot be read is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Fleet, Port

from shoal.cli import main
from shoal.ring import Ring
from shoal.scan_keys import parts

KEYS = [f"user:{number}".encode() for number in range(3000)]


def config(folder: Path, shards: list[str], rest: str = "") -> Path:
    file = folder / "shoal.toml"
    file.write_text(f"[keyspace.main]\ndistribution = 'jump'\nshards = {json.dumps(shards)}\n{rest}\n")
    file.chmod(0o600)
    return file


def filled(fleet: Fleet, database: int = 0) -> None:
    """Each key where the ring has it."""
    ring = Ring.of("jump", fleet.addresses)
    for index, server in enumerate(fleet.servers):
        own = {key: b"1" for key, at in zip(KEYS, ring.indexes(KEYS), strict=True) if at == index}
        with server.client(db=database) as client:
            client.mset(own)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    assert main(["ring", *map(str, arguments), "--scan", "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_the_sample_is_what_the_servers_hold(fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(fleet)
    found = shown(capsys, config(tmp_path, fleet.addresses))
    assert isinstance(found["shards"], list)
    assert found["keys"] == len(KEYS)
    assert [shard["keys"] for shard in found["shards"]] == [server.client().dbsize() for server in fleet.servers]


def test_a_small_sample_shows_the_crowded_shard_as_crowded(
    new_fleet: Callable[..., Fleet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = new_fleet(2)
    ring = Ring.of("jump", fleet.addresses)
    at = ring.indexes(KEYS)
    for index, keys in enumerate((900, 100)):
        own = [key for key, place in zip(KEYS, at, strict=True) if place == index][:keys]
        with fleet.servers[index].client() as client:
            client.mset(dict.fromkeys(own, b"1"))
    few = shown(capsys, config(tmp_path, fleet.addresses), "--sample", "100")
    assert few["keys"] == 100
    assert isinstance(few["shards"], list)
    assert [shard["keys"] for shard in few["shards"]] == [90, 10]


@pytest.mark.parametrize(
    ("sizes", "keys_max", "expected"),
    [([5, 0, 3], 8, [5, 0, 3]), ([1, 1, 1], 2, [0, 1, 1]), ([10, 0, 30], 4, [1, 0, 3]), ([0, 0], 5, [0, 0])],
)
def test_a_sample_is_dealt_in_proportion(sizes: list[int], keys_max: int, expected: list[int]) -> None:
    assert parts(sizes, keys_max) == expected


def test_passwords_and_databases_are_those_of_the_file(
    new_fleet: Callable[..., Fleet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = new_fleet(2, settings=("requirepass secret",))
    filled(fleet, database=3)
    good = config(tmp_path, fleet.addresses, 'server_password = "secret"\ndatabase = 3')
    assert shown(capsys, good)["keys"] == len(KEYS)
    wrong = config(tmp_path, fleet.addresses, 'server_password = "wrong"')
    assert main(["ring", str(wrong), "--scan"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"shoal: shard s0 at {fleet.addresses[0]}: WRONGPASS")
    assert "secret" not in complaint


def test_sockets_are_read_too(
    new_fleet: Callable[..., Fleet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = new_fleet(1, settings=("unixsocket s", "unixsocketperm 700"))
    (server,) = fleet.servers
    server.client().mset(dict.fromkeys(KEYS, b"1"))
    short = Path("/proc") / str(server.pid) / "cwd/s"  # the path of a socket has at most 107 bytes
    assert shown(capsys, config(tmp_path, [str(short)]))["keys"] == len(KEYS)


def test_a_server_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = Port.take()
    file = config(tmp_path, [str(port)])
    assert main(["ring", str(file), "--scan"]) == 1
    assert capsys.readouterr().err == f"shoal: shard s0 at {port}: Connection refused\n"
    port.release()


def test_memcached_cannot_be_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path, ["127.0.0.1:1"], 'protocol = "memcached"')
    assert main(["ring", str(file), "--scan"]) == 2
    assert "give them with --keys" in capsys.readouterr().err
