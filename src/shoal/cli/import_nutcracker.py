"""`shoal import-nutcracker`: a shoal.toml from a configuration of Twemproxy's."""

from __future__ import annotations

from pathlib import Path

import click

from shoal.cli.options import EXIT_CODES_HELP, json_option, print_json


@click.command("import-nutcracker", epilog=EXIT_CODES_HELP)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def import_nutcracker(file: Path, as_json: bool) -> int:
    """Convert a nutcracker.yml.

    Prints a shoal.toml in which every key has the shard that Twemproxy gives it. Comments say where shoal does better
    and where a setting of Twemproxy's does nothing. Passwords are written as they stand in FILE: keep the result to
    yourself. Everything that is wrong with FILE is printed at once; then the exit code is 2.

    \b
    Examples:
      shoal import-nutcracker /etc/nutcracker/nutcracker.yml > shoal.toml
      shoal import-nutcracker nutcracker.yml --json | jq .keyspaces[].name
    """
    from shoal.cli.check import complaint, meaning
    from shoal.config import Config
    from shoal.errors import ConfigError
    from shoal.nutcracker import load_pools, topology_of
    from shoal.nutcracker_toml import toml_of

    try:
        pools = load_pools(file)
    except ConfigError as error:
        if not as_json:
            raise
        print_json(complaint(error))
        return error.exit_code
    topology = topology_of(pools)
    if as_json:
        print_json(meaning(Config(topology)))
    else:
        click.echo(toml_of(pools, file.name), nl=False)
    return 0
