"""Runs redis-py's tests against one address and says what became of each.

Flow: a pytest process in the source's folder, with the recorder -> lines of JSON -> `Outcome`s. When the process dies,
or one test keeps it for longer than any may take, the test that ran is counted as failed, and a new process does what
is left. The process is ended by its id; what it started dies with it.
Must stay true: the same tests in the same order against every address.
Rejected: a process for each test (twenty minutes of imports); running in our own pytest, whose settings are ours.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import process, wait_until

from redispy.source import HERE, Source

# Markers and files of what needs more than one ordinary server: modules, Redis Cluster, Sentinel, replicas, TLS.
MARKERS = "not onlycluster and not redismod and not graph and not ssl and not replica"
FILES_LEFT_OUT = (
    *(f"tests/test_{name}.py" for name in "bloom cluster graph json search sentinel ssl timeseries".split()),
    *(f"tests/test_asyncio/test_{name}.py" for name in "bloom cluster graph json search timeseries".split()),
    "tests/test_asyncio/test_sentinel.py",
    "tests/test_asyncio/test_sentinel_managed_connection.py",
    "tests/test_graph_utils",
)

# The slowest test takes 4 s on a plain server.
TEST_TIMEOUT_S = 20
# pytest-timeout ends a test by a signal; what does not heed that (a tear-down, a thread, C code) is ended by us.
STALL_TIMEOUT_S = 45.0
RUN_TIMEOUT_S = 3600.0
END_TIMEOUT_S = 10.0
# Each restart costs one test; a server that is gone would cost them all, one by one.
RESTARTS_MAX = 25


@dataclass(frozen=True)
class Outcome:
    """What became of one test: passed, failed or skipped."""

    test: str
    outcome: str
    phase: str = ""
    error: str = ""
    spoke: bool = False
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


class Suite:
    """redis-py's tests against one `host:port`."""

    def __init__(self, source: Source, address: str, folder: Path, *, protocol: int, words: Sequence[str] = ()) -> None:
        self.source = source
        self.address = address
        self.folder = folder
        self.protocol = protocol
        self.words = tuple(words)
        self.events = folder / "events.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def run(
        self, only: Sequence[str] | None = None, left_out: Callable[[str], bool] | None = None
    ) -> dict[str, Outcome]:
        """Runs all tests, or `only` these; never those that are `left_out`. Raises AssertionError when nothing runs."""
        self.events.write_bytes(b"")
        wanted = self.collect(left_out) if only is None else list(only)
        found: dict[str, Outcome] = {}
        for _ in range(RESTARTS_MAX):
            left = [test for test in wanted if test not in found]
            if not left:
                break
            reason = self.once(left)
            before = len(found)
            for outcome in self.outcomes(reason):
                found[outcome.test] = outcome
            assert len(found) > before, f"the run ended without a test: {reason}; see {self.folder / 'pytest.log'}"
        for test in wanted:
            found.setdefault(test, Outcome(test, "failed", "setup", "NotRun: the run was ended too often", True))
        return {test: found[test] for test in wanted}

    def collect(self, left_out: Callable[[str], bool] | None) -> list[str]:
        """The names of all tests that are to run."""
        self.once(None, "--collect-only", "--quiet")
        for event in self.read():
            if event["event"] == "collected":
                return [test for test in event["tests"] if left_out is None or not left_out(test)]
        raise AssertionError(f"redis-py's tests were not found; see {self.folder / 'pytest.log'}")

    def once(self, only: Sequence[str] | None, *words: str) -> str:
        """One pytest process; why it ended."""
        host, _, port = self.address.rpartition(":")
        command: list[str | Path] = [
            self.source.python, "-m", "pytest", "-c", HERE / "suite.ini", "--rootdir", self.source.folder,
            "-p", "no:cacheprovider", "-p", "recorder", "-W", "ignore", "--tb=short", "-m", MARKERS,
            "--timeout", str(TEST_TIMEOUT_S), "--timeout-method", "signal",
            "--redis-url", f"redis://{host}:{port}/0", "--protocol", str(self.protocol),
            "--redis-mod-url", "redis://127.0.0.1:1",  # nobody listens there: so there are no modules
            *(f"--ignore={self.source.folder / name}" for name in FILES_LEFT_OUT),
            *words, *self.words, self.source.folder / "tests",
        ]  # fmt: skip
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))},
            "PYTHONPATH": str(HERE),
            "REDISPY_RECORD": str(self.events),
            "REDISPY_PORT": port,
        }
        if only is not None:
            path = self.folder / "only.json"
            path.write_text(json.dumps(list(only)))
            env["REDISPY_ONLY"] = str(path)
        child = process.start(
            command, stdout=self.folder / "pytest.log", cwd=self.source.folder, env=env, new_session=True
        )
        try:
            return self.watch(child)
        finally:
            process.end(child, signal.SIGKILL, END_TIMEOUT_S, group=True)

    def watch(self, child: "subprocess.Popen[bytes]") -> str:
        """Waits until the process ends, or says nothing for too long."""
        size, since = 0, time.monotonic()

        def over() -> str | None:
            nonlocal size, since
            code = child.poll()
            if code is not None:
                return f"pytest ended with {code}"
            now, written = time.monotonic(), self.events.stat().st_size
            if written != size:
                size, since = written, now
            return f"Hangs: nothing for {STALL_TIMEOUT_S:g} s" if now - since > STALL_TIMEOUT_S else None

        return wait_until(over, RUN_TIMEOUT_S, "redis-py's tests end")

    def read(self) -> Iterator[dict[str, Any]]:
        with self.events.open() as lines:
            for line in lines:
                # The last line of a process that was ended may be cut.
                if line.endswith("\n"):
                    yield json.loads(line)

    def outcomes(self, reason: str) -> Iterator[Outcome]:
        """All outcomes so far; a test that began and did not end failed for `reason`."""
        running: str | None = None
        for event in self.read():
            kind = event.pop("event")
            if kind == "start":
                running = event["test"]
            elif kind == "end":
                running = None
                yield Outcome(**event)
        if running is not None:
            yield Outcome(running, "failed", "call", reason, True)
            # The next process appends to the same file.
            with self.events.open("a") as events:
                event = {"test": running, "outcome": "failed", "phase": "call", "error": reason, "spoke": True}
                events.write(json.dumps({"event": "end", "seconds": STALL_TIMEOUT_S, **event}) + "\n")
