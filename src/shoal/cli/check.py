"""`shoal check`: whether a configuration file can be used, and what it means."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.affinity_presets import PRESETS
from shoal.cli.options import EXIT_CODES_HELP, columns, json_option, print_json
from shoal.config_placement import HASHED
from shoal.distribution import KINDS, RINGED
from shoal.errors import ConfigError

if TYPE_CHECKING:
    from shoal.config import Config
    from shoal.distribution import Distribution
    from shoal.topology import Keyspace, Shard


@click.command(epilog=EXIT_CODES_HELP)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(file: Path, as_json: bool) -> int:
    """Check a configuration file and say what it means.

    Everything that is wrong is printed at once, each line with its place in FILE; then the exit code is 2. No server
    is asked and nothing is started. Passwords are read, to see whether they can be, and never shown.

    \b
    Examples:
      shoal check shoal.toml
      shoal check shoal.toml --json | jq .keyspaces[].shards
    """
    from shoal.config import load_config

    try:
        config = load_config(file)
    except ConfigError as error:
        if not as_json:
            raise
        print_json(complaint(error))
        return error.exit_code
    if as_json:
        print_json(meaning(config))
    else:
        click.echo(f"{file}: good\n\n{explanation(config)}")
    return 0


def complaint(error: ConfigError) -> dict[str, object]:
    """What is wrong with a file, as plain values."""
    problems = [
        {"file": problem.file, "line": problem.line, "path": problem.path, "text": problem.text}
        for problem in error.problems
    ]
    return {"ok": False, "problems": problems}


def meaning(config: Config) -> dict[str, object]:
    """The configuration as plain values; no password in it."""
    return {
        "ok": True,
        "workers": config.workers,
        "admin": str(config.admin) if config.admin is not None else None,
        "stats": str(config.stats) if config.stats is not None else None,
        "log": config.log,
        "log_level": config.log_level,
        "drain_timeout_ms": config.drain_timeout_ms,
        "scheduling": config.scheduling,
        "warnings": list(config.warnings),
        "keyspaces": [_keyspace_meaning(keyspace) for keyspace in config.topology.keyspaces],
    }


def _keyspace_meaning(keyspace: Keyspace) -> dict[str, object]:
    distribution = keyspace.distribution
    shards: list[dict[str, object]] = []
    for index, shard in enumerate(keyspace.shards):
        entry: dict[str, object] = {"name": shard.name, "endpoint": str(shard.endpoint)}
        if distribution.has_slots:
            parts = keyspace.slots_of(index)
            entry |= {"slots": [str(part) for part in parts], "slot_count": sum(part.count for part in parts)}
        if distribution.kind in RINGED:
            entry |= {"weight": shard.weight, "ring_name": shard.ring_name}
        shards.append(entry | {"username": shard.username, "auth": shard.password is not None})
    meaning: dict[str, object] = {
        "name": keyspace.name,
        "listen": str(keyspace.listen),
        "tls": asdict(keyspace.tls) if keyspace.tls is not None else None,
        "server_tls": asdict(keyspace.server_tls) if keyspace.server_tls is not None else None,
        "protocol": keyspace.protocol,
        "role": keyspace.role,
        "distribution": distribution.kind,
        "hash_tag": keyspace.hash_tag,
    }
    if distribution.kind in HASHED:
        meaning |= {"hash": distribution.hash, "signed_char": distribution.signed_char}
    if distribution.kind == "range":
        meaning |= {
            "range": [asdict(table) for table in distribution.tables],
            "fallback": distribution.fallback.kind if distribution.fallback is not None else None,
        }
    if keyspace.ejection is not None:
        meaning["ejection"] = asdict(keyspace.ejection)
    return meaning | {
        "affinity": list(keyspace.affinity),
        "affinity_presets": list(keyspace.affinity_presets),
        "users": [user.name for user in keyspace.users],
        "unknown_commands": "first-key" if keyspace.unknown_commands_first_key else "refuse",
        "transactions": "per-shard" if keyspace.transactions_per_shard else "one-shard",
        "cross_shard": "strict" if keyspace.cross_shard else "off",
        "multi_key": "strict" if keyspace.multi_key_strict else "per-shard",
        "cross_shard_functions": keyspace.cross_shard_functions,
        "debug_commands": keyspace.debug_commands,
        "timeout_ms": keyspace.timeout_ms,
        "max_clients": keyspace.max_clients,
        "connections": keyspace.connections,
        "preconnect": keyspace.preconnect,
        "tcp_keepalive": keyspace.tcp_keepalive,
        "probe_interval_ms": keyspace.probe_interval_ms,
        "database": keyspace.database,
        "home_shard": keyspace.shards[keyspace.home_shard].name,
        "slowlog_log_slower_than": keyspace.slowlog_log_slower_than,
        "slowlog_max_len": keyspace.slowlog_max_len,
        "backlog": keyspace.backlog,
        "reuse_port": keyspace.reuse_port,
        "shards": shards,
    }


def explanation(config: Config) -> str:
    """The configuration for people."""
    blocks = [_keyspace_text(keyspace) for keyspace in config.topology.keyspaces]
    rows = [
        ("workers", str(config.workers)),
        ("admin", str(config.admin) if config.admin is not None else "off"),
        ("stats", f"{config.stats}, as Twemproxy gives them" if config.stats is not None else "off"),
        ("log", f"{config.log}, from level {config.log_level}"),
        ("stopping", f"waits up to {config.drain_timeout_ms} ms for requests in flight"),
    ]
    rows.append(("scheduling", f"workers run as {config.scheduling} threads"))
    blocks.append("process\n" + columns(rows, indent="  "))
    if config.warnings:
        blocks.append("\n".join(f"warning: {warning}" for warning in config.warnings))
    return "\n\n".join(blocks)


def _login_text(keyspace: Keyspace) -> str:
    users = ", ".join(user.name for user in keyspace.users)
    if keyspace.wants_login:
        return f"must log in ({users})"
    return f"no password needed; may log in ({users})" if users else "no password needed"


def _keyspace_text(keyspace: Keyspace) -> str:
    timeout = f"{keyspace.timeout_ms} ms" if keyspace.timeout_ms else "waits for ever"
    unknown = "go to the shard of their first argument" if keyspace.unknown_commands_first_key else "are refused"
    mode = f", permissions {keyspace.listen_mode:04o}" if keyspace.listen_mode is not None else ""
    rows = [
        ("listen", f"{keyspace.listen}{mode}"),
        *_tls_rows(keyspace),
        (
            "clients",
            f"at most {keyspace.max_clients}; " + _login_text(keyspace),
        ),
        ("protocol", keyspace.protocol),
        ("role", _role_text(keyspace)),
        ("distribution", _distribution_text(keyspace.distribution)),
        ("hash tag", _tag_text(keyspace.hash_tag)),
        ("reply time-out", timeout),
        ("connections", f"{keyspace.connections} to each shard, made " + _when(keyspace.preconnect)),
        ("unknown commands", unknown),
        ("transactions", _transactions_text(keyspace)),
        ("across shards", _across_text(keyspace)),
    ]
    if keyspace.database:
        rows.append(("database", str(keyspace.database)))
    if keyspace.debug_commands:
        rows.append(("debug commands", "OBJECT, SLEEP and ERROR are let through"))
    if keyspace.home_shard:
        rows.append(("home shard", f"{keyspace.shards[keyspace.home_shard].name}, for scripts that name no key"))
    rows += _affinity_rows(keyspace)
    rows += _range_rows(keyspace)
    shards = [_shard_row(keyspace, index, shard) for index, shard in enumerate(keyspace.shards)]
    return f"keyspace {keyspace.name}\n{columns(rows, indent='  ')}\n{columns(shards, indent='  ')}"


def _across_text(keyspace: Keyspace) -> str:
    if not keyspace.cross_shard:
        return "what needs keys of several shards at once is refused"
    splits = "too" if keyspace.multi_key_strict else "are split"
    functions = "too" if keyspace.cross_shard_functions else "are refused"
    return f"one operation; MGET, MSET, DEL and their like {splits}; functions {functions}"


def _transactions_text(keyspace: Keyspace) -> str:
    if keyspace.transactions_per_shard:
        return "split over shards"
    return "one operation over their shards" if keyspace.cross_shard else "on one shard"


def _tls_rows(keyspace: Keyspace) -> list[tuple[str, str]]:
    rows = []
    if keyspace.tls is not None:
        wanted = {"none": "no certificate", "optional": "a good certificate or none", "required": "a good certificate"}
        place = keyspace.tls.listen or "all clients"
        text = f"{place}; from {keyspace.tls.min_version} on; clients show {wanted[keyspace.tls.client_auth]}"
        rows.append(("TLS", text))
    if keyspace.server_tls is not None:
        verified = {"full": "their authority and name", "ca": "their authority", "none": "NOTHING"}
        text = f"from {keyspace.server_tls.min_version} on; verified is {verified[keyspace.server_tls.verify]}"
        shown = f"; shown is {keyspace.server_tls.cert}" if keyspace.server_tls.cert is not None else ""
        rows.append(("TLS to shards", text + shown))
    return rows


def _when(preconnect: bool) -> str:
    return "at the start" if preconnect else "when first needed"


def _role_text(keyspace: Keyspace) -> str:
    rules = keyspace.ejection
    if rules is None:
        return "store: a key always maps to the same shard"
    back = f"{rules.readmit_ms} ms" if rules.readmit_ms else "once"
    return (
        f"cache: a shard is ejected after {rules.after} failures, for {rules.retry_after_ms} ms at least; "
        f"its keys come back over {back}; at most {rules.shards_max} at a time"
    )


def _distribution_text(distribution: Distribution) -> str:
    text = f"{distribution.kind}: {KINDS[distribution.kind]}"
    if distribution.kind in HASHED:
        text += f"; hash {distribution.hash}" + ("" if distribution.signed_char else ", unsigned char")
    if distribution.fallback is not None:
        text += f"; other keys: {_distribution_text(distribution.fallback)}"
    return text


def _tag_text(tag: str) -> str:
    words = {
        "none": "none: keys are hashed whole",
        "codis": "{...}, may be empty",
        "redis-rb": "{...} at the beginning",
    }
    return words.get(tag) or f"{tag[0]}...{tag[1]}"


def _range_rows(keyspace: Keyspace) -> list[tuple[str, str]]:
    rows = []
    for table in keyspace.distribution.tables:
        bounds = [f"{part.first or ''}..{part.last or ''} {keyspace.shards[part.shard].name}" for part in table.parts]
        kind = "numbers" if table.numeric else "text"
        rows.append((f'range "{table.prefix}"', f"{kind}: " + ", ".join(bounds)))
    return rows


def _affinity_rows(keyspace: Keyspace) -> list[tuple[str, str]]:
    origins = {rule: name for name in keyspace.affinity_presets for rule in PRESETS[name].rules}
    texts = [rule + (f"    (preset {origins[rule]})" if rule in origins else "") for rule in keyspace.affinity]
    return [("" if index else "affinity", text) for index, text in enumerate(texts)]


def _shard_row(keyspace: Keyspace, index: int, shard: Shard) -> tuple[str, ...]:
    login = f"logs in as {shard.username or 'default'}" if shard.password is not None else "no login"
    if keyspace.distribution.has_slots:
        parts = keyspace.slots_of(index)
        ranges = " ".join(str(part) for part in parts)
        place = (f"{sum(part.count for part in parts)} slots", ranges)
    elif keyspace.distribution.kind in RINGED:
        place = (f"weight {shard.weight}", f'ring name "{shard.ring_name}"')
    else:
        place = ("", "")
    return (f"shard {shard.name}", str(shard.endpoint), *place, login)
