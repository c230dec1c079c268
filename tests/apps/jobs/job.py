"""What every job stands on: where the server is, how a step is said, how a worker is started and waited for.

The runner tells by the environment (`APP_HOST`, `APP_PORT`), so that a worker which a job starts knows it too. A job
prints `version X`, then `ok STEP` for each step that came out as it must; the first that does not ends it.
Must stay true: nothing here speaks to the server. That is what the packages are here for.
"""

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

HOST = os.environ["APP_HOST"]
PORT = int(os.environ["APP_PORT"])
HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent

# The harness of the tests wants pytest, which is not in the environments of applications; its waiting wants nothing.
_spec = importlib.util.spec_from_file_location("harness_wait", HERE.parent.parent / "harness" / "wait.py")
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
wait_until = _module.wait_until

# A worker imports a framework and the job; on a machine that builds at the same time that takes seconds.
WORKER_TIMEOUT_S = 40.0
END_TIMEOUT_S = 10.0
LOG_SHOWN = 6000


def url(database: int = 0) -> str:
    return f"redis://{HOST}:{PORT}/{database}"


def said_version(package: str) -> None:
    """Says which version is tried."""
    print(f"version {version(package)}", flush=True)


def step(name: str, found: object, expected: object = True) -> None:
    """Says that a step is done, or ends the job with what differed."""
    if found != expected:
        raise SystemExit(f"{name}: expected {expected!r}, found {found!r}")
    print(f"ok {name}", flush=True)


def pause(seconds: float) -> None:
    """For tasks that have to take time: they are waited for, they do not wait for anything."""
    threading.Event().wait(seconds)


class Worker:
    """A worker process and what it says."""

    def __init__(self, argv: Sequence[str | Path]) -> None:
        self._log = tempfile.NamedTemporaryFile(prefix="worker-", suffix=".log")  # noqa: SIM115  (as long as we live)
        self.process = subprocess.Popen(
            [str(word) for word in argv], cwd=HERE, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

    def said(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def says(self, *texts: str) -> None:
        """Waits until all of these have been said."""

        def there() -> bool:
            if self.process.poll() is not None:
                raise SystemExit(f"the worker ended with {self.process.returncode}:\n{self.said()[-LOG_SHOWN:]}")
            said = self.said()
            return all(text in said for text in texts)

        wait_until(there, WORKER_TIMEOUT_S, f"the worker says {' and '.join(texts)}")

    def end(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def worker(*argv: str | Path) -> Iterator[Worker]:
    """A worker for the time of the block. When the block fails, what the worker said is shown."""
    started = Worker(argv)
    try:
        yield started
    except BaseException:
        print(f"--- the worker said:\n{started.said()[-LOG_SHOWN:]}\n---", flush=True)
        raise
    finally:
        started.end()
