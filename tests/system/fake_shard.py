"""A shard that answers what a test wants: a thread that parses requests and asks a function for the reply.

The proxy's own requests (INFO, PING, HELLO, SELECT, and those of a member: CLIENT SETNAME, CLIENT ID, CLIENT KILL, the
script that registers, SUBSCRIBE) get a server's answers, so that the proxy takes it for up; all others go to the test's
function, whose bytes are sent as they are. None closes the connection with RST.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from harness import Port

Answer = Callable[[list[bytes]], bytes | None]

INFO = b"# Server\r\nredis_version:7.2.4\r\nredis_mode:standalone\r\n"
GREETINGS = {
    b"INFO": b"$%d\r\n%s\r\n" % (len(INFO), INFO),
    b"PING": b"+PONG\r\n",
    b"SELECT": b"+OK\r\n",
    b"HELLO": b"%0\r\n",
    b"CLIENT SETNAME": b"+OK\r\n",
    b"CLIENT ID": b":7\r\n",
    b"CLIENT KILL": b":1\r\n",
    # Registered; a version of dumps, it evicts nothing, it tells of no members and no fences.
    b"EVAL": b"*5\r\n$6\r\njoined\r\n:11\r\n:0\r\n*0\r\n*0\r\n",
}


class FakeShard:
    """Listens until the end of the `with` block."""

    def __init__(self, answer: Answer, greetings: dict[bytes, bytes] | None = None) -> None:
        self.port = Port.take()
        self.accepted = 0
        self._answer = answer
        self._greetings = {**GREETINGS, **(greetings or {})}
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", self.port.number))
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in [self._listener, *self._ends]:
            # shutdown wakes the thread that waits in accept or recv; close alone does not.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.port.release()

    @property
    def address(self) -> str:
        return str(self.port)

    def say(self, data: bytes) -> None:
        """Sends bytes that nobody asked for, on every open connection."""
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.sendall(data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self.accepted += 1
                self._ends.append(end)
                threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError), end.makefile("rb") as stream:
            while header := stream.readline():
                words = []
                for _ in range(int(header[1:])):
                    length = int(stream.readline()[1:])
                    words.append(stream.read(length + 2)[:-2])
                reply = self._greeting(words) or self._answer(words)
                if reply is None:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                end.sendall(reply)
        end.close()

    def _greeting(self, words: list[bytes]) -> bytes | None:
        if words[0].upper() == b"SUBSCRIBE":
            made = ((len(name), name, count) for count, name in enumerate(words[1:], 1))
            return b"".join(b">3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:%d\r\n" % one for one in made)
        names = (words[0].upper(), b" ".join(words[:2]).upper())
        return next((self._greetings[name] for name in names if name in self._greetings), None)
