"""A pytest plug-in for redis-py's run: one line of JSON for each event, written at once.

Events: `collected` (all tests that are to run), `start` (a test begins), `end` (what became of it). A run that dies or
is ended leaves a start without an end: that test is to blame, and the next run does only those that are left. For that
the variable REDISPY_ONLY names a file with the tests to run.
`spoke` says whether the test connected to the server: those that only look at redis-py itself say nothing about shoal.
Must stay true: it changes nothing that a test can see.
"""

import json
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any, TextIO

import pytest

ERROR_CHARACTERS_MAX = 600

_connect = socket.socket.connect


class Recorder:
    """Gathers the phases of the running test (set-up, call, tear-down)."""

    def __init__(self, file: TextIO, port: int) -> None:
        self.file = file
        self.port = port
        self.spoke = False
        self.outcome = ""
        self.phase = ""
        self.error = ""
        self.seconds = 0.0

    def write(self, **event: Any) -> None:
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()

    def connect(self, connection: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[1] == self.port:
            self.spoke = True
        _connect(connection, address)

    def begin(self, test: str) -> None:
        self.spoke, self.outcome, self.phase, self.error, self.seconds = False, "passed", "", "", 0.0
        self.write(event="start", test=test)

    def note(self, report: pytest.TestReport, error: BaseException | None) -> None:
        self.seconds += report.duration
        expected = getattr(report, "wasxfail", None) is not None
        # The first phase that goes wrong names the fault; a tear-down often fails of what the test left behind.
        if report.passed or self.outcome != "passed":
            return
        self.outcome = "skipped" if report.skipped or expected else "failed"
        self.phase = report.when
        self.error = f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX] if error is not None else ""

    def finish(self, test: str) -> None:
        self.write(
            event="end",
            test=test,
            outcome=self.outcome,
            phase=self.phase,
            error=self.error,
            spoke=self.spoke,
            seconds=round(self.seconds, 3),
        )

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        only = os.environ.get("REDISPY_ONLY")
        if only:
            wanted = set(json.loads(Path(only).read_text()))
            left_out = [item for item in items if item.nodeid not in wanted]
            items[:] = [item for item in items if item.nodeid in wanted]
            config.hook.pytest_deselected(items=left_out)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.write(event="collected", tests=[item.nodeid for item in session.items])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.begin(item.nodeid)
        result = yield
        self.finish(item.nodeid)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self,
        item: pytest.Item,  # noqa: ARG002  (pytest goes by the names)
        call: pytest.CallInfo[None],
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self.note(report, call.excinfo.value if call.excinfo is not None else None)
        return report


def pytest_configure(config: pytest.Config) -> None:
    recorder = Recorder(
        Path(os.environ["REDISPY_RECORD"]).open("a"),  # noqa: SIM115  (open until the process ends)
        int(os.environ["REDISPY_PORT"]),
    )
    config.pluginmanager.register(recorder, "redispy-recorder")

    def connect(connection: socket.socket, address: Any) -> None:
        recorder.connect(connection, address)

    socket.socket.connect = connect  # type: ignore[method-assign, assignment]
