"""What goes wrong while clients work: each fault is a small class with a name; the report counts them by it.

Flow: in the middle of a round's load the runner calls `inject` of one fault after the other, and `Rig.heal` after each.
`inject` returns False when what should happen did not (a step that was not reached): it is then not counted.
A step of the protocol is reached by arming: the proxy is killed and started again with SHOAL_TEST_FAULT=<step>:<nth> in
its environment, and aborts (or stops) itself the nth time that it gets there. A step of recovery needs another proxy,
or the same one started again, to be armed as well.
Must stay true: what a fault may destroy is only what is promised to survive: processes and connections, and what a
server had not answered. Nothing touches data but between rounds.
"""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from random import Random

from harness import Fault as Relay
from harness import Mischief, Proxy, wait_until

from consistency.rig import Rig, is_stopped

# In the order of the protocol.
STEPS = (
    "before-prepare",
    "prepare-sent",
    "prepared",
    "fenced",
    "gathered",
    "commit-sent",
    "committed",
    "apply-sent",
    "applied",
    "cleaned",
)
RECOVERY_STEPS = ("recover-evicted", "recover-resolved", "recover-applied")

# The nth time a step is reached: by chance, so that all kinds of operations are hit.
NTH_MAX = 25
REACHED_TIMEOUT_S = 8.0
# A peer waits two seconds before it takes over.
RECOVERY_TIMEOUT_S = 6.0
STOPPED_S = (0.3, 1.0, 3.5)
CUT_AFTER_MAX = 2000
HOUR_S = 3600


class Fault(ABC):
    """One way to break something."""

    of_operations = False  # needs operations across shards, to fail at a step of one
    needs_durable = False
    needs_relays = False
    needs_clocks = False
    between_rounds = False  # touches data: only when there is none that anybody asks for

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in reports."""

    @abstractmethod
    def inject(self, rig: Rig, chance: Random) -> bool:
        """Does it. False when it did not come about."""


@dataclass(frozen=True)
class KillAtStep(Fault):
    """A proxy ends at one step of an operation; its peers, or its next incarnation, have the rest to do."""

    step: str
    of_operations = True

    @property
    def name(self) -> str:
        return f"kill at {self.step}"

    def inject(self, rig: Rig, chance: Random) -> bool:
        proxy = arm(rig, chance.randrange(len(rig.proxies)), f"{self.step}:{chance.randint(1, NTH_MAX)}")
        return came(lambda: not proxy.running, REACHED_TIMEOUT_S) or disarm(proxy)


@dataclass(frozen=True)
class StopAtStep(Fault):
    """A proxy is frozen at one step, for so long that others take over; then it wakes and goes on as if nothing was."""

    step: str
    of_operations = True

    @property
    def name(self) -> str:
        return f"stop at {self.step}"

    def inject(self, rig: Rig, chance: Random) -> bool:
        number = chance.randrange(len(rig.proxies))
        with frozen(rig, number):
            proxy = arm(rig, number, f"{self.step}:{chance.randint(1, NTH_MAX)}:stop")
            if not came(lambda: is_stopped(proxy.pid), REACHED_TIMEOUT_S):
                return disarm(proxy)
            pass_time(chance.choice(STOPPED_S))
        return True


@dataclass(frozen=True)
class KillInRecovery(Fault):
    """A proxy ends in the middle of an operation, and who recovers it ends at one step of that."""

    step: str
    of_operations = True

    @property
    def name(self) -> str:
        return f"kill at {self.step}"

    def inject(self, rig: Rig, chance: Random) -> bool:
        # Others have to apply only what was committed, and not all of that: what one shard alone wrote is done then.
        undecided = self.step != "recover-applied"
        first = chance.choice(("prepared", "gathered", "commit-sent")) if undecided else "apply-sent"
        number = chance.randrange(len(rig.proxies))
        others = [other for other in range(len(rig.proxies)) if other != number]
        armed = [arm(rig, other, f"{self.step}:1") for other in others]
        proxy = arm(rig, number, f"{first}:{chance.randint(1, NTH_MAX)}")
        if not came(lambda: not proxy.running, REACHED_TIMEOUT_S):
            return disarm(proxy, *armed)
        if not armed:
            armed = [arm(rig, number, f"{self.step}:1")]
        return came(lambda: any(not other.running for other in armed), RECOVERY_TIMEOUT_S) or disarm(*armed)


class KillProxy(Fault):
    """A proxy ends at any moment."""

    name = "kill a proxy"

    def inject(self, rig: Rig, chance: Random) -> bool:
        chance.choice(rig.proxies).kill()
        return True


class StopProxy(Fault):
    """A proxy is frozen at any moment, for less or more time than others wait for it."""

    name = "stop a proxy"

    def inject(self, rig: Rig, chance: Random) -> bool:
        number = chance.randrange(len(rig.proxies))
        with frozen(rig, number):
            os.kill(rig.proxies[number].pid, signal.SIGSTOP)
            pass_time(chance.choice(STOPPED_S))
        return True


class KillShard(Fault):
    """A server ends and comes back with what it has answered for."""

    name = "kill a shard"
    needs_durable = True

    def inject(self, rig: Rig, chance: Random) -> bool:
        number = chance.randrange(len(rig.fleet))
        rig.fleet.kill(number)
        pass_time(chance.choice((0.0, 0.5, 2.5)))
        rig.fleet.restart(number)
        return True


class StopShard(Fault):
    """A server answers nothing for a while; what was sent to it meanwhile it does afterwards."""

    name = "stop a shard"

    def inject(self, rig: Rig, chance: Random) -> bool:
        number = chance.randrange(len(rig.fleet))
        rig.fleet.stop(number)
        pass_time(chance.choice(STOPPED_S))
        rig.fleet.cont(number)
        return True


class Reset(Fault):
    """All connections to one shard, or to all, are reset."""

    name = "reset connections"
    needs_relays = True

    def inject(self, rig: Rig, chance: Random) -> bool:
        chosen = rig.relays if chance.random() < 0.3 else [chance.choice(rig.relays)]
        return sum(relay.cut() for relay in chosen) > 0


class CutInTheMiddle(Fault):
    """The connections to one shard break in the middle of a request or a reply, again and again."""

    name = "cut in the middle"
    needs_relays = True

    def inject(self, rig: Rig, chance: Random) -> bool:
        relay = chance.choice(rig.relays)
        for _ in range(5):
            before = relay.accepted
            mischief = Mischief(cut_after=chance.randrange(CUT_AFTER_MAX))
            if chance.random() < 0.5:
                relay.requests = mischief
            else:
                relay.replies = mischief
            came(partial(_accepted_more, relay, before + 3), 0.3)
            relay.requests = relay.replies = Mischief()
            pass_time(0.1)
        return True


class Delay(Fault):
    """What one shard says comes late, longer than a member has time to agree."""

    name = "delay replies"
    needs_relays = True

    def inject(self, rig: Rig, chance: Random) -> bool:
        relay = chance.choice(rig.relays)
        relay.replies = Mischief(delay_s=chance.choice((0.05, 0.3)))
        pass_time(1.5)
        relay.replies = Mischief()
        return True


class ForgetScripts(Fault):
    """A server forgets its scripts, as an operator may have it do."""

    name = "forget scripts"

    def inject(self, rig: Rig, chance: Random) -> bool:
        for server in chance.sample(rig.fleet.servers, len(rig.fleet)):
            server.client().script_flush()
            server.client().config_resetstat()
        return True


class FillMemory(Fault):
    """A server has no memory for writes, for a while."""

    name = "fill memory"

    def inject(self, rig: Rig, chance: Random) -> bool:
        server = chance.choice(rig.fleet.servers).client()
        server.config_set("maxmemory", 1)
        pass_time(chance.choice(STOPPED_S))
        server.config_set("maxmemory", 0)
        return True


class FlushAll(Fault):
    """Somebody empties a server, or all, past shoal: it must find out that nobody knows it there any more."""

    name = "flush a shard"
    between_rounds = True

    def inject(self, rig: Rig, chance: Random) -> bool:
        for server in chance.sample(rig.fleet.servers, chance.randint(1, len(rig.fleet))):
            server.client().flushall()
        return True


class SetTime(Fault):
    """The wall clock of one process, or of all, jumps an hour ahead or back, and later to the true time."""

    name = "set the time"
    needs_clocks = True

    def inject(self, rig: Rig, chance: Random) -> bool:
        chosen = rig.clocks if chance.random() < 0.3 else [chance.choice(rig.clocks)]
        for clock in chosen:
            clock.move(chance.choice((HOUR_S, -HOUR_S)))
        pass_time(chance.choice(STOPPED_S))
        for clock in chosen:
            clock.move(0)
        return True


ALL: tuple[Fault, ...] = (
    *(KillAtStep(step) for step in STEPS),
    *(StopAtStep(step) for step in STEPS),
    *(KillInRecovery(step) for step in RECOVERY_STEPS),
    KillProxy(),
    StopProxy(),
    KillShard(),
    StopShard(),
    Reset(),
    CutInTheMiddle(),
    Delay(),
    ForgetScripts(),
    SetTime(),
    FillMemory(),
    FlushAll(),
)


def chosen(words: Sequence[str]) -> list[Fault]:
    """Faults whose names begin with one of these; all for `all`."""
    return [fault for fault in ALL if any(word == "all" or fault.name.startswith(word) for word in words)]


def arm(rig: Rig, number: int, fault: str) -> Proxy:
    """Ends a proxy and starts it again so that it will fail at a step."""
    proxy = rig.proxies[number]
    proxy.kill()
    rig.environments[number]["SHOAL_TEST_FAULT"] = fault
    # Clients are waiting for it: it may get there before it has said that it is ready. If it ends for another reason it
    # will not start afterwards either, and the run ends.
    with suppress(RuntimeError):
        proxy.start()
    # Whoever starts it the next time starts a good one.
    del rig.environments[number]["SHOAL_TEST_FAULT"]
    return proxy


@contextmanager
def frozen(rig: Rig, number: int) -> Iterator[None]:
    """While this proxy may be stopped; it goes on afterwards."""
    rig.frozen.add(number)
    try:
        yield
    finally:
        rig.frozen.discard(number)
        with suppress(ProcessLookupError):
            os.kill(rig.proxies[number].pid, signal.SIGCONT)


def disarm(*proxies: Proxy) -> bool:
    """What has not come about must not do so later, unseen: the mending starts them anew. Always False."""
    for proxy in proxies:
        proxy.kill()
    return False


def came(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether it came about in time."""
    try:
        return wait_until(condition, timeout, "the fault comes about")
    except AssertionError:
        return False


def pass_time(seconds: float) -> None:
    """The length of a fault is part of it."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, seconds + 1, "time passes")


def _accepted_more(relay: Relay, count: int) -> bool:
    return relay.accepted > count
