"""Signals as something the main thread waits for.

    with Signals(last_words) as signals:
        while not signals.stop_requested:
            signals.wait(timeout)

The first SIGTERM, SIGINT or SIGHUP asks for an orderly end: it wakes `wait`, and the main loop does the rest. A
second SIGTERM or SIGINT ends the process at once from inside the handler, whatever the main thread hangs in. SIGCHLD
only wakes, so that a dead child is noticed without polling. With `reloads`, SIGHUP asks for files to be read again
instead, also where it came ignored: then a closed terminal does no harm.

The handlers do no more than set a flag: they run between any two bytecodes of the main thread, which may hold the
log's lock at that moment. Must be used from the main thread, the only one Python runs handlers in.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Self

from shoal.errors import EXIT_FAILURE

# The same signal this soon after the first is the same wish, told twice.
REPEAT_S = 0.1


class StopRequested(Exception):  # noqa: N818  (it is not an error)
    """Raised by work that was interrupted by the wish to stop."""


class Signals:
    """Installed while the `with` block runs; what was installed before is put back."""

    def __init__(self, last_words: Callable[[], None] = lambda: None, *, reloads: bool = False) -> None:
        self.stop_requested = False
        self._reloads = reloads
        self._reload_requested = False
        self.name = ""
        self._first = 0
        self._stopped_at = 0.0
        self._last_words = last_words
        self._before: dict[int, object] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # `nohup shoal serve` came with SIGHUP ignored, and means it.
            if number == signal.SIGHUP and self._reloads:
                self._before[number] = signal.signal(number, self._on_reload)
            elif signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGTERM:
                self._before[number] = signal.signal(number, self._on_stop)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _on_child)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it is what signal.signal answered
        signal.set_wakeup_fd(self._wakeup_before)
        self._reader.close()
        self._writer.close()

    def wait(self, seconds: float | None) -> None:
        """Sleeps until a signal comes, at most so long; None waits without end."""
        select.select([self._reader], [], [], seconds)
        try:
            while self._reader.recv(4096):
                pass
        except BlockingIOError:
            pass

    def raise_if_stopping(self) -> None:
        """Ends work that takes long, such as starting, when a stop was asked for meanwhile."""
        if self.stop_requested:
            raise StopRequested

    def stop_because(self, name: str) -> None:
        """As a first signal, from any thread; `name` is what the log gives as the reason."""
        if not self.stop_requested:
            self.name = name
            self.stop_requested = True
            self._writer.send(b"\0")

    def take_reload(self) -> bool:
        """Whether files are to be read again; true once for each wish, or for several that came together."""
        wanted, self._reload_requested = self._reload_requested, False
        return wanted

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_requested = True

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        if self.stop_requested and number == signal.SIGHUP:
            return  # a closed terminal sends two: one from the kernel, one from the shell
        if number == self._first and time.monotonic() - self._stopped_at < REPEAT_S:
            return  # sent to a whole process group it comes twice: once directly, once from `make`
        if self.stop_requested:
            self._last_words()
            os.write(2, b"shoal: stopped at once by a second signal\n")
            os._exit(EXIT_FAILURE)
        self.stop_requested = True
        self._first = number
        self._stopped_at = time.monotonic()
        self.name = signal.Signals(number).name


def _on_child(_number: int, _frame: FrameType | None) -> None:
    """Only there so that the kernel's signal reaches the wake-up socket."""
