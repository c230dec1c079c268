"""The topology: which keyspaces there are, where each listens, and which shard owns which slot.

Everything here is a frozen value. The dataclasses satisfy the specs of `shoal._core` by attribute, so a topology
built here is what the data plane runs, without translation. It carries an epoch; the larger epoch wins.

What must stay true (`Topology` refuses anything else, and names every problem at once):
  - in a keyspace with slots each of them belongs to exactly one shard, and every shard owns some;
  - what a distribution, a role or a protocol does not know is not asked of it (weights of slots, users of memcached);
  - no two shards of a keyspace have the same name or the same endpoint;
  - no two keyspaces listen on the same address, and no shard is one of our own listeners (a loop).

Rejected: keeping slots as a list of 16384 shard numbers. Ranges are what people write and read, and the core
builds its flat table from them once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shoal.distribution import BRACES, KINDS, RINGED, WEIGHTED, Distribution, SlotRange
from shoal.endpoint import Endpoint
from shoal.errors import Problem, TopologyError
from shoal.places import Path, format_path
from shoal.tls import ClientTls, ServerTls, tls_problems

SLOT_COUNT = 16384
CODIS_SLOT_COUNT = 1024
SLOT_COUNTS = {"slots": SLOT_COUNT, "codis": CODIS_SLOT_COUNT}
# A ring has some 160 points for each unit of weight and shard, a list of modula one place: more would be a slip.
WEIGHT_MAX = 1_000
BACKLOG_MAX = 65_535
MAX_CLIENTS_MAX = 1_000_000
# The longest time-out, and the longest that a shard stays out at first: a day.
DAY_MS = 86_400_000
EJECT_AFTER_MAX = 1_000

TIMEOUT_MS_DEFAULT = 10_000
MAX_CLIENTS_DEFAULT = 10_000
BACKLOG_DEFAULT = 1_024
PROBE_INTERVAL_MS_DEFAULT = 1_000
# Redis' own names, units (microseconds) and defaults.
SLOWLOG_LOG_SLOWER_THAN_DEFAULT = 10_000
SLOWLOG_LOG_SLOWER_THAN_MAX = 3_600_000_000
SLOWLOG_MAX_LEN_DEFAULT = 128
SLOWLOG_MAX_LEN_MAX = 10_000
DEFAULT_USER = "default"

# Names become metric labels and parts of log lines: plain characters only.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class Shard:
    """One owner of a disjoint part of the keys, and how to reach it."""

    name: str
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    weight: int = 1
    ring_name: str = ""

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, self.port)


@dataclass(frozen=True)
class Ejection:
    """The rules by which a cache does without a shard that fails; see `_core.EjectionSpec`."""

    after: int = 2
    retry_after_ms: int = 30_000
    on_replies: bool = False
    shards_max: int = 1
    readmit_ms: int = 10_000


@dataclass(frozen=True)
class User:
    """Someone who may connect; "default" is the user of a plain `AUTH <password>`."""

    name: str
    password: str = field(repr=False)
    acl: str | None = None  # rules in the servers' language; None: may do everything

    @property
    def is_open(self) -> bool:
        """Whether any password is right; that is said among the rules. `default` is then who does not log in at all."""
        said = [word for word in (self.acl or "").lower().split() if word in ("nopass", "resetpass", "reset")]
        return said[-1:] == ["nopass"]


@dataclass(frozen=True)
class Keyspace:
    """One listener with its shards."""

    name: str
    listen_host: str
    listen_port: int
    shards: tuple[Shard, ...]
    distribution: Distribution
    affinity: tuple[str, ...] = ()
    users: tuple[User, ...] = ()
    unknown_commands_first_key: bool = False
    transactions_per_shard: bool = False
    cross_shard: bool = False
    multi_key_strict: bool = False
    cross_shard_functions: bool = False
    timeout_ms: int = TIMEOUT_MS_DEFAULT
    max_clients: int = MAX_CLIENTS_DEFAULT
    hash_tag: str = BRACES
    listen_mode: int | None = None
    backlog: int = BACKLOG_DEFAULT
    reuse_port: bool = False
    protocol: str = "redis"
    ejection: Ejection | None = None
    connections: int = 1
    preconnect: bool = True
    tcp_keepalive: bool = True
    probe_interval_ms: int = PROBE_INTERVAL_MS_DEFAULT
    database: int = 0
    home_shard: int = 0
    slowlog_log_slower_than: int = SLOWLOG_LOG_SLOWER_THAN_DEFAULT
    slowlog_max_len: int = SLOWLOG_MAX_LEN_DEFAULT
    debug_commands: bool = False
    tls: ClientTls | None = None
    server_tls: ServerTls | None = None
    # Where the last of the affinity rules come from; for people.
    affinity_presets: tuple[str, ...] = ()

    @property
    def slots(self) -> tuple[SlotRange, ...]:
        """Who owns which slots; empty for a distribution without slots."""
        return self.distribution.slots

    @property
    def wants_login(self) -> bool:
        """Whether a client that has not logged in may do nothing."""
        return bool(self.users) and not any(user.name == DEFAULT_USER and user.is_open for user in self.users)

    @property
    def role(self) -> str:
        return "store" if self.ejection is None else "cache"

    @property
    def listen(self) -> Endpoint:
        return Endpoint(self.listen_host, self.listen_port)

    @property
    def listens(self) -> tuple[Endpoint, ...]:
        """Every address that it listens on: its own, and one for TLS beside it."""
        beside = self.tls.listen if self.tls is not None else None
        return (self.listen,) if beside is None else (self.listen, beside)

    @property
    def open_listens(self) -> tuple[Endpoint, ...]:
        """Those of them where a client is asked for no certificate."""
        if self.tls is None or self.tls.client_auth != "required":
            return self.listens
        return (self.listen,) if self.tls.listen is not None else ()

    def slots_of(self, shard: int) -> tuple[SlotRange, ...]:
        """The ranges of one shard, in order."""
        return tuple(part for part in sorted(self.slots) if part.shard == shard)

    def shard_of(self, slot: int) -> Shard:
        """The owner of a slot. Raises ValueError for a number that is no slot."""
        for part in self.slots:
            if part.first <= slot <= part.last:
                return self.shards[part.shard]
        raise ValueError(f"no such slot: {slot}")


@dataclass(frozen=True)
class Topology:
    """All keyspaces, checked together. Raises TopologyError when they contradict themselves or each other."""

    keyspaces: tuple[Keyspace, ...]
    epoch: int = 1

    def __post_init__(self) -> None:
        problems = [Problem(text, format_path(path)) for path, text in topology_problems(self.keyspaces)]
        if self.epoch < 1:
            problems.append(Problem(f"the epoch starts at 1, not {self.epoch}"))
        if problems:
            raise TopologyError(problems)

    def keyspace(self, name: str) -> Keyspace:
        """The keyspace of this name; KeyError when there is none."""
        for keyspace in self.keyspaces:
            if keyspace.name == name:
                return keyspace
        raise KeyError(name)


def deal_slots(shards: int, slots: int = SLOT_COUNT) -> tuple[SlotRange, ...]:
    """Deals all slots evenly: contiguous ranges in shard order, whose sizes differ by at most one.

    The cuts are rounded, not floored, so that they fall where `redis-cli --cluster create` puts them.
    """
    if not 1 <= shards <= slots:
        raise ValueError(f"slots can be dealt to 1 to {slots} shards, not {shards}")
    cuts = [(2 * index * slots + shards) // (2 * shards) for index in range(shards + 1)]
    return tuple(SlotRange(cuts[index], cuts[index + 1] - 1, index) for index in range(shards))


def parse_slots(text: str, slots: int = SLOT_COUNT) -> tuple[int, int]:
    """Reads "0-4095" or "5000". Raises ValueError that says what is wrong."""
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", text)
    if match is None:
        raise ValueError(f'not a slot or a range of slots such as "0-4095": "{text}"')
    first = int(match[1])
    last = int(match[2]) if match[2] is not None else first
    if max(first, last) >= slots:
        raise ValueError(f'slots go from 0 to {slots - 1}: "{text}"')
    if last < first:
        raise ValueError(f'the range runs backwards: "{text}"')
    return first, last


def topology_problems(keyspaces: Sequence[Keyspace]) -> list[tuple[Path, str]]:
    """Everything that is wrong with these keyspaces, and where; empty when they can run together."""
    problems: list[tuple[Path, str]] = []
    if not keyspaces:
        problems.append((("keyspace",), "there is no keyspace"))
    for keyspace in keyspaces:
        problems += [(("keyspace", keyspace.name), text) for text in _keyspace_problems(keyspace)]
    problems += _listener_problems(keyspaces)
    return problems


def _keyspace_problems(keyspace: Keyspace) -> Iterable[str]:
    if not _NAME.fullmatch(keyspace.name):
        yield f'not a keyspace name: "{keyspace.name}" ({NAME_RULE})'
    if not keyspace.shards:
        yield "there is no shard"
        return
    names: dict[str, int] = {}
    endpoints: dict[Endpoint, str] = {}
    for index, shard in enumerate(keyspace.shards):
        if not _NAME.fullmatch(shard.name):
            yield f'not a shard name: "{shard.name}" ({NAME_RULE})'
        if shard.name in names:
            yield f'two shards are called "{shard.name}"'
        names.setdefault(shard.name, index)
        address = shard.endpoint.canonical
        if address in endpoints:
            yield f"shards {endpoints[address]} and {shard.name} have the same address {shard.endpoint}"
        endpoints.setdefault(address, shard.name)
        if shard.username is not None and shard.password is None:
            yield f"shard {shard.name} has a username but no password"
    yield from _distribution_problems(keyspace)
    yield from _user_problems(keyspace)
    if keyspace.timeout_ms < 0:
        yield f"timeout_ms cannot be negative: {keyspace.timeout_ms}"
    if keyspace.max_clients < 1:
        yield f"max_clients must be at least 1, not {keyspace.max_clients}"
    if not 0 <= keyspace.home_shard < len(keyspace.shards):
        yield f"home_shard is number {keyspace.home_shard}, and there are {len(keyspace.shards)} shards"
    yield from _role_problems(keyspace)
    yield from _cross_shard_problems(keyspace)
    shards = [shard.endpoint for shard in keyspace.shards]
    for setting, text in tls_problems(keyspace.listen, shards, keyspace.tls, keyspace.server_tls):
        yield f"{setting}: {text}"
    if keyspace.protocol == "memcached":
        yield from _memcached_problems(keyspace)


def _user_problems(keyspace: Keyspace) -> Iterable[str]:
    seen: set[str] = set()
    for user in keyspace.users:
        if user.name in seen:
            yield f'two users are called "{user.name}"'
        seen.add(user.name)
        if not user.password and not user.is_open:
            yield f'user "{user.name}" has an empty password'


def is_name(text: str) -> bool:
    """Whether a keyspace or a shard can be called so."""
    return _NAME.fullmatch(text) is not None


def _distribution_problems(keyspace: Keyspace) -> Iterable[str]:
    distribution = keyspace.distribution
    names = [shard.name for shard in keyspace.shards]
    if distribution.kind not in KINDS:
        yield f'no such distribution: "{distribution.kind}"'
    elif distribution.has_slots:
        yield from slot_problems(keyspace.slots, names, SLOT_COUNTS[distribution.kind])
    weighted = [shard.name for shard in keyspace.shards if shard.weight != 1]
    if weighted and distribution.kind not in WEIGHTED:
        known = ", ".join(WEIGHTED)
        yield f"shard {weighted[0]} has a weight, which {distribution.kind} does not know (these do: {known})"
    for shard in keyspace.shards:
        if not 1 <= shard.weight <= WEIGHT_MAX:
            yield f"shard {shard.name} has the weight {shard.weight}: 1 to {WEIGHT_MAX} are possible"
    rings = [shard.ring_name for shard in keyspace.shards]
    if distribution.kind in RINGED:
        for shard in keyspace.shards:
            if not shard.ring_name:
                yield f"shard {shard.name} has no ring_name"
        double = {name for name in rings if name and rings.count(name) > 1}
        yield from (f'two shards have the ring_name "{name}"' for name in sorted(double))


def _role_problems(keyspace: Keyspace) -> Iterable[str]:
    rules = keyspace.ejection
    if rules is None:
        if keyspace.distribution.kind == "random":
            yield 'a store cannot be distributed at random: no key would be found again; say role = "cache"'
        return
    if rules.after < 1:
        yield f"eject_after must be at least 1, not {rules.after}"
    if not 0 <= rules.shards_max < len(keyspace.shards):
        yield f"ejected_max is {rules.shards_max}: of {len(keyspace.shards)} shards one at least has to stay"


def _cross_shard_problems(keyspace: Keyspace) -> Iterable[str]:
    if keyspace.cross_shard and keyspace.role != "store":
        yield 'a cache lets keys move when a shard fails, and nothing can hold them: cross_shard must be "off"'
    elif keyspace.cross_shard and keyspace.protocol == "memcached":
        yield 'memcached has no operations across shards: cross_shard must be "off"'
    elif not keyspace.cross_shard:
        if keyspace.multi_key_strict:
            yield 'multi_key = "strict" is a part of cross_shard = "strict": set both, or neither'
        if keyspace.cross_shard_functions:
            yield 'cross_shard_functions is a part of cross_shard = "strict": set both, or neither'


def _memcached_problems(keyspace: Keyspace) -> Iterable[str]:
    if keyspace.users:
        yield "memcached has no AUTH in its text protocol: a keyspace for it has no password and no users"
    if any(shard.password is not None for shard in keyspace.shards):
        yield "shoal does not log in to memcached servers: no server_password"
    if keyspace.database:
        yield "memcached has no databases"
    if keyspace.debug_commands:
        yield "memcached has no debug_commands"
    if keyspace.home_shard:
        yield "memcached has no scripts, which a home_shard is for"
    if keyspace.unknown_commands_first_key:
        yield 'memcached\'s unknown commands cannot be routed: unknown_commands must be "refuse"'
    if keyspace.transactions_per_shard:
        yield 'memcached has no transactions: transactions must be "one-shard"'


NAME_RULE = "letters, digits, '_', '-' and '.', at most 63, starting with a letter or a digit"


def slot_problems(slots: Sequence[SlotRange], names: Sequence[str], count: int = SLOT_COUNT) -> Iterable[str]:
    """Gaps, overlaps and shards without slots. Works on ranges, so that a hole of 9000 slots is one line."""
    next_free, owner = 0, ""
    for part in sorted(slots):
        if not (0 <= part.first <= part.last < count and 0 <= part.shard < len(names)):
            yield f"not a range of slots of a shard: {part.first}-{part.last} of shard number {part.shard}"
            continue
        name = names[part.shard]
        if part.first > next_free:
            yield f"{_slots(next_free, part.first - 1)} to no shard"
        elif part.first < next_free:
            both = f"{owner} and {name}" if owner != name else f"{name} twice"
            yield f"{_slots(part.first, min(part.last, next_free - 1))} to {both}"
        if part.last >= next_free:
            next_free, owner = part.last + 1, name
    if next_free < count:
        yield f"{_slots(next_free, count - 1)} to no shard"
    owners = {part.shard for part in slots}
    for index, name in enumerate(names):
        if index not in owners:
            yield f"shard {name} owns no slot"


def _slots(first: int, last: int) -> str:
    return f"slot {first} belongs" if first == last else f"slots {first}-{last} belong"


def _listener_problems(keyspaces: Sequence[Keyspace]) -> Iterable[tuple[Path, str]]:
    for index, keyspace in enumerate(keyspaces):
        path = ("keyspace", keyspace.name)
        taken = [(place, earlier) for earlier in keyspaces[:index] for place in earlier.listens]
        for key, listen in zip(("listen", "tls_listen"), keyspace.listens, strict=False):
            for place, earlier in taken:
                if listen.port and _collide(listen, place):
                    whose = "it does already" if earlier is keyspace else f"keyspace {earlier.name} does"
                    yield (*path, key), f"listens on {listen}, as {whose}"
            taken.append((listen, keyspace))
        for earlier in keyspaces[:index]:
            if keyspace.name == earlier.name:
                yield path, f'two keyspaces are called "{keyspace.name}"'
        for other in keyspaces:
            for shard in keyspace.shards:
                if any(place.port and place.reaches(shard.endpoint) for place in other.listens):
                    yield path, f"shard {shard.name} is {shard.endpoint}, where keyspace {other.name} itself listens"


def _collide(one: Endpoint, other: Endpoint) -> bool:
    """Whether two listeners cannot both be bound."""
    same = one.canonical == other.canonical
    return one.port == other.port and (same or one.is_wildcard or other.is_wildcard)
