"""The shape of the configuration file: which tables and keys there are, their types and defaults.

These pydantic models are the only place that knows the file's keys; `docs/reference.md` must name each of them (a
test compares). They check types and unknown keys and nothing that needs two keys at once: that is `config`'s work,
which turns them into a `Topology`. So a model never fails for a reason that hides another problem.

Values are taken strictly: `workers = "2"` is an error, not 2. Passwords are `SecretStr`, so that no repr shows one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from shoal.errors import Problem
from shoal.places import Path, format_path
from shoal.topology import (
    BACKLOG_DEFAULT,
    BACKLOG_MAX,
    DAY_MS,
    EJECT_AFTER_MAX,
    MAX_CLIENTS_DEFAULT,
    MAX_CLIENTS_MAX,
    PROBE_INTERVAL_MS_DEFAULT,
    SLOWLOG_LOG_SLOWER_THAN_DEFAULT,
    SLOWLOG_LOG_SLOWER_THAN_MAX,
    SLOWLOG_MAX_LEN_DEFAULT,
    SLOWLOG_MAX_LEN_MAX,
    TIMEOUT_MS_DEFAULT,
)

LISTEN_DEFAULT = "127.0.0.1:6380"
DRAIN_TIMEOUT_MS_DEFAULT = 5_000

# Keys that a later version will know. They get an answer of their own, because "unknown key" would be a riddle to
# someone who read about them, and ignoring them would be a promise that is not kept.
LATER_KEYS = {
    "replicas": "requests go to primaries",
    "store": "the topology is this file",
}


class _Table(BaseModel):
    """A TOML table: unknown keys are errors, types are not bent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class UserTable(_Table):
    """`[[keyspace.NAME.user]]`: someone who may connect."""

    name: str
    password: SecretStr | None = None
    password_file: str | None = None
    password_env: str | None = None
    acl: str | None = None


class ShardTable(_Table):
    """`[[keyspace.NAME.shard]]`: one shard, where a plain address is not enough."""

    address: str
    name: str | None = None
    slots: list[str] | None = None
    weight: int | None = None
    ring_name: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    password_file: str | None = None
    password_env: str | None = None


class RangePartTable(_Table):
    """One of `ranges`: some ids and their shard."""

    upto: int | str | None = None
    shard: str
    # `from` is a word of Python's own.
    begin: int | str | None = Field(None, alias="from")


class RangeTable(_Table):
    """One of `range`: the ids of one kind of object."""

    prefix: str
    ids: Literal["number", "text"] = "number"
    ranges: list[RangePartTable]


class ClientTlsTable(_Table):
    """`tls` of a keyspace: how its clients are spoken to."""

    cert: str
    key: str
    client_ca: str | None = None
    client_auth: Literal["none", "optional", "required"] = "none"
    min_version: Literal["1.2", "1.3"] = "1.2"


class ServerTlsTable(_Table):
    """`server_tls` of a keyspace: how its servers are spoken to."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    verify: Literal["full", "ca", "none"] = "full"
    min_version: Literal["1.2", "1.3"] = "1.2"


class KeyspaceTable(_Table):
    """`[keyspace.NAME]`: one listener with its shards."""

    listen: str = LISTEN_DEFAULT
    listen_mode: str | None = None
    tls: ClientTlsTable | None = None
    tls_listen: str | None = None
    backlog: int = Field(BACKLOG_DEFAULT, ge=1, le=BACKLOG_MAX)
    reuse_port: bool = False
    protocol: Literal["redis", "memcached"] = "redis"
    role: Literal["store", "cache"] = "store"
    eject_after: int | None = Field(None, ge=1, le=EJECT_AFTER_MAX)
    retry_after_ms: int | None = Field(None, ge=0, le=DAY_MS)
    eject_on_replies: bool | None = None
    ejected_max: int | None = Field(None, ge=0, le=4_096)
    readmit_ms: int | None = Field(None, ge=0, le=3_600_000)
    probe_interval_ms: int = Field(PROBE_INTERVAL_MS_DEFAULT, ge=100, le=3_600_000)
    connections: int = Field(1, ge=1)
    preconnect: bool = True
    tcp_keepalive: bool = True
    database: int = Field(0, ge=0)
    home_shard: str | None = None
    distribution: str = "slots"
    hash: str | None = None
    signed_char: bool | None = None
    hash_tag: str | None = None
    range: list[RangeTable] | None = None
    fallback: str | None = None
    shards: list[str] | None = None
    shard: list[ShardTable] | None = None
    affinity: list[str] = []
    affinity_presets: list[str] = []
    unknown_commands: Literal["refuse", "first-key"] = "refuse"
    transactions: Literal["one-shard", "per-shard"] = "one-shard"
    cross_shard: Literal["strict", "off"] | None = None
    multi_key: Literal["per-shard", "strict"] = "per-shard"
    cross_shard_functions: bool = False
    debug_commands: bool = False
    timeout_ms: int = Field(TIMEOUT_MS_DEFAULT, ge=0, le=DAY_MS)
    max_clients: int = Field(MAX_CLIENTS_DEFAULT, ge=1, le=MAX_CLIENTS_MAX)
    slowlog_log_slower_than: int = Field(SLOWLOG_LOG_SLOWER_THAN_DEFAULT, ge=-1, le=SLOWLOG_LOG_SLOWER_THAN_MAX)
    slowlog_max_len: int = Field(SLOWLOG_MAX_LEN_DEFAULT, ge=0, le=SLOWLOG_MAX_LEN_MAX)
    password: SecretStr | None = None
    password_file: str | None = None
    password_env: str | None = None
    user: list[UserTable] = []
    server_username: str | None = None
    server_password: SecretStr | None = None
    server_password_file: str | None = None
    server_password_env: str | None = None
    server_tls: ServerTlsTable | None = None


class FileTable(_Table):
    """The file itself."""

    workers: int = Field(1, ge=1)
    admin: str | None = None
    stats: str | None = None
    log: Literal["logfmt", "json"] = "logfmt"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_timeout_ms: int = Field(DRAIN_TIMEOUT_MS_DEFAULT, ge=0, le=3_600_000)
    scheduling: Literal["batch", "normal"] = "batch"
    keyspace: dict[str, KeyspaceTable] = {}


# The tables by the path under which they stand; for suggestions, and for the test of the reference.
TABLES: dict[str, type[_Table]] = {
    "": FileTable,
    "keyspace.NAME": KeyspaceTable,
    "keyspace.NAME.shard": ShardTable,
    "keyspace.NAME.user": UserTable,
    "keyspace.NAME.tls": ClientTlsTable,
    "keyspace.NAME.server_tls": ServerTlsTable,
    "keyspace.NAME.range": RangeTable,
    "keyspace.NAME.range.ranges": RangePartTable,
}


def read_model(raw: Mapping[str, object]) -> tuple[FileTable | None, set[Path], list[tuple[Path, str]]]:
    """Reads the parsed file as far as it can be read.

    Answers the model, the paths that were left out of it because they are wrong, and what is wrong with them. A
    wrong key is left out and everything else is kept, so that one round shows the problems of all layers. The model
    is None when what is left cannot stand alone (a shard without an address).
    """
    problems: list[tuple[Path, str]] = []
    left_out: set[Path] = set()
    remaining: object = raw
    while True:
        try:
            return FileTable.model_validate(remaining), left_out, problems
        except ValidationError as error:
            found = [(_toml_path(detail["loc"]), _text(detail["type"], detail)) for detail in error.errors()]
        problems += found
        gone = {_owner(path, remaining) for path, _ in found}
        if not gone or any(_lookup(path, remaining) is _MISSING for path in gone):
            return None, left_out, problems
        left_out |= gone
        remaining = _without(remaining, gone)


def suggest(path: Path) -> str:
    """What to add to "unknown key": the key that was probably meant, or that a later version will know it."""
    key = str(path[-1])
    shape = ".".join(
        "NAME" if depth == 1 else str(part) for depth, part in enumerate(path[:-1]) if isinstance(part, str)
    )
    table = TABLES.get(shape)
    if key in LATER_KEYS:
        return f"not yet supported: for now {LATER_KEYS[key]}"
    known = [field.alias or name for name, field in table.model_fields.items()] if table else []
    close = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    if close:
        return f'unknown key (did you mean "{close[0]}"?)'
    for other_shape, other in TABLES.items():
        if key in other.model_fields and other is not table:
            where = f"[{other_shape}]" if other_shape else "the top of the file"
            return f"unknown key here; it belongs to {where}"
    return f"unknown key (known here: {', '.join(known)})"


def problem_at(path: Path, text: str, file: str, line: int | None) -> Problem:
    return Problem(text, format_path(path), file, line)


_MISSING = object()


def _toml_path(location: tuple[str | int, ...]) -> Path:
    """pydantic's location as a path of the file. They differ only where a key of a dict is reported."""
    path: list[str | int] = []
    for part in location:
        if part == "[key]":
            break
        if part in ("int", "str") and path and path[-1] in ("upto", "from"):
            break  # pydantic names each type that a value might have had
        path.append(part)
    return tuple(path)


def _text(kind: str, detail: Mapping[str, object]) -> str:
    """pydantic's message in our words. The value itself is not repeated: it may be a password in the wrong place."""
    context = detail.get("ctx")
    bounds = context if isinstance(context, dict) else {}
    location = detail["loc"]
    assert isinstance(location, tuple)
    words = {
        "extra_forbidden": "",
        "missing": "missing",
        "bool_type": "must be true or false",
        "string_type": "must be a string",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "list_type": 'must be a list, as in ["a", "b"]',
        "dict_type": "must be a table",
        "model_type": "must be a table",
        "model_attributes_type": "must be a table",
        "greater_than_equal": f"must be at least {bounds.get('ge')}",
        "less_than_equal": f"must be at most {bounds.get('le')}",
        "literal_error": f"must be {str(bounds.get('expected')).replace(chr(39), chr(34))}",
    }
    if kind == "extra_forbidden":
        return suggest(location)
    return words.get(kind) or str(detail["msg"])


def _owner(path: Path, raw: object) -> Path:
    """The innermost table key that holds `path`: lists are left out whole, so that the other indices stay true."""
    for end, part in enumerate(path):
        value = _lookup(path[:end], raw)
        if isinstance(part, int) and isinstance(value, list):
            inside = path[end + 1 :]
            if not inside or not isinstance(value[part], dict) or _lookup(path, raw) is _MISSING:
                return path[:end]
    return path


def _lookup(path: Path, raw: object) -> object:
    for part in path:
        in_table = isinstance(raw, dict) and part in raw
        in_list = isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        if not (in_table or in_list):
            return _MISSING
        raw = raw[part]  # type: ignore[index]  # one of the two
    return raw


def _without(raw: object, gone: set[Path], here: Path = ()) -> object:
    if isinstance(raw, dict):
        return {key: _without(value, gone, (*here, key)) for key, value in raw.items() if (*here, key) not in gone}
    if isinstance(raw, list):
        return [_without(value, gone, (*here, index)) for index, value in enumerate(raw)]
    return raw
