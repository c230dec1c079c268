"""The two sides: one plain server, and shoal over several of the same kind; and connections to them.

All servers have the same small limits for their compact forms, so that values outgrow them within a short program.
`Side` is an address with the connections that a program uses; `Shards` is what lies behind shoal, looked at directly.
Must stay true: where a key belongs is judged here without the core, by Redis Cluster's rule.
"""

import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness import Fleet, Wire
from harness.wire import encode

from differential import reply, scripts
from differential.draw import ALL_KEYS, Words
from differential.reply import Reply

# The servers' own limits are ten times as high; a tenth makes every program meet them.
SETTINGS = (
    "hash-max-listpack-entries 12", "hash-max-listpack-value 40", "list-max-listpack-size 10",
    "set-max-intset-entries 12", "set-max-listpack-entries 12", "set-max-listpack-value 40",
    "zset-max-listpack-entries 12", "zset-max-listpack-value 40", "hll-sparse-max-bytes 200",
    "stream-node-max-entries 5",
)  # fmt: skip

# An operation over shards that meets a stalled machine answers within a few seconds; what takes longer never comes.
REPLY_TIMEOUT_S = 15.0
CLIENTS = 2

RESERVED = b"__shoal:"
# What may be there when nothing is going on: who uses the shard, and what the shard knows of the topology.
LASTING = {b"__shoal:m", b"__shoal:e"}
SLOTS = 16384

SHOAL = """\
admin = "{admin}"
workers = 2

[keyspace.main]
listen = "{listen}"
shards = [%s]
"""
STRICT = """\
cross_shard = "strict"
multi_key = "strict"
cross_shard_functions = true
"""


def configuration(shards: int) -> str:
    """shoal over so many shards; over several, all that makes them behave as one."""
    text = SHOAL % ", ".join(f'"{{shard{i}}}"' for i in range(shards))
    return text + STRICT if shards > 1 else text


def spoken(words: Words) -> bytes:
    return encode(*words)


@dataclass
class Side:
    """One address, and a program's connections to it."""

    name: str
    host: str
    port: int
    wires: list[Wire] = field(default_factory=list)
    database: int = 0

    def open(self, protocol: int, database: int) -> None:
        """New connections for a program: what one left behind in a connection is none of the next one's business."""
        self.close()
        self.database = database
        self.wires = [Wire(self.host, self.port, REPLY_TIMEOUT_S) for _ in range(CLIENTS)]
        for wire in self.wires:
            assert not _ask(wire, ["HELLO", protocol]).is_error, f"{self.name} does not speak RESP{protocol}"
            _select(wire, database)

    def close(self) -> None:
        for wire in self.wires:
            wire.close()
        self.wires = []

    def send(self, client: int, requests: Iterable[Words]) -> None:
        """All at once. An error of the connection shows when replies are read."""
        try:
            self.wires[client].send(b"".join(spoken(words) for words in requests))
        except OSError:
            self.wires[client].close()

    def receive(self, client: int, count: int) -> list[Reply]:
        """So many replies; where they do not come, `NONE_CAME` or `CLOSED` in place of each."""
        found: list[Reply] = []
        try:
            while len(found) < count:
                found.append(reply.read(self.wires[client]))
        except TimeoutError:
            found += [reply.NONE_CAME] * (count - len(found))
        except OSError:
            found += [reply.CLOSED] * (count - len(found))
        return found

    def ask_all(self, requests: Sequence[Words]) -> list[Reply]:
        """Several requests of no program, in its database; their replies. Raises OSError."""
        if not requests:
            return []
        with Wire(self.host, self.port, REPLY_TIMEOUT_S) as wire:
            _select(wire, self.database)
            wire.send(b"".join(spoken(words) for words in requests))
            return [reply.read(wire) for _ in requests]

    def ask(self, *words: str | bytes | int) -> Reply:
        return self.ask_all([list(words)])[0]

    def all_keys(self) -> list[bytes]:
        """All keys, as the side itself says."""
        return [part.text for part in self.ask("KEYS", "*").parts]

    def clear(self) -> None:
        """Removes all keys, one by one: an emptied shard would forget who uses it."""
        self.ask_all([["UNLINK", key] for key in self.all_keys()])

    def prepare(self) -> None:
        """Makes scripts and functions known."""
        loads: list[Words] = [["SCRIPT", "LOAD", text] for text in scripts.SCRIPTS]
        replies = self.ask_all([["FUNCTION", "LOAD", "REPLACE", scripts.LIBRARY], *loads])
        refused = [found.shown() for found in replies if found.is_error]
        assert not refused, f"{self.name} does not take the scripts: {refused}"

    def version(self) -> str:
        """Which server it is."""
        info = dict(line.split(":", 1) for line in self.ask("INFO", "server").text.decode().splitlines() if ":" in line)
        return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info.get('redis_version', '?'))}"

    def commands(self) -> frozenset[str]:
        """The commands that it knows, in lower case."""
        return frozenset(part.text.decode() for part in self.ask("COMMAND", "LIST").parts)


@dataclass
class Restored(Side):
    """A side on which every key is dumped and restored before anything is asked.

    Proves that nothing but forms is lost on the way from one shard to another, and shows which forms these are.
    """

    def send(self, client: int, requests: Iterable[Words]) -> None:
        keys = self.all_keys()
        questions: list[Words] = [[name, key] for key in keys for name in ("DUMP", "PEXPIRETIME")]
        answers = self.ask_all(questions)
        back: list[Words] = [
            ["RESTORE", key, max(int(expires.text), 0), dumped.text, "REPLACE", "ABSTTL"]
            for key, dumped, expires in zip(keys, answers[::2], answers[1::2], strict=True)
            if dumped.value is not None
        ]
        assert all(answer.text == b"OK" for answer in self.ask_all(back)), "a value could not be restored"
        super().send(client, requests)


def _ask(wire: Wire, words: Words) -> Reply:
    wire.send(spoken(words))
    return reply.read(wire)


def _select(wire: Wire, database: int) -> None:
    if database:
        assert _ask(wire, ["SELECT", database]).text == b"OK", f"there is no database {database}"


class Shards:
    """What is behind shoal, looked at directly."""

    def __init__(self, fleet: Fleet) -> None:
        self.sides = [Side(f"shard {i}", server.host, server.port.number) for i, server in enumerate(fleet.servers)]

    def owner(self, key: bytes) -> int:
        """The index of the shard where the key belongs: CRC16 and hash tags, slots dealt evenly."""
        start = key.find(b"{")
        end = key.find(b"}", start + 1)
        hashed = key[start + 1 : end] if 0 <= start < end - 1 else key
        return binascii.crc_hqx(hashed, 0) % SLOTS * len(self.sides) // SLOTS

    def misplaced(self, database: int = 0) -> list[str]:
        """Keys where they do not belong, and records that should be gone. Empty when nothing is going on."""
        found = []
        for index, key in self._keys(database):
            name = key.decode(errors="backslashreplace")
            if key.startswith(RESERVED):
                if key not in LASTING:
                    found.append(f"{name} is left on shard {index}")
            elif self.owner(key) != index:
                found.append(f"{name} is on shard {index}, and belongs on shard {self.owner(key)}")
        return found

    def _keys(self, database: int) -> Iterator[tuple[int, bytes]]:
        """Every key with its shard's index, of this database and of the first, which holds shoal's own."""
        for index, side in enumerate(self.sides):
            for side.database in {0, database}:
                yield from ((index, key) for key in side.all_keys())

    def check_keys(self) -> None:
        """Programs make sense only with keys on all shards."""
        owners = {self.owner(key.encode()) for key in ALL_KEYS}
        assert owners == set(range(len(self.sides))), f"keys on shards {owners} only"
