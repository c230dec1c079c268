"""`shoal up` as a process: servers and proxy together, what is refused, and that nothing is ever left running."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from harness import Port, Wire, process, wait_until
from harness.fleet import binary
from harness.proxy import program

START_SECONDS = 30
STOP_SECONDS = 20

# What a terminal does: a process group of its own, so that a signal to the group reaches all that belong to it.
IN_A_GROUP = "import os, sys; os.setpgid(0, 0); os.execv(sys.argv[1], sys.argv[1:])"


def environment() -> dict[str, str]:
    return {**os.environ, "SHOAL_SERVER": str(binary("valkey"))}


class Up:
    """One `shoal up` in a folder of its own; `stop` is Ctrl-C as a terminal sends it."""

    def __init__(self, folder: Path, *options: str, json_line: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.listen, self.admin = Port.take(), Port.take()
        self.out, self.err = folder / "out", folder / "err"
        offset = self.out.stat().st_size if self.out.exists() else 0
        command: list[str | Path] = [sys.executable, "-c", IN_A_GROUP, program(), "up"]
        command += ["--listen", str(self.listen), "--admin", str(self.admin), *options]
        command += ["--json"] if json_line else []
        self.process = process.start(command, stdout=self.out, stderr=self.err, cwd=folder, env=environment())
        self.text = wait_until(lambda: self._said(offset), START_SECONDS, f"shoal up is ready in {folder}")
        self.ready: dict[str, Any] = json.loads(self.text) if json_line else {}

    def _said(self, offset: int) -> str | None:
        assert self.process.poll() is None or self.fail()
        text = self.out.read_text()[offset:]
        return text if text.endswith(("}\n", "everything\n")) else None

    def fail(self) -> bool:
        raise RuntimeError(f"shoal up ended while starting:\n{self.err.read_text()}")

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.listen.number)

    @property
    def shards(self) -> list[Mapping[str, Any]]:
        shards: list[Mapping[str, Any]] = self.ready["keyspaces"][0]["shards"]
        return shards

    @property
    def pids(self) -> list[int]:
        return [shard["pid"] for shard in self.shards]

    def log(self) -> str:
        return self.err.read_text()

    def stop(self) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        wait_until(lambda: self.process.poll() is not None, STOP_SECONDS, "shoal up has ended")
        return self.end()

    def end(self) -> int:
        code = process.end(self.process, signal.SIGKILL, 10)
        wait_until(lambda: not any(map(lives, self.pids)) if self.ready else True, 10, "its servers are gone")
        self.listen.release()
        self.admin.release()
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """`start(*options)` in the test's folder."""
    with ExitStack() as stack:

        def make(*options: str, **more: Any) -> Up:
            up = Up(tmp_path, *options, **more)
            stack.callback(up.end)
            return up

        yield make


def fails(folder: Path, *options: str, **environ: str) -> tuple[int, list[str]]:
    """(exit code, lines of standard error that are not log lines) of a `shoal up` that cannot start."""
    command: list[str | Path] = [program(), "up", "--admin", "off", *options]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=40, check=False, env=environment() | environ
    )
    assert done.stdout == ""
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("ts=")]


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


def servers_of(folder: Path) -> list[int]:
    """Processes whose data is below a folder, found as `ps` would find them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if entry.resolve(strict=True).is_relative_to(folder) and int(entry.parent.name) != os.getpid():
                found.append(int(entry.parent.name))
        except OSError:
            pass  # it ended, or belongs to somebody else
    return found


def test_four_shards_one_endpoint_and_the_data_is_still_there(tmp_path: Path, start: Callable[..., Up]) -> None:
    up = start()
    assert [shard["slots"] for shard in up.shards] == [["0-4095"], ["4096-8191"], ["8192-12287"], ["12288-16383"]]
    assert up.ready["data"] == "shoal-data"
    with up.client() as client:
        for number in range(100):
            client.set(f"key:{number}", number)
    counts = []
    for shard in up.shards:
        host, port = shard["endpoint"].split(":")
        with redis.Redis(host, int(port)) as direct:
            counts.append(sum(not key.startswith(b"__shoal:") for key in direct.scan_iter()))
            assert direct.info("server")["process_id"] == shard["pid"]
    assert sum(counts) == 100
    assert all(counts), "every shard has some"
    assert up.stop() == 0
    assert not servers_of(tmp_path)
    for index in range(4):
        log = (tmp_path / "shoal-data" / f"shard-{index}" / "server.log").read_text()
        assert "SIGTERM" in log
        assert "SIGINT" not in log, "Ctrl-C did not reach the servers: the proxy was stopped first"
    again = start()
    with again.client() as client:
        assert [client.get(f"key:{number}") for number in range(100)] == [b"%d" % number for number in range(100)]
    assert again.stop() == 0


def test_people_are_told_what_runs_where_and_what_to_try(start: Callable[..., Up]) -> None:
    up = start("--shards", "2", json_line=False)
    for line in (
        rf"  clients: {up.listen}    try: redis-cli -p {up.listen.number}",
        r"    shard s0  127\.0\.0\.1:\d+  slots 0-8191      pid \d+",
        r"    shard s1  127\.0\.0\.1:\d+  slots 8192-16383  pid \d+",
        rf"  admin: http://{up.admin}    /metrics /healthz /readyz",
        r"  data: shoal-data, kept when stopped",
        r"  Ctrl-C stops everything",
    ):
        assert re.search(f"^{line}$", up.text, re.MULTILINE), line
    assert up.stop() == 0


def test_ephemeral_leaves_nothing(tmp_path: Path, start: Callable[..., Up], monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    up = start("--ephemeral", "--shards", "1")
    assert up.ready["data"] is None
    assert list(temporary.iterdir())
    assert up.stop() == 0
    assert not list(temporary.iterdir())
    assert not (tmp_path / "shoal-data").exists()


def test_a_taken_port_is_one_line_and_nothing_is_begun(tmp_path: Path, start: Callable[..., Up]) -> None:
    up = start("--shards", "1", "--data", "a")
    for options, endpoint, option in [
        (["--listen", str(up.listen)], up.listen, "--listen"),
        (["--listen", "127.0.0.1:0", "--admin", str(up.admin)], up.admin, "--admin"),
    ]:
        code, lines = fails(tmp_path, "--data", "b", *options)
        expected = f"shoal: cannot listen on {endpoint}: address already in use (another shoal? choose another with"
        assert (code, lines) == (2, [f"{expected} {option})"])
    assert not (tmp_path / "b").exists()
    assert servers_of(tmp_path / "a") == up.pids


def test_a_directory_in_use_or_of_another_layout_is_one_line(tmp_path: Path, start: Callable[..., Up]) -> None:
    up = start("--shards", "2")
    options = ["--listen", "127.0.0.1:0"]
    in_use = f"shoal: shoal-data is in use by another shoal up (pid {up.process.pid}); choose another with --data"
    other = "shoal: shoal-data holds 2 shards, not 3: use --shards 2, or another directory with --data"
    foreign = "shoal: foreign is not empty and holds no data of shoal; choose another with --data"
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "dump.rdb").write_bytes(b"")
    assert fails(tmp_path, *options) == (2, [in_use])
    assert fails(tmp_path, *options, "--shards", "3") == (2, [other])
    assert fails(tmp_path, *options, "--data", "foreign") == (2, [foreign])
    assert up.stop() == 0
    assert fails(tmp_path, *options, "--shards", "3") == (2, [other])
    assert not servers_of(tmp_path)


def test_a_missing_binary_is_one_line(tmp_path: Path) -> None:
    code, lines = fails(tmp_path, "--listen", "127.0.0.1:0", SHOAL_SERVER="/nowhere/valkey-server")
    assert (code, lines) == (
        2,
        ["shoal: SHOAL_SERVER is /nowhere/valkey-server, which is not a program that can be run"],
    )
    assert not (tmp_path / "shoal-data").exists()


def test_a_server_that_does_not_start_takes_the_others_with_it(tmp_path: Path, start: Callable[..., Up]) -> None:
    assert start("--shards", "3").stop() == 0
    manifest = tmp_path / "shoal-data" / "shard-1" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("nonsense\n")
    code, lines = fails(tmp_path, "--listen", "127.0.0.1:0")
    assert code == 1
    assert lines[0] == "shoal: shard s1 did not start: exit code 1"
    assert any("server.log" in line for line in lines[1:])
    assert not servers_of(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process's life to its parent's")
def test_a_killed_parent_leaves_no_server(start: Callable[..., Up]) -> None:
    up = start("--shards", "2")
    assert all(map(lives, up.pids))
    up.process.kill()
    wait_until(lambda: not any(map(lives, up.pids)), 10, "the servers ended with their parent")


def test_a_second_signal_ends_all_at_once(start: Callable[..., Up]) -> None:
    up = start("--shards", "2")
    os.kill(up.pids[0], signal.SIGSTOP)
    host, port = up.ready["keyspaces"][0]["listen"].split(":")
    with Wire(host, int(port)) as wire:
        wire.command("GET", "foo{b}")  # slot 3300: on the shard that is frozen
        up.process.send_signal(signal.SIGINT)
        wait_until(lambda: "event=stopping" in up.log(), 10, "it drains")
        assert up.process.poll() is None

        def ended() -> bool:
            if up.process.poll() is None:
                up.process.send_signal(signal.SIGINT)  # one that comes at once counts as the same
            return up.process.poll() is not None

        wait_until(ended, 2, "it ended at once")
        assert up.process.poll() == 1
    os.kill(up.pids[0], signal.SIGCONT)
    wait_until(lambda: not any(map(lives, up.pids)), 10, "the servers ended too")


def test_a_signal_while_starting_leaves_nothing(tmp_path: Path) -> None:
    command: list[str | Path] = [program(), "up", "--listen", "127.0.0.1:0", "--admin", "off"]
    for awaited in ("shard=s0", "shard=s3"):
        started = process.start(
            command, stdout=tmp_path / "out", stderr=tmp_path / "err", cwd=tmp_path, env=environment()
        )
        wait_until(lambda: awaited in (tmp_path / "err").read_text(), START_SECONDS, awaited)  # noqa: B023
        assert process.end(started, signal.SIGTERM, STOP_SECONDS) == 0
        assert not servers_of(tmp_path)
        (tmp_path / "err").write_text("")


def test_a_shard_that_dies_comes_back_and_the_proxy_finds_it(start: Callable[..., Up]) -> None:
    up = start("--shards", "2")
    with up.client() as client:
        for number in range(20):
            client.set(f"key:{number}", number)
        os.kill(up.pids[1], signal.SIGKILL)
        wait_until(lambda: "event=shard-exited shard=s1" in up.log().replace(" level=error", ""), 10, "it is logged")

        def all_there() -> bool:
            try:
                return all(client.get(f"key:{number}") == b"%d" % number for number in range(20))
            except redis.RedisError:
                return False

        wait_until(all_there, 20, "every key can be read again")
    assert up.log().count("event=shard-started shard=s1") == 2
    assert up.stop() == 0
