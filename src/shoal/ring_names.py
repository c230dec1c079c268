"""What a ring hashes for a shard: the names that other clients and proxies give their servers.

A key is found only when the points lie where its writer put them, and the points are hashes of these texts. Each rule
is that of the writer, to the letter:

    ketama, modula   Twemproxy: the server's name; without one host:port, port 11211 only the host; a socket "/path:"
    redis-rb-4       redis-rb up to 4: the connection's address, redis://host:port/db
    ... client-0.20  redis-rb 5 with redis-client up to 0.20: the same
    ... client-0.21  redis-rb 5 with redis-client from 0.21 on: without the /0 of database 0
    predis ...       host:port, or the socket's path
    others           the shard's own name, so that it may change its address; without one, its address
"""

from __future__ import annotations

from shoal.endpoint import Endpoint

MEMCACHED_PORT = 11211


def ring_name(kind: str, endpoint: Endpoint, explicit: str | None, name: str, database: int = 0) -> str:
    """The text for a shard. `explicit` is what the configuration gives, `name` the shard's name."""
    if explicit is not None:
        return explicit
    match kind:
        case "ketama" | "modula" | "random":
            return _twemproxy(endpoint)
        case "redis-rb-4" | "redis-rb-5-client-0.20":
            path = f"{endpoint.host}/{database}" if endpoint.is_socket else ""
            # redis-rb 4 wrote a socket as unix:/path, which facts of ours do not settle: give a name there.
            return path or f"redis://{endpoint}/{database}"
        case "redis-rb-5-client-0.21":
            if endpoint.is_socket:
                return f"unix://{endpoint.host}" + (f"?db={database}" if database else "")
            return f"redis://{endpoint}" + (f"/{database}" if database else "")
        case "predis" | "predis-ketama":
            return str(endpoint)
        case _:
            return name


def _twemproxy(endpoint: Endpoint) -> str:
    if endpoint.is_socket:
        return f"{endpoint.host}:"
    return endpoint.host if endpoint.port == MEMCACHED_PORT else f"{endpoint.host}:{endpoint.port}"


def twemproxy_order(name: str) -> tuple[int, bytes]:
    """How Twemproxy sorts pools and servers: by length, then by bytes."""
    raw = name.encode()
    return len(raw), raw
