"""Transactions that append unique values to lists and read them: is there an order of all that explains what was read?

After Elle (Kingsbury and Alvaro, 2020). A list tells its own history: the order of its values is the order of the
appends, and a read shows all before it. From that come edges between transactions: ww (appended after), wr (read what
it appended), rw (did not read what it appended), rt (completed before it was invoked). No order exists if they have a
cycle; the kinds that are needed for the cycle name the anomaly:

    G0          writes interleave: ww only
    G1c         ww and wr: each saw the other's effects
    G-single    one rw: a read missed part of a transaction of which it, or one after it, saw the rest
    G2          several rw: two transactions, neither of which saw the other
    -realtime   the same, and some of the order is that of the clock: stale reads, lost updates

What needs no cycle is found first: values out of nowhere, of a failed transaction (G1a), half of a transaction's
appends (G1b), twice, in two orders, or no longer there.
Must stay true: unknown transactions count as done once a value of theirs was read, and else as never done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from consistency.finding import Verdict, Violation, verdict
from consistency.graph import Edge, Graph
from consistency.history import Operation

CHECKER = "serializable"

# A broken run has thousands of cycles; some are enough.
CYCLES_SHOWN_MAX = 20
# One cycle through a rw edge is looked for from so many of them in each component.
RW_TRIED_MAX = 300


@dataclass(frozen=True)
class _Seen:
    """One read of one list."""

    operation: Operation
    key: str
    values: tuple[str, ...]


@dataclass
class _Lists:
    """What is known of the lists."""

    writers: dict[tuple[str, str], Operation] = field(default_factory=dict)
    # In the order in which one operation appended them.
    appended: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    reads: list[_Seen] = field(default_factory=list)
    orders: dict[str, _Seen] = field(default_factory=dict)  # the longest read of each list


def check(operations: Sequence[Operation]) -> Verdict:
    """All transactions of one history; lists are empty at its beginning."""
    lists = _gather(operations)
    violations = [*_wrong_reads(lists), *_wrong_values(lists), *_lost(lists)]
    graph, nodes = _graph(operations, lists)
    violations += _cycles(graph, nodes)
    return verdict(CHECKER, operations, violations)


def _gather(operations: Sequence[Operation]) -> _Lists:
    lists = _Lists()
    for operation in operations:
        for at, command in enumerate(operation.commands):
            name, key = command[:2]
            if name == "RPUSH":
                for value in command[2:]:
                    assert (key, value) not in lists.writers, f"the workload appends {value} twice"
                    lists.writers[key, value] = operation
                    lists.appended.setdefault((operation.number, key), []).append(value)
            elif operation.outcome == "ok":
                reply = operation.replies[at]
                values = tuple(str(value) for value in reply) if isinstance(reply, tuple) else ()
                seen = _Seen(operation, key, values)
                lists.reads.append(seen)
                if key not in lists.orders or len(values) > len(lists.orders[key].values):
                    lists.orders[key] = seen
    return lists


def _wrong_reads(lists: _Lists) -> Iterator[Violation]:
    """Reads that contradict each other or themselves."""
    for seen in lists.reads:
        key, values = seen.key, seen.values
        longest = lists.orders[key]
        if values != longest.values[: len(values)]:
            text = f"two reads of {key} do not agree on the order of its values"
            yield Violation(CHECKER, "incompatible order", text, (seen.operation, longest.operation))
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            yield Violation(CHECKER, "duplicate", f"{key} holds {twice} twice", (seen.operation,))
    yield from _own_appends(lists)


def _own_appends(lists: _Lists) -> Iterator[Violation]:
    """A transaction sees what it appended before, at the end, and nothing that it appends later; and as many."""
    operations = {seen.operation.number: seen.operation for seen in lists.reads}
    operations |= {op.number: op for op in lists.writers.values() if op.outcome == "ok"}
    for operation in operations.values():
        own: dict[str, list[str]] = {}
        length: dict[str, int] = {}
        for command, reply in zip(operation.commands, operation.replies, strict=False):
            name, key = command[:2]
            mine = own.setdefault(key, [])
            if name == "RPUSH":
                mine += command[2:]
                expected = length[key] + len(command[2:]) if key in length else reply
                length[key] = reply if isinstance(reply, int) else -1
                if reply != expected:
                    text = f"{key} changed its length within the transaction"
                    yield Violation(CHECKER, "internal", text, (operation,))
                continue
            values = list(reply) if isinstance(reply, tuple) else []
            if (mine and values[-len(mine) :] != mine) or length.get(key, len(values)) != len(values):
                text = f"a read of {key} is not what the transaction itself saw and appended before"
                yield Violation(CHECKER, "internal", text, (operation,))
            length[key] = len(values)


def _wrong_values(lists: _Lists) -> Iterator[Violation]:
    """Values that should not have been there to be read."""
    for key, longest in lists.orders.items():
        for value in longest.values:
            writer = lists.writers.get((key, value))
            if writer is None:
                text = f"{key} holds {value}, which nobody appended to it"
                yield Violation(CHECKER, "garbage", text, (longest.operation,))
            elif writer.outcome == "fail":
                text = f"{key} holds {value} of a transaction that failed"
                yield Violation(CHECKER, "G1a", text, (longest.operation, writer))
    for seen in lists.reads:
        last = lists.writers.get((seen.key, seen.values[-1])) if seen.values else None
        if last is None or last is seen.operation:
            continue
        if lists.appended[last.number, seen.key][-1] != seen.values[-1]:
            text = f"a read of {seen.key} ends in the middle of what a transaction appended"
            yield Violation(CHECKER, "G1b", text, (seen.operation, last))


def _lost(lists: _Lists) -> Iterator[Violation]:
    """Acknowledged appends that the list does not hold at a time when it must."""
    last_read: dict[str, Operation] = {}
    for seen in lists.reads:
        known = last_read.get(seen.key)
        if known is None or seen.operation.invoked > known.invoked:
            last_read[seen.key] = seen.operation
    held = {(key, value) for key, longest in lists.orders.items() for value in longest.values}
    for (key, value), writer in lists.writers.items():
        read = last_read.get(key)
        if writer.outcome != "ok" or (key, value) in held or read is None:
            continue
        if writer.completed is not None and writer.completed < read.invoked:
            text = f"{value} was appended to {key} and acknowledged, and no read ever shows it"
            yield Violation(CHECKER, "lost append", text, (writer, read))


def _graph(operations: Sequence[Operation], lists: _Lists) -> tuple[Graph, dict[int, Operation]]:
    """Transactions that were done, and which must come before which."""
    graph = Graph()
    nodes = {operation.number: operation for operation in operations if operation.outcome == "ok"}
    positions: dict[str, list[Operation]] = {}
    for key, longest in lists.orders.items():
        found = [lists.writers[key, value] for value in longest.values if (key, value) in lists.writers]
        positions[key] = [writer for writer in found if writer.outcome != "fail"]
        nodes |= {writer.number: writer for writer in positions[key]}
        for before, after in zip(positions[key], positions[key][1:], strict=False):
            graph.add(Edge(before.number, after.number, "ww", key))
    unread: dict[str, list[Operation]] = {}
    for (key, value), writer in lists.writers.items():
        shown = lists.orders.get(key)
        if writer.number in nodes and (shown is None or value not in shown.values):
            unread.setdefault(key, []).append(writer)
    for seen in lists.reads:
        writers = positions[seen.key]
        count = len(seen.values)
        if 0 < count <= len(writers):
            graph.add(Edge(writers[count - 1].number, seen.operation.number, "wr", seen.key))
        if count < len(writers):
            graph.add(Edge(seen.operation.number, writers[count].number, "rw", seen.key))
        for writer in unread.get(seen.key, ()):
            graph.add(Edge(seen.operation.number, writer.number, "rw", seen.key))
    _add_real_time(graph, nodes)
    return graph, nodes


def _add_real_time(graph: Graph, nodes: dict[int, Operation]) -> None:
    """Who completed before whom was invoked; of each client only what does not follow from the others."""
    events: list[tuple[int, int, Operation]] = []
    for operation in nodes.values():
        events.append((operation.invoked, 0, operation))
        if operation.outcome == "ok" and operation.completed is not None:
            events.append((operation.completed, 1, operation))
    frontier: dict[int, Operation] = {}
    for _, completes, operation in sorted(events, key=lambda event: event[:2]):
        if completes:
            # What completed before this was invoked is before whatever comes after this.
            for number, other in list(frontier.items()):
                if other.completed is not None and other.completed < operation.invoked:
                    del frontier[number]
            frontier[operation.number] = operation
        else:
            for other in frontier.values():
                if other.completed is not None and other.completed < operation.invoked:
                    graph.add(Edge(other.number, operation.number, "rt"))


def _cycles(graph: Graph, nodes: dict[int, Operation]) -> Iterator[Violation]:
    """One cycle of each component, of the plainest shape that it has."""
    for component in graph.components()[:CYCLES_SHOWN_MAX]:
        part = graph.only(("ww", "wr", "rw", "rt"), set(component))
        shape, cycle = _plainest(part)
        steps = "".join(f"#{edge.source} -{edge.kind}{f'({edge.reason})' if edge.reason else ''}-> " for edge in cycle)
        text = f"{steps}#{cycle[0].source} (of {len(component)} that go in circles)"
        yield Violation(CHECKER, shape, text, tuple(nodes[edge.source] for edge in cycle))


def _plainest(part: Graph) -> tuple[str, list[Edge]]:
    for ending, clock in (("", ()), ("-realtime", ("rt",))):
        for shape, kinds in (("G0", ("ww",)), ("G1c", ("ww", "wr"))):
            cycle = part.only((*kinds, *clock)).cycle()
            if cycle:
                return shape + ending, cycle
        plain = part.only(("ww", "wr", *clock))
        cycle = plain.cycle_through([edge for edge in part.all() if edge.kind == "rw"][:RW_TRIED_MAX])
        if cycle:
            return "G-single" + ending, cycle
        cycle = part.only(("ww", "wr", "rw", *clock)).cycle()
        if cycle:
            return "G2" + ending, cycle
    raise AssertionError("a component without a cycle")
