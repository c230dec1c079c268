"""Money and tokens that are moved are neither lost nor doubled: every snapshot has as much as there was at first.

An account's money moves by MULTI with DECRBY and INCRBY; tokens move from set to set (SMOVE), from list to list (LMOVE,
RPOPLPUSH) and from name to name (RENAMENX). An operation that moves is whole or not there, whatever its outcome, so it
does not matter which: a snapshot of all places (one MGET, one MULTI of reads) has the same sum, or the same tokens.
The first snapshot that completed before anything moved says how much that is; the workload makes it when it begins.
"""

from collections import Counter
from collections.abc import Sequence

from consistency.finding import Verdict, Violation, verdict
from consistency.history import Operation, Reply

BANK = "bank"
TOKENS = "tokens"


def check_bank(operations: Sequence[Operation]) -> Verdict:
    """Snapshots of accounts. The opening deposits are part of the history (kind "open")."""
    total = sum(int(pair) for op in operations if op.kind == "open" for pair in op.commands[0][2::2])
    violations = []
    for operation in _snapshots(operations):
        balances = [int(str(value)) for value in _flat(operation.replies) if value is not None]
        if sum(balances) != total:
            difference = sum(balances) - total
            text = f"a snapshot has {sum(balances)}, which is {difference:+d} of the {total} that there are"
            violations.append(Violation(BANK, "money", text, (operation,)))
    return verdict(BANK, operations, violations)


def check_tokens(operations: Sequence[Operation]) -> Verdict:
    """Snapshots of pools of tokens, each pool named by the first key of its opening."""
    pools: dict[str, Counter[str]] = {}
    for operation in operations:
        if operation.kind == "open":
            pools.setdefault(_pool(operation.commands[0][1]), Counter()).update(_opened(operation))
    violations = []
    for operation in _snapshots(operations):
        key = operation.commands[0][1]
        expected = pools[_pool(key)]
        found = Counter(str(value) for value in _flat(operation.replies) if value is not None)
        if found != expected:
            missing = ", ".join((expected - found).elements()) or "none"
            doubled = ", ".join((found - expected).elements()) or "none"
            text = f"a snapshot of the pool {_pool(key)} misses: {missing}; has too much: {doubled}"
            violations.append(Violation(TOKENS, "token", text, (operation,)))
    return verdict(TOKENS, operations, violations)


def _snapshots(operations: Sequence[Operation]) -> list[Operation]:
    return [
        operation for operation in operations if operation.kind.startswith("snapshot") and operation.outcome == "ok"
    ]


def _opened(operation: Operation) -> Counter[str]:
    tokens: Counter[str] = Counter()
    for name, *args in operation.commands:
        tokens.update(args[1::2] if name == "MSET" else args[1:])
    return tokens


def _pool(key: str) -> str:
    """A key is `{place}name:number`: the pool is the name."""
    return key.split("}", 1)[1].partition(":")[0]


def _flat(replies: tuple[Reply, ...]) -> list[str | int | None]:
    found: list[str | int | None] = []
    for reply in replies:
        if isinstance(reply, tuple):
            found += _flat(reply)
        else:
            found.append(reply)
    return found
