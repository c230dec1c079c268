"""A real memcached for tests: one process, which keeps its port over kill and restart.

Flow: `start` starts it, `ready` waits until `stats` on its port shows the pid that we started.
Must stay true: nothing here touches a process that it has not started.
"""

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from harness import process
from harness.needs import need
from harness.ports import Port
from harness.wait import wait_until

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class Memcached:
    """One memcached process; `with` starts and ends it."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host = "127.0.0.1"
        self.port = Port.take()
        self.log = folder / f"memcached-{self.port.number}.log"
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        program = need("memcached", "memcached")
        self._argv: list[str | Path] = [
            program,
            "-l",
            self.host,
            "-p",
            str(self.port.number),
            "-U",
            "0",
            "-t",
            "1",
            *user,
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server has not been started"
        return self._process.pid

    def start(self) -> None:
        assert not self.running, f"memcached on {self.port} runs already"
        self._process = process.start(self._argv, stdout=self.log)

    def ready(self) -> None:
        wait_until(self._answers, START_TIMEOUT_S, f"memcached on {self.port} is up; its log: {self.log}")

    def _answers(self) -> bool:
        with socket.create_connection((self.host, self.port.number), 1.0) as wire:
            wire.sendall(b"stats\r\nquit\r\n")
            text = b"".join(iter(lambda: wire.recv(65536), b""))
        return f"STAT pid {self.pid}\r\n".encode() in text

    def pause(self) -> None:
        """It keeps its connections and answers nothing, until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            process.end(self._process, signal.SIGKILL, STOP_TIMEOUT_S)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        self.ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.port.release()
