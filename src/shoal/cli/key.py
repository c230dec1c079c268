"""`shoal key`: which part of a key is hashed, to which slot, and which shard that is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.options import EXIT_CODES_HELP, SHARD, columns, json_option, keyspace_of_shards, print_json, printable
from shoal.endpoint import Endpoint

if TYPE_CHECKING:
    from shoal.topology import Keyspace


@click.command(epilog=EXIT_CODES_HELP)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file, or a nutcracker.yml.")
@click.option("--keyspace", "keyspace_name", help="Which keyspace of the file; needed when it has several.")
@click.option("--shard", "shards", type=SHARD, multiple=True, help="A shard, instead of a file; give one for each.")
@click.option("--affinity", multiple=True, metavar="RULE", help="An affinity rule, together with --shard.")
@json_option
def key(
    keys: tuple[str, ...],
    config: Path | None,
    keyspace_name: str | None,
    shards: tuple[Endpoint, ...],
    affinity: tuple[str, ...],
    as_json: bool,
) -> int:
    """Say where keys live.

    Prints for each KEY the part of it that is hashed (an affinity rule or a {hash tag} may name one), its slot or hash,
    and the shard that holds it, with its address. No server is asked. With neither --config nor --shard: only the slot.

    \b
    Examples:
      shoal key user:42 --config shoal.toml
      shoal key '{cart:7}:items' '{cart:7}:total' --shard 127.0.0.1:7001 --shard 127.0.0.1:7002
    """
    keyspace = _keyspace(config, keyspace_name, shards, affinity)
    found = [_locate(os.fsencode(text), keyspace, affinity) for text in keys]
    if as_json:
        print_json(found)
        return 0
    head = [column for column in ("key", "hashed", "slot", "hash", "shard", "endpoint") if column in found[0]]
    rows: list[tuple[str, ...]] = [tuple(head)]
    nowhere = "any" if keyspace is not None and keyspace.distribution.kind == "random" else "-"
    rows += [tuple(nowhere if entry[column] is None else str(entry[column]) for column in head) for entry in found]
    click.echo(columns(rows))
    return 0


def _keyspace(
    config: Path | None, name: str | None, shards: tuple[Endpoint, ...], affinity: tuple[str, ...]
) -> Keyspace | None:
    """The keyspace to look into; None when only slots are asked for."""
    if config is None:
        if name is not None:
            raise click.UsageError("--keyspace needs --config")
        return keyspace_of_shards(shards, Endpoint("127.0.0.1", 0), affinity) if shards else None
    if shards or affinity:
        raise click.UsageError("--config cannot be given together with --shard or --affinity")

    return keyspace_of_file(config, name)


def keyspace_of_file(file: Path, name: str | None) -> Keyspace:
    """The keyspace of a file, which may be a nutcracker.yml; `name` is needed when there are several."""
    from shoal.config import load_config

    if file.suffix in (".yml", ".yaml"):
        from shoal.nutcracker import load_pools, topology_of

        keyspaces = topology_of(load_pools(file)).keyspaces
    else:
        keyspaces = load_config(file).topology.keyspaces
    names = ", ".join(keyspace.name for keyspace in keyspaces)
    if name is None and len(keyspaces) > 1:
        raise click.UsageError(f"{file} has several keyspaces, choose one with --keyspace: {names}")
    for keyspace in keyspaces:
        if name in (None, keyspace.name):
            return keyspace
    raise click.UsageError(f'{file} has no keyspace "{name}", but {names}')


def _locate(raw: bytes, keyspace: Keyspace | None, affinity: tuple[str, ...]) -> dict[str, str | int | None]:
    from shoal.core import locate
    from shoal.ring import Ring

    if keyspace is None:
        hashed, slot = locate(raw, affinity)
        return {"key": printable(raw), "hashed": printable(hashed), "slot": slot}
    hashed, word, number, index = Ring(keyspace).locate(raw)
    entry: dict[str, str | int | None] = {"key": printable(raw), "hashed": printable(hashed)}
    if number is not None:
        entry[word] = number
    # At random there is no place to name: each request draws its own.
    shard = keyspace.shards[index] if index is not None and keyspace.distribution.kind != "random" else None
    return entry | {
        "keyspace": keyspace.name,
        "shard": shard.name if shard is not None else None,
        "endpoint": str(shard.endpoint) if shard is not None else None,
    }
