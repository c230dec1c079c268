"""The fleet: the embedded servers of `shoal up`, one for each shard.

    start     binary found, data directory claimed, all started at once, then waited for until each answers PING
    supervise a server that ended by itself is logged and started again, after growing waits
    stop      SIGTERM to all, a bounded wait, SIGKILL for what is left, lock released

`start` may raise half way; the run loop calls `stop` in any case, so nothing is left running.
A restarted server keeps its port, because the topology does not change; the proxy reconnects by itself. Restarting
never gives up: the waits grow to a bound and stay there, so that a disk that gets space again brings the shard back.

Everything here runs on the main thread, which the servers' death signal is tied to (see `launch`).
"""

from __future__ import annotations

import errno
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.datadir import DataDirectory
from shoal.distribution import by_slots
from shoal.embedded import HOST, Answer, EmbeddedServer, ServerBinary, find_binary
from shoal.endpoint import Endpoint
from shoal.errors import DataDirectoryError, FleetError
from shoal.topology import Keyspace, Shard, Topology

if TYPE_CHECKING:
    from shoal.log import Log
    from shoal.signals import Signals

# Below the range from which the kernel takes ports for outgoing connections, so that none is taken in passing.
PORT_MIN = 7001
PORT_MAX = 32767
START_SECONDS = 30.0
STOP_SECONDS = 30.0
KILL_SECONDS = 5.0
PROBE_WAIT_SECONDS = 0.01
# Another process may take a port between choosing and binding; then the next one is tried.
PORT_ATTEMPTS = 5
RESTART_WAIT_MS_MIN = 100
RESTART_WAIT_MS_MAX = 10_000
# A server that ran for so long has recovered: its next end is waited for as briefly as the first.
RESTART_FORGIVEN_SECONDS = 60.0


@dataclass
class _Member:
    """A server and what is known of its restarts."""

    server: EmbeddedServer
    started_at: float = 0.0
    wait_ms: int = RESTART_WAIT_MS_MIN
    due_at: float | None = None
    restarts: int = 0
    port_attempts: int = 1


class EmbeddedFleet:
    """The servers of one `shoal up`. See the module for its life."""

    def __init__(
        self, listen: Endpoint, avoid: frozenset[int], log: Log, directory: Path | None, shards: int | None
    ) -> None:
        """`directory` None: a temporary one, nothing is kept. `shards` None: what the directory has."""
        self._listen = listen
        self._log = log
        self._directory = directory
        self._shard_count = shards
        self._binary: ServerBinary | None = None
        self._data: DataDirectory | None = None
        self._temporary: Path | None = None
        self._members: list[_Member] = []
        self._ports = free_ports(avoid)

    @property
    def shards(self) -> list[tuple[str, int, int | None]]:
        """(name, port, pid) of each shard."""
        return [(member.server.name, member.server.port, member.server.pid) for member in self._members]

    def start(self, signals: Signals) -> Topology:
        """Starts all servers and waits for them.

        Raises BinaryMissingError or DataDirectoryError before any was started, FleetError when one does not come up,
        and StopRequested after a signal.
        """
        self._binary = find_binary()
        self._data = self._claim()
        layout = self._data.layout
        persistent = self._temporary is None
        for index, name in enumerate(layout.shards):
            server = EmbeddedServer(self._binary, name, self._data.shard_path(index), persistent=persistent)
            self._members.append(_Member(server))
        for member in self._members:
            self._spawn(member, next(self._ports, 0))
        for member in self._members:
            self._await(member, signals)
        self._data.note_binary(self._binary)
        shards = tuple(Shard(member.server.name, HOST, member.server.port) for member in self._members)
        place = (self._listen.host, self._listen.port)
        keyspace = Keyspace("main", *place, shards, by_slots(layout.slots), cross_shard=True)
        return Topology((keyspace,))

    def _claim(self) -> DataDirectory:
        if self._directory is None:
            try:
                self._temporary = Path(tempfile.mkdtemp(prefix="shoal-"))
            except OSError as error:
                raise DataDirectoryError(f"cannot make a temporary directory: {error.strerror}") from None
        return DataDirectory.claim(self._directory or self._temporary or Path(), self._shard_count)

    def _spawn(self, member: _Member, port: int) -> None:
        assert self._data is not None
        if port == 0:
            raise FleetError(f"no free port between {PORT_MIN} and {PORT_MAX}")
        server = member.server
        try:
            server.start(port, (self._data.lock,))
        except OSError as error:
            reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
            raise DataDirectoryError(f"cannot start shard {server.name} in {server.directory}: {reason}") from None
        member.started_at = time.monotonic()
        self._log.write("info", "shard-started", shard=server.name, endpoint=f"{HOST}:{port}", pid=server.pid)

    def _await(self, member: _Member, signals: Signals) -> None:
        """Waits until a server answers. One that reads a large file says so, and may take as long as it needs."""
        server = member.server
        deadline = time.monotonic() + START_SECONDS
        loading = False
        while True:
            signals.raise_if_stopping()
            if server.ended() is not None:
                if not self._port_was_taken(member):
                    raise self._failed(server, server.ended() or "")
                member.port_attempts += 1
                self._spawn(member, next(self._ports, 0))
            match server.probe():
                case Answer.READY:
                    return
                case Answer.LOADING:
                    deadline = time.monotonic() + START_SECONDS
                    if not loading:
                        self._log.write("info", "shard-loading", shard=server.name)
                    loading = True
                case Answer.NOTHING | Answer.FOREIGN:
                    pass
            if time.monotonic() > deadline:
                raise self._failed(server, f"no answer for {START_SECONDS:.0f} seconds")
            signals.wait(PROBE_WAIT_SECONDS)

    def _port_was_taken(self, member: _Member) -> bool:
        tail = " ".join(member.server.log_tail())
        return member.port_attempts < PORT_ATTEMPTS and "ddress already in use" in tail

    def _failed(self, server: EmbeddedServer, reason: str) -> FleetError:
        lines = [f"shard {server.name} did not start: {reason}"]
        wrote = self._data.layout.written_by if self._data is not None else ""
        if wrote and self._binary is not None and wrote != str(self._binary):
            lines.append(f"its data was last written by {wrote}; this is {self._binary} (from {self._binary.source})")
        lines += [f"{server.log_path}: {line}" for line in server.log_tail()]
        return FleetError("\n".join(lines))

    def supervise(self) -> float | None:
        """Logs and restarts what ended by itself; answers the seconds until the next restart is due."""
        now = time.monotonic()
        for member in self._members:
            if member.due_at is None and member.server.ended() is not None:
                self._note_end(member, now)
            if member.due_at is not None and member.due_at <= now:
                self._restart(member, now)
        due = [member.due_at for member in self._members if member.due_at is not None]
        return max(0.0, min(due) - now) if due else None

    def _note_end(self, member: _Member, now: float) -> None:
        if now - member.started_at > RESTART_FORGIVEN_SECONDS:
            member.wait_ms = RESTART_WAIT_MS_MIN
        server = member.server
        tail = server.log_tail()
        self._log.write(
            "error",
            "shard-exited",
            shard=server.name,
            reason=server.ended(),
            wait_ms=member.wait_ms,
            last_line=tail[-1] if tail else None,
        )
        self._postpone(member, now)

    def _restart(self, member: _Member, now: float) -> None:
        member.due_at = None
        try:
            self._spawn(member, member.server.port)
            member.restarts += 1
        except (DataDirectoryError, FleetError) as error:
            self._log.write(
                "error", "shard-restart-failed", shard=member.server.name, reason=error, wait_ms=member.wait_ms
            )
            self._postpone(member, now)

    def _postpone(self, member: _Member, now: float) -> None:
        member.due_at = now + member.wait_ms / 1000
        member.wait_ms = min(member.wait_ms * 2, RESTART_WAIT_MS_MAX)

    def restarts(self) -> list[tuple[str, int]]:
        """How often each shard was started again."""
        return [(member.server.name, member.restarts) for member in self._members]

    def abandon(self) -> None:
        """SIGTERM to all, without waiting: they write their last bytes and end by themselves."""
        for member in self._members:
            member.server.send(signal.SIGTERM)

    def stop(self, signals: Signals) -> None:
        """Ends all servers, killing those that do not end in time, and lets go of the directory. Idempotent."""
        self.abandon()
        if not self._all_ended(signals, STOP_SECONDS):
            for member in self._members:
                if member.server.running():
                    reason = f"still running {STOP_SECONDS:.0f} seconds after SIGTERM"
                    self._log.write("error", "shard-killed", shard=member.server.name, reason=reason)
                    member.server.send(signal.SIGKILL)
            self._all_ended(signals, KILL_SECONDS)
        self._members = []
        if self._data is not None:
            self._data.release()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _all_ended(self, signals: Signals, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while any(member.server.running() for member in self._members):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            signals.wait(min(left, 1.0))
        return True


def free_ports(avoid: frozenset[int]) -> Iterator[int]:
    """Loopback ports from PORT_MIN on that nobody listens on at the moment."""
    for port in range(PORT_MIN, PORT_MAX + 1):
        if port not in avoid and _is_free(port):
            yield port


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
        return True
