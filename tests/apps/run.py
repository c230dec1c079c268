"""Runs one job against one address and judges what it printed.

The job leads a process group, so that whatever it started is ended with it, however it ends.
Must stay true: passed means exit code 0 and exactly the steps of the book, in their order.
"""

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from harness import process, wait_until

from apps.book import App
from apps.environments import Environment

# The longest takes half a minute on a quiet machine.
TIMEOUT_S = 180.0
END_TIMEOUT_S = 10.0
SHOWN = 40


@dataclass(frozen=True)
class Outcome:
    """What became of one application."""

    app: str
    version: str
    verdict: str
    seconds: float
    reason: str = ""
    steps: int = 0

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"


def run(app: App, environment: Environment, address: str, folder: Path) -> Outcome:
    """Runs the job to its end."""
    host, _, port = address.rpartition(":")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{app.name}.log"
    log.write_bytes(b"")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    # process.start adds to our environment; what must not be seen has to be emptied.
    hidden = {name: "" for name in os.environ if name not in env and name != "PYTHONPATH"}
    started = time.monotonic()
    child = process.start(
        [*environment.command, *app.program.split()],
        stdout=log,
        cwd=environment.folder,
        env={**hidden, "PYTHONPATH": "", **environment.env, **app.env, "APP_HOST": host, "APP_PORT": port},
        new_session=True,
    )
    try:
        wait_until(lambda: child.poll() is not None, TIMEOUT_S, f"{app.name} ends")
        code: int | None = child.returncode
    except AssertionError:
        code = None
    finally:
        # The job's own end is over; what it started may still be there.
        _end_group(child.pid)
        process.end(child, signal.SIGKILL, END_TIMEOUT_S)
    return judge(app, log.read_text(errors="replace"), code, time.monotonic() - started)


def _end_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def judge(app: App, printed: str, code: int | None, seconds: float) -> Outcome:
    """The verdict over what a job printed; `code` is None when it did not end."""
    version = re.search(r"^version (\S+)$", printed, re.MULTILINE)
    steps = tuple(re.findall(r"^ok (.+)$", printed, re.MULTILINE))
    reason = ""
    if code is None:
        reason = f"not over after {TIMEOUT_S:g} s"
    elif code != 0:
        reason = f"ended with {code}"
    elif steps != app.steps:
        reason = f"its steps are {', '.join(steps)}"
    if reason:
        reason += f", after {len(steps)} of {len(app.steps)} steps:\n" + "\n".join(printed.splitlines()[-SHOWN:])
    verdict = "failed" if reason else "passed"
    return Outcome(app.name, version[1] if version else "?", verdict, round(seconds, 1), reason, len(steps))
