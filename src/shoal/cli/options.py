"""What several verbs share: the type of an address, the help about exit codes, the output of results."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from shoal.distribution import by_slots
from shoal.endpoint import Endpoint, parse_endpoint
from shoal.errors import EXIT_CODES, UsageError
from shoal.topology import Keyspace, Shard, deal_slots

EXIT_CODES_HELP = "\b\nExit codes:\n" + "\n".join(f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items())


if TYPE_CHECKING:
    _AddressType = click.ParamType[Endpoint | str]
else:
    _AddressType = click.ParamType  # generic for type checkers only, before click 8.5


class Address(_AddressType):
    """`host:port`, as an Endpoint; with `port_min=0` port 0 means any free port."""

    name = "address"

    def __init__(self, *, port_min: int = 1, may_be_off: bool = False) -> None:
        self._port_min = port_min
        self._may_be_off = may_be_off

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Endpoint | str:
        """An Endpoint, or "off" where that is allowed."""
        if isinstance(value, Endpoint):
            return value
        if self._may_be_off and value == "off":
            return "off"
        try:
            return parse_endpoint(str(value), port_min=self._port_min)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SHARD = Address()
LISTEN = Address(port_min=0)
ADMIN = Address(port_min=0, may_be_off=True)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")


def keyspace_of_shards(
    shards: tuple[Endpoint, ...], listen: Endpoint, affinity: tuple[str, ...] = (), **more: Any
) -> Keyspace:
    """The keyspace "main" over `--shard` options, slots dealt evenly. Raises UsageError for a bad rule."""
    from shoal.core import check_affinity

    for rule in affinity:
        complaint = check_affinity(rule)
        if complaint is not None:
            raise UsageError(f"--affinity {rule}: {complaint}")
    password = more.pop("server_password", None)
    named = tuple(Shard(f"s{index}", shard.host, shard.port, password=password) for index, shard in enumerate(shards))
    return Keyspace("main", listen.host, listen.port, named, by_slots(deal_slots(len(named))), affinity, **more)


def print_json(content: object) -> None:
    click.echo(json.dumps(content))


def printable(raw: bytes) -> str:
    """Bytes for a terminal: UTF-8 as it is, the rest and control characters as \\xNN."""
    text = raw.decode(errors="backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def columns(rows: Sequence[tuple[str, ...]], indent: str = "") -> str:
    """Rows as aligned columns, without trailing blanks; as plain in a pipe as on a terminal."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(indent + line.rstrip() for line in lines)
