"""Writes the pools of a nutcracker.yml as a shoal.toml that maps every key the same.

What Twemproxy leaves unsaid is written out where shoal's own default differs; where a setting of Twemproxy's does
nothing, or shoal does better, a comment says so. Text in, text out; `shoal import-nutcracker` prints it.
"""

from __future__ import annotations

import json

from shoal.config_placement import trap
from shoal.nutcracker import WHY_DATABASE_0, Pool, keyspace_of
from shoal.topology import MAX_CLIENTS_MAX, Ejection, Keyspace

HEAD = """\
# Made from {source} by `shoal import-nutcracker`. `shoal check FILE` explains it, `shoal serve FILE` runs it.
# Every key has the shard that Twemproxy gives it.
"""


def toml_of(pools: tuple[Pool, ...], source: str) -> str:
    """The file."""
    return "\n".join([HEAD.format(source=json.dumps(source)), *(_pool(pool) for pool in pools)])


def _pool(pool: Pool) -> str:
    keyspace = keyspace_of(pool)
    lines = [f"[keyspace.{_key(keyspace.name)}]"]
    if keyspace.name != pool.name:
        lines.append(f"# Twemproxy's pool {json.dumps(pool.name)}; a keyspace cannot have that name.")
    lines.append(f"listen = {_text(str(keyspace.listen))}")
    if keyspace.listen_mode is not None:
        lines.append(f'listen_mode = "{keyspace.listen_mode:04o}"')
    lines += [
        f'protocol = "{keyspace.protocol}"',
        *_placement(pool, keyspace),
        *_role(pool, keyspace),
        'cross_shard = "off"',
        *_other(pool, keyspace),
    ]
    for shard in keyspace.shards:
        lines += ["", f"[[keyspace.{_key(keyspace.name)}.shard]]", f"name = {_text(shard.name)}"]
        lines += [f"address = {_text(str(shard.endpoint))}", f"ring_name = {_text(shard.ring_name)}"]
        if shard.weight != 1:
            lines.append(f"weight = {shard.weight}")
    return "\n".join(lines) + "\n"


def _placement(pool: Pool, keyspace: Keyspace) -> list[str]:
    distribution = keyspace.distribution
    lines = [f'distribution = "{distribution.kind}"']
    if distribution.kind == "random" and any(server.weight != 1 for server in pool.servers):
        lines.append("# The servers' weights do nothing in Twemproxy, and are left out.")
    if distribution.kind != "random":
        complaint = trap(keyspace)
        if complaint is not None:
            lines.append(f"# {distribution.kind} with {distribution.hash} {complaint}.")
            lines.append("# It is kept so that data is found; `shoal ring` shows it.")
        lines.append(f'hash = "{distribution.hash}"')
        lines.append("# signed_char = false    # if the keys were written through a Twemproxy on ARM")
    lines.append(f"hash_tag = {_text('' if keyspace.hash_tag == 'none' else keyspace.hash_tag)}")
    return lines


def _role(pool: Pool, keyspace: Keyspace) -> list[str]:
    rules = keyspace.ejection
    if rules is None:
        return ['role = "store"    # auto_eject_hosts: false']
    if not pool.auto_eject_hosts:
        return ['role = "cache"    # random: keys are not found again', f"ejected_max = {rules.shards_max}"]
    plain = Ejection(shards_max=rules.shards_max)
    return [
        'role = "cache"    # auto_eject_hosts: true',
        "# Twemproxy lets a server back in untried and sends all of its keys at once. Here it has to answer first,",
        f"# and its keys come back over readmit_ms ({plain.readmit_ms}); at most ejected_max shards are out at a time.",
        f"eject_after = {rules.after}",
        f"retry_after_ms = {rules.retry_after_ms}",
        f"ejected_max = {rules.shards_max}",
        "# eject_on_replies = true    # count replies -OOM, -BUSY and -LOADING as failures, as Twemproxy does",
    ]


def _other(pool: Pool, keyspace: Keyspace) -> list[str]:
    lines = [
        f"timeout_ms = {keyspace.timeout_ms}" + ("" if pool.timeout else "    # waits for ever, as Twemproxy does")
    ]
    lines += [f"backlog = {keyspace.backlog}", f"preconnect = {_truth(keyspace.preconnect)}"]
    lines.append(f"tcp_keepalive = {_truth(keyspace.tcp_keepalive)}")
    if keyspace.reuse_port:
        lines.append("reuse_port = true")
    if keyspace.connections > 1:
        lines.append(
            "# A client always uses the same connection, so it reads what it wrote (Twemproxy deals them round)."
        )
        lines.append(f"connections = {keyspace.connections}")
    if keyspace.database:
        lines.append(f"database = {keyspace.database}")
    if pool.redis_db != keyspace.database:
        lines.append(f"# redis_db: {pool.redis_db} does nothing: {WHY_DATABASE_0[pool.redis]}.")
    if pool.client_connections is not None:
        lines.append(f"# client_connections: {pool.client_connections} does nothing in Twemproxy; here it can be had:")
        lines.append(f"# max_clients = {min(max(1, pool.client_connections), MAX_CLIENTS_MAX)}")
    if pool.redis_auth is not None:
        lines.append("# chmod 600 this file, or use password_file and server_password_file instead.")
        lines += [f"password = {_text(pool.redis_auth)}", f"server_password = {_text(pool.redis_auth)}"]
    return lines


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _text(text: str) -> str:
    """A TOML string: JSON's escapes are among TOML's, but DEL must be escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _key(name: str) -> str:
    return _text(name) if "." in name else name
