"""Certificates of the running proxy: read again when it is told to, and shown in log and metrics.

    SIGHUP -> `reload` -> the core reads all files -> new connections use them, old ones go on as they are

A file that cannot be used changes nothing for its side of its keyspace; an error in the log says which and why.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from shoal.config_tls import expiry_warning

if TYPE_CHECKING:
    from shoal.log import Log


class Status(Protocol):
    """What is read of a `_core.TlsStatus`."""

    @property
    def keyspace(self) -> str: ...
    @property
    def side(self) -> str: ...
    @property
    def cert(self) -> str: ...
    @property
    def expires(self) -> int | None: ...
    @property
    def problem(self) -> str: ...


class Holder(Protocol):
    """What is asked of the running proxy."""

    def reload_tls(self) -> Sequence[Status]: ...


def reload(proxy: Holder, log: Log) -> None:
    """Has all files read again, and says what came of it."""
    for status in proxy.reload_tls():
        where = {"keyspace": status.keyspace, "side": status.side}
        if status.problem:
            log.write("error", "tls-not-reloaded", reason=status.problem, **where)
            continue
        log.write("info", "tls-reloaded", **where, cert=status.cert, expires=_time(status.expires))
        warning = expiry_warning(status.cert, status.expires, time.time())
        if warning is not None:
            log.write("warning", "tls-expiry", reason=warning, **where)


def expiries(statuses: Iterable[Status]) -> list[tuple[str, str, int]]:
    """(keyspace, side, seconds since 1970) of every certificate that we show somebody."""
    return [(status.keyspace, status.side, status.expires) for status in statuses if status.expires is not None]


def _time(expires: int | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)) if expires is not None else ""
