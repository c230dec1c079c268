"""shoal as its users run it: `Proxy` is one `shoal serve` process, with its log and clients of it.

Flow: the command line (or a written configuration file) -> process -> the line of JSON on standard output that says
"ready" -> clients. Log lines come on standard error. `stop` is SIGTERM and returns the exit code; `kill` is SIGKILL.
Must stay true: a proxy that ends while starting fails the test at once, with its own words.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import redis
import redis.asyncio

from harness import process
from harness.ports import Port
from harness.wait import wait_until
from harness.wire import Wire

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
LOG_LINES_SHOWN = 60


def program() -> Path:
    """The installed command, beside the interpreter that runs the tests: so the entry point is tested as well."""
    return Path(sys.executable).parent / "shoal"


class Proxy:
    """A running `shoal serve`; a context manager. The living ones are in `Proxy.living`, for reports of failures."""

    living: "list[Proxy]" = []  # noqa: RUF012  (a registry of instances, shared on purpose)

    def __init__(
        self,
        folder: Path,
        shards: Sequence[str] = (),
        *,
        options: Sequence[str] = (),
        config: str | None = None,
        nutcracker: str | None = None,
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str | Path] = (),
    ) -> None:
        """`shards` are endpoints. With `config` (the text of a file) the command line is `serve FILE` and options only,
        with `nutcracker` (the text of Twemproxy's) `serve --nutcracker FILE`; `{listen}`, `{admin}` and `{shard0}`,
        `{shard1}`, ... in the text stand for ports and endpoints. `wrapper` is a command that becomes the one after it,
        as `nice` does, so that the process is shoal's all the same."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.listen = Port.take()
        self.admin = Port.take()
        self.host = "127.0.0.1"
        self.stdout = folder / "stdout.log"
        self.stderr = folder / "stderr.log"
        self.argv: list[str | Path] = [*wrapper, program(), "serve", "--json"]
        names = {"listen": str(self.listen), "admin": str(self.admin)}
        names |= {f"shard{i}": endpoint for i, endpoint in enumerate(shards)}
        if nutcracker is not None:
            path = folder / "nutcracker.yml"
            path.write_text(_fill(nutcracker, names))
            self.argv += ["--nutcracker", path]
        elif config is None:
            self.argv += ["--listen", str(self.listen), "--admin", str(self.admin)]
            for endpoint in shards:
                self.argv += ["--shard", endpoint]
        else:
            path = folder / "shoal.toml"
            path.write_text(_fill(config, names))
            self.argv.append(path)
        self.argv += options
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []
        self.ready: dict[str, Any] = {}
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def address(self) -> str:
        return str(self.listen)

    @property
    def port(self) -> int:
        return self.listen.number

    @property
    def admin_url(self) -> str:
        return f"http://{self.admin}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts (again) and waits for the ready line."""
        assert not self.running, f"{self.address} runs already"
        offset = self.stdout.stat().st_size if self.stdout.exists() else 0
        self._process = process.start(
            self.argv, stdout=self.stdout, stderr=self.stderr, cwd=self.folder, env={**os.environ, **(self._env or {})}
        )
        Proxy.living.append(self)
        self.ready = wait_until(
            lambda: self._find_ready(offset), START_TIMEOUT_S, f"shoal serve is ready\n{self.tail()}"
        )

    def _find_ready(self, offset: int) -> dict[str, Any] | None:
        with self.stdout.open("rb") as file:
            file.seek(offset)
            text = file.read().decode(errors="replace")
        for line in text.splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                value: dict[str, Any] = json.loads(line)
                if value.get("event") == "ready":
                    return value
        if not self.running:
            self.end()
            raise RuntimeError(f"shoal serve ended while starting:\n{self.tail()}")
        return None

    def log(self) -> list[str]:
        """All lines of both outputs so far, those of standard error last."""
        return [
            line
            for path in (self.stdout, self.stderr)
            if path.exists()
            for line in path.read_text(errors="replace").splitlines()
        ]

    def tail(self) -> str:
        return "\n".join(self.log()[-LOG_LINES_SHOWN:])

    def client(self, **options: Any) -> redis.Redis:
        """A redis-py client with its defaults (and these options: `unix_socket_path` goes before host and port);
        closed with the proxy."""
        client = redis.Redis(host=self.host, port=self.port, **options)
        self._clients.append(client)
        return client

    def async_client(self, **options: Any) -> "redis.asyncio.Redis":
        """The same for asyncio; closed by its user."""
        return redis.asyncio.Redis(host=self.host, port=self.port, **options)

    def socket(self, timeout: float = 10.0) -> Wire:
        """A raw connection; closed by its user."""
        return Wire(self.host, self.port, timeout)

    def stop(self, timeout: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        self._end(signal.SIGKILL, STOP_TIMEOUT_S)

    def end(self) -> None:
        """The end of the test: whatever state it is in, the process and its ports are given up."""
        if self._process is not None:
            self._end(signal.SIGKILL, STOP_TIMEOUT_S)
        self.listen.release()
        self.admin.release()

    def _end(self, number: signal.Signals, timeout: float) -> int:
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self in Proxy.living:
            Proxy.living.remove(self)
        assert self._process is not None
        return process.end(self._process, number, timeout)


def _fill(text: str, values: Mapping[str, str]) -> str:
    # Not str.format: braces are ordinary characters in TOML and in hash tags.
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text
