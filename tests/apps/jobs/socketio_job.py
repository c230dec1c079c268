"""python-socketio: two servers that share a Redis manager; what one sends reaches the clients of the other."""

import asyncio
import socket
import sys

import socketio
import uvicorn
from job import said_version, step, url, wait_until, worker

READY_S = 30.0


def make_server() -> socketio.ASGIApp:
    server = socketio.AsyncServer(async_mode="asgi", client_manager=socketio.AsyncRedisManager(url()))

    @server.event
    async def enter(sid: str, room: str) -> str:
        await server.enter_room(sid, room)
        return "entered"

    @server.event
    async def say(sid: str, text: str) -> None:
        await server.emit("said", text, skip_sid=sid)

    return socketio.ASGIApp(server)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Visitor:
    """A client, and what it was told."""

    def __init__(self) -> None:
        self.client = socketio.AsyncClient()
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.client.on("said", self.heard.put)

    async def next(self) -> str:
        return await asyncio.wait_for(self.heard.get(), 20)


def listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


async def run(ports: list[int]) -> None:
    for port in ports:
        wait_until(lambda port=port: listens(port), READY_S, f"a server listens on {port}")
    visitors = [Visitor() for _ in range(6)]
    for index, visitor in enumerate(visitors):
        await visitor.client.connect(f"http://127.0.0.1:{ports[index % 2]}")
    # Until both servers listen to Redis, what is said is lost, with one Redis too: it is said until all have heard.
    outside = socketio.AsyncRedisManager(url(), write_only=True)
    for visitor in visitors:
        while True:
            await outside.emit("said", "hello")
            try:
                await asyncio.wait_for(visitor.heard.get(), 0.5)
                break
            except TimeoutError:
                continue
    await outside.emit("said", "the end of hellos")
    for visitor in visitors:
        while await visitor.next() != "the end of hellos":
            continue
    step("from outside to all", True)
    await visitors[0].client.emit("say", "from the first")
    step("from one to all others", [await visitor.next() for visitor in visitors[1:]], ["from the first"] * 5)
    entered = [await visitor.client.call("enter", "room") for visitor in visitors[2:4]]
    step("a room over both servers", entered, ["entered"] * 2)
    await outside.emit("said", "to the room", room="room")
    step("to a room", [await visitor.next() for visitor in visitors[2:4]], ["to the room"] * 2)
    await outside.emit("said", "last")
    step("in order, and no more", [await visitor.next() for visitor in visitors], ["last"] * 6)
    for visitor in visitors:
        await visitor.client.disconnect()


def main() -> None:
    if len(sys.argv) == 2:
        uvicorn.run(make_server(), host="127.0.0.1", port=int(sys.argv[1]), log_level="info")
        return
    said_version("python-socketio")
    ports = [free_port(), free_port()]
    servers = [(sys.executable, "socketio_job.py", str(port)) for port in ports]
    with worker(*servers[0]), worker(*servers[1]):
        asyncio.run(asyncio.wait_for(run(ports), 90))


if __name__ == "__main__":
    main()
