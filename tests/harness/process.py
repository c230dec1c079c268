"""Processes that tests start. None outlives the test run, however it ends.

On Linux the kernel kills them when we die (PR_SET_PDEATHSIG, even after SIGKILL); elsewhere, and for good measure, an
exit handler kills what is left, each by its own pid. Output goes to a file: a pipe that nobody reads would stop the
process, and a failed test wants to show it.
Must stay true: the signal is tied to the thread that starts the process, so processes are started by the main thread.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_living: list[subprocess.Popen[bytes]] = []


def start(
    argv: Sequence[str | Path],
    *,
    stdout: Path,
    stderr: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts a process without standard input, its output appended to the files (stderr: with stdout unless named).

    In a session of its own it leads a process group, which `end` can signal as a terminal does.
    """
    assert threading.current_thread() is threading.main_thread(), "PDEATHSIG would come when this thread ends"
    with contextlib.ExitStack() as files:
        out = files.enter_context(stdout.open("ab"))
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=files.enter_context(stderr.open("ab")) if stderr else subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **env} if env is not None else None,
            start_new_session=new_session,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (the child calls prctl only: no lock can be held there)
        )
    _living.append(process)
    return process


def end(process: subprocess.Popen[bytes], number: signal.Signals, timeout: float, *, group: bool = False) -> int:
    """Sends the signal and waits; kills when the time is over. Returns the exit code (negative: the signal).

    With `group`, the signal goes to the whole process group that the process leads.
    """
    if process.poll() is None:
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        # A stopped process does not act on anything but SIGKILL until it is continued.
        process.send_signal(signal.SIGCONT)
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"process {process.pid} did not end within {timeout:g} s of {number.name}") from None
    finally:
        with contextlib.suppress(ValueError):
            _living.remove(process)
    return code


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@atexit.register
def _end_all() -> None:
    for process in _living:
        if process.poll() is None:
            process.kill()
            process.wait()
