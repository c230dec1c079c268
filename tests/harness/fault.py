"""A relay that misbehaves: `Fault` stands between proxy and shard and does to the bytes what networks do.

Flow: one thread owns all sockets. A connection from the proxy opens one to the shard; each has two `_Stream`s (requests
towards the shard, replies back). A stream reads, keeps chunks until they are due, writes them in pieces, and cuts where
its `Mischief` says. Mischief is a value; tests swap it whole at any time (`fault.replies = Mischief(cut_after=10)`) and
it applies to the bytes from then on, of living and of new connections; `cut_after` counts from that swap on.
Must stay true: without mischief every byte passes, in order, and a FIN is passed on as FIN after the bytes before it.
Piece sizes come from a seeded generator: a failure can be repeated with its seed.
Rejected: iptables and tc, which need root; a thread per direction, where closing with RST races a blocked recv.
"""

import contextlib
import random
import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, Self

from harness.ports import Port

READ_BYTES = 1 << 16
# Like a socket's buffer: a stalled stream holds so much, then the sender feels it.
HELD_BYTES_MAX = 1 << 18


@dataclass(frozen=True)
class Mischief:
    """What happens to the bytes of one direction."""

    cut_after: int | None = None  # so many bytes of a connection still pass, then both of its sides are closed
    cut_with: Literal["rst", "fin"] = "rst"
    delay_s: float = 0.0  # each chunk arrives so much later; order stays
    dribble: int = 0  # pieces of 1 to so many bytes, each in a segment of its own; 0: as they come
    stall: bool = False  # nothing passes; what comes is held until this is off again


class _Stream:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, seed: int) -> None:
        self.source = source
        self.sink = sink
        self.mischief = Mischief()
        self.passed = 0  # bytes since the mischief came
        self.held: deque[tuple[float, bytes]] = deque()  # (due, bytes)
        self.held_bytes = 0
        self.ended = False  # the source has sent FIN
        self.blocked = False  # the sink takes no more for now
        self._random = random.Random(seed)

    def take(self, mischief: Mischief) -> None:
        self.mischief = mischief
        self.passed = 0

    def wants_input(self) -> bool:
        return not self.ended and self.held_bytes < HELD_BYTES_MAX

    def read(self, now: float) -> None:
        """Takes in what is there. Raises OSError when the source was reset."""
        data = self.source.recv(READ_BYTES)
        if not data:
            self.ended = True
            return
        self.held.append((now + self.mischief.delay_s, data))
        self.held_bytes += len(data)

    def write(self, now: float) -> bool:
        """Passes on what is due. True when the connection is to be cut now. Raises OSError when the sink is gone."""
        if self.mischief.stall:
            return False
        self.blocked = False
        while self.held and self.held[0][0] <= now:
            due, data = self.held.popleft()
            room = len(data) if self.mischief.cut_after is None else self.mischief.cut_after - self.passed
            piece = data[: max(room, 0)]
            if self.mischief.dribble and piece:
                piece = piece[: self._random.randint(1, self.mischief.dribble)]
            try:
                sent = self.sink.send(piece) if piece else 0
            except BlockingIOError:
                sent, self.blocked = 0, True
            self.passed += sent
            self.held_bytes -= sent
            if sent < len(data):
                self.held.appendleft((due, data[sent:]))
            if self.mischief.cut_after is not None and self.passed >= self.mischief.cut_after:
                return True
            if self.blocked or self.mischief.dribble:
                break
        return False

    def due(self) -> float | None:
        """When `write` has something to do, if nothing else happens."""
        return self.held[0][0] if self.held and not self.mischief.stall and not self.blocked else None

    def finished(self) -> bool:
        return self.ended and not self.held and not self.mischief.stall


class _Connection:
    """One connection of the proxy and the one to the shard that belongs to it."""

    def __init__(self, near: socket.socket, far: socket.socket, seed: int) -> None:
        self.near = near
        self.far = far
        self.requests = _Stream(near, far, seed)
        self.replies = _Stream(far, near, seed + 1)

    def streams(self) -> tuple[_Stream, _Stream]:
        return self.requests, self.replies

    def close(self, how: Literal["rst", "fin"]) -> None:
        for end in (self.near, self.far):
            if how == "rst":
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


class Fault:
    """The relay; a context manager. `address` is what the proxy is given instead of the shard's."""

    def __init__(self, target_host: str, target_port: int, seed: int = 0) -> None:
        self.port = Port.take()
        self.seed = seed
        self.accepted = 0  # connections ever
        self._target = (target_host, target_port)
        self._requests = Mischief()
        self._replies = Mischief()
        self._connections: list[_Connection] = []
        self._lock = threading.Lock()  # the thread holds it except while it waits for sockets
        self._ending = False
        self._wake_near, self._wake_far = socket.socketpair()
        self._listener: socket.socket | None = None
        self.accept()
        self._thread = threading.Thread(target=self._run, name=f"fault-{self.port.number}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def address(self) -> str:
        return str(self.port)

    @property
    def connections(self) -> int:
        """How many are open now."""
        with self._lock:
            return len(self._connections)

    @property
    def requests(self) -> Mischief:
        return self._requests

    @requests.setter
    def requests(self, mischief: Mischief) -> None:
        with self._lock:
            self._requests = mischief
            for connection in self._connections:
                connection.requests.take(mischief)
        self._wake()

    @property
    def replies(self) -> Mischief:
        return self._replies

    @replies.setter
    def replies(self, mischief: Mischief) -> None:
        with self._lock:
            self._replies = mischief
            for connection in self._connections:
                connection.replies.take(mischief)
        self._wake()

    def cut(self, how: Literal["rst", "fin"] = "rst") -> int:
        """Closes every connection now; returns how many. New ones are accepted as before."""
        with self._lock:
            closed = len(self._connections)
            for connection in self._connections:
                connection.close(how)
            self._connections.clear()
        self._wake()
        return closed

    def refuse(self) -> None:
        """New connections are refused (nobody listens); open ones stay."""
        with self._lock:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
        self._wake()

    def accept(self) -> None:
        """New connections are accepted (again)."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port.number), backlog=512)
                self._listener.setblocking(False)
        self._wake()

    def end(self) -> None:
        self._ending = True
        self._wake()
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "the relay's thread hangs"
        self.refuse()
        self.cut()
        self._wake_near.close()
        self._wake_far.close()
        self.port.release()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_far.send(b"w")

    def _run(self) -> None:
        while not self._ending:
            with self._lock, selectors.DefaultSelector() as selector:
                timeout = self._register(selector)
                # The lock is given up while waiting: then tests change mischief, and wake us.
                self._lock.release()
                try:
                    ready = {key.fd for key, _ in selector.select(timeout)}
                finally:
                    self._lock.acquire()
                self._turn(ready)

    def _register(self, selector: selectors.BaseSelector) -> float | None:
        """Everything worth waiting for, and for how long at most."""
        now = time.monotonic()
        timeout: float | None = None
        events: dict[socket.socket, int] = {self._wake_near: selectors.EVENT_READ}
        if self._listener is not None:
            events[self._listener] = selectors.EVENT_READ
        for connection in self._connections:
            for stream in connection.streams():
                if stream.wants_input():
                    events[stream.source] = events.get(stream.source, 0) | selectors.EVENT_READ
                if stream.blocked:
                    events[stream.sink] = events.get(stream.sink, 0) | selectors.EVENT_WRITE
                due = stream.due()
                if due is not None:
                    # A dribbled piece goes out a millisecond after the last, so that it arrives alone.
                    pause = 0.001 if stream.mischief.dribble else 0.0
                    timeout = min(max(due - now, pause), timeout if timeout is not None else 3600.0)
        for end, mask in events.items():
            selector.register(end, mask)
        return timeout

    def _turn(self, ready: set[int]) -> None:
        if self._wake_near.fileno() in ready:
            self._wake_near.recv(4096)
        if self._listener is not None and self._listener.fileno() in ready:
            self._open()
        now = time.monotonic()
        for connection in list(self._connections):
            try:
                how = self._serve(connection, ready, now)
            except OSError:
                how = "rst"
            if how is not None:
                connection.close(how)
                self._connections.remove(connection)

    def _serve(self, connection: _Connection, ready: set[int], now: float) -> Literal["rst", "fin"] | None:
        """One turn of one connection; how it is to be closed, if it is."""
        for stream in connection.streams():
            if stream.source.fileno() in ready and stream.wants_input():
                stream.read(now)
            if stream.write(now):
                return stream.mischief.cut_with
        # One finished side ends both: a Redis connection is of no use half open.
        return "fin" if any(stream.finished() for stream in connection.streams()) else None

    def _open(self) -> None:
        assert self._listener is not None
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        self.accepted += 1
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            near.close()
            return
        connection = _Connection(near, far, self.seed + 2 * self.accepted)
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.requests.take(self._requests)
        connection.replies.take(self._replies)
        self._connections.append(connection)
