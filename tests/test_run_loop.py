"""The run loop without a process around it: what a real data plane does not do on demand."""

import io
import resource
from collections import deque
from dataclasses import dataclass, field, replace

import pytest

from shoal import serve
from shoal.distribution import SlotRange, by_slots
from shoal.endpoint import Endpoint
from shoal.log import Log
from shoal.topology import Keyspace, Shard, Topology

PLAN = Topology(
    (Keyspace("main", "127.0.0.1", 0, (Shard("s0", "127.0.0.1", 1),), by_slots((SlotRange(0, 16383, 0),))),),
)


@dataclass
class Died:
    """The core's event for a worker that ended."""

    unix_ms: int = 0
    level: str = "error"
    name: str = "worker-died"
    fields: list[tuple[str, str]] = field(default_factory=lambda: [("reason", "it panicked"), ("worker", "0")])


class DyingProxy:
    """A data plane whose worker dies as soon as somebody listens. A real one has no way to do so on demand."""

    def __init__(self) -> None:
        self.events: deque[Died] = deque([Died()])
        self.stopped = False

    def next_events(self, _timeout_ms: int) -> list[Died]:
        return [self.events.popleft()] if self.events else []

    def events_dropped(self) -> int:
        return 0

    def addresses(self) -> list[tuple[str, str]]:
        return []

    def stop(self, _drain_ms: int) -> bool:
        self.stopped = True
        return False


def test_a_dead_worker_ends_the_process_with_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = DyingProxy()
    monkeypatch.setattr(serve, "start_proxy", lambda *_: proxy)
    written = io.StringIO()
    listens: tuple[Endpoint, ...] = ()
    settings = serve.Settings(listens=listens, admin=None, workers=1, drain_timeout_ms=10)
    code = serve.run(settings, lambda _: PLAN, Log("logfmt", "info", written), lambda _: None)
    assert code == 1
    assert proxy.stopped, "the other workers finish what they have"
    assert "event=worker-died" in written.getvalue()
    assert "event=stopping reason=worker-died" in written.getvalue()


@pytest.mark.parametrize(("limit", "lowered"), [(128, 93), (1024, 821), (20_000, 10_000), (-1, 10_000)])
def test_clients_cannot_take_the_last_descriptors(monkeypatch: pytest.MonkeyPatch, limit: int, lowered: int) -> None:
    """One shard and one worker want 3 descriptors; 200 are kept for the rest, of a low limit a quarter."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    written = io.StringIO()
    fitted = serve.fit_file_limit(PLAN, 1, Log("logfmt", "info", written))
    assert fitted.keyspaces[0].max_clients == lowered
    assert ("max_clients lowered" in written.getvalue()) == (lowered < PLAN.keyspaces[0].max_clients)


def listening(*max_clients: int) -> Topology:
    """A keyspace for each, with one shard."""
    (made,) = PLAN.keyspaces
    return Topology(tuple(replace(made, name=f"k{n}", max_clients=clients) for n, clients in enumerate(max_clients)))


@pytest.mark.parametrize(
    ("wanted", "limit", "given", "level"),
    [
        ([10_000] * 35, 20_000, [562] * 35, "info"),  # (20000 - 200 - 35 * 3) / 35
        ([10_000] * 2, 20_000, [9_897] * 2, "info"),
        ([10_000] * 35, 4096, [108] * 35, "warning"),
        ([50_000, 10_000], 30_000, [19_794, 10_000], "warning"),
        ([100, 100, 10_000], 5_000, [100, 100, 4_591], "warning"),
        ([10_000] * 35, 400_000, [10_000] * 35, ""),
    ],
)
def test_keyspaces_share_what_the_process_may_open(
    monkeypatch: pytest.MonkeyPatch, wanted: list[int], limit: int, given: list[int], level: str
) -> None:
    """With many pools of Twemproxy's nobody asked for 10,000 clients each: that they share is no warning."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    written = io.StringIO()
    fitted = serve.fit_file_limit(listening(*wanted), 1, Log("logfmt", "info", written))
    assert [keyspace.max_clients for keyspace in fitted.keyspaces] == given
    assert (f"level={level} event=file-limit" in written.getvalue()) == bool(level), written.getvalue()
    assert sum(given) + 200 + 3 * len(given) <= limit
