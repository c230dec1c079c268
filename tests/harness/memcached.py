"""Real memcached servers: `Memcached` is one process, which keeps its port over kill and restart; a fleet is several.

Flow: `start` starts it, `ready` waits until `stats` on its port shows the pid that we started.
Must stay true: nothing here touches a process that it has not started.
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

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class Memcached:
    """One memcached process; `with` starts and ends it.

    It listens on a port of its own, or (with `socket`) on a unix socket only; `also` are further `host:port`.
    """

    def __init__(self, folder: Path, *options: str, socket: bool = False, also: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host = "127.0.0.1"
        self.port = Port.take()
        self.log = folder / f"memcached-{self.port.number}.log"
        # Not in `folder`: the path of a unix socket has at most 107 bytes, those of tests are longer.
        self._sockets = tempfile.TemporaryDirectory(prefix="shoal-mc-")
        self.address = f"{self._sockets.name}/socket" if socket else str(self.port)
        where = ["-s", self.address] if socket else ["-l", ",".join((self.address, *also))]
        # Started by root it wants a name, and another user could not write the socket's folder.
        user = ["-u", pwd.getpwuid(os.getuid()).pw_name]
        program = need("memcached", "memcached")
        self._argv: list[str | Path] = [program, *where, "-U", "0", "-t", "1", *user, *options]
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
        assert self.running, f"memcached ended while starting: {self.log.read_text(errors='replace')[-2000:]}"
        return self.statistics().get("pid") == str(self.pid)

    def statistics(self) -> dict[str, str]:
        """What `stats` says of the server itself."""
        with connect(self.address, 10.0) as wire:
            wire.sendall(b"stats\r\nquit\r\n")
            text = b"".join(iter(lambda: wire.recv(65536), b"")).decode()
        return {line.split(" ")[1]: line.split(" ")[2] for line in text.split("\r\n") if line.startswith("STAT ")}

    def items(self) -> int:
        """How many keys it holds."""
        return int(self.statistics()["curr_items"])

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
        self._sockets.cleanup()


class MemcachedFleet:
    """Several servers, up when it has been made; a context manager."""

    def __init__(self, folder: Path, count: int, *, socket: bool = False, also: Sequence[str] = ()) -> None:
        """Server i listens at `also[i]` too, when there are so many."""
        self.servers = [
            Memcached(folder / f"memcached-{i}", "-m", "128", socket=socket, also=also[i : i + 1]) for i in range(count)
        ]
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
            server.__exit__()
