"""What the real Twemproxy does with `redis_db`, and that shoal over the same file finds the data where it is."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Fleet, Port, Proxy, Wire
from harness.nutcracker import Nutcracker

KEYS = [f"key:{number}" for number in range(50)]


@pytest.fixture
def servers(flavour: str) -> Iterator[Fleet]:
    """Two servers, each with a unix socket besides its port, in a folder whose path is short enough for one."""
    with (
        tempfile.TemporaryDirectory(prefix="shoal-nc-") as folder,
        Fleet(Path(folder), 2, flavour, ("unixsocket s", "unixsocketperm 700")) as fleet,
    ):
        yield fleet


def text_of(listen: str, shards: list[str]) -> str:
    lines = [f"alpha:\n listen: {listen}\n redis: true\n redis_db: 3\n servers:"]
    return "\n".join([*lines, *(f" - {shard}:1 s{number}" for number, shard in enumerate(shards))]) + "\n"


@pytest.mark.parametrize(("place", "database"), [("tcp", 3), ("sockets", 0)])
def test_the_database_is_the_one_that_twemproxy_used(
    servers: Fleet, tmp_path: Path, new_proxy: Callable[..., Proxy], place: str, database: int
) -> None:
    shards = servers.addresses if place == "tcp" else [str(server.folder / "s") for server in servers.servers]
    port = Port.take()
    file = tmp_path / "nutcracker.yml"
    file.write_text(text_of(str(port), shards))
    # Not a client: today's say HELLO first, and nutcracker hangs up.
    with Nutcracker(tmp_path, file, [str(port)]), Wire("127.0.0.1", port.number) as wire:
        for key in KEYS:
            assert wire.ask("SET", key, "of nutcracker") == "OK"
    port.release()
    held = 0
    for server in servers.servers:
        with server.client(db=database) as there:
            held += int(there.dbsize())
    assert held == len(KEYS), "nutcracker's own choice"
    proxy = new_proxy(nutcracker=text_of("{listen}", shards))
    assert proxy.client().mget(KEYS) == [b"of nutcracker"] * len(KEYS)
    said = [line for line in proxy.log() if "config-warning" in line and "redis_db" in line]
    assert len(said) == (1 if place == "sockets" else 0)
