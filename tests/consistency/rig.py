"""What is tested: real servers, and one to three proxies over them; or one plain server, which must pass everything.

Kinds: `strict` (the keyspace promises all that is checked), `per-shard` (transactions and split commands are atomic on
each shard only: the checkers must find violations), `one-shard` (all keys on one server: they must find none, and may
blame no fault), `plain` (one server without a proxy: they must find none).
`places` are hash tags, at least one on each shard; which shard it is on is found by writing through the proxy and
looking at the servers, so that nothing here needs to know how shoal distributes keys.
With relays, each shard stands behind a `Fault`, and the proxies know only that.
"""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self, TypeAlias

from harness import Clock, Fault, Fleet, Mischief, Proxy, Wire, wait_until

from consistency import residue

Kind: TypeAlias = Literal["strict", "per-shard", "one-shard", "plain"]
KINDS: tuple[Kind, ...] = ("strict", "per-shard", "one-shard", "plain")

DURABLE = ("appendonly yes", "appendfsync always")
QUIET_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 10.0
PLACES_TRIED_MAX = 1000
WAKE_INTERVAL_S = 0.2

SETTINGS: dict[Kind, str] = {
    "strict": 'cross_shard = "strict"\nmulti_key = "strict"\ncross_shard_functions = true',
    "per-shard": 'transactions = "per-shard"',
    "one-shard": "",
    "plain": "",
}

CONFIG = """\
admin = "{admin}"
workers = WORKERS

[keyspace.main]
listen = "{listen}"
shards = [SHARDS]
SETTINGS
"""


@dataclass(frozen=True)
class Shape:
    """How much of what."""

    kind: Kind = "strict"
    flavour: str = "valkey"
    shards: int = 3
    proxies: int = 1
    workers: int = 2
    durable: bool = False  # for faults that kill a server
    relays: bool = False  # for faults that break connections
    clocks: bool = False  # for faults that set the time
    fences: bool = True  # off: proxies ignore them, and the checkers must see it


class Rig:
    """Everything running; a context manager."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder = folder
        self.shape = shape
        self._stack = ExitStack()
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise

    def _start(self) -> None:
        shape = self.shape
        count = 1 if shape.kind in ("plain", "one-shard") else shape.shards
        settings = DURABLE if shape.durable else ()
        # Of servers first, then of proxies; none if no fault sets the time.
        number = count + shape.proxies if shape.clocks else 0
        self.clocks = [Clock(self.folder / "clocks", str(at)) for at in range(number)]
        clocks = [clock.environment for clock in self.clocks]
        self.fleet = self._stack.enter_context(
            Fleet(self.folder / "fleet", count, shape.flavour, settings, clocks[:count])
        )
        self.relays: list[Fault] = []
        addresses = self.fleet.addresses
        if shape.relays:
            servers = self.fleet.servers
            self.relays = [self._stack.enter_context(Fault(server.host, server.port.number)) for server in servers]
            addresses = [relay.address for relay in self.relays]
        self.proxies: list[Proxy] = []
        # Read at each start of a process, so a fault can change it before.
        self.environments: list[dict[str, str]] = []
        shards = ", ".join(f'"{address}"' for address in addresses)
        text = CONFIG.replace("WORKERS", str(shape.workers)).replace("SHARDS", shards)
        config = text.replace("SETTINGS", SETTINGS[shape.kind])
        for number in range(0 if shape.kind == "plain" else shape.proxies):
            environment = {} if shape.fences else {"SHOAL_TEST_NO_FENCES": "1"}
            if shape.clocks:
                environment |= clocks[count + number]
            self.environments.append(environment)
            folder = self.folder / f"proxy-{number}"
            self.proxies.append(self._stack.enter_context(Proxy(folder, config=config, env=environment)))
        self.places = self._find_places()
        self.frozen: set[int] = set()  # proxies that are stopped on purpose
        self._ending = threading.Event()
        self._stack.callback(self._ending.set)
        threading.Thread(target=self._wake, name="wake", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def endpoints(self) -> list[tuple[str, int]]:
        """Where clients connect."""
        if not self.proxies:
            return [(server.host, server.port.number) for server in self.fleet.servers]
        return [(proxy.host, proxy.port) for proxy in self.proxies]

    def shard(self, number: int) -> str:
        return f"shard {number}"

    def _find_places(self) -> dict[str, str]:
        """Hash tags, one on each shard and one more, so that some keys that are used together share a shard."""
        found: dict[str, str] = {}
        wanted = self.shape.shards + 1
        with Wire(*self.endpoints[0], timeout=ANSWER_TIMEOUT_S) as wire:
            for number in range(PLACES_TRIED_MAX):
                tag = f"p{number}"
                wire.ask("SET", f"{{{tag}}}probe", 1)
                servers = enumerate(self.fleet.servers)
                home = next(number for number, server in servers if server.client().exists(f"{{{tag}}}probe"))
                wire.ask("DEL", f"{{{tag}}}probe")
                every = len(set(found.values())) == len(self.fleet)
                if every or self.shard(home) not in found.values():
                    found[tag] = self.shard(home)
                if len(found) == wanted:
                    return found
        raise AssertionError(f"the keys of {PLACES_TRIED_MAX} hash tags are on {len(set(found.values()))} shards only")

    def look(self) -> list[residue.Found]:
        """Every shard's keys, asked of the servers themselves."""
        return [residue.look(server, self.shard(i)) for i, server in enumerate(self.fleet.servers)]

    def quiet(self) -> list[residue.Found]:
        """What is left when operations under way have had their time."""
        found = self.look()

        def clean() -> bool:
            nonlocal found
            found = self.look()
            return not residue.check(found, self.places).violations

        try:
            wait_until(clean, QUIET_TIMEOUT_S, "nothing is left")
        except AssertionError:
            # The checker says what it is.
            return found
        return found

    def records(self) -> str:
        """What the reserved keys hold, for people."""
        lines = []
        for found, server in zip(self.look(), self.fleet.servers, strict=True):
            client = server.client()
            for key in (key for key in found.keys if key.startswith(residue.RESERVED)):
                kind = client.type(key)
                shown = client.hgetall(key) if kind == b"hash" else client.smembers(key) if kind == b"set" else kind
                lines.append(f"{found.shard} {key} {shown!r}\n")
        return "".join(lines)

    def heal(self) -> None:
        """Everything runs again, and answers."""
        for clock in self.clocks:
            clock.move(0)
        for relay in self.relays:
            relay.requests = relay.replies = Mischief()
        for number, server in enumerate(self.fleet.servers):
            if server.running:
                self.fleet.cont(number)
            else:
                self.fleet.restart(number)
        for proxy in self.proxies:
            if proxy.running:
                os.kill(proxy.pid, signal.SIGCONT)
            else:
                proxy.kill()
                proxy.start()
        for endpoint in self.endpoints:
            wait_until(partial(self._answers, endpoint), ANSWER_TIMEOUT_S, f"{endpoint} serves every shard")

    def _wake(self) -> None:
        """Each worker of a proxy may stop it at a step, at any later time; only what a fault waits for stays so."""
        while not self._ending.wait(WAKE_INTERVAL_S):
            for number, proxy in enumerate(self.proxies):
                # It may end meanwhile.
                with suppress(OSError):
                    if number not in self.frozen and proxy.running and is_stopped(proxy.pid):
                        os.kill(proxy.pid, signal.SIGCONT)

    def _answers(self, endpoint: tuple[str, int]) -> bool:
        with Wire(*endpoint, timeout=ANSWER_TIMEOUT_S) as wire:
            for place, shard in self.places.items():
                reply = wire.ask("EXISTS", f"{{{place}}}probe")
                assert isinstance(reply, int), f"{shard}: {reply!r}"
        return True

    def forget(self) -> None:
        """Removes the keys of a round, directly; what is reserved stays."""
        for server, found in zip(self.fleet.servers, self.look(), strict=True):
            for keys in _chunks([key for key in found.keys if not key.startswith(residue.RESERVED)]):
                server.client().unlink(*keys)


def is_stopped(pid: int) -> bool:
    """Whether the kernel says that the process is frozen."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _chunks(keys: Sequence[str], size: int = 500) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
