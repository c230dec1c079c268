"""Starting, pinning and stopping the processes of a run.

Everything that the run starts is kept in one `Stage` and stopped by pid when the stage closes, whatever the reason.
Each process is also told to die with its parent, so that a killed harness leaves nothing behind. Listening happens on
loopback only, on ports below the kernel's ephemeral range, so that no outgoing connection can sit on one of them.

Pinning is done by `taskset` in front of the command rather than from here after the start: threads inherit it, however
early they are made.
"""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
PORT_FIRST = 21_000
PORT_LAST = 31_999
# Long enough for a subject that runs under valgrind.
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 5.0
POLL_SECONDS = 0.02
LOG_TAIL_CHARS = 1500


class BenchError(Exception):
    """Something without which the run, or one subject's part in it, makes no sense. The text is shown as it is."""


@dataclass(frozen=True)
class Running:
    """A process of ours that listens on `port`."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def endpoint(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def log_tail(self) -> str:
        try:
            return self.log.read_text(errors="replace")[-LOG_TAIL_CHARS:].strip()
        except OSError:
            return ""


def pinned(cores: Iterable[int], command: Sequence[str]) -> list[str]:
    """The command, confined to those cores and killed with its parent."""
    core_list = ",".join(str(core) for core in sorted(cores))
    return ["setpriv", "--pdeathsig", "KILL", "--", "taskset", "--cpu-list", core_list, *command]


@dataclass
class Stage:
    """Owner of the processes of a run and of their directory."""

    directory: Path
    _running: list[Running] = field(default_factory=list)
    _ports: set[int] = field(default_factory=set)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in reversed(self._running):
            _end(running.process)
        self._running.clear()

    def free_port(self) -> int:
        """A port nobody listens on and that this stage has not given out. Somebody else may take it before it is used:
        then the process says so and the start fails loudly."""
        for port in random.sample(range(PORT_FIRST, PORT_LAST + 1), 200):
            if port in self._ports:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind((LOOPBACK, port))
                except OSError:
                    continue
            self._ports.add(port)
            return port
        raise BenchError(f"no free port between {PORT_FIRST} and {PORT_LAST}")

    def start(self, name: str, port: int, command: Sequence[str], cores: Iterable[int]) -> Running:
        """Start a process and wait until it accepts connections; BenchError with the end of its log if it does not."""
        log = self.directory / f"{name}.log"
        with log.open("wb") as sink:
            try:
                process = subprocess.Popen(
                    pinned(cores, command),
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    cwd=None,
                )
            except OSError as error:
                raise BenchError(f"{name} cannot be started: {error}") from error
        running = Running(name, port, process, log)
        self._running.append(running)
        deadline = time.monotonic() + START_SECONDS_MAX
        while not _accepts(port):
            if process.poll() is not None:
                self._running.remove(running)
                raise BenchError(f"{name} ended with code {process.returncode}:\n{running.log_tail()}")
            if time.monotonic() > deadline:
                self.stop(running)
                raise BenchError(f"{name} does not accept connections on port {port}:\n{running.log_tail()}")
            time.sleep(POLL_SECONDS)
        return running

    def stop(self, running: Running) -> None:
        """Stop one process before the stage closes."""
        _end(running.process)
        if running in self._running:
            self._running.remove(running)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """TERM, a bounded wait, then KILL; a process that has ended already is left alone."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def move_to(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Give every thread of these processes other cores; threads that have just ended do not matter."""
    wanted = set(cores)
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                os.sched_setaffinity(int(task.name), wanted)
            except ProcessLookupError:
                continue
