"""What system tests stand on: real servers, a real proxy, injected faults, and waiting for conditions.

Owns nothing itself; one noun, one file: `wait` (the only place that sleeps), `ports`, `process` (nothing outlives the
run), `needs` (what is not on the machine), `fleet` (real servers), `proxy` (shoal as a process), `wire` (raw sockets),
`fault` (a relay that misbehaves), `clock` (a wall clock that jumps), `memcached` and `nutcracker` (real ones), `shown`
(what documents show). conftest.py turns them into fixtures.

Must stay true: nothing here imports shoal. The tests speak to it as its users do, over sockets and command lines.
"""

from harness.clock import Clock
from harness.fault import Fault, Mischief
from harness.fleet import FLAVOURS, Fleet, Server
from harness.memcached import Memcached
from harness.needs import need
from harness.ports import Port
from harness.proxy import Proxy
from harness.wait import wait_until
from harness.wire import ErrorReply, Wire

__all__ = [
    "Clock",
    "ErrorReply",
    "FLAVOURS",
    "Fault",
    "Fleet",
    "Memcached",
    "Mischief",
    "Port",
    "Proxy",
    "Server",
    "Wire",
    "need",
    "wait_until",
]
