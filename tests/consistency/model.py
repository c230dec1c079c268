"""A little Redis without a network: what each command of the workload does to a few keys, and answers.

`apply` runs the commands of one operation, in order and undivided, on a copy of the state. A value is a text, a tuple
(list) or a frozenset (set); a key that is missing is not in the state; an empty list or set is a missing key, as in
Redis.
Errors are replies that begin with ERROR_MARK. SWAP is no command of Redis: it is what the workload's script does.
Must stay true: replies in the form in which the client writes them down (sets sorted).
Rejected: asking a real server for the answers; the search tries a hundred thousand orders.
"""

from collections.abc import Callable
from typing import TypeAlias

from consistency.history import ERROR_MARK, Command, Reply

Value: TypeAlias = str | tuple[str, ...] | frozenset[str]
State: TypeAlias = dict[str, Value]

WRONG_TYPE = ERROR_MARK + "WRONGTYPE Operation against a key holding the wrong kind of value"
NO_SUCH_KEY = ERROR_MARK + "ERR no such key"
# Replies that are an answer, and not a failure to answer.
ERRORS = frozenset({WRONG_TYPE, NO_SUCH_KEY})


class _ReplyError(Exception):
    """An error that the command answers with."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


def apply(state: State, commands: tuple[Command, ...]) -> tuple[State, tuple[Reply, ...]]:
    """The state after the commands, and their replies. The given state is not changed."""
    after = dict(state)
    replies: list[Reply] = []
    for name, *args in commands:
        try:
            replies.append(COMMANDS[name](after, *args))
        except _ReplyError as error:
            replies.append(error.reply)
    return after, tuple(replies)


def keys_of(command: Command) -> tuple[str, ...]:
    """The keys that a command names."""
    name, *args = command
    if name in ("SET", "APPEND", "INCRBY", "DECRBY", "SADD", "SREM", "RPUSH", "LRANGE"):
        return (args[0],)
    if name in ("MSET", "MSETNX"):
        return tuple(args[::2])
    if name in ("SMOVE", "LMOVE", "COPY"):
        return tuple(args[:2])
    if name == "BLPOP":
        return tuple(args[:-1])
    return tuple(args[1 : 1 + int(args[0])]) if name == "LMPOP" else tuple(args)


def is_read(commands: tuple[Command, ...]) -> bool:
    return all(name in READS for name, *_ in commands)


def _text(state: State, key: str) -> str | None:
    value = state.get(key)
    if value is not None and not isinstance(value, str):
        raise _ReplyError(WRONG_TYPE)
    return value


def _set(state: State, key: str) -> frozenset[str]:
    value = state.get(key, frozenset())
    if not isinstance(value, frozenset):
        raise _ReplyError(WRONG_TYPE)
    return value


def _list(state: State, key: str) -> tuple[str, ...]:
    value = state.get(key, ())
    if not isinstance(value, tuple):
        raise _ReplyError(WRONG_TYPE)
    return value


def _store(state: State, key: str, value: Value) -> None:
    # Texts may be empty; the others are gone when they are.
    if value or isinstance(value, str):
        state[key] = value
    else:
        state.pop(key, None)


def _get(state: State, key: str) -> Reply:
    return _text(state, key)


def _set_text(state: State, key: str, value: str) -> Reply:
    state[key] = value
    return "OK"


def _append(state: State, key: str, value: str) -> Reply:
    state[key] = (_text(state, key) or "") + value
    return len(state[key])


def _incrby(state: State, key: str, amount: str) -> Reply:
    value = int(_text(state, key) or "0") + int(amount)
    state[key] = str(value)
    return value


def _decrby(state: State, key: str, amount: str) -> Reply:
    return _incrby(state, key, str(-int(amount)))


def _mget(state: State, *keys: str) -> Reply:
    found = (state.get(key) for key in keys)
    return tuple(value if isinstance(value, str) else None for value in found)


def _mset(state: State, *pairs: str) -> Reply:
    state.update(zip(pairs[::2], pairs[1::2], strict=True))
    return "OK"


def _msetnx(state: State, *pairs: str) -> Reply:
    if any(key in state for key in pairs[::2]):
        return 0
    _mset(state, *pairs)
    return 1


def _del(state: State, *keys: str) -> Reply:
    return sum(state.pop(key, None) is not None for key in dict.fromkeys(keys))


def _exists(state: State, *keys: str) -> Reply:
    return sum(key in state for key in keys)


def _rename(state: State, source: str, destination: str) -> Reply:
    if source not in state:
        raise _ReplyError(NO_SUCH_KEY)
    state[destination] = state.pop(source)
    return "OK"


def _renamenx(state: State, source: str, destination: str) -> Reply:
    if source not in state:
        raise _ReplyError(NO_SUCH_KEY)
    if destination in state:
        return 0
    state[destination] = state.pop(source)
    return 1


def _copy(state: State, source: str, destination: str, *options: str) -> Reply:
    if source not in state or (destination in state and "REPLACE" not in options):
        return 0
    state[destination] = state[source]
    return 1


def _swap(state: State, first: str, second: str) -> Reply:
    values = (_text(state, first), _text(state, second))
    for key, value in zip((first, second), reversed(values), strict=True):
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
    return values


def _sadd(state: State, key: str, *members: str) -> Reply:
    before = _set(state, key)
    _store(state, key, before | set(members))
    return len(set(members) - before)


def _srem(state: State, key: str, *members: str) -> Reply:
    before = _set(state, key)
    _store(state, key, before - set(members))
    return len(set(members) & before)


def _smembers(state: State, key: str) -> Reply:
    return tuple(sorted(_set(state, key)))


def _smove(state: State, source: str, destination: str, member: str) -> Reply:
    given = _set(state, source)
    if source not in state:
        return 0
    taken = _set(state, destination)
    if member not in given:
        return 0
    # With one key for both nothing moves, and nothing is lost.
    _store(state, source, given - {member})
    _store(state, destination, (taken if source != destination else given) | {member})
    return 1


def _combine(state: State, keys: tuple[str, ...], how: str) -> frozenset[str]:
    values = [_set(state, key) for key in keys]
    first, *others = values
    if how == "UNION":
        return first.union(*others)
    return first.intersection(*others) if how == "INTER" else first.difference(*others)


def _combined(how: str) -> Callable[..., Reply]:
    return lambda state, *keys: tuple(sorted(_combine(state, keys, how)))


def _combined_store(how: str) -> Callable[..., Reply]:
    def run(state: State, destination: str, *keys: str) -> Reply:
        found = _combine(state, keys, how)
        state.pop(destination, None)
        _store(state, destination, found)
        return len(found)

    return run


def _rpush(state: State, key: str, *values: str) -> Reply:
    state[key] = (*_list(state, key), *values)
    return len(state[key])


def _lpop(state: State, key: str) -> Reply:
    before = _list(state, key)
    _store(state, key, before[1:])
    return before[0] if before else None


def _lrange(state: State, key: str, *_: str) -> Reply:
    # Always of the whole list: the workload asks for nothing else.
    return _list(state, key)


def _lmove(state: State, source: str, destination: str, taken_from: str, put_to: str) -> Reply:
    given = _list(state, source)
    if not given:
        return None
    if source != destination:
        _list(state, destination)
    value, rest = (given[0], given[1:]) if taken_from == "LEFT" else (given[-1], given[:-1])
    _store(state, source, rest)
    taken = _list(state, destination)
    state[destination] = (value, *taken) if put_to == "LEFT" else (*taken, value)
    return value


def _lmpop(state: State, count: str, *words: str) -> Reply:
    for key in words[: int(count)]:
        before = _list(state, key)
        if before:
            _store(state, key, before[1:])
            return (key, (before[0],))
    return None


def _blpop(state: State, *words: str) -> Reply:
    # An end of its time is an answer: at some instant until then all lists were empty.
    found = _lmpop(state, str(len(words) - 1), *words)
    return (found[0], found[1][0]) if isinstance(found, tuple) and isinstance(found[1], tuple) else None


def _rpoplpush(state: State, source: str, destination: str) -> Reply:
    return _lmove(state, source, destination, "RIGHT", "LEFT")


COMMANDS: dict[str, Callable[..., Reply]] = {
    "GET": _get,
    "SET": _set_text,
    "APPEND": _append,
    "INCRBY": _incrby,
    "DECRBY": _decrby,
    "MGET": _mget,
    "MSET": _mset,
    "MSETNX": _msetnx,
    "DEL": _del,
    "EXISTS": _exists,
    "RENAME": _rename,
    "RENAMENX": _renamenx,
    "COPY": _copy,
    "SWAP": _swap,
    "SADD": _sadd,
    "SREM": _srem,
    "SMEMBERS": _smembers,
    "SMOVE": _smove,
    "SUNION": _combined("UNION"),
    "SINTER": _combined("INTER"),
    "SDIFF": _combined("DIFF"),
    "SUNIONSTORE": _combined_store("UNION"),
    "SINTERSTORE": _combined_store("INTER"),
    "SDIFFSTORE": _combined_store("DIFF"),
    "RPUSH": _rpush,
    "LPOP": _lpop,
    "LRANGE": _lrange,
    "LMOVE": _lmove,
    "RPOPLPUSH": _rpoplpush,
    "LMPOP": _lmpop,
    "BLPOP": _blpop,
}

READS = frozenset({"GET", "MGET", "EXISTS", "SMEMBERS", "SUNION", "SINTER", "SDIFF", "LRANGE"})
