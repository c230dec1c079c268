"""Real memcached servers: `Memcached` is one process, `MemcachedFleet` several.

Flow: `start` does not wait, `ready` does: it is up when its own statistics show the pid that we started, so a stranger
at the address is never taken for it. A server listens on a port of its own, or (with `socket`) on a unix socket only.
"""

import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from harness import process
from harness.needs import need
from harness.nutcracker import connect
from harness.ports import Port
from harness.wait import wait_until

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
# Enough for every test, little enough that several fit on a small machine.
MEMORY_MIB = 128


class Memcached:
    """One memcached process. `also` are further `host:port` at which it listens."""

    def __init__(self, folder: Path, *, socket: bool = False, also: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "memcached.log"
        self.port: Port | None = None if socket else Port.take()
        # Not in `folder`: the path of a unix socket has at most 107 bytes, those of tests are longer.
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-mc-")
        self.address = str(self.port) if self.port else f"{self._folder.name}/socket"
        self._also = tuple(also)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = ["-l", ",".join((self.address, *self._also))] if self.port else ["-s", self.address]
        # Started by root it wants a name, and another user could not write the socket's folder.
        user = pwd.getpwuid(os.getuid()).pw_name
        argv: list[str | Path] = [
            need("memcached", "memcached"),
            "-u",
            user,
            "-m",
            str(MEMORY_MIB),
            "-t",
            "1",
            "-U",
            "0",
            *where,
        ]
        self._process = process.start(argv, stdout=self.log)

    def ready(self) -> None:
        """Waits until the process that we started answers."""
        wait_until(self._answers, START_TIMEOUT_S, f"memcached on {self.address} is up; its log: {self.log}")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            text = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"memcached on {self.address} ended while starting:\n{text}")
        return self.ask("stats", b"END\r\n").startswith(f"STAT pid {self._process.pid}\r\n".encode())

    def ask(self, command: str, end: bytes, timeout: float = 10.0) -> bytes:
        """One command to the server itself; everything up to and with `end`."""
        received = bytearray()
        with connect(self.address, timeout) as link:
            link.sendall(command.encode() + b"\r\n")
            while not received.endswith(end):
                data = link.recv(1 << 16)
                if not data:
                    raise ConnectionError(f"memcached on {self.address} closed the connection")
                received += data
        return bytes(received)

    def items(self) -> int:
        """How many keys it holds."""
        lines = self.ask("stats", b"END\r\n").split(b"\r\n")
        return next(int(line.split()[2]) for line in lines if line.startswith(b"STAT curr_items "))

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends the process; its address stays its own."""
        if self._process is not None:
            process.end(self._process, number, STOP_TIMEOUT_S)

    def release(self) -> None:
        """Gives the address back."""
        if self.port:
            self.port.release()
        self._folder.cleanup()


class MemcachedFleet:
    """Several servers; a context manager."""

    def __init__(self, folder: Path, count: int, *, socket: bool = False, also: Sequence[str] = ()) -> None:
        """Server i listens at `also[i]` too, when there are so many."""
        self.servers = [Memcached(folder / f"memcached-{i}", socket=socket, also=also[i : i + 1]) for i in range(count)]
        try:
            for server in self.servers:
                server.start()
            for server in self.servers:
                server.ready()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self.servers]

    def end(self) -> None:
        for server in self.servers:
            server.end()
            server.release()
