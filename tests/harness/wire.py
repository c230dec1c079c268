"""A raw connection: exact bytes out, exact bytes or parsed replies in. For tests that a client library would spoil.

`send` takes bytes as they are, `command` writes an array of bulk strings; `reply` reads one reply of RESP2 or RESP3
into plain Python values (errors as `ErrorReply`, never raised), `until_closed` what comes until the other side closes.
Must stay true: this parser shares nothing with the core's, it is the judge of it.
"""

import contextlib
import socket
import struct
from typing import Self, TypeAlias

Reply: TypeAlias = (
    "str | int | float | bool | bytes | ErrorReply | list[Reply] | set[bytes] | dict[bytes, Reply] | None"
)

TIMEOUT_S = 10.0


class ErrorReply(str):
    """An error as the server wrote it, without the dash: `ERR unknown command ...`."""

    __slots__ = ()


class Wire:
    """One TCP connection; a context manager."""

    def __init__(self, host: str, port: int, timeout: float = TIMEOUT_S) -> None:
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Closes with RST instead of FIN: what a client does that crashes with unread data."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def command(self, *words: str | bytes | int) -> None:
        """Sends one request; does not read."""
        self.send(encode(*words))

    def ask(self, *words: str | bytes | int) -> Reply:
        """One request, its reply."""
        self.command(*words)
        return self.reply()

    def reply(self) -> Reply:
        """The next reply. Fails with ConnectionError when the other side closes before its end."""
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return ErrorReply(rest.decode(errors="backslashreplace"))
        if kind in b":#,(_":
            return _scalar(kind, rest)
        return self._sized(kind, rest)

    def _sized(self, kind: bytes, rest: bytes) -> Reply:
        count = int(rest)
        if kind in b"$=!":
            if count < 0:
                return None
            body = self.exactly(count + 2)[:-2]
            if kind == b"!":
                return ErrorReply(body.decode())
            return body[4:] if kind == b"=" else body
        if kind in b"*>":
            return None if count < 0 else [self.reply() for _ in range(count)]
        if kind == b"~":
            return {member for member in (self.reply() for _ in range(count)) if isinstance(member, bytes)}
        if kind == b"%":
            pairs = [(self.reply(), self.reply()) for _ in range(count)]
            return {_key(key): value for key, value in pairs}
        raise AssertionError(f"not the beginning of a reply: {kind + rest!r}")

    def line(self) -> bytes:
        """Up to the next CR LF, without it."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def exactly(self, count: int) -> bytes:
        """So many bytes."""
        while len(self._buffer) < count:
            self._fill()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def until_closed(self) -> bytes:
        """Everything until the other side closes (or resets); fails when it does not within the timeout."""
        with contextlib.suppress(ConnectionError):
            while True:
                self._fill()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long. Only for what nothing else can show: it always takes the time."""
        self.socket.settimeout(seconds)
        try:
            self._fill()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(TIMEOUT_S)
        return False

    def _fill(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the other side closed the connection")
        self._buffer += data


def encode(*words: str | bytes | int) -> bytes:
    """A request as an array of bulk strings."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _scalar(kind: bytes, rest: bytes) -> Reply:
    if kind in b":(":
        return int(rest)
    if kind == b"#":
        return rest == b"t"
    return float(rest) if kind == b"," else None


def _key(value: Reply) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
