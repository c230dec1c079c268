"""A process of several clients: each a thread with a raw connection that does what its workload says for a while.

Flow: `python -m consistency.client ORDER` (a file of JSON) -> threads -> one file of history, a line when an operation
is over. A connection that breaks, or that does not answer in time, is given up; a client moves to another proxy then,
and now and then without reason.
Outcomes: an answer of the model's is ok; an error that says that nothing was done is a failure; everything else, and
every silence after the last word was sent, is unknown.
Must stay true: the time of invocation is taken before the first byte is sent, that of completion after the last one
was read.
"""

import json
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ErrorReply, Wire
from harness import wire as wire_format

from consistency.history import ERROR_MARK, Command, Operation, Outcome, Reply, as_line
from consistency.model import ERRORS
from consistency.workload import Plan, Workload

# Longer than a fault and what shoal lets wait together: who has no answer by then will never have one.
TIMEOUT_S = 15.0
RECONNECT_PAUSE_S = 0.05
ERROR_PAUSE_S = 0.01
OPERATIONS_PER_CONNECTION = 300

# Errors that mean: certainly nothing was done. What is not here is unknown.
NOT_DONE = (
    "TRYAGAIN",
    "EXECABORT",
    "CROSSSLOT",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "NOPERM",
    "NOAUTH",
    "BUSY ",
    "OOM ",
)
NOT_DONE_WORDS = ("was not sent", "nothing was", "ERR unknown command", "ERR max number of clients")

WATCH_FAILED = "a watched key has changed"
UNANSWERED = f"no answer within {TIMEOUT_S:g} s"

# Their replies have no order of their own.
UNORDERED = frozenset({"SMEMBERS", "SUNION", "SINTER", "SDIFF"})

# Of transactions; the others are sent word by word, and until EXEC is sent certainly nothing is done.
PIPELINED_SHARE = 0.5


@dataclass(frozen=True)
class Order:
    """What a process of clients is told."""

    seed: str
    round: int
    places: tuple[str, ...]
    endpoints: tuple[tuple[str, int], ...]
    clients: tuple[str, ...]  # names
    started: int
    until: int
    history: str

    @classmethod
    def read(cls, path: Path) -> "Order":
        fields: dict[str, Any] = json.loads(path.read_text())
        fields["endpoints"] = tuple((host, port) for host, port in fields["endpoints"])
        fields |= {name: tuple(fields[name]) for name in ("places", "clients")}
        return cls(**fields)


class Client:
    """One client with one connection at a time."""

    def __init__(self, name: str, endpoints: Sequence[tuple[str, int]], seed: str) -> None:
        self.name = name
        self.endpoints = list(endpoints)
        self.random = random.Random(seed)
        self.wire: Wire | None = None
        self.turn = self.random.randrange(len(self.endpoints))
        self.done = 0

    def connect(self) -> bool:
        """A connection if there is none; to the next proxy when this one takes none."""
        if self.wire is not None and self.done % OPERATIONS_PER_CONNECTION:
            return True
        self.close()
        for _ in self.endpoints:
            self.turn = (self.turn + 1) % len(self.endpoints)
            try:
                self.wire = Wire(*self.endpoints[self.turn], timeout=TIMEOUT_S)
            except OSError:
                continue
            return True
        return False

    def close(self) -> None:
        if self.wire is not None:
            self.wire.close()
            self.wire = None

    def do(self, plan: Plan) -> Operation:
        """Does it and says what became of it. Needs a connection; may be without one afterwards."""
        assert self.wire is not None
        self.done += 1
        invoked = time.monotonic_ns()
        attempt = _Attempt(self.wire, plan, self.random.random() < PIPELINED_SHARE)
        try:
            outcome, replies, error = attempt.run()
        except (OSError, AssertionError, ValueError) as failure:
            # An AssertionError is bytes that are no reply: whoever reads on would read nonsense.
            outcome, replies, error = ("info" if attempt.committed else "fail"), (), repr(failure)
            if isinstance(failure, TimeoutError):
                error = UNANSWERED
        if outcome != "ok" and attempt.spoiled:
            self.close()
        completed = time.monotonic_ns()
        client = f"{self.name}@{self.turn}"
        return Operation(client, plan.workload, plan.kind, plan.commands, invoked, completed, outcome, replies, error)


class _Attempt:
    """One operation over one connection."""

    def __init__(self, wire: Wire, plan: Plan, pipelined: bool) -> None:
        self.wire = wire
        self.plan = plan
        self.pipelined = pipelined
        self.committed = False  # what does the work was sent
        self.spoiled = True  # the connection may be in the middle of something

    def run(self) -> tuple[Outcome, tuple[Reply, ...], str]:
        if self.plan.form == "one":
            self.committed = True
            return self.judge([self.wire.ask(*self.plan.sent[0])], self.plan.sent)
        sent = self.plan.sent
        before: list[Any] = []
        if self.plan.form == "watch":
            keys = [command[1] for command in sent[: self.plan.reads]]
            for words in (("WATCH", *keys), *sent[: self.plan.reads]):
                before.append(self.wire.ask(*words))
                if isinstance(before[-1], ErrorReply):
                    return "fail", (), str(before[-1])
        found = self.transaction(sent[self.plan.reads :])
        if found is None:
            self.spoiled = False
            return "fail", (), WATCH_FAILED
        if isinstance(found, ErrorReply):
            return *self.refused(str(found)), str(found)
        if not isinstance(found, list):
            return "info", (), f"EXEC answers {found!r}"
        return self.judge([*before[1:], *found], sent)

    def transaction(self, commands: Sequence[Command]) -> Any:
        """EXEC's reply."""
        if self.pipelined:
            requests = [("MULTI",), *commands, ("EXEC",)]
            self.committed = True
            self.wire.send(b"".join(wire_format.encode(*words) for words in requests))
            return [self.wire.reply() for _ in requests][-1]
        for words in (("MULTI",), *commands):
            reply = self.wire.ask(*words)
            if isinstance(reply, ErrorReply):
                return ErrorReply(f"EXECABORT before EXEC: {reply}")
        self.committed = True
        return self.wire.ask("EXEC")

    def judge(self, found: Sequence[Any], commands: Sequence[Command]) -> tuple[Outcome, tuple[Reply, ...], str]:
        replies = tuple(_reply(reply, command[0]) for reply, command in zip(found, commands, strict=True))
        errors = [reply for reply in replies if isinstance(reply, str) and reply.startswith(ERROR_MARK)]
        bad = [error for error in errors if error not in ERRORS]
        if not bad:
            self.spoiled = False
            return "ok", replies, ""
        text = bad[0].removeprefix(ERROR_MARK)
        # Of a transaction's commands one may have failed and another not.
        return (*self.refused(text), text) if self.plan.form == "one" else ("info", (), text)

    def refused(self, text: str) -> tuple[Outcome, tuple[Reply, ...]]:
        # After an error between MULTI and EXEC the connection would still queue.
        self.spoiled = self.plan.form != "one"
        not_done = text.startswith(NOT_DONE) or any(words in text for words in NOT_DONE_WORDS)
        return ("fail" if not_done else "info"), ()


def _reply(reply: Any, command: str) -> Reply:
    if isinstance(reply, ErrorReply):
        return ERROR_MARK + reply
    if isinstance(reply, list):
        parts = [_reply(part, "") for part in reply]
        return tuple(sorted(parts, key=str) if command in UNORDERED else parts)
    return reply.decode() if isinstance(reply, bytes) else reply


def main(path: Path) -> None:
    """All clients of one order, until its time is over."""
    order = Order.read(path)
    lock = threading.Lock()
    never = threading.Event()  # waiting for it is a pause

    def run(name: str) -> None:
        client = Client(name, order.endpoints, f"{order.seed} {name} connection")
        workload = Workload(f"{order.seed} {name}", name, order.round, order.places, order.started)
        while (now := time.monotonic_ns()) < order.until:
            if not client.connect():
                never.wait(RECONNECT_PAUSE_S)
                continue
            operation = client.do(workload.next(now))
            with lock:
                history.write(as_line(operation) + "\n")
            if operation.outcome != "ok" and operation.error != WATCH_FAILED:
                # As clients do: a shard that is down is not asked ten thousand times a second.
                never.wait(ERROR_PAUSE_S)
        client.close()

    with Path(order.history).open("w") as history:
        threads = [threading.Thread(target=run, args=(name,), name=name) for name in order.clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
