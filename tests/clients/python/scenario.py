"""SCENARIO.md with redis-py, any version from 5: `scenario.py [--asyncio] [--protocol N] HOST PORT TARGET`.

Written once, as coroutines, over a client of either kind: what a call returns is awaited when it can be. Without
--protocol the client's default decides; that is what most applications have.
"""

import argparse
import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import redis
import redis.asyncio


class Steps:
    def __init__(self, connect: Callable[..., Any], target: str) -> None:
        self.connect = connect
        self.target = target
        self.client = connect()

    async def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return await settle(getattr(self.client, name)(*arguments, **options))

    async def step_connect(self) -> None:
        expect(await self.call("ping"), True)

    async def step_strings(self) -> None:
        expect(await self.call("set", "smoke:s", "7"), True)
        expect(await self.call("get", "smoke:s"), b"7")
        expect([await self.call("incr", "smoke:s") for _ in range(2)], [8, 9])
        expect(bool(await self.call("expire", "smoke:s", 100)), True)
        expect(0 < await self.call("ttl", "smoke:s") <= 100, True)
        expect(await self.call("delete", "smoke:s"), 1)
        expect(await self.call("get", "smoke:s"), None)

    async def step_binary(self) -> None:
        value = bytes(i % 256 for i in range(99_998)) + b"\r\n"
        await self.call("set", "smoke:b", value)
        expect(await self.call("get", "smoke:b"), value)

    async def step_many_keys(self) -> None:
        keys = [f"smoke:m:{i}" for i in range(20)]
        expect(await self.call("mset", {key: key for key in keys}), True)
        asked = [*reversed(keys), "smoke:m:none"]
        expect(await self.call("mget", asked), [*(key.encode() for key in reversed(keys)), None])
        expect(await self.call("delete", *keys), 20)

    async def step_hash(self) -> None:
        expect(await self.call("hset", "smoke:h", mapping={"a": "1", "b": "2"}), 2)
        expect(await self.call("hgetall", "smoke:h"), {b"a": b"1", b"b": b"2"})

    async def step_list(self) -> None:
        expect(await self.call("lpush", "smoke:l", "x", "y", "z"), 3)
        expect(await self.call("lrange", "smoke:l", 0, -1), [b"z", b"y", b"x"])

    async def step_sorted_set(self) -> None:
        expect(await self.call("zadd", "smoke:z", {"one": 1, "two": 2, "half": 0.5}), 3)
        members = await self.call("zrange", "smoke:z", 0, -1, withscores=True)
        expect([tuple(member) for member in members], [(b"half", 0.5), (b"one", 1.0), (b"two", 2.0)])

    async def step_scan(self) -> None:
        keys = {f"smoke:scan:{i}" for i in range(500)}
        await self.call("mset", dict.fromkeys(keys, "v"))
        found: set[str] = set()
        cursor = 0
        while True:
            cursor, page = await self.call("scan", cursor, match="smoke:scan:*", count=50)
            found |= {key.decode() for key in page}
            if cursor == 0:
                break
        expect(found, keys)

    async def step_pipeline(self) -> None:
        pipeline = self.client.pipeline(transaction=False)
        for i in range(50):
            pipeline.set(f"smoke:p:{i}", i)
        for i in range(50):
            pipeline.get(f"smoke:p:{i}")
        replies = await settle(pipeline.execute())
        expect(replies, [True] * 50 + [str(i).encode() for i in range(50)])

    async def step_script(self) -> None:
        text = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
        expect(await self.call("eval", text, 1, "smoke:lua", "by eval"), b"by eval")
        sha = await self.call("script_load", text)
        expect(await self.call("evalsha", sha, 1, "smoke:lua2", "by sha"), b"by sha")

    async def step_info(self) -> None:
        info = await self.call("info")
        expect(info["role"], "master")
        expect(int(info["redis_version"].split(".")[0]) >= 6, True)

    async def step_name(self) -> None:
        client = self.connect(single_connection_client=True)
        expect(await settle(client.client_setname("smoke")), True)
        name = await settle(client.client_getname())  # text or bytes, as the version has it
        expect(name.decode() if isinstance(name, bytes) else name, "smoke")
        await close(client)

    async def step_database(self) -> None:
        client = self.connect(db=3)
        await settle(client.set("smoke:db", "three"))
        expect(await settle(client.get("smoke:db")), b"three")
        expect(await self.call("get", "smoke:db"), None)
        await close(client)

    async def step_far_keys(self) -> None:
        await self.call("sadd", "a", "1", "2")
        await self.call("sadd", "b", "2", "3")
        try:
            union = await self.call("sunion", "a", "b")
        except redis.ResponseError as error:
            expect((self.target, "slot" in str(error).lower()), ("shards", True))
        else:
            expect(set(union), {b"1", b"2", b"3"})

    async def step_error(self) -> None:
        try:
            await self.call("incr", "smoke:l")
        except redis.ResponseError as error:
            expect("WRONGTYPE" in str(error) or "wrong kind of value" in str(error), True)
        else:
            raise SystemExit("INCR of a list did not fail")
        expect(await self.call("ping"), True)


async def settle(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def close(client: Any) -> None:
    await settle(client.aclose() if hasattr(client, "aclose") else client.close())


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"wanted {str(wanted)[:500]}\nfound  {str(found)[:500]}")


async def run(connect: Callable[..., Any], target: str) -> None:
    steps = Steps(connect, target)
    print(f"redis-py {redis.__version__}")
    for name in ORDER:
        await getattr(steps, "step_" + name.replace("-", "_"))()
        print(f"ok {name}", flush=True)
    await close(steps.client)


ORDER = (
    "connect strings binary many-keys hash list sorted-set scan pipeline script info name database far-keys error"
).split()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--asyncio", action="store_true")
    parser.add_argument("--protocol", type=int)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("target", choices=["one", "shards"])
    arguments = parser.parse_args()
    options: dict[str, Any] = {"host": arguments.host, "port": arguments.port}
    if arguments.protocol:
        options["protocol"] = arguments.protocol
    kind = redis.asyncio.Redis if arguments.asyncio else redis.Redis
    asyncio.run(run(partial(kind, **options), arguments.target))


if __name__ == "__main__":
    main()
