"""aiocache: its Redis cache with one key and many, with and without a time to live, and its decorators."""

import asyncio

from aiocache import Cache, cached, multi_cached
from aiocache.lock import RedLock
from aiocache.serializers import PickleSerializer
from job import HOST, PORT, said_version, step

REDIS = {"cache": Cache.REDIS, "endpoint": HOST, "port": PORT, "serializer": PickleSerializer()}
calls: list[str] = []


@cached(ttl=60, key_builder=lambda _, name: f"page:{name}", **REDIS)
async def page(name: str) -> str:
    calls.append(name)
    return name.upper()


@multi_cached("names", ttl=60, **REDIS)
async def pages(names: list[str]) -> dict[str, str]:
    calls.extend(names)
    return {name: name.upper() for name in names}


async def one_key(cache: Cache) -> None:
    await cache.set("one", {"a": 1}, ttl=60)
    step("set and get", await cache.get("one"), {"a": 1})
    await cache.add("added", 1)
    try:
        await cache.add("added", 2)
        step("add", "twice")
    except ValueError:
        step("add", await cache.get("added"), 1)
    step("exists", (await cache.exists("one"), await cache.exists("none")), (True, False))
    step("expire", await cache.expire("one", 5), True)
    step("delete", (await cache.delete("one"), await cache.get("one", "gone")), (1, "gone"))


async def many_keys(cache: Cache) -> None:
    pairs = [(f"key:{number}", number) for number in range(40)]
    names = [name for name, _ in pairs]
    await cache.multi_set(pairs)
    step("many keys", await cache.multi_get(names), list(range(40)))
    await cache.multi_set([(name, 2 * number) for name, number in pairs], ttl=60)
    step("many keys that expire", await cache.multi_get(names), list(range(0, 80, 2)))


async def run() -> None:
    cache = Cache(Cache.REDIS, endpoint=HOST, port=PORT, namespace="app", serializer=PickleSerializer())
    await one_key(cache)
    await many_keys(cache)
    step("a decorated function", ([await page("x") for _ in range(3)], calls), (["X"] * 3, ["x"]))
    calls.clear()
    first, second = await pages(names=["a", "b"]), await pages(names=["a", "b", "c"])
    step(
        "decorated, many",
        (first, second, calls),
        ({"a": "A", "b": "B"}, {"a": "A", "b": "B", "c": "C"}, ["a", "b", "c"]),
    )
    async with RedLock(cache, "key", lease=5):
        step("a lock", await cache.exists("key-lock"))
    await cache.clear(namespace="app")
    step("cleared", await cache.exists("key:1"), False)
    await cache.close()


def main() -> None:
    said_version("aiocache")
    asyncio.run(run())


if __name__ == "__main__":
    main()
