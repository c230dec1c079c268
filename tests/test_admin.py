"""The admin port over real HTTP, in front of a proxy that exists only as a view."""

import contextlib
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from harness import Port, wait_until

from shoal.admin import PATHS, AdminPort, readiness
from shoal.endpoint import Endpoint
from shoal.errors import ListenError
from shoal.log import Log


@dataclass
class Status:
    """One shard as the core shows it."""

    shard: str
    state: str = "up"
    reason: str = ""
    keyspace: str = "main"
    endpoint: str = "127.0.0.1:7001"


@dataclass
class FakeView:
    """A proxy that answers what the test wants."""

    statuses: list[Status] = field(default_factory=list)
    is_stopping: bool = False
    text: str = "# HELP a b\n"

    def metrics(self) -> str:
        if not self.text:
            raise RuntimeError("no metrics today")
        return self.text

    def shards(self) -> list[Status]:
        return self.statuses

    def stopping(self) -> bool:
        return self.is_stopping


@dataclass
class Running:
    """An admin port with its view and its log."""

    admin: AdminPort
    view: FakeView
    log: io.StringIO

    def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """(status, content type, body)"""
        request = urllib.request.Request(f"http://{self.admin.endpoint}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["content-type"], error.read().decode()


@pytest.fixture
def running() -> Iterator[Running]:
    log = io.StringIO()
    admin = AdminPort(Endpoint("127.0.0.1", 0), Log("logfmt", "info", log))
    view = FakeView([Status("s0"), Status("s1")])
    admin.start(view)
    yield Running(admin, view, log)
    admin.stop()


def test_metrics(running: Running) -> None:
    assert running.get("/metrics") == (200, "text/plain; version=0.0.4; charset=utf-8", "# HELP a b\n")


def test_healthy_while_it_lives(running: Running) -> None:
    running.view.statuses = [Status("s0", "down", "refused")]
    assert running.get("/healthz")[0] == 200


def test_ready_when_every_shard_is_up(running: Running) -> None:
    status, kind, body = running.get("/readyz")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {"ready": True, "shards_up": 2, "shards": 2}


def test_a_shard_that_nobody_needed_yet_is_in_nobodys_way(running: Running) -> None:
    running.view.statuses[1] = Status("s1", "idle")
    assert running.get("/readyz")[0] == 200


def test_an_ejected_shard_is_in_nobodys_way_while_another_is_up(running: Running) -> None:
    running.view.statuses[1] = Status("s1", "ejected", "connection refused")
    status, _, body = running.get("/readyz")
    assert status == 200
    assert json.loads(body) == {"ready": True, "shards_up": 1, "shards": 2}
    running.view.statuses[0] = Status("s0", "down", "connection refused")
    assert running.get("/readyz")[0] == 503


@pytest.mark.parametrize("state", ["down", "connecting"])
def test_not_ready_says_which_shard_and_why(running: Running, state: str) -> None:
    running.view.statuses[1] = Status("s1", state, "connection refused")
    status, _, body = running.get("/readyz")
    assert status == 503
    assert json.loads(body) == {
        "ready": False,
        "shards_up": 1,
        "shards": 2,
        "not_up": [
            {
                "keyspace": "main",
                "shard": "s1",
                "endpoint": "127.0.0.1:7001",
                "state": state,
                "reason": "connection refused",
            }
        ],
    }


def test_not_ready_while_stopping(running: Running) -> None:
    running.view.is_stopping = True
    status, _, body = running.get("/readyz")
    assert status == 503
    assert json.loads(body)["reason"] == "stopping"


def test_readiness_needs_no_socket() -> None:
    assert readiness([], stopping=False).ready
    assert not readiness([Status("s", "down")], stopping=False).ready
    assert not readiness([Status("s")], stopping=True).ready


def test_the_front_page_names_every_path(running: Running) -> None:
    status, _, body = running.get("/")
    assert status == 200
    assert all(path in body and running.get(path)[0] == 200 for path in PATHS)


@pytest.mark.parametrize(("path", "method", "expected"), [("/nothing", "GET", 404), ("/metrics", "POST", 405)])
def test_anything_else_is_refused(running: Running, path: str, method: str, expected: int) -> None:
    assert running.get(path, method)[0] == expected


def test_a_fault_of_ours_is_an_answer_and_a_line_and_does_not_end_it(running: Running) -> None:
    running.view.text = ""
    assert running.get("/metrics")[0] == 500
    wait_until(lambda: "no metrics today" in running.log.getvalue(), 5, "the fault is logged")
    assert all(line.startswith("ts=") for line in running.log.getvalue().splitlines())
    running.view.text = "x 1\n"
    assert running.get("/metrics")[0] == 200


def test_a_taken_port_is_one_clear_line() -> None:
    with contextlib.closing(AdminPortOwner()) as owner, pytest.raises(ListenError) as caught:
        AdminPort(owner.admin.endpoint, Log(), "--admin")
    assert caught.value.exit_code == 2
    assert caught.value.lines() == [
        f"cannot listen on {owner.admin.endpoint}: address already in use (another shoal? choose another with --admin)"
    ]


class AdminPortOwner:
    """Holds a listening admin port until closed."""

    def __init__(self) -> None:
        self.admin = AdminPort(Endpoint("127.0.0.1", 0), Log("logfmt", "error", io.StringIO()))
        self.admin.start(FakeView())

    def close(self) -> None:
        self.admin.stop()


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (Endpoint("192.0.2.1", 1234), "cannot assign requested address (this machine has no such address)"),
        (Endpoint("no-such-host.invalid", 1234), "cannot listen on no-such-host.invalid:1234: "),
    ],
)
def test_an_address_that_is_not_ours_is_one_clear_line(endpoint: Endpoint, reason: str) -> None:
    with pytest.raises(ListenError) as caught:
        AdminPort(endpoint, Log())
    assert reason in str(caught.value)
    assert len(caught.value.lines()) == 1


def test_it_listens_before_it_has_started_and_is_gone_when_stopped() -> None:
    port = Port.take()
    admin = AdminPort(Endpoint("127.0.0.1", port.number), Log("logfmt", "error", io.StringIO()))
    admin.start(FakeView())
    with urllib.request.urlopen(f"http://{port}/healthz", timeout=10) as answer:
        assert answer.status == 200
    admin.stop()
    admin.stop()
    assert not any(thread.name == "shoal-admin" for thread in threading.enumerate())
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{port}/healthz", timeout=10)
    port.release()


def test_one_that_is_stopped_at_once_ends_too() -> None:
    admin = AdminPort(Endpoint("127.0.0.1", 0), Log("logfmt", "error", io.StringIO()))
    admin.start(FakeView())
    admin.stop()
    assert not any(thread.name == "shoal-admin" for thread in threading.enumerate())
