"""Log lines: one per event, on standard error, as logfmt for people or JSON for machines.

    ts=2026-11-22T17:00:00.123Z level=warning event=shard-down shard=s1 reason="connection refused"

An event is a kebab-case name with fields in order. Those of the core come as `_core.Event` and are only rendered here;
those of the control plane go through `Log.write`. What must stay true: one event is one line, whatever a client or a
server put into a field; a field that is named like a secret is never shown; a log that cannot be written (a closed
pipe, a full disk) never stops the proxy.

Rejected: the standard `logging` module for our own lines. It formats text, and we have fields; uvicorn's few lines
come through a bridge instead.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol, TextIO

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("logfmt", "json")

# Every event that the control plane writes, and when; docs/reference.md lists them (a test compares).
EVENTS: dict[str, str] = {
    "starting": "the process begins to start",
    "ready": "every listener accepts clients",
    "config-warning": "the configuration works and is probably not meant",
    "file-limit": "the limit of open files could not be raised, or max_clients was lowered to fit it",
    "stopping": "a signal asked for the end; no client is accepted any more",
    "stopped": "everything is closed; `drained=no` when requests in flight were cut off",
    "log-lines-dropped": "nobody read the log for a while; `count` lines are missing before this one",
    "events-dropped": "the core had more events than were fetched in time",
    "admin-failed": "the admin port's thread ended; clients are still served",
    "admin-message": "something the admin port's web server said",
    "tls-reloaded": "certificates and keys of one side of a keyspace were read again; `expires` says when ours does",
    "tls-not-reloaded": "they could not be used, and nothing changed; `reason` says which file and why",
    "tls-expiry": "a certificate that was just read again has expired, or does so within 14 days",
    "shard-started": "an embedded server was started",
    "shard-loading": "an embedded server reads its data; starting waits for it",
    "shard-exited": "an embedded server ended by itself; it is started again after `wait_ms`",
    "shard-restart-failed": "an embedded server could not be started again; it is tried again after `wait_ms`",
    "shard-killed": "an embedded server did not stop in time and was killed",
}

# How long one line waits for a pipe that is full, before it is dropped.
WAIT_MS = 200
# So much of one value is shown.
VALUE_MAX = 1_000

_SECRET = re.compile(r"passw|secret|token", re.IGNORECASE)
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
_RESERVED = ("ts", "level", "event")


class CoreEvent(Protocol):
    """What is read of a `_core.Event`."""

    @property
    def unix_ms(self) -> int: ...
    @property
    def level(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def fields(self) -> list[tuple[str, str]]: ...


class Log:
    """Writes events to one stream. Safe to use from any thread."""

    def __init__(self, form: str = "logfmt", level: str = "info", stream: TextIO | None = None) -> None:
        self._render = render_json if form == "json" else render_logfmt
        self._lowest = LEVELS.index(level)
        self._stream = stream if stream is not None else sys.stderr
        self._lock = threading.Lock()
        self._pipe = _descriptor(self._stream)
        self._dropped = 0

    def write(self, level: str, name: str, **fields: object) -> None:
        """One event of the control plane. A field that is None is left out."""
        shown = [(key, str(value)) for key, value in fields.items() if value is not None]
        self._emit(time.time_ns() // 1_000_000, level, name, shown)

    def event(self, event: CoreEvent) -> None:
        """One event of the core."""
        self._emit(event.unix_ms, event.level, event.name, event.fields)

    def _emit(self, unix_ms: int, level: str, name: str, fields: Sequence[tuple[str, str]]) -> None:
        if level in LEVELS and LEVELS.index(level) < self._lowest:
            return
        line = self._render(unix_ms, level, name, fields) + "\n"
        try:
            with self._lock:
                self._put(line)
        except (OSError, ValueError):
            pass  # nobody reads, or the stream is closed: the proxy goes on without its log

    def _put(self, line: str) -> None:
        if self._pipe is None:
            self._stream.write(line)
            self._stream.flush()
            return
        if self._dropped:
            lost = self._render(
                time.time_ns() // 1_000_000, "warning", "log-lines-dropped", [("count", str(self._dropped))]
            )
            line = f"{lost}\n{line}"
        # A collector that has stopped reading must not stop us: it is waited for once, then lines are dropped until it
        # reads again. A pipe that polls as writable takes PIPE_BUF bytes at once.
        data = line.encode("ascii", "backslashreplace")
        for start in range(0, len(data), select.PIPE_BUF):
            if not _takes(self._pipe, 0 if self._dropped else WAIT_MS):
                self._dropped += 1
                return
            os.write(self._pipe, data[start : start + select.PIPE_BUF])
        self._dropped = 0


def _descriptor(stream: TextIO) -> int | None:
    """The stream's file descriptor; None when it has none, or is closed."""
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _takes(descriptor: int, wait_ms: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(wait_ms))


def render_logfmt(unix_ms: int, level: str, name: str, fields: Iterable[tuple[str, str]]) -> str:
    """One event as `key=value` pairs; values that need it are quoted as in JSON, ASCII only."""
    pairs = [("ts", timestamp(unix_ms)), ("level", level), ("event", name), *_safe(fields)]
    return " ".join(f"{key}={_quoted(value)}" for key, value in pairs)


def render_json(unix_ms: int, level: str, name: str, fields: Iterable[tuple[str, str]]) -> str:
    """One event as one JSON object, in one line."""
    pairs = [("ts", timestamp(unix_ms)), ("level", level), ("event", name), *_safe(fields)]
    return json.dumps(dict(pairs))


def timestamp(unix_ms: int) -> str:
    """UTC with milliseconds, which sorts as text."""
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{unix_ms % 1000:03d}Z"


def _safe(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Field names that are plain and unique, and no secrets."""
    safe: list[tuple[str, str]] = []
    seen = set(_RESERVED)
    for key, value in fields:
        key = re.sub(r"[^A-Za-z0-9_.-]", "_", key) or "_"
        unique, count = key, 1
        while unique in seen:
            count += 1
            unique = f"{key}_{count}"
        seen.add(unique)
        shown = value if len(value) <= VALUE_MAX else value[:VALUE_MAX] + "..."
        safe.append((unique, "***" if _SECRET.search(key) else shown))
    return safe


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return '"' + "".join(_ESCAPES.get(char) or _ascii(char) for char in value) + '"'


def _ascii(char: str) -> str:
    code = ord(char)
    if 0x20 <= code < 0x7F:
        return char
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


class LoggingBridge(logging.Handler):
    """Sends what a library logs with `logging` into our log, as `admin-message`."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        error = record.exc_info[1] if record.exc_info else None
        self._log.write(
            level,
            "admin-message",
            source=record.name,
            text=record.getMessage().strip(),
            error=None if error is None else repr(error),
            place=None if error is None else _place(error),
        )


def _place(error: BaseException) -> str | None:
    """Where an exception was raised, for a log that has one line for it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
