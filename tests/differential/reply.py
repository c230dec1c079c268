"""Replies as they came: with their kind, so that a nil array is no nil string, and a set no list.

Flow: a connection's bytes -> `Reply`, nested. Nothing is interpreted; `shown` is for people.
Must stay true: what a client could tell apart, this tells apart.
"""

from dataclasses import dataclass
from typing import TypeAlias

from harness import Wire

Value: TypeAlias = "bytes | tuple[Reply, ...] | None"

SHOWN_MAX = 300


@dataclass(frozen=True, slots=True)
class Reply:
    """`kind` is the byte with which it begins; text, the parts of an aggregate (of a map: keys and values), or nil."""

    kind: str
    value: Value

    @property
    def is_error(self) -> bool:
        return self.kind in "-!"

    @property
    def text(self) -> bytes:
        """The text of a scalar; nothing of other replies."""
        return self.value if isinstance(self.value, bytes) else b""

    @property
    def parts(self) -> "tuple[Reply, ...]":
        """The parts of an aggregate; none of other replies."""
        return self.value if isinstance(self.value, tuple) else ()

    def shown(self) -> str:
        """For people: the kind, and so much of the value as is worth reading."""
        if self.value is None:
            return f"{self.kind}nil"
        if isinstance(self.value, bytes):
            text = self.value.decode(errors="backslashreplace")
            return f"{self.kind}{text}" if len(text) <= SHOWN_MAX else f"{self.kind}{text[:40]}... ({len(text)} bytes)"
        inner = ", ".join(part.shown() for part in self.value)
        return f"{self.kind}[{inner if len(inner) <= 4 * SHOWN_MAX else inner[: 4 * SHOWN_MAX] + ' ...'}]"


# What stands in place of a reply that did not come: never equal to one that did.
NONE_CAME = Reply("?", b"no reply came in time")
CLOSED = Reply("?", b"the connection was closed")


def read(wire: Wire) -> Reply:
    """The next reply. Raises OSError when it does not come."""
    line = wire.line()
    kind, rest = line[:1].decode(), line[1:]
    if kind in "+-:#,(":
        return Reply(kind, rest)
    if kind == "_":
        return Reply(kind, None)
    count = int(rest)
    if kind in "$=!":
        return Reply(kind, None if count < 0 else wire.exactly(count + 2)[:-2])
    assert kind in "*~>%", f"not the beginning of a reply: {line!r}"
    if count < 0:
        return Reply(kind, None)
    return Reply(kind, tuple(read(wire) for _ in range(count * 2 if kind == "%" else count)))
