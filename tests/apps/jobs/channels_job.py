"""channels-redis: both of its layers; a message to one channel, groups, a full channel, another process that sends."""

import asyncio
import subprocess
import sys
from typing import Any

from channels.exceptions import ChannelFull
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
from job import HERE, HOST, PORT, said_version, step

HOSTS = [(HOST, PORT)]
MEMBERS = 20


def message(text: str) -> dict[str, Any]:
    return {"type": "note", "text": text}


async def texts(layer: Any, names: list[str]) -> list[str]:
    """The next message of each channel."""
    found = await asyncio.wait_for(asyncio.gather(*(layer.receive(name) for name in names)), 20)
    return [entry["text"] for entry in found]


async def groups(layer: Any, name: str) -> None:
    # As in several processes: each layer has its own channels, and groups go over all of them.
    beside = layer_of(name)
    strangers = [await beside.new_channel() for _ in range(MEMBERS)]
    members = [await layer.new_channel() for _ in range(MEMBERS)]
    for stranger in strangers:
        await beside.group_add("room", stranger)
    for member in members:
        await layer.group_add("room", member)
    both = asyncio.gather(texts(layer, members), texts(beside, strangers))
    await layer.group_send("room", message("to both"))
    step(f"{name}: a group over two processes", await both, [["to both"] * MEMBERS] * 2)
    for stranger in strangers:
        await beside.group_discard("room", stranger)
    waiting = asyncio.ensure_future(texts(layer, members))
    await layer.group_send("room", message("to all"))
    step(f"{name}: a group", await waiting, ["to all"] * MEMBERS)
    for member in members[1:]:
        await layer.group_discard("room", member)
    waiting = asyncio.ensure_future(texts(layer, members[:1]))
    await layer.group_send("room", message("to one"))
    step(f"{name}: a group of one", await waiting, ["to one"])
    waiting = asyncio.ensure_future(texts(layer, members[1:2]))
    await layer.send(members[1], message("to you"))
    step(f"{name}: a channel", await waiting, ["to you"])
    code = await asyncio.to_thread(
        subprocess.call, [sys.executable, "channels_job.py", name, members[2]], cwd=HERE, timeout=60
    )
    step(f"{name}: from another process", (code, await texts(layer, members[2:3])), (0, ["from outside"]))


def layer_of(name: str) -> Any:
    return RedisChannelLayer(HOSTS) if name == "core" else RedisPubSubChannelLayer(HOSTS)


async def run() -> None:
    core = layer_of("core")
    await core.send("named", message("first"))
    await core.send("named", message("second"))
    step("core: a named channel", await texts(core, ["named"]) + await texts(core, ["named"]), ["first", "second"])
    small = RedisChannelLayer(HOSTS, capacity=3)
    try:
        for _ in range(4):
            await small.send("small", message("x"))
        step("core: a full channel", "took all")
    except ChannelFull:
        step("core: a full channel", True)
    await groups(core, "core")
    await core.flush()
    await small.flush()
    await core.close_pools()
    await small.close_pools()
    pubsub = layer_of("pubsub")
    await groups(pubsub, "pubsub")
    await pubsub.flush()


async def send_from_outside(name: str, channel: str) -> None:
    layer = layer_of(name)
    await layer.send(channel, message("from outside"))


def main() -> None:
    if len(sys.argv) == 3:
        asyncio.run(send_from_outside(*sys.argv[1:]))
        return
    said_version("channels-redis")
    asyncio.run(asyncio.wait_for(run(), 90))


if __name__ == "__main__":
    main()
