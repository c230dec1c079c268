"""A real Twemproxy: `Nutcracker` is one nutcracker process over a YAML file, with as many pools as the file has.

Flow: the text of a file -> process -> every listener of the file accepts. What a pool asks of servers is the test's
business; the file is written once and stays, so that another proxy can be started over the same bytes.
Must stay true: a nutcracker that ends while starting fails the test at once, with its own words.
"""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from harness import process
from harness.needs import need
from harness.ports import Port
from harness.wait import wait_until

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
LOG_CHARS_SHOWN = 2000


def connect(address: str, timeout: float) -> socket.socket:
    """A connection to `host:port` or to the path of a unix socket."""
    if address.startswith("/"):
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(timeout)
        try:
            link.connect(address)
        except OSError:
            link.close()
            raise
        return link
    host, _, port = address.rpartition(":")
    link = socket.create_connection((host, int(port)), timeout)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def accepts(address: str) -> bool:
    """Whether something takes connections there."""
    with contextlib.suppress(OSError), connect(address, 1.0):
        return True
    return False


class Nutcracker:
    """A running nutcracker; a context manager. `listeners` are the addresses at which the file makes it listen."""

    def __init__(self, folder: Path, file: Path, listeners: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.listeners = tuple(listeners)
        self.stats = Port.take()
        self.log = folder / "nutcracker.log"
        # -v 4: warnings and worse; the default writes a line for each connection.
        self.argv: list[str | Path] = [need("nutcracker", "nutcracker"), "-v", "4", "-c", file]
        self.argv += ["-o", self.log, "-p", folder / "nutcracker.pid", "-a", "127.0.0.1", "-s", str(self.stats.number)]
        self._process: subprocess.Popen[bytes] = process.start(self.argv, stdout=self.log, cwd=folder)
        try:
            wait_until(self._is_up, START_TIMEOUT_S, f"every listener of {file} accepts")
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            text = self.log.read_text(errors="replace")[-LOG_CHARS_SHOWN:]
            raise RuntimeError(f"nutcracker ended while starting:\n{text}")
        return all(accepts(address) for address in self.listeners)

    def end(self) -> None:
        """Ends the process and waits until it is gone: its listeners are free then."""
        process.end(self._process, signal.SIGINT, STOP_TIMEOUT_S)
        self.stats.release()
