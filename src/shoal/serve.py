"""The run loop of `shoal serve` and `shoal up`: start everything, wait, stop everything in the right order.

    signals -> file limit -> addresses tried -> admin socket bound -> [fleet] -> proxy -> admin answers -> "ready"
    SIGHUP, where there is TLS: certificates are read again
    first signal: proxy stops accepting and drains -> events written -> admin stops -> [fleet stops] -> exit 0

Whatever fails on the way up, what was started before it is stopped in reverse, so nothing is left running. The main
thread only waits for signals: it must stay free for their handlers and be the one that starts child processes
(their death signal is tied to the thread that started them). A thread of its own carries the core's events to the log.
"""

from __future__ import annotations

import ctypes
import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from shoal import certificates, metrics
from shoal.core import core_version, start_proxy
from shoal.errors import EXIT_FAILURE, EXIT_OK, UsageError
from shoal.listening import check_free, listen_error
from shoal.signals import Signals, StopRequested
from shoal.topology import MAX_CLIENTS_DEFAULT

if TYPE_CHECKING:
    from shoal._core import Proxy, ShardStatus
    from shoal.endpoint import Endpoint
    from shoal.log import Log
    from shoal.topology import Topology

EVENT_WAIT_MS = 200
# The core's event for a worker thread that ended by a fault. Its clients would wait for ever: whoever supervises this
# process shall start another.
WORKER_DIED = "worker-died"
# Besides clients: the interpreter, the admin port, the embedded servers' pipes, a margin.
FILES_RESERVED = 200
# One for each protocol, and one more for another database or a request of its own.
LINKS_PER_SHARD = 3


class Fleet(Protocol):
    """What the run loop does with the embedded servers of `shoal up`."""

    def start(self, signals: Signals) -> Topology:
        """Starts all of them and waits until they answer. Raises; then `stop` is still called."""

    def supervise(self) -> float | None:
        """Looks after dead ones; answers the seconds until it wants to be called again, None: no wish."""

    def restarts(self) -> list[tuple[str, int]]:
        """How often each shard was started again."""

    def abandon(self) -> None:
        """Asks all to end without waiting; safe in a signal handler."""

    def stop(self, signals: Signals) -> None:
        """Ends all, waiting for them; idempotent."""


@dataclass(frozen=True)
class Settings:
    """What to run, apart from the topology."""

    listens: tuple[Endpoint, ...]
    admin: Endpoint | None
    workers: int
    drain_timeout_ms: int
    scheduling: str = "batch"
    listen_hint: str = ""
    # Those of `listens` where other processes may listen too.
    shared_listens: tuple[Endpoint, ...] = ()
    stats: Endpoint | None = None
    # What Twemproxy calls a keyspace, where that differs from its name.
    pool_names: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    # There are certificates that SIGHUP reads again; without any it ends us, as a terminal's end does.
    reloads: bool = False


@dataclass(frozen=True)
class Running:
    """What runs, once it does; `announce` gets this."""

    topology: Topology
    addresses: tuple[tuple[str, str], ...]
    admin: Endpoint | None
    stats: Endpoint | None = None

    def listens(self) -> tuple[dict[str, str], dict[str, str]]:
        """The address of each keyspace's own listener, and of those beside them for TLS."""
        own = len(self.topology.keyspaces)
        return dict(self.addresses[:own]), dict(self.addresses[own:])


class LiveView:
    """The running proxy as the admin port sees it."""

    def __init__(self, proxy: Proxy, epoch: int, fleet: Fleet | None) -> None:
        self._proxy = proxy
        self._epoch = epoch
        self._fleet = fleet
        self.is_stopping = False

    def metrics(self) -> str:
        from shoal import _core

        restarts = self._fleet.restarts() if self._fleet is not None else []
        expiries = certificates.expiries(self._proxy.tls())
        own = metrics.control_samples(core_version(), self._epoch, self._proxy.events_dropped(), restarts, expiries)
        bounds_us = _core.histogram_bounds_us()
        core_text = metrics.render(_core.metric_declarations(), self._proxy.samples(), bounds_us)
        return core_text + metrics.render(metrics.CONTROL_METRICS, own, ())

    def shards(self) -> Sequence[ShardStatus]:
        return self._proxy.shards()

    def stopping(self) -> bool:
        return self.is_stopping


def run(
    settings: Settings,
    topology: Callable[[Signals], Topology],
    log: Log,
    announce: Callable[[Running], None],
    fleet: Fleet | None = None,
) -> int:
    """Runs until a signal ends it; answers the exit code. Raises ShoalError when something cannot start."""
    last_words = fleet.abandon if fleet is not None else lambda: None
    with Signals(last_words, reloads=settings.reloads) as signals, ExitStack() as closing:
        log.write("debug", "starting", version=core_version(), workers=settings.workers)
        with suppress(StopRequested):  # a signal while starting: the stack stops what had been started
            _run(settings, topology, log, announce, fleet, signals, closing)
        log.write("info", "stopping", reason=signals.name, drain_timeout_ms=settings.drain_timeout_ms)
    return EXIT_FAILURE if signals.name == WORKER_DIED else EXIT_OK


def _run(
    settings: Settings,
    topology: Callable[[Signals], Topology],
    log: Log,
    announce: Callable[[Running], None],
    fleet: Fleet | None,
    signals: Signals,
    closing: ExitStack,
) -> None:
    from shoal.admin import AdminPort
    from shoal.stats_port import Names, StatsPort

    for endpoint in settings.listens:
        check_free(endpoint, settings.listen_hint, shared=endpoint in settings.shared_listens)
    admin = AdminPort(settings.admin, log, "--admin") if settings.admin is not None else None
    stats = StatsPort(settings.stats, "--stats-port") if settings.stats is not None else None
    for warning in settings.warnings:
        log.write("warning", "config-warning", text=warning)
    if fleet is not None:
        closing.callback(fleet.stop, signals)
    if admin is not None:
        closing.callback(admin.stop)
    if stats is not None:
        closing.callback(stats.stop)
    plan = topology(signals)
    plan = fit_file_limit(plan, settings.workers, log)
    signals.raise_if_stopping()
    give_memory_back()
    proxy = _start(plan, settings)
    view = LiveView(proxy, plan.epoch, fleet)
    pump = EventPump(proxy, log, lambda: signals.stop_because(WORKER_DIED))
    pump.start()
    closing.callback(pump.stop)
    closing.callback(_drain, proxy, view, settings.drain_timeout_ms, log)
    if admin is not None:
        admin.start(view)
    if stats is not None:
        stats.start(plan, proxy, Names(settings.pool_names))
    addresses = tuple(proxy.addresses())
    for keyspace, address in addresses:
        log.write("info", "ready", keyspace=keyspace, listen=address)
    announce(
        Running(
            plan,
            addresses,
            admin.endpoint if admin is not None else None,
            stats.endpoint if stats is not None else None,
        )
    )
    while not signals.stop_requested:
        signals.wait(fleet.supervise() if fleet is not None else None)
        if signals.take_reload():
            certificates.reload(proxy, log)


# mallopt's names for these are not in Python; the numbers are glibc's.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def give_memory_back() -> None:
    """Has large buffers returned to the system when they are freed.

    Left alone, glibc raises its own threshold to the size of the largest buffer freed so far (up to 32 MiB) and then
    keeps buffers of that size for ever: one burst of large values would be paid for until the end.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another C library has its own ways
        mallopt(M_MMAP_THRESHOLD, 1 << 20)
        mallopt(M_TRIM_THRESHOLD, 1 << 20)


def _start(plan: Topology, settings: Settings) -> Proxy:
    try:
        with worker_scheduling(settings.scheduling):
            return start_proxy(plan, settings.workers)
    except OSError as error:
        # The address was free a moment ago. The core's text names it; the errno makes the usual line.
        for keyspace in plan.keyspaces:
            for listen in keyspace.listens:
                if str(listen) in str(error):
                    raise listen_error(listen, error, settings.listen_hint) from None
        raise UsageError(f"cannot listen: {error}") from None
    except ValueError as error:
        raise UsageError(f"the data plane refuses this configuration: {error}") from None


@contextmanager
def worker_scheduling(scheduling: str) -> Iterator[None]:
    """Threads started in the block run as SCHED_BATCH threads, when that is wanted and the system has it.

    A batch thread does not interrupt whoever runs when it wakes. On a core that is shared with clients or servers the
    worker then finds more requests at each turn, and spends a fifth less on each. On a core of its own nothing changes.
    """
    batch = getattr(os, "SCHED_BATCH", None)
    if scheduling != "batch" or batch is None:
        yield
        return
    before = os.sched_getscheduler(0)
    with suppress(OSError):  # a sandbox may forbid it; everything works without
        os.sched_setscheduler(0, batch, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, before, os.sched_param(0))


def _drain(proxy: Proxy, view: LiveView, drain_timeout_ms: int, log: Log) -> None:
    """Stops the proxy in a thread, so that this one keeps running the handler of a second signal."""
    view.is_stopping = True
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(proxy.stop(drain_timeout_ms)), name="shoal-drain")
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    drained = answers == [True]
    log.write("info" if drained else "warning", "stopped", drained="yes" if drained else "no")


class EventPump:
    """Carries events from the core to the log until told to stop; then writes what is left."""

    def __init__(self, proxy: Proxy, log: Log, on_worker_died: Callable[[], None]) -> None:
        self._proxy = proxy
        self._log = log
        self._on_worker_died = on_worker_died
        self._done = threading.Event()
        self._dropped = 0
        self._thread = threading.Thread(target=self._carry, name="shoal-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when everything that the core had to say is written."""
        self._done.set()
        self._thread.join()
        while events := self._proxy.next_events(0):
            for event in events:
                self._log.event(event)
        self._report_dropped()

    def _carry(self) -> None:
        while not self._done.is_set():
            for event in self._proxy.next_events(EVENT_WAIT_MS):
                self._log.event(event)
                if event.name == WORKER_DIED:
                    self._on_worker_died()
            self._report_dropped()

    def _report_dropped(self) -> None:
        dropped = self._proxy.events_dropped()
        if dropped > self._dropped:
            self._log.write("warning", "events-dropped", count=dropped - self._dropped)
            self._dropped = dropped


def fit_file_limit(plan: Topology, workers: int, log: Log) -> Topology:
    """Raises the soft limit of open files to the hard one; where that is too low for all clients, shares it out.

    Clients must not be able to take the last descriptors: connections to shards and the admin port would get none.
    Keyspaces share evenly, and what one does not want is for the others. That is an ordinary thing where many of them
    leave max_clients alone, and worth a warning where somebody asked for more, or where all of them together have not
    even what one alone has by default.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError) as error:
            log.write("warning", "file-limit", limit=soft, reason=f"cannot be raised to {hard}: {error}")
    if soft == resource.RLIM_INFINITY:
        return plan
    links = sum(workers * len(keyspace.shards) * LINKS_PER_SHARD * keyspace.connections for keyspace in plan.keyspaces)
    reserved = min(FILES_RESERVED, soft // 4) + links
    wanted = [keyspace.max_clients for keyspace in plan.keyspaces]
    if reserved + sum(wanted) <= soft:
        return plan
    each = even_share(wanted, soft - reserved)
    lowered = tuple(replace(keyspace, max_clients=min(keyspace.max_clients, each)) for keyspace in plan.keyspaces)
    is_ordinary = sum(keyspace.max_clients for keyspace in lowered) >= MAX_CLIENTS_DEFAULT
    is_ordinary &= all(clients <= max(each, MAX_CLIENTS_DEFAULT) for clients in wanted)
    level = "info" if is_ordinary else "warning"
    log.write(level, "file-limit", limit=soft, wanted=reserved + sum(wanted), reason=f"max_clients lowered to {each}")
    return replace(plan, keyspaces=lowered)


def even_share(wanted: Sequence[int], available: int) -> int:
    """The largest bound for each with which all of them fit into what is available; at least 1."""
    left = max(0, available)
    for index, want in enumerate(ordered := sorted(wanted)):
        share = left // (len(ordered) - index)
        if want > share:
            return max(1, share)
        left -= want
    return max(1, *wanted)
