"""The calls of the protocol across shards, as the core writes them: the same scripts, the same order of arguments.

Owns: `Shard`, one connection to one server with a method for each call; replies as the server gave them.
Must stay true: the scripts are read from the core's files, and which parts make one script from its source, so that
only the order of arguments is written twice.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from harness import ErrorReply, Server, Wire
from harness.wire import Reply, encode

SOURCE = Path(__file__).resolve().parents[2] / "crates/core/src/session/cross_shard"
GATHER_MAX = 8 << 20

Words = list[str | bytes | int]
Foreign = tuple[str, str, bytes, Reply]  # "w" if it may be written, "b" if it is not gathered either; shard, key, value


@cache
def script(name: str) -> str:
    """As it is sent: its parts behind each other, without lines of comment."""
    found = re.search(rf"script!\({name},([^)]*)\)", (SOURCE / "wire.rs").read_text())
    assert found, f"wire.rs has no script {name}"
    text = "".join((SOURCE / f"lua/{part}.lua").read_text() for part in re.findall(r'"(\w+)"', found[1]))
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if not line.startswith("--"))


class Shard:
    """One named connection to one server."""

    def __init__(self, server: Server, pid: str = "p1", protocol: int = 2) -> None:
        self.wire = Wire(server.host, server.port.number)
        self.pid = pid
        if protocol == 3:
            self.wire.ask("HELLO", 3)
        assert self.wire.ask("CLIENT", "SETNAME", f"shoal:{pid}") == "OK"

    def close(self) -> None:
        self.wire.close()

    def run(self, name: str, *words: str | bytes | int) -> Reply:
        return self.wire.ask("EVAL", script(name), 0, *words)

    def join(self, version: str = "1") -> Reply:
        return self.run("JOIN", self.pid, version)

    def prepare(
        self,
        tx: str,
        keys: Mapping[bytes, str],
        *,
        scope: str = "k",
        participants: Sequence[str] = ("other",),
        gather_max: int = GATHER_MAX,
        redo: str = "",
    ) -> Reply:
        """Claims keys, each by its mode, S or X, with a w behind it if its value is wanted."""
        words: Words = [tx, self.pid, "home", scope, gather_max, f"fence {tx}", redo, len(participants), *participants]
        return self.run("PREPARE", *words, *_claims(keys))

    def watch(self, tx: str) -> list[Reply]:
        """What follows Prepare at home."""
        assert self.wire.ask("UNWATCH") == "OK"
        return [self.wire.ask("WATCH", f"__shoal:f:{tx}"), self.wire.ask("EXISTS", f"__shoal:f:{tx}")]

    def gather(self, tx: str, keys: Mapping[bytes, str], gather_max: int = GATHER_MAX) -> Reply:
        return self.run("GATHER", tx, gather_max, *_claims(keys))

    def commit(
        self,
        tx: str,
        foreign: Sequence[Foreign],
        requests: Sequence[Words],
        before_exec: Callable[[], object] = lambda: None,
        redo: str = "",
    ) -> list[Reply]:
        """All replies, that of EXEC last: the requests' stand in it between those for foreign keys and the last two."""
        burst: list[Words] = [["MULTI"]]
        if foreign:
            burst.append(["UNLINK", *(key for _, _, key, _ in foreign)])
        for _, _, key, value in foreign:
            if value is not None:
                until, dump = pair(value)
                burst.append(["RESTORE", key, max(until, 0), dump, "REPLACE", "ABSTTL"])
        mark = f"__shoal:untouched:{tx}"
        burst += [["SET", key, mark] for letter, _, key, _ in foreign if letter == "b"]
        burst += [["EVAL", script("EMPTY"), 0, tx, redo]] if redo else requests
        words = (
            word
            for letter, shard, key, value in foreign
            for word in (letter, shard, key, *_before(letter, mark, value))
        )
        burst.append(["EVAL", script("FINISH"), 0, tx, self.pid, f"released {tx}", *words])
        burst.append(["UNLINK", f"__shoal:f:{tx}"])
        self.wire.send(b"".join(encode(*request) for request in burst))
        replies = [self.wire.reply() for _ in burst]
        before_exec()
        return [*replies, self.wire.ask("EXEC")]

    def apply(self, tx: str, values: Mapping[bytes, Reply] | None = None) -> Reply:
        words: Words = []
        for key, value in (values or {}).items():
            until, dump = pair(value) if value is not None else ("", b"")
            words += [key, until if until != -1 else 0, dump]
        return self.run("APPLY", tx, f"released {tx}", *words)

    def release(self, tx: str) -> Reply:
        return self.run("RELEASE", tx, f"released {tx}")

    def resolve(self, tx: str) -> Reply:
        return self.run("RESOLVE", tx, f"released {tx}")

    def clean(self, tx: str) -> Reply:
        return self.run("CLEAN", tx)

    def evict(self, pid: str) -> int:
        """Deregister, and Kill of every connection of that name; how many there were."""
        assert self.run("MARK", pid, "1") is None
        listed = self.wire.ask("CLIENT", "LIST")
        assert isinstance(listed, bytes)
        lines = [line.split() for line in listed.decode().splitlines()]
        ids = [line[0].removeprefix("id=") for line in lines if f"name=shoal:{pid}" in line]
        for number in ids:
            self.wire.ask("CLIENT", "KILL", "ID", number)
        assert self.run("UNLIST", pid, "1") is None
        return len(ids)


def pair(value: Reply) -> tuple[int, bytes]:
    """A value as scripts answer it: until when it is there, and its dump."""
    until, dump = array(value)
    assert isinstance(until, int)
    assert isinstance(dump, bytes)
    return until, dump


def parts(reply: Reply, word: bytes) -> list[Reply]:
    """What a script answered behind the word that is expected."""
    first, *rest = array(reply)
    assert first == word, reply
    return rest


def array(reply: Reply) -> list[Reply]:
    assert isinstance(reply, list), reply
    return reply


def refusal(reply: Reply) -> str:
    assert isinstance(reply, ErrorReply), reply
    return reply


def number(reply: Reply) -> int:
    assert isinstance(reply, int), reply
    return reply


def _before(letter: str, mark: str, value: Reply) -> tuple[str, int | str]:
    """By which it is seen that a key is as it was."""
    if letter == "b":
        return mark, -1
    if value is None or letter == "-":
        return "", -1
    until, dump = pair(value)
    return hashlib.sha1(dump, usedforsecurity=False).hexdigest(), until


def _claims(keys: Mapping[bytes, str]) -> Iterable[str | bytes]:
    return (word for key, letters in keys.items() for word in (letters, key))
