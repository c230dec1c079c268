"""What `up` and `serve` say when everything runs: a few lines for people, or one line of JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shoal.cli.options import columns
from shoal.endpoint import parse_endpoint

if TYPE_CHECKING:
    from shoal.serve import Running
    from shoal.topology import Keyspace


def running_json(running: Running, version: str, pids: Mapping[str, int | None], data: str | None) -> str:
    """One line: who runs where. `pids` are those of embedded servers, by the name of their shard."""
    addresses, beside = running.listens()
    content: dict[str, object] = {
        "event": "ready",
        "version": version,
        "pid": os.getpid(),
        "admin": str(running.admin) if running.admin is not None else None,
        "stats": str(running.stats) if running.stats is not None else None,
        "keyspaces": [
            {
                "name": keyspace.name,
                "listen": addresses[keyspace.name],
                **({"tls_listen": beside[keyspace.name]} if keyspace.name in beside else {}),
                "shards": [
                    {
                        "name": shard.name,
                        "endpoint": str(shard.endpoint),
                        **({"slots": slots_text(keyspace, index).split(" ")} if keyspace.slots else {}),
                        **({"pid": pids[shard.name]} if shard.name in pids else {}),
                    }
                    for index, shard in enumerate(keyspace.shards)
                ],
            }
            for keyspace in running.topology.keyspaces
        ],
    }
    if pids:
        content["data"] = data
    return json.dumps(content)


def running_text(running: Running, version: str, pids: Mapping[str, int | None], data: str | None) -> str:
    """The lines for people."""
    addresses, beside = running.listens()
    lines = [f"shoal {version} is running"]
    for keyspace in running.topology.keyspaces:
        address = addresses[keyspace.name]
        title = "clients" if len(addresses) == 1 else f"clients of {keyspace.name}"
        lines += ["", f"  {title}: {address}    {_hint(keyspace, address)}".rstrip()]
        if keyspace.name in beside:
            lines.append(f"  {title}, TLS: {beside[keyspace.name]}")
        rows = []
        for index, shard in enumerate(keyspace.shards):
            pid = f"pid {pids[shard.name]}" if shard.name in pids else ""
            slots = f"slots {slots_text(keyspace, index)}" if keyspace.slots else keyspace.distribution.kind
            rows.append((f"shard {shard.name}", str(shard.endpoint), slots, pid))
        lines.append(columns(rows, indent="    "))
    lines.append("")
    if running.admin is not None:
        lines.append(f"  admin: http://{running.admin}    /metrics /healthz /readyz")
    if running.stats is not None:
        lines.append(f"  statistics, as Twemproxy gives them: {running.stats}")
    if pids:
        lines.append(f"  data: {data}, kept when stopped" if data else "  data: in memory only, gone when stopped")
    lines.append("  Ctrl-C stops everything" if pids else "  Ctrl-C or SIGTERM stops it")
    return "\n".join(lines)


def slots_text(keyspace: Keyspace, shard: int) -> str:
    """The slots of one shard, as in the configuration: "0-4095 5000"."""
    return " ".join(str(part) for part in keyspace.slots_of(shard))


def say(text: str) -> None:
    """Prints to standard output; when nobody reads that any more, the proxy runs all the same."""
    try:
        # One write: a log line shall not come between the text and its line end.
        print(text + "\n", end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hint(keyspace: Keyspace, address: str) -> str:
    """What to try it with."""
    if keyspace.protocol == "memcached":
        return "memcached's text protocol"
    endpoint = parse_endpoint(address)
    login = " --askpass" if keyspace.wants_login else ""
    if endpoint.is_socket:
        return f"try: redis-cli -s {endpoint}{login}"
    host = "" if endpoint.is_wildcard or endpoint.host == "127.0.0.1" else f"-h {endpoint.host} "
    tls = " --tls" if keyspace.tls is not None and keyspace.tls.listen is None else ""
    return f"try: redis-cli {host}-p {endpoint.port}{tls}{login}"
