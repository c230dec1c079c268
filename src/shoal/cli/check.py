"""`shoal check`: whether a configuration file can be used, and what it means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.options import EXIT_CODES_HELP, columns, json_option, print_json
from shoal.errors import ConfigError

if TYPE_CHECKING:
    from shoal.config import Config
    from shoal.topology import Keyspace


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
        problems = [
            {"file": problem.file, "line": problem.line, "path": problem.path, "text": problem.text}
            for problem in error.problems
        ]
        print_json({"ok": False, "problems": problems})
        return error.exit_code
    if as_json:
        print_json(meaning(config))
    else:
        click.echo(f"{file}: good\n\n{explanation(config)}")
    return 0


def meaning(config: Config) -> dict[str, object]:
    """The configuration as plain values; no password in it."""
    return {
        "ok": True,
        "workers": config.workers,
        "admin": str(config.admin) if config.admin is not None else None,
        "log": config.log,
        "log_level": config.log_level,
        "drain_timeout_ms": config.drain_timeout_ms,
        "scheduling": config.scheduling,
        "warnings": list(config.warnings),
        "keyspaces": [_keyspace_meaning(keyspace) for keyspace in config.topology.keyspaces],
    }


def _keyspace_meaning(keyspace: Keyspace) -> dict[str, object]:
    shards = []
    for index, shard in enumerate(keyspace.shards):
        parts = keyspace.slots_of(index)
        shards.append(
            {
                "name": shard.name,
                "endpoint": str(shard.endpoint),
                "slots": [str(part) for part in parts],
                "slot_count": sum(part.count for part in parts),
                "username": shard.username,
                "auth": shard.password is not None,
            }
        )
    return {
        "name": keyspace.name,
        "listen": str(keyspace.listen),
        "distribution": "slots",
        "affinity": list(keyspace.affinity),
        "users": [user.name for user in keyspace.users],
        "unknown_commands": "first-key" if keyspace.unknown_commands_first_key else "refuse",
        "timeout_ms": keyspace.timeout_ms,
        "max_clients": keyspace.max_clients,
        "shards": shards,
    }


def explanation(config: Config) -> str:
    """The configuration for people."""
    blocks = [_keyspace_text(keyspace) for keyspace in config.topology.keyspaces]
    rows = [
        ("workers", str(config.workers)),
        ("admin", str(config.admin) if config.admin is not None else "off"),
        ("log", f"{config.log}, from level {config.log_level}"),
        ("stopping", f"waits up to {config.drain_timeout_ms} ms for requests in flight"),
    ]
    rows.append(("scheduling", f"workers run as {config.scheduling} threads"))
    blocks.append("process\n" + columns(rows, indent="  "))
    if config.warnings:
        blocks.append("\n".join(f"warning: {warning}" for warning in config.warnings))
    return "\n\n".join(blocks)


def _keyspace_text(keyspace: Keyspace) -> str:
    users = ", ".join(user.name for user in keyspace.users)
    timeout = f"{keyspace.timeout_ms} ms" if keyspace.timeout_ms else "waits for ever"
    unknown = "go to the shard of their first argument" if keyspace.unknown_commands_first_key else "are refused"
    rows = [
        ("listen", str(keyspace.listen)),
        (
            "clients",
            f"at most {keyspace.max_clients}; " + (f"must log in ({users})" if users else "no password needed"),
        ),
        ("shard's reply", timeout),
        ("unknown commands", unknown),
    ]
    rows += [("affinity" if not index else "", rule) for index, rule in enumerate(keyspace.affinity)]
    shards: list[tuple[str, ...]] = []
    for index, shard in enumerate(keyspace.shards):
        parts = keyspace.slots_of(index)
        login = f"logs in as {shard.username or 'default'}" if shard.password is not None else "no login"
        ranges = " ".join(str(part) for part in parts)
        shards.append(
            (f"shard {shard.name}", str(shard.endpoint), f"{sum(part.count for part in parts)} slots", ranges, login)
        )
    return f"keyspace {keyspace.name}\n{columns(rows, indent='  ')}\n{columns(shards, indent='  ')}"
