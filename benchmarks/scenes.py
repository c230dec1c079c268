"""Scenes: which servers are behind the subjects, and in which configuration the subjects stand before them.

    slots       redis-server; each subject as its users would start it
    ketama      the same servers; nutcracker and shoal from one nutcracker.yml (ketama, fnv1a_64)
    memcached   memcached; nutcracker and shoal from one nutcracker.yml with `redis: false`

A workload belongs to one scene, and only the subjects that know the scene take part in it. This file owns the names and
what differs by them on the side of the servers: how they are started and filled, what they say was asked of them, and
by which questions a subject is checked. What differs on the side of a subject is in subjects.py.

Must stay true: every server holds every key, in each scene, so that a read always hits.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks import load, memload, shards
from benchmarks.processes import Running, Stage
from benchmarks.shards import Witness
from benchmarks.workloads import KETAMA, LARGE_KEYS, MEMCACHED, SLOTS, SMALL_KEYS, KeyRange

Fill = Callable[[Sequence[Running], Iterable[KeyRange]], None]


@dataclass(frozen=True)
class Scene:
    """The servers' side. `servers` names the set of servers: scenes of the same set share the processes."""

    name: str
    servers: str
    ranges: tuple[KeyRange, ...]
    start: Callable[[Stage, Iterable[int]], list[Running]]
    fill: Fill
    witness: Callable[[Sequence[Running]], Witness]
    check_answers: Callable[[int, str], None]


_REDIS = (
    "redis",
    (SMALL_KEYS, LARGE_KEYS),
    shards.start_shards,
    shards.fill,
    shards.witness,
    load.check_answers,
)
_MEMCACHED = (
    "memcached",
    (SMALL_KEYS,),
    memload.start_servers,
    memload.fill,
    memload.witness,
    memload.check_answers,
)

SCENES = {
    SLOTS: Scene(SLOTS, *_REDIS),
    KETAMA: Scene(KETAMA, *_REDIS),
    MEMCACHED: Scene(MEMCACHED, *_MEMCACHED),
}
