"""`shoal ring`: how keys are spread over shards, and what another configuration would move."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.key import keyspace_of_file
from shoal.cli.options import EXIT_CODES_HELP, columns, json_option, print_json

if TYPE_CHECKING:
    from shoal.ring_report import Moves, Spread
    from shoal.topology import Keyspace, Shard

BAR_WIDTH = 30
KEYS_MAX = 5_000_000
PAIRS_SHOWN_MAX = 20


@click.command(epilog=EXIT_CODES_HELP)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--keyspace", "keyspace_name", help="Which keyspace of CONFIG; needed when it has several.")
@click.option(
    "--keys", type=click.Path(path_type=Path), help="A file with a sample of keys, one a line; - is standard input."
)
@click.option(
    "--scan",
    is_flag=True,
    help="Take the sample from the live servers, with SCAN; of each as large a part as it has of all keys.",
)
@click.option(
    "--sample", type=click.IntRange(1, KEYS_MAX), default=100_000, show_default=True, help="So many keys at most."
)
@click.option("--ids", default="user:", show_default=True, help="Without a sample: ids 0, 1, 2 ... behind this text.")
@click.option("--to", "other", type=click.Path(path_type=Path), help="Another configuration: what would move to it?")
@click.option("--to-keyspace", help="Which keyspace of the other. [default: as --keyspace]")
@json_option
def ring(
    config: Path,
    keyspace_name: str | None,
    keys: Path | None,
    scan: bool,
    sample: int,
    ids: str,
    other: Path | None,
    to_keyspace: str | None,
    as_json: bool,
) -> int:
    """Show how keys are spread.

    For each shard of CONFIG (a shoal.toml, or a nutcracker.yml) its share of the hash space and of a sample of keys;
    how many consecutive ids fall on one shard; and a warning where that is uneven. With --to: which share of the keys
    would move, and from where to where. Servers are asked for nothing but DBSIZE and SCAN, and
    only with --scan.

    \b
    Examples:
      shoal ring shoal.toml
      shoal ring shoal.toml --scan --sample 1000000
      shoal ring nutcracker.yml --to shoal.toml --keys keys.txt
    """
    from shoal.ring import Ring
    from shoal.ring_report import moves, spread

    if keys is not None and scan:
        raise click.UsageError("--keys and --scan cannot be given together")
    keyspace = keyspace_of_file(config, keyspace_name)
    target = keyspace_of_file(other, to_keyspace or keyspace_name) if other is not None else None
    found = _sample(keyspace, keys, scan, sample)
    here = spread(Ring(keyspace), found, ids)
    moved = None
    if target is not None:
        over = found if found is not None else [f"{ids}{number}".encode() for number in range(sample)]
        moved = moves(Ring(keyspace), Ring(target), over)
    if as_json:
        print_json(_meaning(keyspace, here, moved))
    else:
        click.echo(_text(keyspace, here, moved))
    return 0


def _sample(keyspace: Keyspace, file: Path | None, is_live: bool, keys_max: int) -> list[bytes] | None:
    from shoal.scan_keys import scan

    if is_live:
        return scan(keyspace, keys_max, _progress)
    if file is None:
        return None
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise click.UsageError(f"--keys: cannot read {file}: {error.strerror}") from None
    lines = [line.rstrip(b"\r") for line in raw.split(b"\n")]
    found = [line for line in lines if line][:keys_max]
    if not found:
        raise click.UsageError(f"--keys: there is no key in {file}")
    return found


def _progress(count: int, shard: Shard) -> None:
    """On a terminal only: one line that is written over."""
    if sys.stderr.isatty():
        click.echo(f"\r{count} keys, reading {shard.name}\033[K", nl=False, err=True)


def _meaning(keyspace: Keyspace, here: Spread, moved: Moves | None) -> dict[str, object]:
    shards = [
        {
            "name": shard.name,
            "endpoint": str(shard.endpoint),
            "share": here.shares[index] if here.shares is not None else None,
            "keys": here.counts[index],
        }
        for index, shard in enumerate(keyspace.shards)
    ]
    meaning: dict[str, object] = {
        "keyspace": keyspace.name,
        "distribution": keyspace.distribution.kind,
        "shards": shards,
        "keys": here.keys,
        "in_no_range": here.nowhere,
        "max_over_mean": round(here.imbalance, 4),
        "run_mean": round(here.run_mean, 4),
        "run_max": here.run_max,
        "warnings": here.warnings(),
    }
    if moved is not None:
        meaning["move"] = {
            "keys": moved.keys,
            "moved": moved.moved,
            "share": round(moved.moved / moved.keys, 6) if moved.keys else 0,
            "pairs": [{"from": one, "to": other, "keys": count} for one, other, count in moved.pairs],
        }
    return meaning


def _text(keyspace: Keyspace, here: Spread, moved: Moves | None) -> str:
    rows: list[tuple[str, ...]] = [("shard", "endpoint", "hash space", "keys", "")]
    top = max(here.counts, default=0)
    for index, shard in enumerate(keyspace.shards):
        share = f"{here.shares[index]:.2%}" if here.shares is not None else "-"
        count = here.counts[index]
        part = f"{count / here.keys:.2%}" if here.keys else "-"
        bar = "#" * round(BAR_WIDTH * count / top) if top else ""
        rows.append((shard.name, str(shard.endpoint), share, part, bar))
    lines = [
        f"keyspace {keyspace.name}: {keyspace.distribution.kind} over {len(keyspace.shards)} shards, {here.keys} keys",
        "",
        columns(rows, indent="  "),
        "",
        f"  fullest shard  {here.imbalance:.2f} times the mean",
        f"  neighbours     {here.run_mean:.2f} consecutive ids on one shard on average, {here.run_max} at most",
    ]
    if here.nowhere:
        lines.append(f"  in no range    {here.nowhere} keys")
    lines += [f"  warning: {warning}" for warning in here.warnings()]
    return "\n".join(lines + (_move_lines(moved) if moved is not None else []))


def _move_lines(moved: Moves) -> list[str]:
    share = moved.moved / moved.keys if moved.keys else 0
    lines = ["", f"  would move     {moved.moved} of {moved.keys} keys, {share:.2%}"]
    rows = [(one, "->", other, str(count), f"{count / moved.keys:.2%}") for one, other, count in moved.pairs]
    if rows:
        lines += ["", columns(rows[:PAIRS_SHOWN_MAX], indent="    ")]
    if len(rows) > PAIRS_SHOWN_MAX:
        lines.append(f"    and {len(rows) - PAIRS_SHOWN_MAX} more pairs (--json has all)")
    return lines
