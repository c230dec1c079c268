"""What is asked of every subject, and the bars.

Each workload is one command line of a load generator: redis-benchmark, or memload.c for memcached. The commands of
redis-benchmark are spelled out instead of using `-t get`, because then the key names, the value sizes and the number of
keys per request are ours: every key exists on every shard beforehand (shards.py), so a read always hits, whatever the
subject's idea of which shard owns the key.

`reach` is the bar: CPU time per request as a ratio to nutcracker in the same round. The bars are goals of this
project; a figure that misses one is marked in the table and never hidden.
"""

from dataclasses import dataclass, replace

SMALL_BYTES = 64
LARGE_BYTES = 10 * 1024
MULTI_KEYS = 10

# The scenes (scenes.py): which servers, and which configuration of the subjects.
SLOTS = "slots"
KETAMA = "ketama"
MEMCACHED = "memcached"

# redis-benchmark replaces this by twelve digits, anew for each request.
RANDOM = "__rand_int__"


@dataclass(frozen=True)
class KeyRange:
    """Keys `prefix` + twelve digits, from 0 to `count` - 1, each with a value of `value_bytes`."""

    prefix: str
    count: int
    value_bytes: int

    def key(self, number: int) -> str:
        return f"{self.prefix}{number:012d}"

    @property
    def value(self) -> str:
        return "x" * self.value_bytes


# Enough keys that they spread evenly over shards and that no subject profits from a cache; few enough that filling four
# shards with them takes a second or two and 200 MB.
SMALL_KEYS = KeyRange("key:", 100_000, SMALL_BYTES)
LARGE_KEYS = KeyRange("big:", 2_000, LARGE_BYTES)


@dataclass(frozen=True)
class Workload:
    """One column of questions: the same for every subject.

    `guess_per_s` is used once, for the size of the run that finds out how many requests a cell needs on this machine.
    `weight` lengthens cells in which connecting would otherwise be a visible part of the work.
    """

    name: str
    title: str
    command: tuple[str, ...]
    keys: KeyRange
    reads: bool
    clients: int = 50
    pipeline: int = 1
    keys_per_request: int = 1
    reach: float | None = None
    guess_per_s: int = 20_000
    weight: float = 1.0
    scene: str = SLOTS


def _get(keys: KeyRange) -> tuple[str, ...]:
    return ("GET", keys.prefix + RANDOM)


def _set(keys: KeyRange) -> tuple[str, ...]:
    return ("SET", keys.prefix + RANDOM, keys.value)


def _mget() -> tuple[str, ...]:
    return ("MGET", *([SMALL_KEYS.prefix + RANDOM] * MULTI_KEYS))


def _mset() -> tuple[str, ...]:
    return ("MSET", *([SMALL_KEYS.prefix + RANDOM, SMALL_KEYS.value] * MULTI_KEYS))


def _pair(
    suffix: str,
    title: str,
    *,
    keys: KeyRange = SMALL_KEYS,
    clients: int = 50,
    pipeline: int = 1,
    reach: float,
    guess_per_s: int = 20_000,
    weight: float = 1.0,
) -> tuple[Workload, Workload]:
    """The GET and the SET of one setting: they share everything but the command."""
    read, write = (
        Workload(
            f"{verb.lower()}-{suffix}",
            f"{verb} {title}",
            command,
            keys,
            verb == "GET",
            clients,
            pipeline,
            reach=reach,
            guess_per_s=guess_per_s,
            weight=weight,
        )
        for verb, command in (("GET", _get(keys)), ("SET", _set(keys)))
    )
    return read, write


_SLOTS_WORKLOADS: tuple[Workload, ...] = (
    *_pair("p1", "64 B, 50 clients", reach=0.78),
    *_pair("p16", "64 B, 50 clients, pipeline 16", pipeline=16, reach=0.35, guess_per_s=100_000),
    *_pair("c500", "64 B, 500 clients", clients=500, reach=0.78, weight=1.5),
    *_pair("10k", "10 kB, 50 clients", keys=LARGE_KEYS, reach=0.82),
    Workload(
        "mget",
        "MGET 10 x 64 B, 50 clients",
        _mget(),
        SMALL_KEYS,
        True,
        keys_per_request=MULTI_KEYS,
        reach=0.68,
        guess_per_s=10_000,
    ),
    Workload(
        "mset",
        "MSET 10 x 64 B, 50 clients",
        _mset(),
        SMALL_KEYS,
        False,
        keys_per_request=MULTI_KEYS,
        reach=0.68,
        guess_per_s=10_000,
    ),
    *_pair("c1", "64 B, 1 client", clients=1, reach=0.82, guess_per_s=8_000),
)

# The distribution is no reason to cost more: the same questions, the same bars.
_KETAMA_WORKLOADS = tuple(
    replace(workload, name=f"ketama-{workload.name}", title=f"ketama: {workload.title}", scene=KETAMA)
    for workload in _SLOTS_WORKLOADS
    if workload.name in ("get-p1", "set-p1", "get-p16", "set-p16", "mget", "mset")
)

# Their commands are memload's words.
_MEMCACHED_WORKLOADS = tuple(
    replace(
        workload,
        name=f"mc-{workload.name}",
        title=f"memcached: {workload.title.replace('MGET', 'get').replace('GET', 'get').replace('SET', 'set')}",
        command=("get" if workload.reads else "set",),
        scene=MEMCACHED,
    )
    for workload in _SLOTS_WORKLOADS
    if workload.name in ("get-p1", "set-p1", "get-p16", "set-p16", "mget")
)

WORKLOADS: tuple[Workload, ...] = (*_SLOTS_WORKLOADS, *_KETAMA_WORKLOADS, *_MEMCACHED_WORKLOADS)

# Syscalls per request are counted for these, with these bars (absolute, for shoal).
SYSCALL_REACH: dict[str, float] = {"get-p1": 2.7, "get-p16": 0.22}

# Two workers against one: the same load on both, heavy enough that each of two still finds several sockets ready per
# turn.
CAPACITY_CLIENTS = 100
CAPACITY_WORKLOADS = ("get-p1", "get-p16")
CAPACITY_REACH = 1.8


def by_name(name: str) -> Workload:
    """The workload of that name; KeyError with the names there are."""
    for workload in WORKLOADS:
        if workload.name == name:
            return workload
    raise KeyError(f"no workload {name!r}; there are: {', '.join(w.name for w in WORKLOADS)}")
