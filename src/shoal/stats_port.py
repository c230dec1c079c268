"""Twemproxy's statistics: a TCP port that answers each connection with one JSON object and closes.

Tools that scrape a nutcracker find what they look for: the same shape, order and names. Values are those of the core's
counters when asked, where Twemproxy gives a snapshot of up to 30 seconds ago. What shoal does not have is 0
(`in_queue`: requests are written in the turn in which they come).

A thread accepts and answers one after the other; whoever does not read is given up after a second.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from shoal.endpoint import Endpoint
from shoal.listening import bind
from shoal.metrics import DeclarationLike, SampleLike
from shoal.ring_names import twemproxy_order
from shoal.topology import Keyspace, Topology

# The version of Twemproxy whose statistics these are.
TWEMPROXY_VERSION = "0.5.0"
WRITE_SECONDS = 1.0
BACKLOG = 64

POOL_FIELDS = ("client_eof", "client_err", "client_connections", "server_ejects", "forward_error", "fragments")
SERVER_FIELDS = (
    "server_eof server_err server_timedout server_connections server_ejected_at requests request_bytes responses "
    "response_bytes in_queue in_queue_bytes out_queue out_queue_bytes"
).split()


class Counters(Protocol):
    """What is asked of the running proxy."""

    def samples(self) -> Sequence[SampleLike]: ...


@dataclass(frozen=True)
class Names:
    """What Twemproxy calls a pool and its servers: by default the keyspace's name and its shards' ring names."""

    pools: dict[str, str]

    def pool(self, keyspace: str) -> str:
        return self.pools.get(keyspace, keyspace)


def _value(samples: dict[tuple[str, ...], int], name: str, *labels: str) -> int:
    return samples.get((name, *labels), 0)


def snapshot(
    topology: Topology,
    declarations: Sequence[DeclarationLike],
    samples: Iterable[SampleLike],
    names: Names,
    uptime_s: int,
    unix_s: int,
) -> dict[str, object]:
    """Everything, as nested values in Twemproxy's order."""
    values = {
        (declarations[sample.metric].name.removeprefix("shoal_"), *sample.labels): sample.value for sample in samples
    }
    keyspaces = [keyspace.name for keyspace in topology.keyspaces]
    shards = [(keyspace.name, shard.name) for keyspace in topology.keyspaces for shard in keyspace.shards]
    total = sum(_value(values, "clients_accepted_total", name) for name in keyspaces)
    total += sum(_value(values, "shard_connects_total", *shard) for shard in shards)
    current = sum(_value(values, "clients_connected", name) for name in keyspaces)
    current += sum(_value(values, "shard_connections", *shard) for shard in shards)
    content: dict[str, object] = {
        "service": "nutcracker",
        "source": socket.gethostname(),
        "version": TWEMPROXY_VERSION,
        "uptime": uptime_s,
        "timestamp": unix_s,
        "total_connections": total,
        "curr_connections": current,
    }
    for keyspace in sorted(topology.keyspaces, key=lambda keyspace: twemproxy_order(names.pool(keyspace.name))):
        content[names.pool(keyspace.name)] = _pool(keyspace, values)
    return content


def _pool(keyspace: Keyspace, values: dict[tuple[str, ...], int]) -> dict[str, object]:
    name = keyspace.name
    failed = sum(_value(values, "shard_failed_total", name, shard.name) for shard in keyspace.shards)
    ejects = sum(_value(values, "shard_ejections_total", name, shard.name) for shard in keyspace.shards)
    numbers = (
        _value(values, "clients_ended_total", name),
        _value(values, "clients_broken_total", name),
        _value(values, "clients_connected", name),
        ejects,
        failed,
        _value(values, "fragments_total", name),
    )
    pool: dict[str, object] = dict(zip(POOL_FIELDS, numbers, strict=True))
    for shard in sorted(keyspace.shards, key=lambda shard: twemproxy_order(shard.ring_name or shard.name)):
        of = (name, shard.name)
        eofs, timeouts = _value(values, "shard_eofs_total", *of), _value(values, "shard_timeouts_total", *of)
        server = (
            eofs,
            max(0, _value(values, "shard_losses_total", *of) - eofs - timeouts),
            timeouts,
            _value(values, "shard_connections", *of),
            _value(values, "shard_ejected_at_ms", *of) * 1000,
            _value(values, "shard_requests_total", *of),
            _value(values, "shard_sent_bytes_total", *of),
            _value(values, "shard_latency_seconds", *of),
            _value(values, "shard_received_bytes_total", *of),
            0,
            0,
            _value(values, "shard_in_flight", *of),
            0,
        )
        pool[shard.ring_name or shard.name] = dict(zip(SERVER_FIELDS, server, strict=True))
    return pool


def text(content: dict[str, object]) -> str:
    """The object as Twemproxy writes it: a blank after the comma of a plain value, none after a nested one."""
    return f"{{{_members(content)}}}\n"


def _members(content: dict[str, object]) -> str:
    parts = []
    items = list(content.items())
    for index, (name, value) in enumerate(items):
        is_last = index == len(items) - 1
        if isinstance(value, dict):
            # Twemproxy separates nested objects by a bare comma.
            parts.append(f"{json.dumps(name)}: {{{_members(value)}}}" + ("" if is_last else ","))
        else:
            parts.append(f"{json.dumps(name)}:{json.dumps(value)}" + ("" if is_last else ", "))
    return "".join(parts)


class StatsPort:
    """Bound at once, answering between `start` and `stop`. Raises ListenError when the address cannot be had."""

    def __init__(self, endpoint: Endpoint, hint: str = "") -> None:
        self._socket = bind(endpoint, hint)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        host, port = self._socket.getsockname()[:2]
        self.endpoint = Endpoint(host, port)

    def start(self, topology: Topology, counters: Counters, names: Names) -> None:
        """Answers from a thread of its own."""
        self._socket.listen(BACKLOG)
        self._thread = threading.Thread(
            target=self._answer, args=(topology, counters, names, time.monotonic()), name="shoal-stats", daemon=True
        )
        self._thread.start()

    def _answer(self, topology: Topology, counters: Counters, names: Names, start: float) -> None:
        from shoal import _core

        declarations = _core.metric_declarations()
        while not self._stopping.is_set():
            try:
                peer, _ = self._socket.accept()
            except OSError:
                if self._stopping.is_set():
                    return
                self._stopping.wait(0.1)  # out of file descriptors: it will not be better at once
                continue
            with peer, suppress(OSError):
                peer.settimeout(WRITE_SECONDS)
                uptime = int(time.monotonic() - start)
                content = snapshot(topology, declarations, counters.samples(), names, uptime, int(time.time()))
                peer.sendall(text(content).encode())

    def stop(self) -> None:
        """Stops answering and closes the socket; idempotent."""
        self._stopping.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._thread is not None:
            self._thread.join(WRITE_SECONDS + 1)
