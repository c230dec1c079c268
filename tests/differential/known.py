"""Where shoal differs from one server and means to: each with its reason, and no wider than that.

A program ends there, as at any difference, because what follows says nothing; but it counts as equal. The report says
how often each was met.
Must stay true: what is here is no wrong answer. shoal refuses, or says the same thing in other words.
"""

from collections.abc import Callable
from dataclasses import dataclass

from differential.draw import Words
from differential.reply import Reply

# Asks the plain server something that is no part of the program.
Ask = Callable[[Words], Reply]


@dataclass(frozen=True)
class Known:
    """A difference that is meant, and how it is told from others."""

    reason: str
    matches: Callable[[Words, Reply, Reply, Ask], bool]


def _unknown_command(words: Words, left: Reply, right: Reply, _: Ask) -> bool:
    begin = f"ERR unknown command '{words[0]!s}', with args beginning with: ".encode()
    return left.is_error and right.is_error and left.text.startswith(begin) and right.text.startswith(begin)


def _refused_when_queued(words: Words, left: Reply, right: Reply, ask: Ask) -> bool:
    # The program is over, so the plain server may be asked for what it would have said at EXEC.
    return left.text == b"QUEUED" and right.is_error and ask(words) == right


def _unbalanced(words: Words, left: Reply, right: Reply, _: Ask) -> bool:
    return str(words[0]).upper() in ("XREAD", "XREADGROUP") and (
        left.text.startswith(b"ERR Unbalanced ") and right == Reply("-", b"ERR syntax error")
    )


def _unknown_script(_: Words, left: Reply, right: Reply, __: Ask) -> bool:
    # Of a transaction nothing is done: shoal cannot hold a script to its keys that it does not know.
    said = left.parts or (left,)
    return right.text.startswith(b"NOSCRIPT ") and any(part.text.startswith(b"NOSCRIPT ") for part in said)


def _watched_table(words: Words, left: Reply, right: Reply, ask: Ask) -> bool:
    # A nil is a refusal that clients of WATCH are made for; it is not told from others unless there is a hash table.
    if str(words[0]).upper() != "EXEC" or right.value is not None or left.kind != "*" or left.value is None:
        return False
    keys = ask(["KEYS", "*"]).parts
    return any(ask(["OBJECT", "ENCODING", key.text]).text == b"hashtable" for key in keys)


def _other_database(_: Words, __: Reply, right: Reply, ___: Ask) -> bool:
    return right.text.startswith(b"ERR operations across shards are possible in the keyspace's own database only, ")


KNOWN = (
    Known(
        "a watched hash table counts as changed when an operation across shards had it: restored, it has another order",
        _watched_table,
    ),
    Known(
        "a script that nobody has loaded is refused in the words of Redis, and with its transaction as a whole",
        _unknown_script,
    ),
    Known("operations across shards are refused in other databases than the keyspace's own", _other_database),
    Known("streams without as many ids are a syntax error: servers' own words for it differ", _unbalanced),
    Known("an unknown command's arguments are shown without bytes that are no text", _unknown_command),
    Known(
        "a command whose keys cannot be told is refused when queued, in the words that EXEC would have had for it",
        _refused_when_queued,
    ),
)


def known(words: Words, left: Reply, right: Reply, ask: Ask) -> str | None:
    """The reason why these replies differ, if it is one of ours."""
    return next((entry.reason for entry in KNOWN if entry.matches(words, left, right, ask)), None)
