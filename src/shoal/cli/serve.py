"""`shoal serve`: the proxy over servers that exist, from a file or from options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.options import ADMIN, EXIT_CODES_HELP, LISTEN, SHARD, json_option, keyspace_of_shards
from shoal.endpoint import Endpoint, parse_endpoint
from shoal.errors import UsageError

if TYPE_CHECKING:
    from shoal.config import Config


@click.command(epilog=EXIT_CODES_HELP)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--nutcracker",
    type=click.Path(path_type=Path),
    help="A nutcracker.yml of Twemproxy's, instead of FILE; all of its pools are served.",
)
@click.option("--shard", "shards", type=SHARD, multiple=True, help="A shard, instead of FILE; give one for each.")
@click.option("--listen", type=LISTEN, help="Where clients connect. [default: the file's, or 127.0.0.1:6380]")
@click.option("--admin", type=ADMIN, help="Where /metrics, /healthz and /readyz are. [default: the file's, or off]")
@click.option("--stats-port", type=click.IntRange(0, 65535), help="A port that answers with Twemproxy's statistics.")
@click.option("--stats-addr", help="The address of --stats-port. [default: 127.0.0.1; Twemproxy's own is 0.0.0.0]")
@click.option("--workers", type=click.IntRange(1), help="Threads that move bytes. [default: the file's, or 1]")
@click.option(
    "--affinity",
    multiple=True,
    metavar="RULE",
    help="A regular expression that names the part of a key to hash: keys where it finds the same text share a shard.",
)
@click.option(
    "--cross-shard",
    type=click.Choice(["strict", "off"]),
    help="Commands with keys on several shards: one atomic operation where they can be, or refused. [default: strict]",
)
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="A file with the password that clients must give."
)
@click.option(
    "--server-password-file", type=click.Path(path_type=Path), help="A file with the password that shards want."
)
@click.option(
    "--drain-timeout-ms", type=click.IntRange(0, 3_600_000), help="How long a stop waits for requests in flight."
)
@click.option("--log", "log_format", type=click.Choice(["logfmt", "json"]), help="[default: the file's, or logfmt]")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="[default: the file's, or info]",
)
@json_option
def serve(
    file: Path | None,
    nutcracker: Path | None,
    shards: tuple[Endpoint, ...],
    listen: Endpoint | None,
    admin: Endpoint | str | None,
    stats_port: int | None,
    stats_addr: str | None,
    workers: int | None,
    affinity: tuple[str, ...],
    cross_shard: str | None,
    password_file: Path | None,
    server_password_file: Path | None,
    drain_timeout_ms: int | None,
    log_format: str | None,
    log_level: str | None,
    as_json: bool,
) -> int:
    """Run the proxy over servers that exist.

    Either FILE says everything (`shoal check FILE` explains it), or --nutcracker names a configuration of Twemproxy's,
    or --shard options name the servers and slots are dealt to them evenly, in the order given: the same order must be
    given each time. An option overrides what FILE says of it. SIGTERM or Ctrl-C: no new clients, what is in flight is
    finished, exit 0. SIGHUP, where FILE has TLS: certificates and keys are read again, for new connections.

    \b
    Examples:
      shoal serve shoal.toml
      shoal serve --nutcracker /etc/nutcracker/nutcracker.yml --stats-port 22222
      shoal serve --shard 10.0.0.1:6379 --shard 10.0.0.2:6379 --listen 0.0.0.0:6380 --password-file pw
      shoal serve --shard 127.0.0.1:7001 --shard 127.0.0.1:7002 --affinity '^bull:([^:]+):'
    """
    if file is not None and nutcracker is not None:
        raise click.UsageError("FILE and --nutcracker cannot be given together")
    pool_names: dict[str, str] = {}
    if file is not None or nutcracker is not None:
        only_without = {
            "--shard": shards,
            "--affinity": affinity,
            "--cross-shard": cross_shard,
            "--password-file": password_file,
            "--server-password-file": server_password_file,
        }
        source = "FILE" if nutcracker is None else "--nutcracker"
        for option, value in only_without.items():
            if value:
                raise click.UsageError(f"{option} cannot be given together with {source}: write it there")
    if file is not None:
        config = _from_file(file, listen)
    elif nutcracker is not None:
        if listen is not None:
            raise click.UsageError("--listen cannot be given together with --nutcracker: write it there")
        config, pool_names = _from_nutcracker(nutcracker)
    elif shards:
        config = _from_options(shards, listen, affinity, cross_shard, password_file, server_password_file)
    else:
        raise click.UsageError("name a FILE, or a --nutcracker file, or servers with --shard")
    config = _with_stats(config, stats_port, stats_addr)
    config = _overridden(config, admin, workers, drain_timeout_ms, log_format, log_level)
    hint = "--listen" if len(config.topology.keyspaces) == 1 and nutcracker is None else ""
    return _run(config, as_json, hint, pool_names)


def _from_nutcracker(file: Path) -> tuple[Config, dict[str, str]]:
    """The configuration, and what Twemproxy calls each keyspace."""
    from shoal.config import Config, exposure_warnings, placement_warnings
    from shoal.nutcracker import database_warnings, keyspace_name, load_pools, topology_of

    pools = load_pools(file)
    topology = topology_of(pools)
    warnings = database_warnings(pools)
    for keyspace in topology.keyspaces:
        warnings += exposure_warnings(keyspace) + placement_warnings(keyspace)
    return Config(topology, warnings=tuple(warnings)), {keyspace_name(pool.name): pool.name for pool in pools}


def _with_stats(config: Config, port: int | None, address: str | None) -> Config:
    if port is None:
        if address is not None:
            raise click.UsageError("--stats-addr needs --stats-port")
        return config
    host = address or "127.0.0.1"
    try:
        stats = parse_endpoint(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", port_min=0)
    except ValueError as error:
        raise click.UsageError(f"--stats-addr: {error}") from None
    return replace(config, stats=stats)


def _from_file(file: Path, listen: Endpoint | None) -> Config:
    from shoal.config import load_config

    config = load_config(file)
    if listen is None:
        return config
    if len(config.topology.keyspaces) > 1:
        raise click.UsageError(f"--listen: {file} has several keyspaces, each with its own listen")
    (keyspace,) = config.topology.keyspaces
    moved = replace(keyspace, listen_host=listen.host, listen_port=listen.port)
    return replace(config, topology=replace(config.topology, keyspaces=(moved,)))


def _from_options(
    shards: tuple[Endpoint, ...],
    listen: Endpoint | None,
    affinity: tuple[str, ...],
    cross_shard: str | None,
    password_file: Path | None,
    server_password_file: Path | None,
) -> Config:
    from shoal.config import Config, exposure_warnings
    from shoal.config_model import LISTEN_DEFAULT
    from shoal.topology import DEFAULT_USER, Topology, User

    password = _password("--password-file", password_file)
    keyspace = keyspace_of_shards(
        shards,
        listen if listen is not None else parse_endpoint(LISTEN_DEFAULT),
        affinity,
        users=(User(DEFAULT_USER, password),) if password is not None else (),
        cross_shard=cross_shard != "off",
        server_password=_password("--server-password-file", server_password_file),
    )
    return Config(Topology((keyspace,)), warnings=tuple(exposure_warnings(keyspace)))


def _password(option: str, file: Path | None) -> str | None:
    from shoal.password import read_password_file

    try:
        return read_password_file(file) if file is not None else None
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _overridden(
    config: Config,
    admin: Endpoint | str | None,
    workers: int | None,
    drain_timeout_ms: int | None,
    log_format: str | None,
    log_level: str | None,
) -> Config:
    from shoal.core import limit

    if workers is not None and workers > limit("WORKERS_MAX"):
        raise click.UsageError(f"--workers: at most {limit('WORKERS_MAX')}")
    if admin is not None:
        config = replace(config, admin=admin if isinstance(admin, Endpoint) else None)
    return replace(
        config,
        workers=workers if workers is not None else config.workers,
        drain_timeout_ms=drain_timeout_ms if drain_timeout_ms is not None else config.drain_timeout_ms,
        log=log_format or config.log,
        log_level=log_level or config.log_level,
    )


def _run(config: Config, as_json: bool, listen_hint: str, pool_names: dict[str, str]) -> int:
    from shoal.cli.running import running_json, running_text, say
    from shoal.core import core_version
    from shoal.log import Log
    from shoal.serve import Running, Settings, run

    def announce(running: Running) -> None:
        form = running_json if as_json else running_text
        say(form(running, core_version(), {}, None))

    settings = Settings(
        listens=tuple(listen for keyspace in config.topology.keyspaces for listen in keyspace.listens),
        admin=config.admin,
        workers=config.workers,
        drain_timeout_ms=config.drain_timeout_ms,
        scheduling=config.scheduling,
        listen_hint=listen_hint,
        shared_listens=tuple(
            listen for keyspace in config.topology.keyspaces if keyspace.reuse_port for listen in keyspace.listens
        ),
        stats=config.stats,
        pool_names=pool_names,
        warnings=config.warnings,
        reloads=any(keyspace.tls or keyspace.server_tls for keyspace in config.topology.keyspaces),
    )
    return run(settings, lambda _: config.topology, Log(config.log, config.log_level), announce)
