"""Django's own Redis cache, or django-redis, as `APP_BACKEND` says: one key and many, versions, sessions in the cache.

Both are judged by the same steps, because an application that changes from one to the other expects the same; what only
django-redis has follows.
"""

import os

import django
from django.conf import settings
from job import said_version, step, url

OWN = "django.core.cache.backends.redis.RedisCache"
OTHER = "django_redis.cache.RedisCache"
BACKEND = os.environ["APP_BACKEND"]

settings.configure(
    CACHES={"default": {"BACKEND": BACKEND, "LOCATION": url(1), "KEY_PREFIX": "site"}},
    INSTALLED_APPS=["django.contrib.sessions"],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SECRET_KEY="not a secret",
)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402  (wants settings)
from django.core.cache import cache  # noqa: E402


def one_key() -> None:
    cache.set("one", {"a": [1, 2]}, 60)
    step("set and get", cache.get("one"), {"a": [1, 2]})
    step("add", (cache.add("one", 2), cache.add("two", 2)), (False, True))
    step("get_or_set", cache.get_or_set("three", lambda: 3), 3)
    step("incr and decr", (cache.incr("three", 4), cache.decr("three")), (7, 6))
    step("touch", (cache.touch("one", 30), cache.touch("none", 30)), (True, False))
    step("has_key", (cache.has_key("one"), "none" in cache), (True, False))
    cache.set("one", "newer", version=2)
    step("versions", (cache.get("one", version=2), cache.get("one")), ("newer", {"a": [1, 2]}))
    step("delete", (cache.delete("one"), cache.delete("one")), (True, False))


def many_keys() -> None:
    pairs = {f"key:{number}": number for number in range(40)}
    step("set_many", cache.set_many(pairs, 60) or [], [])  # django-redis returns nothing
    step("get_many", cache.get_many([*pairs, "none"]), pairs)
    cache.set_many({name: 2 * value for name, value in pairs.items()}, timeout=None)
    step("set_many for ever", cache.get_many(pairs), {name: 2 * value for name, value in pairs.items()})
    cache.delete_many(list(pairs)[:20])
    step("delete_many", len(cache.get_many(pairs)), 20)


def sessions() -> None:
    stores = []
    for number in range(10):
        store = SessionStore()
        store["user"] = number
        store.save()
        stores.append(store)
    found = [SessionStore(store.session_key)["user"] for store in stores]
    step("sessions", found, list(range(10)))
    stores[0].flush()
    step("a session ends", SessionStore().exists(stores[1].session_key) and not cache.get("none"))


def only_django_redis() -> None:
    step("keys", len(cache.keys("key:*")), 20)
    step("iter_keys", len(list(cache.iter_keys("key:*"))), 20)
    cache.set("short", 1, 60)
    step("ttl", 0 < cache.ttl("short") <= 60)
    step("persist", (cache.persist("short"), cache.ttl("short")), (True, None))
    step("expire", (cache.expire("short", 9), cache.ttl("short") <= 9), (True, True))
    with cache.lock("a-lock", timeout=10):
        step("lock", cache.lock("a-lock", timeout=10).acquire(blocking=False), False)
    step("delete_pattern", cache.delete_pattern("key:*"), 20)


def main() -> None:
    said_version("django" if BACKEND == OWN else "django-redis")
    cache.clear()
    one_key()
    many_keys()
    sessions()
    if BACKEND == OTHER:
        only_django_redis()
    cache.clear()
    step("clear", cache.get_many([f"key:{number}" for number in range(40)]), {})


if __name__ == "__main__":
    main()
