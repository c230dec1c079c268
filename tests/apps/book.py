"""The applications: what each runs in, what it must do, and what shoal is told for it.

`settings` are lines of the keyspace's table, which docs/guides/applications.md shows with the same words (a test
compares). `steps` are what the job must print, in this order: a job that leaves one out has failed.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class App:
    """One application and its job."""

    name: str
    environment: str
    program: str
    steps: tuple[str, ...]
    settings: str = ""
    presets: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> str:
        """All lines for the keyspace's table."""
        presets = ", ".join(f'"{name}"' for name in self.presets)
        return "\n".join(filter(None, [f"affinity_presets = [{presets}]" if presets else "", self.settings]))


def _steps(text: str) -> tuple[str, ...]:
    return tuple(step.strip() for step in text.split(";"))


CACHES = _steps(
    "set and get; add; get_or_set; incr and decr; touch; has_key; versions; delete; set_many; get_many; "
    "set_many for ever; delete_many; sessions; a session ends"
)
CHANNEL_STEPS = ("a group over two processes", "a group", "a group of one", "a channel", "from another process")
STRATEGIES = ("fixed window", "moving window", "sliding window counter")
SHOP = _steps(
    "a pipeline; a script, fifteen times; a transaction; a watched transaction; many keys; a scan; published; heard; "
    "a blocking pop of two lists; a stream; acknowledged"
)
# What a library that writes many keys in one transaction needs.
MANY_KEYS = 'transactions = "per-shard"'

APPS = (
    App(
        "redis-py-locks", "newest", "locks.py",
        _steps(
            "acquire; held by one; waits in vain; extend; reacquire; release of another's; one at a time; "
            "locks of many names; all released"
        ),
    ),
    App(
        "rq", "newest", "rq_job.py",
        _steps(
            "enqueued; jobs of two queues; results; the worker is known; a dependent job; a failure, after a retry; "
            "it is registered; requeued; later; stopped by command; the queues are empty"
        ),
        presets=("rq",),
    ),
    App(
        "huey", "newest", "huey_job.py",
        _steps("enqueued; results; retries; a lock; later; a pipeline; revoked; scheduled; map; flushed"),
    ),
    App(
        "dramatiq", "newest", "dramatiq_job.py",
        _steps(
            "results; another queue; a pipeline; a group; its callback; later; a dead letter; one at a time; "
            "three in a window"
        ),
        presets=("dramatiq",),
    ),
    App(
        "arq", "redis5", "arq_job.py",
        _steps(
            "a task exists once; queued; results; the one task; retries; deferred; later; aborted; results are kept; "
            "health"
        ),
        presets=("arq",),
    ),
    App(
        "celery", "newest", "celery_job.py",
        _steps(
            "results; a chain; a group; a chord; retries; a failure; later; a priority; remote control: ping; "
            "remote control: queues; revoked; nothing is left; given back at the worker's end; purged"
        ),
        presets=("celery",),
    ),
    App(
        "taskiq-redis", "newest", "taskiq_job.py",
        _steps("results over a stream; a failure; results over a list; schedules; schedules deleted"),
        presets=("taskiq",),
    ),
    App(
        "limits", "newest", "limits_job.py",
        (
            "storage",
            *(f"{name}{what}" for name in STRATEGIES for what in ("", ": used up", ": cleared")),
            "many users",
        ),
    ),
    App(
        "aiocache", "newest", "aiocache_job.py",
        _steps(
            "set and get; add; exists; expire; delete; many keys; many keys that expire; a decorated function; "
            "decorated, many; a lock; cleared"
        ),
        settings=MANY_KEYS,
    ),
    App(
        "django-cache", "newest", "django_job.py", (*CACHES, "clear"),
        settings=MANY_KEYS, env={"APP_BACKEND": "django.core.cache.backends.redis.RedisCache"},
    ),
    App(
        "django-redis", "newest", "django_job.py",
        (*CACHES, "keys", "iter_keys", "ttl", "persist", "expire", "lock", "delete_pattern", "clear"),
        settings=MANY_KEYS, env={"APP_BACKEND": "django_redis.cache.RedisCache"},
    ),
    App(
        "flask-session", "newest", "flask_session_job.py",
        _steps("visits; kept in Redis; with an end; a logout; all gone"),
    ),
    App(
        "channels-redis", "newest", "channels_job.py",
        (
            "core: a named channel", "core: a full channel",
            *(f"{layer}: {name}" for layer in ("core", "pubsub") for name in CHANNEL_STEPS),
        ),
        presets=("channels",),
    ),
    App(
        "python-socketio", "newest", "socketio_job.py",
        _steps(
            "from outside to all; from one to all others; a room over both servers; to a room; in order, and no more"
        ),
    ),
    App(
        "bullmq", "node", "bullmq.mjs",
        _steps(
            "waiting; results; retries; a failure; it is kept; later; a priority; progress; a flow; a schedule; "
            "paused; resumed; a job exists once; nothing is left"
        ),
        presets=("bullmq",),
    ),
    App(
        "ioredis", "node", "ioredis.mjs",
        _steps(
            "a pipeline; a script, fifteen times; a transaction; many keys; a scan; subscribed; published; heard; "
            "unsubscribed; a blocking pop of two lists; a stream; acknowledged"
        ),
    ),
    App(
        "node-redis", "node", "node-redis.mjs",
        _steps(
            "a pipeline; a script, fifteen times; a hash; a transaction; many keys; a scan; a sorted set; published; "
            "heard; unsubscribed; a blocking pop of two lists; a stream; acknowledged"
        ),
    ),
    App("go-redis", "go", "", SHOP),
    App("jedis", "java", "JedisShop.java", SHOP),
    App("lettuce", "java", "LettuceShop.java", SHOP),
    App(
        "sidekiq", "ruby", "sidekiq_job.rb",
        _steps(
            "enqueued; done; in bulk; later; a retry; dead letters; statistics; a queue is cleared; "
            "the queues are empty"
        ),
        presets=("sidekiq",),
    ),
)  # fmt: skip
