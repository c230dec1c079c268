"""What a keyspace wants of TLS: on the side of its clients, and on that of its connections to shards.

Frozen values that satisfy `_core.ClientTlsSpec` and `_core.ServerTlsSpec` by attribute. They name files and never hold
what is in them: the core reads the files, when it starts and when it is told to (SIGHUP), so no private key is ever in
the interpreter's memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shoal.endpoint import Endpoint


@dataclass(frozen=True)
class ClientTls:
    """TLS of clients. With `listen_host` there is a listener for it beside the keyspace's own."""

    cert: str
    key: str
    client_ca: str | None = None
    client_auth: str = "none"
    min_version: str = "1.2"
    listen_host: str | None = None
    listen_port: int = 0

    @property
    def listen(self) -> Endpoint | None:
        return Endpoint(self.listen_host, self.listen_port) if self.listen_host is not None else None


@dataclass(frozen=True)
class ServerTls:
    """TLS of connections to shards."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    verify: str = "full"
    min_version: str = "1.2"


def tls_problems(
    listen: Endpoint, shards: Iterable[Endpoint], clients: ClientTls | None, servers: ServerTls | None
) -> Iterable[tuple[str, str]]:
    """(setting, what is wrong): what two settings say together, and what TLS is not for."""
    if clients is not None:
        place = clients.listen or listen
        if place.is_socket:
            yield "tls_listen" if clients.listen else "tls", f"TLS is for host:port, not for the socket {place}"
        if clients.client_auth != "none" and clients.client_ca is None:
            yield "tls.client_auth", "needs client_ca: a file with the authorities that clients' certificates come from"
        if clients.client_auth == "none" and clients.client_ca is not None:
            yield "tls.client_ca", 'is of no use with client_auth = "none"; say "optional" or "required"'
    if servers is not None:
        socket = next((shard for shard in shards if shard.is_socket), None)
        if socket is not None:
            yield "server_tls", f"TLS is for host:port, not for the socket {socket}"
        if (servers.cert is None) != (servers.key is None):
            yield "server_tls", "cert and key belong together"
        if servers.verify == "none":
            for setting in ("ca", "server_name"):
                if getattr(servers, setting) is not None:
                    yield f"server_tls.{setting}", 'is of no use with verify = "none"'
        elif servers.ca is None:
            yield "server_tls.ca", "is missing: a file with the authorities that servers' certificates come from"
        if servers.verify == "ca" and servers.server_name is not None:
            yield "server_tls.server_name", 'is not looked at with verify = "ca"'
