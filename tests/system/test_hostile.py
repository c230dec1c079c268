"""A world that means harm, or has bad luck: secrets, memory, writes done twice, replies cut off.

Each of these was a hole once.
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import encode
from system.fake_shard import FakeShard

SECRET = "S3cret-of-the-shard"
MIB = 1 << 20


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def test_a_server_that_repeats_our_password_is_not_quoted(new_proxy: Callable[..., Proxy]) -> None:
    """Servers without AUTH answer with its arguments; the error reaches clients, the log and the admin port."""
    refusal = f"-ERR unknown command 'AUTH', with args beginning with: '{SECRET}' \r\n".encode()
    config = (
        'admin = "{admin}"\n[keyspace.main]\nlisten = "{listen}"\nshards = ["{shard0}"]\n'
        f'server_password = "{SECRET}"\n'
    )
    with FakeShard(lambda _: b"+OK\r\n", {b"AUTH": refusal}) as shard:
        proxy = new_proxy([shard.address], config=config)
        wait_until(lambda: any("event=shard-down" in line for line in proxy.log()), 10, "the shard refuses us")
        with proxy.socket() as wire:
            told = str(wire.ask("GET", "k")) + str(wire.ask("SHOAL", "TOPOLOGY"))
    assert "unknown command 'AUTH'" in told
    assert SECRET not in told
    assert SECRET not in "\n".join(proxy.log())


def test_a_script_that_answers_noscript_by_itself_runs_once(proxy: Proxy) -> None:
    body = "redis.call('INCR', KEYS[1]); return redis.error_reply('NOSCRIPT made by the script')"
    with proxy.socket() as wire:
        sha = wire.ask("SCRIPT", "LOAD", body)
        assert isinstance(sha, str | bytes)
        reply = wire.ask("EVALSHA", sha, 1, "counter")
        assert isinstance(reply, ErrorReply)
        assert "made by the script" in reply
        assert wire.ask("GET", "counter") in ("1", b"1")


def test_requests_for_a_shard_that_has_stopped_reading_stay_bounded(
    new_fleet: Callable[..., Fleet], new_proxy: Callable[..., Proxy]
) -> None:
    fleet = new_fleet(1)
    proxy = new_proxy(fleet.addresses, options=["--log-level", "debug"])
    before = resident_mib(proxy.pid)
    fleet.stop(0)
    request = encode("SET", "k", b"x" * (8 * MIB))
    clients = [Wire(proxy.host, proxy.port) for _ in range(40)]
    try:
        for wire in clients:
            threading.Thread(target=send_quietly, args=(wire, request), daemon=True).start()
        wait_until(lambda: resident_mib(proxy.pid) > before + 8, 20, "the first request is taken")
        with proxy.socket() as other:
            assert other.ask("PING") == "PONG", "the worker goes on"
        # What is not taken is kept by its client's buffer, once: 40 x 8 MiB, and not a second time for the shard.
        assert resident_mib(proxy.pid) < before + 40 * 8 * 1.5
    finally:
        fleet.cont(0)
        for wire in clients:
            wire.close()


def send_quietly(wire: Wire, request: bytes) -> None:
    try:
        wire.send(request)
    except OSError:
        return  # the test closed it


def test_replies_written_before_the_end_arrive_although_the_client_is_still_sending(
    fleet: Fleet, new_proxy: Callable[..., Proxy]
) -> None:
    """A connection closed while the client sends is reset by the kernel, and what was written to it is lost."""
    proxy = new_proxy(fleet.addresses)
    with proxy.socket() as wire:
        stop = threading.Event()
        sender = threading.Thread(target=send_until, args=(wire, encode("INCR", "acknowledged"), stop))
        sender.start()
        for _ in range(1_000):
            wire.reply()
        proxy_ended = threading.Thread(target=proxy.stop)
        proxy_ended.start()
        replies = 1_000
        with contextlib.suppress(OSError):  # the end
            while True:
                wire.reply()
                replies += 1
        stop.set()
        sender.join()
        proxy_ended.join()
    assert any("drained=yes" in line for line in proxy.log())
    executed = 0
    for index in range(len(fleet)):
        executed += int(fleet.client(index).get("acknowledged") or 0)
    assert replies == executed, "every reply to what was executed has arrived"


def send_until(wire: Wire, request: bytes, stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            wire.send(request)
    except OSError:
        return  # the proxy has ended
