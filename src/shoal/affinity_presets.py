"""Affinity rules by the name of the package that needs them: `affinity_presets = ["celery", "rq"]` in a keyspace.

Owns: which keys of each package belong together. Job queues and their like move entries between keys in one script or
transaction and write no hash tags; one Redis does not mind, shards do. A preset's rules put those keys on one shard and
leave alone what may spread: Celery's results, BullMQ's queues among themselves.
Must stay true: a rule names only keys of its package, by their default names. Each preset is held to the key names
that the package itself used while it did its job on one server (`tests/apps/recorded_keys.json`), and the job is done
through shoal with the preset (`make test-apps`).
Rejected: one rule `.*` for each keyspace of queues: then nothing spreads, not even what could. Presets chosen by what
clients call themselves: placement must not depend on who asks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """The rules of one package, and for people what they do."""

    serves: str
    together: str
    rules: tuple[str, ...]


PRESETS = {
    "arq": Preset("arq", "every key whose name begins with `arq:`", ("^arq: => arq",)),
    "bullmq": Preset("BullMQ", "the keys of each queue; queues are spread", ("^bull:([^:]+):",)),
    "celery": Preset(
        "Celery (kombu), broker and results",
        "the queue `celery` with its priorities, what is unacknowledged, bindings, remote control and events; the keys "
        "of each chord. Results of tasks are spread",
        (
            r"^(?:unacked|_kombu\.|celeryev\.|celery(?:\x06\x16|$)) => celery",
            r"\.celery\.pidbox => celery",
            r"^celery-taskset-meta-([^.]+)",
        ),
    ),
    "channels": Preset("channels-redis", "every key whose name begins with `asgi`", ("^asgi => asgi",)),
    "dramatiq": Preset(
        "dramatiq",
        "every key of the namespace `dramatiq`; the windows of each rate limiter",
        ("^dramatiq(?::|$) => dramatiq", "^(.+)@[0-9]{10}$"),
    ),
    "rq": Preset("RQ", "every key whose name begins with `rq:`", ("^rq: => rq",)),
    "sidekiq": Preset(
        "Sidekiq",
        "queues, processes and statistics. The sets of scheduled, retried and dead jobs are each where they fall",
        (
            "^(?:queues|queue:.*|processes|stat:.*)$ => sidekiq",
            "^[^:]+:[0-9]+:[0-9a-f]{12}(?::work|:workers|-signals)?$ => sidekiq",
        ),
    ),
    "taskiq": Preset(
        "taskiq-redis, RedisStreamBroker", "each stream with the lock of its redelivery", ("^autoclaim:[^:]*:(.+)$",)
    ),
}
