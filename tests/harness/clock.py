"""A wall clock that can be moved under a running process: `Clock` gives the environment that a process starts with.

A small library (clock.c, compiled when it is first needed) is loaded before all others and adds an offset to the wall
clock; the offset is in a file that both sides map. The monotonic clock is left alone, as when somebody sets the time.
Rejected: libfaketime, with which redis-server does not start (its allocator asks for the time before it can allocate).
"""

import struct
import subprocess
from pathlib import Path

from harness.needs import need

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The wall clock of the processes that are started with its environment."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{name}.clock"
        library = folder / "clock.so"
        if not library.exists():
            words = ("-shared", "-fPIC", "-O2", "-Wall", "-Werror")
            subprocess.run([need("cc", "gcc"), *words, "-o", library, SOURCE], check=True)
        self.environment = {"LD_PRELOAD": str(library), "SHOAL_TEST_CLOCK": str(self._file)}
        self._file.write_bytes(struct.pack("=q", 0))

    def move(self, seconds: int) -> None:
        """So far from the true time, from now on; 0 is back."""
        # In place: the processes have mapped this very file.
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))
