"""Which keys an application uses together: what one plain server's MONITOR shows while its job runs.

Flow: redis-cli MONITOR into a file while the job runs -> lines -> groups of keys that have to be on one server: those
of one command, one transaction (with what it watched), one script with all that the script did -> recorded_keys.json,
one example of each shape of group. tests/test_affinity_presets.py holds the presets to that file.
Must stay true: a script's keys are those that it touched, not only those that it was told, because packages make names
inside scripts. Commands that shoal spreads over shards, or waits on over shards, hold no keys together.
"""

import json
import re
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Server, Wire, need, process, wait_until

from apps.book import App

FILE = Path(__file__).resolve().parent / "recorded_keys.json"
LINE = re.compile(r'^\d+\.\d+ \[(\d+) (\S+)\] (".*)$')
WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')
ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)")
CONTROL = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b"}

SPREAD = frozenset(
    "DEL EXISTS MGET MSET TOUCH UNLINK BLPOP BRPOP BLMPOP BZMPOP BZPOPMIN BZPOPMAX XREAD XREADGROUP".split()
)
SCRIPTS = frozenset("EVAL EVALSHA FCALL".split())
# What is random or of one machine, in the order in which it is looked for.
RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{7,}|[A-Za-z0-9_-]{22,}|\d+")
SAME_SHAPE_MAX = 2


@contextmanager
def recorded(server: Server, folder: Path, app: App) -> Iterator[None]:
    """Records for the time of the block, and writes what was seen."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "monitor.log"
    log.write_bytes(b"")
    cli = need("redis-cli", "redis-tools")
    monitor = process.start([cli, "-p", str(server.port.number), "MONITOR"], stdout=log)
    try:
        wait_until(lambda: log.read_bytes().startswith(b"OK"), 10, "MONITOR begins")
        yield
    finally:
        process.end(monitor, signal.SIGTERM, 10)
    with Wire(server.host, server.port.number) as wire:
        groups = together(wire, log.read_text(errors="replace").splitlines())
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    known[app.name] = groups
    FILE.write_text(_as_text(known))


def together(wire: Wire, lines: Iterable[str]) -> list[list[str]]:
    """One example of each shape of group of keys that must be on one server."""
    groups = Groups()
    for line in lines:
        found = LINE.match(line)
        if found is not None:
            words = [_unescaped(word) for word in WORD.findall(found[3])]
            groups.take(found[2], words[0].upper(), _keys(wire, words))
    return groups.all()


class Groups:
    """Keys by what used them together, as the lines come."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], list[str]] = {}
        self._transactions: dict[str, list[str]] = {}
        self._watched: dict[str, list[str]] = {}
        # That of the script whose own lines are coming.
        self._script: list[str] = []

    def take(self, who: str, name: str, keys: list[str]) -> None:
        """A command of a client, or of the script that runs (`who` is "lua")."""
        if who == "lua":
            self._script += keys
            return
        self._close(self._script)
        self._script = []
        if name == "MULTI":
            self._transactions[who] = self._watched.pop(who, [])
        elif name in ("EXEC", "DISCARD"):
            self._close(self._transactions.pop(who, []))
        elif name == "UNWATCH":
            self._watched.pop(who, None)
        elif name == "WATCH":
            self._watched[who] = self._watched.get(who, []) + keys
        elif who in self._transactions:
            self._transactions[who] += keys
            if name in SCRIPTS:
                self._script = self._transactions[who]
        elif name in SCRIPTS:
            self._script = list(keys)
        elif name not in SPREAD:
            self._close(keys)

    def all(self) -> list[list[str]]:
        self._close(self._script)
        return sorted(self._found.values())

    def _close(self, keys: list[str]) -> None:
        unique = list(dict.fromkeys(keys))
        if len(unique) > 1:
            self._found.setdefault(tuple(sorted({shape(key) for key in unique})), _few(unique))


def shape(key: str) -> str:
    """The key without what differs from run to run."""
    return RANDOM.sub("#", key)


def _few(keys: list[str]) -> list[str]:
    """No more than a few keys of each shape, nothing of this machine in them."""
    counts: dict[str, int] = {}
    kept = []
    host = socket.gethostname()
    for key in keys:
        counts[shape(key)] = counts.get(shape(key), 0) + 1
        if counts[shape(key)] <= SAME_SHAPE_MAX:
            kept.append(key.replace(host, "host.example"))
    return kept


def _keys(wire: Wire, words: list[str]) -> list[str]:
    """The keys of a command, as the server itself finds them."""
    found = wire.ask("COMMAND", "GETKEYS", *(word.encode("latin-1") for word in words))
    return [key.decode("latin-1") for key in found if isinstance(key, bytes)] if isinstance(found, list) else []


def _unescaped(word: str) -> str:
    def plain(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code[1:], 16)) if code.startswith("x") and len(code) == 3 else CONTROL.get(code, code)

    return ESCAPE.sub(plain, word)


def _as_text(known: dict[str, list[list[str]]]) -> str:
    """JSON with one group on each line."""
    parts = []
    for app in sorted(known):
        lines = ",\n".join(f"  {json.dumps(group)}" for group in known[app])
        parts.append(f"{json.dumps(app)}: [\n{lines}\n ]" if lines else f"{json.dumps(app)}: []")
    return "{\n " + ",\n ".join(parts) + "\n}\n"
