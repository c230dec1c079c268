"""The admin port: what Prometheus, a load balancer and a curious person ask over HTTP.

    GET /metrics   every counter, as Prometheus text
    GET /healthz   200 while the process lives
    GET /readyz    200 when every shard of every keyspace is up or ejected, else 503 with what is down and why

A starlette application over a `View`, the three questions it asks of the running proxy, served by uvicorn in a thread
of its own. The socket is bound before anything starts, so that a taken port is one clear line and leaves nothing
behind. The answers are computed from the core's counters when asked for; nothing here is on the path of a request.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shoal.endpoint import Endpoint
from shoal.listening import bind
from shoal.log import LoggingBridge
from shoal.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from uvicorn import Server

    from shoal.log import Log

# Requests that are being answered when we stop get so long; they are all short.
STOP_SECONDS = 2
BACKLOG = 64

# The paths and what they answer; docs/reference.md lists them (a test compares).
PATHS: dict[str, str] = {
    "/metrics": "every counter, as Prometheus text (format 0.0.4)",
    "/healthz": "200 while the process lives",
    "/readyz": "200 when every shard is up, or ejected from a cache that has others; else 503; JSON says what is down",
}


class ShardState(Protocol):
    """What is read of a `_core.ShardStatus`."""

    @property
    def keyspace(self) -> str: ...
    @property
    def shard(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...


class View(Protocol):
    """What the admin port wants to know of the running proxy."""

    def metrics(self) -> str:
        """The text of /metrics."""

    def shards(self) -> Sequence[ShardState]:
        """The state of every shard."""

    def stopping(self) -> bool:
        """Whether the end has begun: then we are not ready, whatever the shards say."""


@dataclass(frozen=True)
class Readiness:
    """The answer of /readyz."""

    ready: bool
    body: dict[str, object]


def readiness(shards: Sequence[ShardState], *, stopping: bool) -> Readiness:
    """Ready when every shard is up and we are not stopping; otherwise what is in the way.

    A shard that is only connected when it is needed counts as up until it fails. An ejected shard is in nobody's way
    while others of its cache are up: its keys are theirs.
    """
    served = {shard.keyspace for shard in shards if shard.state in ("up", "idle")}
    waiting = [
        {
            "keyspace": shard.keyspace,
            "shard": shard.shard,
            "endpoint": shard.endpoint,
            "state": shard.state,
            "reason": shard.reason,
        }
        for shard in shards
        if shard.state not in ("up", "idle") and not (shard.state == "ejected" and shard.keyspace in served)
    ]
    ready = not waiting and not stopping
    up = sum(shard.state in ("up", "idle") for shard in shards)
    body: dict[str, object] = {"ready": ready, "shards_up": up, "shards": len(shards)}
    if stopping:
        body["reason"] = "stopping"
    if waiting:
        body["not_up"] = waiting
    return Readiness(ready, body)


def build_app(view: View) -> Starlette:
    """The application. Handlers are plain functions: starlette runs them in a thread, so none blocks the others."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def metrics(request: Request) -> Response:  # noqa: ARG001  (starlette passes it)
        return Response(view.metrics(), headers={"content-type": CONTENT_TYPE})

    def healthz(request: Request) -> Response:  # noqa: ARG001
        return PlainTextResponse("ok\n")

    def readyz(request: Request) -> Response:  # noqa: ARG001
        answer = readiness(view.shards(), stopping=view.stopping())
        return JSONResponse(answer.body, 200 if answer.ready else 503)

    def index(request: Request) -> Response:  # noqa: ARG001
        return PlainTextResponse("".join(f"{path}: {answer}\n" for path, answer in PATHS.items()))

    handlers = {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}
    routes = [Route(path, handlers[path], methods=["GET"]) for path in PATHS]
    return Starlette(routes=[Route("/", index, methods=["GET"]), *routes])


class AdminPort:
    """Bound at once, answering between `start` and `stop`. Raises ListenError when the address cannot be had."""

    def __init__(self, endpoint: Endpoint, log: Log, hint: str = "") -> None:
        self._socket = bind(endpoint, hint)
        self._log = log
        self._stopping = threading.Event()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        host, port = self._socket.getsockname()[:2]
        self.endpoint = Endpoint(host, port)

    def start(self, view: View) -> None:
        """Answers from a thread of its own. The socket listens when this returns, so no early request is refused."""
        self._socket.listen(BACKLOG)
        self._thread = threading.Thread(target=self._answer, args=(view,), name="shoal-admin", daemon=True)
        self._thread.start()

    def _answer(self, view: View) -> None:
        """The thread. It also loads the web server, which takes longer than starting the proxy."""
        try:
            import uvicorn

            for name in ("uvicorn.error", "asyncio"):
                logger = logging.getLogger(name)
                logger.handlers = [LoggingBridge(self._log)]
                logger.propagate = False
            settings = uvicorn.Config(
                build_app(view),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
            self._server = uvicorn.Server(settings)
            if not self._stopping.is_set():
                self._server.run(sockets=[self._socket])
        except BaseException as error:
            self._log.write("error", "admin-failed", reason=repr(error))
            raise

    def stop(self) -> None:
        """Stops answering and closes the socket; idempotent."""
        self._stopping.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_SECONDS + 1)
        self._socket.close()
