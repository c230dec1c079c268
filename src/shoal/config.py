"""Reads the configuration file and turns it into a `Config`: a topology and a few settings of the process.

    file -> tomllib -> config_model (types, unknown keys) -> this file (meaning) -> Topology (checked as a whole)

All problems of all stages are reported together, each with its place ("shoal.toml:12: keyspace.main.shards[2]: ...").
pydantic ends here: what comes out is frozen dataclasses, and nothing that comes out prints a password.

Warnings are things that work and are probably not meant: they are logged by `serve` and shown by `check`.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from shoal import places
from shoal.config_placement import open_warnings, read_affinity, read_distribution, read_tag, some, trap
from shoal.config_role import is_store_of_redis, read_role
from shoal.config_tls import read_tls
from shoal.core import check_acl, limit
from shoal.endpoint import Endpoint, parse_endpoint
from shoal.errors import ConfigError, Problem, UsageError
from shoal.password import others_can_read, read_password_env, read_password_file
from shoal.ring import Ring
from shoal.ring_names import ring_name
from shoal.text_file import read_text
from shoal.topology import DEFAULT_USER, Keyspace, Shard, Topology, User, topology_problems

if TYPE_CHECKING:
    from pydantic import SecretStr

    from shoal.config_model import FileTable, KeyspaceTable, ShardTable, UserTable
    from shoal.places import Path

# More dots in a key than any setting has. Looked for before the text is parsed, so also in strings and comments.
_DEEP_KEY = re.compile(r"""(?:\.[ \t]*["']?[\w-]+["']?[ \t]*){100}""")


@dataclass(frozen=True)
class Config:
    """Everything that `shoal serve` needs to know."""

    topology: Topology
    workers: int = 1
    admin: Endpoint | None = None
    stats: Endpoint | None = None
    log: str = "logfmt"
    log_level: str = "info"
    drain_timeout_ms: int = 5_000
    scheduling: str = "batch"
    warnings: tuple[str, ...] = ()


def load_config(file: FilePath) -> Config:
    """Reads and checks a file. Raises ConfigError with everything that is wrong with it."""
    text = read_text(file, "a configuration file")
    return parse_config(text, file, private=not others_can_read(file))


def parse_config(text: str, file: FilePath, *, private: bool = True) -> Config:
    """Reads and checks the text of a file; `private` says that nobody else can read it."""
    from shoal.config_model import read_model

    raw, lines = _parse_toml(text, file)
    reader = _Reader(file, lines, private=private)
    model, left_out, found = read_model(raw)
    for path, what in found:
        reader.wrong(path, what)
    config = reader.config(model, left_out) if model is not None else None
    if config is None or reader.problems:
        raise ConfigError(sorted(reader.problems, key=lambda problem: problem.line or 0))
    return config


def _parse_toml(text: str, file: FilePath) -> tuple[dict[str, object], dict[Path, int]]:
    """The values of a TOML text, and where they stand."""
    deep = _DEEP_KEY.search(text)
    if deep is not None:
        # tomllib takes time and memory for the square of a key's parts.
        raise ConfigError(
            [Problem("a key has too many parts", file=str(file), line=text.count("\n", 0, deep.start()) + 1)]
        )
    try:
        return tomllib.loads(text), places.find_places(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(error, text, file)]) from None
    except (RecursionError, MemoryError):
        raise ConfigError([Problem("not a configuration file: nested too deeply", file=str(file))]) from None
    except ValueError:
        # Python turns no more than some thousand digits into a number.
        raise ConfigError([Problem("a number has too many digits", file=str(file))]) from None


def _syntax_problem(error: tomllib.TOMLDecodeError, text: str, file: FilePath) -> Problem:
    what, _, place = str(error).removesuffix(")").partition(" (at ")
    number = re.match(r"line (\d+)", place)
    line = int(number[1]) if number else text.rstrip().count("\n") + 1
    if file.suffix in (".yml", ".yaml"):
        what += (
            "; a nutcracker.yml is run by `shoal serve --nutcracker FILE`, and converted by `shoal import-nutcracker`"
        )
    return Problem(f"not valid TOML: {what}", file=str(file), line=line)


class _Reader:
    """Gathers problems and warnings while the model becomes a Config."""

    def __init__(self, file: FilePath, lines: dict[Path, int], *, private: bool) -> None:
        self.file = file
        self.lines = lines
        self.private = private
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.left_out: set[Path] = set()

    def wrong(self, path: Path, text: str) -> None:
        line = places.line_of(self.lines, path)
        self.problems.append(Problem(text, places.format_path(path), str(self.file), line))

    def config(self, model: FileTable, left_out: set[Path]) -> Config | None:
        self.left_out = left_out
        if not model.keyspace and not any(path[0] == "keyspace" for path in left_out):
            self.wrong(
                ("keyspace",), 'there is no keyspace; begin with [keyspace.main] and shards = ["127.0.0.1:7001"]'
            )
        if model.workers > limit("WORKERS_MAX"):
            self.wrong(("workers",), f"must be at most {limit('WORKERS_MAX')}")
        if len(model.keyspace) > limit("KEYSPACES_MAX"):
            # Not looked into: what they mean together is compared pair by pair.
            self.wrong(("keyspace",), f"at most {limit('KEYSPACES_MAX')} keyspaces")
            return None
        admin = self.endpoint(("admin",), model.admin, port_min=0) if model.admin is not None else None
        stats = self.endpoint(("stats",), model.stats, port_min=0) if model.stats is not None else None
        for key, endpoint in (("admin", admin), ("stats", stats)):
            if endpoint is not None and endpoint.is_socket:
                self.wrong((key,), "must be host:port")
        if admin is not None and admin.port and admin == stats:
            self.wrong(("stats",), f"admin is at {admin} already")
        keyspaces = [self.keyspace(("keyspace", name), table) for name, table in model.keyspace.items()]
        whole = [keyspace for keyspace in keyspaces if keyspace is not None]
        for path, text in topology_problems(whole) if whole else []:
            self.wrong(path, text)
        for keyspace in whole:
            if admin is not None and admin.port and admin in keyspace.listens:
                self.wrong(("admin",), f"keyspace {keyspace.name} listens on {admin}")
            self.warnings += exposure_warnings(keyspace) + placement_warnings(keyspace)
            self.check_with_core(("keyspace", keyspace.name), keyspace)
        if self.problems or len(whole) < len(keyspaces):
            return None
        return Config(
            topology=Topology(tuple(whole)),
            workers=model.workers,
            admin=admin,
            stats=stats,
            log=model.log,
            log_level=model.log_level,
            drain_timeout_ms=model.drain_timeout_ms,
            scheduling=model.scheduling,
            warnings=tuple(self.warnings),
        )

    def check_with_core(self, path: Path, keyspace: Keyspace) -> None:
        """What only the core can judge: ranges together. Not asked when something else is wrong already."""
        if self.problems:
            return
        try:
            Ring(keyspace)
        except UsageError as error:
            text = str(error).removeprefix(f"keyspace '{keyspace.name}': ")
            self.wrong((*path, "range") if keyspace.distribution.kind == "range" else path, text)

    def keyspace(self, path: Path, table: KeyspaceTable) -> Keyspace | None:
        """One keyspace; None when it cannot be built. Whatever is wrong has been noted."""
        affinity = read_affinity(self, path, table)
        listen = self.endpoint((*path, "listen"), table.listen, port_min=0)
        users = self.users(path, table)
        shards = self.shards(path, table)
        mode = self.listen_mode(path, table, listen)
        for key, bound in (("connections", "CONNECTIONS_MAX"), ("database", "DATABASE_MAX")):
            if getattr(table, key) > limit(bound):
                self.wrong((*path, key), f"must be at most {limit(bound)}")
        if listen is None or shards is None:
            return None
        distribution = read_distribution(self, path, table, [shard.name for shard in shards])
        tag = read_tag(self, path, table)
        ejection = read_role(self, path, table, len(shards))
        tls, server_tls = read_tls(self, path, table, listen, shards)
        if distribution is None:
            return None
        return Keyspace(
            name=str(path[-1]),
            listen_host=listen.host,
            listen_port=listen.port,
            shards=shards,
            distribution=distribution,
            affinity=affinity,
            affinity_presets=tuple(table.affinity_presets),
            users=users,
            unknown_commands_first_key=table.unknown_commands == "first-key",
            transactions_per_shard=table.transactions == "per-shard",
            cross_shard=table.cross_shard == "strict" if table.cross_shard is not None else is_store_of_redis(table),
            multi_key_strict=table.multi_key == "strict",
            cross_shard_functions=table.cross_shard_functions,
            timeout_ms=table.timeout_ms,
            max_clients=table.max_clients,
            hash_tag=tag,
            listen_mode=mode,
            backlog=table.backlog,
            reuse_port=table.reuse_port,
            protocol=table.protocol,
            ejection=ejection,
            connections=table.connections,
            preconnect=table.preconnect,
            tcp_keepalive=table.tcp_keepalive,
            probe_interval_ms=table.probe_interval_ms,
            database=table.database,
            home_shard=self.home_shard(path, table, shards),
            slowlog_log_slower_than=table.slowlog_log_slower_than,
            slowlog_max_len=table.slowlog_max_len,
            debug_commands=table.debug_commands,
            tls=tls,
            server_tls=server_tls,
        )

    def home_shard(self, path: Path, table: KeyspaceTable, shards: tuple[Shard, ...]) -> int:
        names = [shard.name for shard in shards]
        if table.home_shard is None:
            return 0
        if table.home_shard not in names:
            self.wrong((*path, "home_shard"), f'there is no shard "{table.home_shard}" (there are {some(names)})')
            return 0
        return names.index(table.home_shard)

    def listen_mode(self, path: Path, table: KeyspaceTable, listen: Endpoint | None) -> int | None:
        text, place = table.listen_mode, (*path, "listen_mode")
        if text is None:
            return None
        if not re.fullmatch(r"0?[0-7]{3}", text):
            self.wrong(place, 'must be permissions in octal, as in "0660"')
            return None
        if listen is not None and not listen.is_socket:
            self.wrong(place, f"permissions are for sockets, and {listen} is none")
        return int(text, 8)

    def endpoint(self, path: Path, text: str, *, port_min: int = 1) -> Endpoint | None:
        try:
            return parse_endpoint(text, port_min=port_min)
        except ValueError as error:
            self.wrong(path, str(error))
            return None

    def shards(self, path: Path, table: KeyspaceTable) -> tuple[Shard, ...] | None:
        if (*path, "shards") in self.left_out or (*path, "shard") in self.left_out:
            return None
        if (table.shards is None) == (table.shard is None):
            text = 'shards are missing; add shards = ["127.0.0.1:7001", ...]'
            if table.shards is not None:
                text = "write either shards = [...] or [[shard]] tables, not both"
            self.wrong((*path, "shards"), text)
            return None
        username, password = self.server_login(path, table)
        shards: list[Shard | None] = []
        for index, address in enumerate(table.shards or ()):
            endpoint = self.endpoint((*path, "shards", index), address)
            shards.append(_shard(None, index, endpoint, (username, password), table))
        for index, entry in enumerate(table.shard or ()):
            shards.append(self.shard((*path, "shard", index), entry, index, (username, password), table))
        if not shards:
            self.wrong((*path, "shards"), "there is no shard")
        elif len(shards) > limit("SHARDS_MAX"):
            self.wrong((*path, "shards"), f"at most {limit('SHARDS_MAX')} shards")
        whole = tuple(shard for shard in shards if shard is not None)
        return whole if whole and len(whole) == len(shards) else None

    def shard(
        self,
        path: Path,
        entry: ShardTable,
        index: int,
        login: tuple[str | None, str | None],
        table: KeyspaceTable,
    ) -> Shard | None:
        endpoint = self.endpoint((*path, "address"), entry.address)
        password = self.password(path, "password", entry)
        if password is None and entry.username is None:
            username, password = login
        else:
            username = entry.username
        if entry.username is not None and password is None and not self.has_left_out(path, "password"):
            self.wrong((*path, "username"), "there is a username but no password")
            return None
        return _shard(entry.name, index, endpoint, (username, password), table, entry.ring_name, entry.weight)

    def users(self, path: Path, table: KeyspaceTable) -> tuple[User, ...]:
        users: list[User] = []
        password = self.password(path, "password", table)
        if password is not None:
            users.append(User(DEFAULT_USER, password))
        for index, entry in enumerate(table.user):
            place = (*path, "user", index)
            secret = self.password(place, "password", entry)
            if entry.acl is not None:
                self.check_rules((*place, "acl"), entry)
            if any(user.name == entry.name for user in users):
                self.wrong((*place, "name"), f'there is already a user "{entry.name}"')
            elif User(entry.name, "", entry.acl).is_open:
                if secret is not None:
                    self.wrong((*place, "acl"), f'"nopass": user "{entry.name}" has a password; leave one of them out')
                users.append(User(entry.name, "", entry.acl))
            elif secret is not None:
                users.append(User(entry.name, secret, entry.acl))
            elif not self.problems_under(place):
                self.wrong(place, f'user "{entry.name}" has no password')
        return tuple(users)

    def check_rules(self, path: Path, entry: UserTable) -> None:
        rule, complaint, scripts_escape = check_acl(entry.acl or "")
        if complaint:
            self.wrong(path, f'"{rule}": {complaint}' if rule else complaint)
        elif scripts_escape:
            self.warnings.append(
                f'{places.format_path(path)}: user "{entry.name}" may run scripts, and what they do is not checked: '
                "add -@scripting if its rules are to hold"
            )

    def server_login(self, path: Path, table: KeyspaceTable) -> tuple[str | None, str | None]:
        password = self.password(path, "server_password", table)
        if table.server_username is not None and password is None and not self.has_left_out(path, "server_password"):
            self.wrong((*path, "server_username"), "there is a server_username but no server_password")
            return None, None
        return table.server_username, password

    def password(self, path: Path, key: str, table: KeyspaceTable | ShardTable | UserTable) -> str | None:
        """The password `key` of a table, in whichever of its three spellings; None when there is none."""
        written: SecretStr | None = getattr(table, key)
        in_file: str | None = getattr(table, f"{key}_file")
        in_environment: str | None = getattr(table, f"{key}_env")
        given = [value for value in (written, in_file, in_environment) if value is not None]
        if len(given) > 1:
            self.wrong((*path, key), f"give only one of {key}, {key}_file and {key}_env")
            return None
        place = (*path, f"{key}_env" if in_file is None else f"{key}_file")
        try:
            if in_file is not None:
                source = self.file.parent / _home(in_file)
                if others_can_read(source):
                    self.warnings.append(f"{places.format_path(place)}: other users can read {source}")
                return read_password_file(source)
            if in_environment is not None:
                return read_password_env(in_environment)
        except ValueError as error:
            self.wrong(place, str(error))
            return None
        if written is None:
            return None
        if not written.get_secret_value():
            self.wrong((*path, key), "is empty")
            return None
        if not self.private:
            self.warnings.append(
                f"{places.format_path((*path, key))}: other users can read this file; chmod 600 it or use {key}_file"
            )
        return written.get_secret_value()

    def has_left_out(self, path: Path, key: str) -> bool:
        """Whether something about this key was already reported, so that a second complaint would be noise."""
        return any(left[: len(path)] == path and str(left[-1]).startswith(key) for left in self.left_out) or (
            self.problems_under((*path, key))
        )

    def problems_under(self, path: Path) -> bool:
        prefix = places.format_path(path)
        return any(problem.path.startswith(prefix) for problem in self.problems)


def _home(text: str) -> FilePath:
    try:
        return FilePath(text).expanduser()
    except RuntimeError:
        raise ValueError(f"nobody's home: {text}") from None


def placement_warnings(keyspace: Keyspace) -> list[str]:
    """What works, and spreads keys as nobody would want."""
    warnings = open_warnings(keyspace)
    complaint = trap(keyspace)
    if complaint is not None:
        distribution = keyspace.distribution.fallback or keyspace.distribution
        warnings.append(f"keyspace.{keyspace.name}: {distribution.kind} with {distribution.hash} {complaint}")
    return warnings


def exposure_warnings(keyspace: Keyspace) -> list[str]:
    """What a keyspace lays open, and perhaps not on purpose."""
    if keyspace.wants_login:
        return []
    return [
        f"keyspace.{keyspace.name}: everyone who can reach {place} may use it: there is no password"
        for place in keyspace.open_listens
        if not place.is_loopback
    ]


def _shard(
    name: str | None,
    index: int,
    endpoint: Endpoint | None,
    login: tuple[str | None, str | None],
    table: KeyspaceTable,
    explicit: str | None = None,
    weight: int | None = None,
) -> Shard | None:
    if endpoint is None:
        return None
    kind = table.fallback if table.distribution == "range" and table.fallback else table.distribution
    # A number in a list is no name: it would pass to another shard when one is taken out of the list.
    hashed = ring_name(kind, endpoint, explicit, name if name is not None else str(endpoint), table.database)
    shown = name if name is not None else f"s{index}"
    return Shard(shown, endpoint.host, endpoint.port, *login, weight if weight is not None else 1, hashed)
