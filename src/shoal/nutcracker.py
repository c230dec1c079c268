"""Reads a configuration file of Twemproxy (nutcracker.yml) as Twemproxy reads it, and says what it means here.

    YAML nodes -> Pool (every key, its default and its checks) -> Keyspace

Nodes and not values, because Twemproxy takes the text as it stands: `true` is a truth value and `yes` is not, and a key
that is given twice is an error. All problems are reported together, with their lines.

What must stay true: a pool that is taken maps every key as Twemproxy maps it, databases included: Twemproxy 0.5.0
selects `redis_db` on servers that it reaches over TCP, and on sockets never. What Twemproxy does to its cost (no probe
before a server is let back in) is done better; that, and what is refused here though Twemproxy takes it, stands in
`docs/guides/twemproxy.md`.
Rejected: libyaml's events, as Twemproxy uses them. The nodes have the same marks and need no state machine.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from shoal.config_role import ejected_max_default
from shoal.core import limit
from shoal.distribution import HASHES, Distribution
from shoal.endpoint import Endpoint, parse_endpoint
from shoal.errors import ConfigError, Problem
from shoal.ring_names import ring_name
from shoal.text_file import read_text
from shoal.topology import (
    BACKLOG_MAX,
    DAY_MS,
    DEFAULT_USER,
    EJECT_AFTER_MAX,
    WEIGHT_MAX,
    Ejection,
    Keyspace,
    Shard,
    Topology,
    User,
    is_name,
)

DISTRIBUTIONS = ("ketama", "modula", "random")
# Why redis_db does nothing in a pool, by its `redis`.
WHY_DATABASE_0 = {
    True: "Twemproxy uses database 0 on servers behind sockets",
    False: "memcached has no databases",
}
# Every key of a pool.
KEYS = (
    "listen client_connections hash hash_tag distribution timeout backlog preconnect redis tcpkeepalive reuseport "
    "redis_auth redis_db server_connections auto_eject_hosts server_retry_timeout server_failure_limit servers"
).split()


@dataclass(frozen=True)
class PoolServer:
    """One of `servers`: host:port:weight [name], or /path:weight [name]."""

    endpoint: Endpoint
    weight: int
    name: str | None = None


@dataclass(frozen=True)
class Pool:
    """One pool, with Twemproxy's defaults."""

    name: str
    listen: Endpoint
    servers: tuple[PoolServer, ...]
    listen_mode: int | None = None
    client_connections: int | None = None
    hash: str = "fnv1a_64"
    hash_tag: str | None = None
    distribution: str = "ketama"
    timeout: int | None = None
    backlog: int = 512
    preconnect: bool = False
    redis: bool = False
    tcpkeepalive: bool = False
    reuseport: bool = False
    redis_auth: str | None = field(default=None, repr=False)
    redis_db: int = 0
    server_connections: int = 1
    auto_eject_hosts: bool = False
    server_retry_timeout: int = 30_000
    server_failure_limit: int = 2


def load_pools(file: Path) -> tuple[Pool, ...]:
    """Reads a file. Raises ConfigError with everything that is wrong with it."""
    return parse_pools(read_text(file, "a nutcracker.yml"), str(file))


def parse_pools(text: str, file: str) -> tuple[Pool, ...]:
    """Reads the text of a file; see `load_pools`."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "cannot be read"
        if "'\\t'" in what:
            what += "; YAML is indented with spaces"
        elif file.endswith(".toml"):
            what += "; a shoal.toml is run by `shoal serve FILE`"
        raise ConfigError([Problem(f"not valid YAML: {what}", "", file, mark.line + 1 if mark else None)]) from None
    reader = _Reader(file)
    pools = reader.pools(root)
    if reader.problems:
        raise ConfigError(sorted(reader.problems, key=lambda problem: problem.line or 0))
    return pools


class _Reader:
    """Gathers problems while nodes become pools."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def wrong(self, node: yaml.Node | None, path: str, text: str) -> None:
        line = node.start_mark.line + 1 if node is not None else None
        self.problems.append(Problem(text, path, self.file, line))

    def pools(self, root: yaml.Node | None) -> tuple[Pool, ...]:
        if not isinstance(root, yaml.MappingNode) or not root.value:
            self.wrong(root, "", "must be a map from the names of pools to their settings")
            return ()
        if len(root.value) > limit("KEYSPACES_MAX"):
            self.wrong(root, "", f"at most {limit('KEYSPACES_MAX')} pools")
            return ()
        found: list[Pool] = []
        for name, node in self.pairs(root, "", "pool"):
            pool = self.pool(name, node)
            if pool is None:
                continue
            for other in found:
                if other.listen == pool.listen:
                    self.wrong(
                        _value(node, "listen"), f"{name}.listen", f"pool {other.name} listens on {pool.listen} too"
                    )
            found.append(pool)
        return tuple(found)

    def pairs(self, node: yaml.MappingNode, path: str, what: str) -> list[tuple[str, yaml.Node]]:
        """The keys of a map with their values; one that is not plain, or there already, is a problem."""
        pairs: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                self.wrong(key, path, f"the name of a {what} must be plain text")
            elif key.value in pairs:
                self.wrong(key, path, f'{what} "{key.value}" is given twice')
            else:
                pairs[key.value] = value
        return list(pairs.items())

    def pool(self, name: str, node: yaml.Node) -> Pool | None:
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, name, "must be a map of settings")
            return None
        before = len(self.problems)
        values: dict[str, Any] = {}
        for key, value in self.pairs(node, name, "setting"):
            read = _READERS.get(key)
            path = f"{name}.{key}"
            if read is None:
                self.wrong(value, path, f"unknown setting (known: {', '.join(KEYS)})")
                continue
            if key == "servers":
                values[key] = self.servers(path, value)
                continue
            if not isinstance(value, yaml.ScalarNode):
                self.wrong(value, path, "must be a plain value")
                continue
            try:
                values[key] = read(value.value)
            except ValueError as error:
                self.wrong(value, path, str(error))
        if "redis_auth" in values and not values.get("redis", False):
            self.wrong(_value(node, "redis_auth"), f"{name}.redis_auth", "is for redis: true only")
        for key in ("listen", "servers"):
            if key not in values and not any(problem.path == f"{name}.{key}" for problem in self.problems):
                self.wrong(node, f"{name}.{key}", "is missing")
        if len(self.problems) > before:
            return None
        values["listen"], values["listen_mode"] = values["listen"]
        pool = Pool(name=name, **values)
        self.limits(pool, node)
        return pool if len(self.problems) == before else None

    def limits(self, pool: Pool, node: yaml.Node) -> None:
        """What Twemproxy takes and shoal does not."""
        problem = _database_problem(pool)
        if problem is not None:
            self.wrong(_value(node, "redis_db"), f"{pool.name}.redis_db", problem)
        if pool.distribution != "random":
            for entry, server in zip(_value(node, "servers").value, pool.servers, strict=True):
                if server.weight > WEIGHT_MAX:
                    self.wrong(entry, f"{pool.name}.servers", f"weight {server.weight}: shoal takes 1 to {WEIGHT_MAX}")

    def servers(self, path: str, node: yaml.Node) -> tuple[PoolServer, ...]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.wrong(node, path, 'must be a list, as in "- 127.0.0.1:6379:1"')
            return ()
        if len(node.value) > limit("SHARDS_MAX"):
            self.wrong(node, path, f"at most {limit('SHARDS_MAX')} servers")
            return ()
        servers: list[PoolServer] = []
        names: set[str] = set()
        places: dict[Endpoint, PoolServer] = {}
        for entry in node.value:
            try:
                if not isinstance(entry, yaml.ScalarNode):
                    raise ValueError("must be host:port:weight, or /path:weight, and a name if you like")
                server = _server(entry.value)
            except ValueError as error:
                self.wrong(entry, path, str(error))
                continue
            same = places.setdefault(server.endpoint.canonical, server)
            if twemproxy_name(server) in names:
                self.wrong(entry, path, f'server "{twemproxy_name(server)}" is given twice')
            elif same is not server:
                text = (
                    f'server "{twemproxy_name(server)}" is at {server.endpoint}, as server "{twemproxy_name(same)}" is'
                )
                self.wrong(entry, path, f"{text}: shoal serves each address of a pool once")
            names.add(twemproxy_name(server))
            servers.append(server)
        return tuple(servers)


def _value(node: yaml.Node, key: str) -> yaml.Node:
    """The value of a key that a map has; the map, should it have none."""
    return next((value for name, value in node.value if name.value == key), node)


def twemproxy_name(server: PoolServer) -> str:
    """What Twemproxy calls a server: in the ring, and in its statistics."""
    return ring_name("ketama", server.endpoint, server.name, "")


def _listen(text: str) -> tuple[Endpoint, int | None]:
    if not text.startswith("/"):
        # Twemproxy takes what stands behind the last colon for the port.
        return parse_endpoint(text), None
    path, blank, mode = text.rpartition(" ")
    if not blank:
        return parse_endpoint(text), None
    if not re.fullmatch(r"[0-7]{1,4}", mode):
        raise ValueError(f'not permissions in octal: "{mode}"')
    return parse_endpoint(path.rstrip()), int(mode, 8)


def _server(text: str) -> PoolServer:
    address, _, name = text.partition(" ")
    name = name.strip()
    if " " in name:
        raise ValueError(f'the name of a server has no blanks: "{name}"')
    place, colon, weight = address.rpartition(":")
    # What stands behind the last colon is the weight, so that host:port alone lacks one.
    if not colon or not place or not (place.startswith("/") or ":" in place):
        raise ValueError(f'not host:port:weight or /path:weight: "{text}"')
    if not re.fullmatch(r"[0-9]{1,9}", weight) or int(weight) < 1:
        raise ValueError(f'not a weight of 1 or more: "{weight}"')
    return PoolServer(parse_endpoint(place), int(weight), name or None)


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f'must be a number, 0 or more: "{text}"')
    return int(text)


def _positive(text: str) -> int:
    number = _number(text)
    if number == 0:
        raise ValueError("must be at least 1")
    return number


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f'must be true or false: "{text}"')
    return text == "true"


def _choice(words: tuple[str, ...] | list[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f'must be one of {", ".join(words)}: "{text}"')
        return text

    return read


def _tag(text: str) -> str:
    if len(text.encode()) != 2:
        raise ValueError(f'must be exactly two characters: "{text}"')
    return text


def _secret(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


_READERS: dict[str, Callable[[str], Any]] = {
    "listen": _listen,
    "client_connections": _number,
    "hash": _choice(HASHES),
    "hash_tag": _tag,
    "distribution": _choice(DISTRIBUTIONS),
    "timeout": _number,
    "backlog": _number,
    "preconnect": _truth,
    "redis": _truth,
    "tcpkeepalive": _truth,
    "reuseport": _truth,
    "redis_auth": _secret,
    "redis_db": _number,
    "server_connections": _positive,
    "auto_eject_hosts": _truth,
    "server_retry_timeout": _number,
    "server_failure_limit": _number,
    "servers": str,
}


def keyspace_of(pool: Pool) -> Keyspace:
    """A pool as a keyspace. Whether it can run is for `Topology` to say."""
    shards = []
    for index, server in enumerate(pool.servers):
        name = server.name if server.name is not None and is_name(server.name) else f"s{index}"
        endpoint = server.endpoint
        hashed = twemproxy_name(server)
        # Twemproxy reads weights there too, and draws without them.
        weight = 1 if pool.distribution == "random" else server.weight
        shards.append(Shard(name, endpoint.host, endpoint.port, None, pool.redis_auth, weight=weight, ring_name=hashed))
    return Keyspace(
        name=keyspace_name(pool.name),
        listen_host=pool.listen.host,
        listen_port=pool.listen.port,
        shards=tuple(shards),
        distribution=Distribution(pool.distribution, pool.hash),
        users=(User(DEFAULT_USER, pool.redis_auth),) if pool.redis_auth is not None else (),
        timeout_ms=min(pool.timeout or 0, DAY_MS),
        hash_tag=pool.hash_tag or "none",
        listen_mode=pool.listen_mode,
        backlog=min(max(1, pool.backlog), BACKLOG_MAX),
        reuse_port=pool.reuseport,
        protocol="redis" if pool.redis else "memcached",
        ejection=_ejection(pool),
        connections=min(pool.server_connections, limit("CONNECTIONS_MAX")),
        preconnect=pool.preconnect,
        tcp_keepalive=pool.tcpkeepalive,
        database=effective_database(pool),
    )


def keyspace_name(pool: str) -> str:
    """A pool's name where it can be a keyspace's, else what is left of it, and a number that keeps such names apart."""
    if is_name(pool):
        return pool
    left = re.sub(r"[^A-Za-z0-9_.-]", "_", f"pool_{pool}")[:54]
    return f"{left}-{zlib.crc32(pool.encode()):08x}"


def effective_database(pool: Pool) -> int:
    """Where Twemproxy's data is: it sends SELECT to servers of Redis that it reaches over TCP, and to no others."""
    return 0 if not pool.redis or any(server.endpoint.is_socket for server in pool.servers) else pool.redis_db


def _database_problem(pool: Pool) -> str | None:
    if not pool.redis or pool.redis_db == 0:
        return None
    if pool.redis_db > limit("DATABASE_MAX"):
        return f"is {pool.redis_db}: shoal serves databases 0 to {limit('DATABASE_MAX')}"
    sockets = [str(server.endpoint) for server in pool.servers if server.endpoint.is_socket]
    if not sockets or len(sockets) == len(pool.servers):
        return None
    return (
        f"is {pool.redis_db}, but Twemproxy uses database 0 on servers behind sockets ({sockets[0]}): the pool's keys "
        "are in two databases, which shoal does not serve together; move them to one"
    )


def database_warnings(pools: tuple[Pool, ...]) -> list[str]:
    """A redis_db that has no effect, for each pool that has one."""
    return [
        f"{pool.name}.redis_db: is {pool.redis_db}, but {WHY_DATABASE_0[pool.redis]}; database 0 is used here too"
        for pool in pools
        if pool.redis_db != effective_database(pool)
    ]


def _ejection(pool: Pool) -> Ejection | None:
    if not pool.auto_eject_hosts:
        # Keys that go anywhere belong to a cache, whether it ejects or not.
        return Ejection(shards_max=0) if pool.distribution == "random" else None
    return Ejection(
        after=min(max(1, pool.server_failure_limit), EJECT_AFTER_MAX),
        retry_after_ms=min(pool.server_retry_timeout, DAY_MS),
        shards_max=ejected_max_default(len(pool.servers)),
    )


def topology_of(pools: tuple[Pool, ...]) -> Topology:
    """All pools together. Raises TopologyError when shoal cannot serve them."""
    return Topology(tuple(keyspace_of(pool) for pool in pools))


__all__ = [
    "KEYS",
    "Pool",
    "PoolServer",
    "database_warnings",
    "keyspace_of",
    "load_pools",
    "parse_pools",
    "topology_of",
]
