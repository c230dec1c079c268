"""Ports for servers that tests start: free, ours alone, and below the range from which the kernel hands out its own.

Two test runs on one machine must not meet. A port is ours while we hold the lock of its file in the temporary folder;
it is tried by binding before it is given out, because others may listen without asking us. Locks die with the process.
Rejected: port 0. The kernel's choice is free at that instant only, and a restarted server must find its port again.
"""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Self

# Below the kernel's own range (from 32768), above what services register; 6379 and its neighbours are never touched.
FIRST = 20000
LAST = 32000


class Port:
    """One TCP port of 127.0.0.1, ours until `release`. As an int where one is wanted: `int(port)`."""

    def __init__(self, number: int, lock: int) -> None:
        self.number = number
        self._lock: int | None = lock

    @classmethod
    def take(cls) -> Self:
        """A free port; fails when hundreds in a row are taken, which means that something is badly wrong."""
        start = random.randrange(FIRST, LAST)
        for step in range(500):
            number = FIRST + (start - FIRST + step) % (LAST - FIRST)
            lock = _lock(number)
            if lock is None:
                continue
            if _is_free(number):
                return cls(number, lock)
            os.close(lock)
        raise AssertionError(f"no free port among 500 from {start} on")

    def release(self) -> None:
        """Gives the port back. May be called twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __int__(self) -> int:
        return self.number

    def __str__(self) -> str:
        return f"127.0.0.1:{self.number}"


def _lock(number: int) -> int | None:
    folder = Path(tempfile.gettempdir()) / f"shoal-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    handle = os.open(folder / str(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _is_free(number: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        # Without SO_REUSEADDR a port in TIME_WAIT counts as taken, although servers could bind it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
        return True
