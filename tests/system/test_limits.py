"""Clients that take or send too much: memory stays bounded, others are not hurt, each end has a logged reason.

Memory is read from /proc of the proxy: VmRSS now, VmHWM the highest since `forget_peak`. Bounds are written as the
user's promise (docs/reference.md), not as what happens to be measured.
"""

import contextlib
import os
import random
import resource
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import encode
from system.fake_shard import FakeShard
from system.placement import keys_on, one_key_each

NewFleet = Callable[..., Fleet]
NewProxy = Callable[..., Proxy]

KIB = 1024
MIB = 1024 * 1024

# What the allocator may keep of a burst: its own threshold for giving back is 32 MiB.
KEPT_MAX = 64 * MIB
# OUTPUT_IDLE_MS and the time until the tick sees it.
OUTPUT_IDLE_S = 60
# Requests under way of a client that takes its replies, and of a new one.
IN_FLIGHT_MAX = 1024
WINDOW_MIN = 16

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def memory(proxy: Proxy, field: str) -> int:
    text = Path(f"/proc/{proxy.pid}/status").read_text()
    return next(int(line.split()[1]) * KIB for line in text.splitlines() if line.startswith(field + ":"))


def forget_peak(proxy: Proxy) -> int:
    """VmHWM begins anew; what is in use now."""
    Path(f"/proc/{proxy.pid}/clear_refs").write_text("5")
    return memory(proxy, "VmRSS")


def cpu_seconds(proxy: Proxy) -> float:
    fields = Path(f"/proc/{proxy.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Others(threading.Thread):
    """Another client at work meanwhile: reads keys of these shards in turn; keeps the longest time one took."""

    def __init__(self, proxy: Proxy, shards: Sequence[int] = range(4)) -> None:
        super().__init__(daemon=True)
        self.keys = [one_key_each("other")[shard] for shard in shards]
        self.wire = proxy.socket(timeout=20)
        self.ending = threading.Event()
        self.longest_s = 0.0
        self.requests = 0
        self.wrong: list[object] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.join(20)
        self.wire.close()

    def run(self) -> None:
        while not self.ending.is_set():
            for key in self.keys:
                started = time.monotonic()
                reply = self.wire.ask("GET", key)
                self.longest_s = max(self.longest_s, time.monotonic() - started)
                self.requests += 1
                if reply is not None:
                    self.wrong.append(reply)

    def were_not_hurt(self, longest_s: float = 0.7) -> None:
        assert not self.wrong
        assert self.requests > 20
        assert self.longest_s < longest_s, f"one GET took {self.longest_s:.3f} s"


def closed_for(proxy: Proxy, reason: str) -> int:
    return sum("event=client-closed" in line and f"reason={reason}" in line for line in proxy.log())


@pytest.fixture(scope="module", autouse=True)
def forsaken(module_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Wire]]:
    """A proxy of its own with a client that never reads, from the beginning of this module on.

    Its end takes a minute: so it comes while the other tests run.
    """
    with Proxy(tmp_path_factory.mktemp("forsaken"), module_fleet.addresses) as proxy:
        key = keys_on(1, 1, "forsaken")[0]
        proxy.client().set(key, b"x" * MIB)
        with proxy.socket() as wire:
            wire.send(encode("GET", key) * 64)
            yield proxy, wire


# ---------------------------------------------------------------------------------------- clients that do not read on


def test_a_client_that_never_reads_a_gibibyte(proxy: Proxy, fleet: Fleet) -> None:
    (key,) = keys_on(0, 1)
    proxy.client().set(key, b"x" * MIB)
    before = forget_peak(proxy)
    with Others(proxy) as others, proxy.socket() as stuck:
        stuck.send(encode("GET", key) * 1024)
        wait_until(lambda: others.requests > 2000, 20, "others go on")
    # Who was just behind it on the same connection waits OUTPUT_STALL_MS, once.
    others.were_not_hurt(longest_s=2.5)
    grown = memory(proxy, "VmHWM") - before
    # OUTPUT_HARD (32 MiB) for the client, and as much in the hands of the allocator.
    assert grown < 96 * MIB, f"{grown / MIB:.0f} MiB"
    wait_until(lambda: memory(proxy, "VmRSS") - before < KEPT_MAX, 10, "memory is given back")


def test_a_client_that_stops_reading_in_full_flight(proxy: Proxy, fleet: Fleet) -> None:
    """It has shown that it reads, so a thousand of its requests are under way when it stops, and others' behind."""
    key, small = keys_on(0, 2)
    proxy.client().mset({key: b"x" * (MIB // 4), small: b"s"})
    before = forget_peak(proxy)
    closed = closed_for(proxy, "output-stalled")
    with Others(proxy, shards=[1, 2, 3]) as others, proxy.socket() as stuck, proxy.socket() as behind:
        stuck.send(encode("GET", small) * 20_000)
        assert stuck.exactly(7 * 20_000) == b"$1\r\ns\r\n" * 20_000
        # While the shard does nothing, what is sent to it stays in the order in which it was sent.
        fleet.stop(0)
        stuck.send(encode("GET", key) * IN_FLIGHT_MAX)
        wait_until(lambda: in_flight(proxy, "s0") >= IN_FLIGHT_MAX, 10, "its requests are under way")
        behind.send(encode("GET", small) * WINDOW_MIN)
        # Of WINDOW_MIN, because shoal asks the shard something now and then, too: that is never half as much.
        behind_them = IN_FLIGHT_MAX + WINDOW_MIN // 2
        wait_until(lambda: in_flight(proxy, "s0") >= behind_them, 10, "another client's are behind them")
        fleet.cont(0)
        wait_until(lambda: closed_for(proxy, "output-stalled") == closed + 1, 20, "it is closed, with its reason")
        # It waits until the client before it is given up (OUTPUT_STALL_MS), and until the rest of the 256 MiB has come.
        assert behind.exactly(7 * WINDOW_MIN) == b"$1\r\ns\r\n" * WINDOW_MIN
        wait_until(partial(have_read, others, others.requests + 100), 10, "others go on")
    # Beside them 256 MiB pass through the one worker.
    others.were_not_hurt(longest_s=2.5)
    grown = memory(proxy, "VmHWM") - before
    assert grown < 128 * MIB, f"{grown / MIB:.0f} MiB"


def in_flight(proxy: Proxy, shard: str) -> int:
    """How many requests this shard has not answered, as of the last tick."""
    with urllib.request.urlopen(f"{proxy.admin_url}/metrics", timeout=10) as answer:
        lines: list[str] = answer.read().decode().splitlines()
    begin = "shoal_shard_in_flight{"
    (line,) = (line for line in lines if line.startswith(begin) and f'shard="{shard}"' in line)
    return int(line.rsplit(" ", 1)[1])


def test_many_clients_that_never_read(proxy: Proxy) -> None:
    """Six for each shard's connection: they must not take their second of patience one after the other."""
    keys = one_key_each("big")
    for key in keys:
        proxy.client().set(key, b"x" * MIB)
    before = forget_peak(proxy)
    count = 24
    with Others(proxy) as others, ExitStack() as stack:
        for number in range(count):
            stack.enter_context(proxy.socket()).send(encode("GET", keys[number % 4]) * 60)
        wait_until(lambda: others.requests > 2000, 20, "others go on")
    others.were_not_hurt(longest_s=5)
    grown = memory(proxy, "VmHWM") - before
    assert grown < count * 48 * MIB, f"{grown / MIB:.0f} MiB"


def test_a_slow_reader_gets_everything(proxy: Proxy) -> None:
    """Slow is not stuck: as long as it takes something now and then, it is served to the end."""
    (key,) = keys_on(0, 1)
    value = random.Random(7).randbytes(MIB)
    proxy.client().set(key, value)
    with proxy.socket() as slow, Others(proxy, shards=[1, 2, 3]) as others:
        count = 100
        slow.send(encode("GET", key) * count)
        for _ in range(count):
            assert slow.reply() == value
            wait_until(partial(have_read, others, others.requests + 10), 10, "time passes")
    others.were_not_hurt()


def have_read(others: Others, count: int) -> bool:
    return others.requests >= count


def test_a_slow_reader_does_not_hold_up_others(proxy: Proxy) -> None:
    """On the same shard, and even behind it on the same connection."""
    key, other = keys_on(0, 2)
    proxy.client().mset({key: b"x" * MIB, other: "small"})
    with proxy.socket() as slow, proxy.socket(timeout=3) as behind, Others(proxy, shards=[1]) as clock:
        assert behind.ask("GET", other) == b"small"
        slow.send(encode("GET", key) * 300)
        slow.socket.recv(1)
        reading = threading.Thread(target=read_slowly, args=(slow, clock), daemon=True)
        reading.start()
        assert behind.ask("GET", other) == b"small"
    reading.join(10)


def read_slowly(wire: Wire, clock: Others) -> None:
    """Takes 3 MB whenever some hundreds of other requests have been answered, until either connection is closed."""
    with contextlib.suppress(OSError, AssertionError):
        while True:
            for _ in range(10):
                wire.socket.recv(300_000)
            wait_until(partial(have_read, clock, clock.requests + 2000), 3, "time passes")


def test_a_million_pipelined_commands(proxy: Proxy) -> None:
    keys = [f"million:{number}" for number in range(1000)]
    proxy.client().mset({key: f"value of {key}" for key in keys})
    requests = b"".join(encode("GET", key) for key in keys)
    replies = b"".join(b"$%d\r\n%s\r\n" % (len(key) + 9, f"value of {key}".encode()) for key in keys)
    before = forget_peak(proxy)
    with Others(proxy) as others, proxy.socket(timeout=60) as wire:
        sender = threading.Thread(target=wire.send, args=(requests * 1000,), daemon=True)
        sender.start()
        for round_ in range(1000):
            assert wire.exactly(len(replies)) == replies, f"wrong among the thousand from {round_ * 1000} on"
        sender.join(10)
    others.were_not_hurt()
    grown = memory(proxy, "VmHWM") - before
    assert grown < 32 * MIB, f"{grown / MIB:.0f} MiB"


def test_a_pipeline_that_is_read_only_after_it_was_sent(proxy: Proxy) -> None:
    """What most client libraries do. The replies (2.5 MB) must find room while nobody reads."""
    with proxy.socket(timeout=40) as wire:
        keys = [f"p:{number}" for number in range(1000)]
        wire.send(b"".join(encode("SET", key, "v") for key in keys) * 500)
        assert wire.exactly(5 * 500_000) == b"+OK\r\n" * 500_000


# ------------------------------------------------------------------------------------------------ halves of requests


@pytest.mark.parametrize(
    "begin",
    [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nhalf",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n",
        b"*1048576\r\n$4\r\nMGET\r\n",
        b"SET inline",
        b"*",
    ],
    ids=["half-a-value", "announced-512-MiB", "a-million-arguments", "inline", "one-byte"],
)
def test_two_thousand_clients_with_half_a_command(proxy: Proxy, begin: bytes) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(proxy.socket()) for _ in range(2000)]
        for wire in wires:
            wire.send(begin[:1])
        with proxy.socket() as last:
            assert last.ask("PING") == "PONG"
        before = forget_peak(proxy)
        with Others(proxy) as others:
            for wire in wires:
                wire.send(begin[1:])
            wait_until(lambda: others.requests > 50, 10, "others go on")
        others.were_not_hurt()
        grown = memory(proxy, "VmHWM") - before
        assert grown < 2000 * 4 * KIB, f"{grown / 2000:.0f} bytes a client"
        if begin.startswith(b"*3"):
            rest = b"x" * 996 if begin.endswith(b"half") else None
            if rest:
                wires[7].send(rest + b"\r\n")
                assert wires[7].reply() == "OK", "it was only slow"


def test_request_memory_follows_what_came_not_what_was_announced(proxy: Proxy) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(proxy.socket()) for _ in range(20)]
        before = forget_peak(proxy)
        for wire in wires:
            wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n" + b"x" * MIB)
        with proxy.socket() as last:
            assert last.ask("PING") == "PONG"
        grown = memory(proxy, "VmHWM") - before
        assert grown < 20 * 3 * MIB, f"{grown / MIB:.0f} MiB for 20 MiB that came"
    wait_until(lambda: memory(proxy, "VmRSS") - before < 10 * MIB, 10, "given back when the clients are gone")


# -------------------------------------------------------------------------------------------------------- large values


@pytest.mark.parametrize("size", [MIB, 64 * MIB, 512 * MIB], ids=["1-MiB", "64-MiB", "512-MiB"])
@pytest.mark.timeout(120)  # half a gibibyte passes through four processes twice
def test_large_values_are_not_held_twice(proxy: Proxy, fleet: Fleet, size: int) -> None:
    (key,) = keys_on(2, 1)
    block = random.Random(size).randbytes(MIB)
    with proxy.socket(timeout=60) as wire:
        assert wire.ask("SET", keys_on(2, 2)[1], "warm") == "OK"
        before = forget_peak(proxy)
        wire.send(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key.encode(), size))
        for _ in range(size // MIB):
            wire.socket.sendall(block)
        wire.send(b"\r\n")
        assert wire.reply() == "OK"
        grown = memory(proxy, "VmHWM") - before
        assert grown < 1.2 * size + 8 * MIB, f"SET: {grown / MIB:.0f} MiB"
        wait_until(lambda: memory(proxy, "VmRSS") < before + KEPT_MAX, 10, "memory is given back")
        before = forget_peak(proxy)
        wire.command("GET", key)
        assert wire.line() == b"$%d" % size
        for number in range(size // MIB):
            assert wire.exactly(MIB) == block, f"MiB {number}"
        assert wire.exactly(2) == b"\r\n"
        grown = memory(proxy, "VmHWM") - before
        # A reader that is slower than the shard: OUTPUT_HARD, and a buffer that doubles on its way there.
        assert grown < 128 * MIB, f"GET: {grown / MIB:.0f} MiB"
        assert wire.ask("STRLEN", key) == size
        assert wire.ask("DEL", key) == 1


def test_values_larger_than_a_bulk_may_be(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % (512 * MIB + 1))
        assert wire.until_closed() == b"-ERR Protocol error: invalid bulk length\r\n"


# -------------------------------------------------------------------------------------------------- malformed protocol

MALFORMED = [
    b"*x\r\n",
    b"*2147483648\r\n",
    b"*-9223372036854775809\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$-5\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*1\r\n+PING\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\n\r\n",
    b"*1\r\n" * 10_000,
    b"*2\r\n$3\r\nGET\r\nk\r\n",
    b"*1\r\n$ 4\r\nPING\r\n",
    b"* 1\r\n$4\r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*01\r\n$4\r\nPING\r\n",
    b'SET k "unbalanced\r\n',
    b"GET 'unbalanced\r\n",
    b"A" * 70_000,
    b"*" + b"1" * 70_000,
    b"*1\r\n$" + b"1" * 70_000,
]


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
@pytest.mark.parametrize("begin", [b"", b"PING\r\n"], ids=["alone", "after-a-request"])
def test_malformed_requests_are_told_as_a_server_tells_it(
    proxy: Proxy, fleet: Fleet, data: bytes, begin: bytes
) -> None:
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain, proxy.socket() as wire:
        plain.send(begin + data)
        told = plain.until_closed()
        assert told.startswith(b"+PONG\r\n" * bool(begin) + b"-ERR Protocol error")
        before = closed_for(proxy, "protocol-error")
        wire.send(begin + data)
        assert wire.until_closed() == told
        wait_until(lambda: closed_for(proxy, "protocol-error") == before + 1, 5, "the reason is logged")


def test_more_arguments_than_shoal_takes(proxy: Proxy) -> None:
    """Servers take 2^31; shoal's own bound is a mebi of them."""
    with proxy.socket() as wire:
        wire.send(b"*1048577\r\n")
        assert wire.until_closed() == b"-ERR Protocol error: invalid multibulk length\r\n"


@pytest.mark.parametrize("data", [b"*0\r\n", b"*-1\r\n", b"\r\n", b"\n\n\r\n", b"   \r\n", b"*-5\r\n"], ids=repr)
def test_empty_requests_are_passed_over(proxy: Proxy, fleet: Fleet, data: bytes) -> None:
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain, proxy.socket() as wire:
        for end in (plain, wire):
            end.send(data + b"PING\r\n" + data + encode("ECHO", "x"))
            assert end.reply() == "PONG"
            assert end.reply() == b"x"


def test_replies_nested_ten_thousand_deep(fleet: Fleet, new_proxy: NewProxy) -> None:
    deep = b"*1\r\n" * 10_000 + b":7\r\n"
    with FakeShard(lambda _: deep) as fake:
        proxy = new_proxy([fake.address, *fleet.addresses[1:]])
        first, second = keys_on(0, 2)
        (other,) = keys_on(1, 1)
        with proxy.socket() as wire:
            wire.send(encode("GET", first) + encode("GET", other))
            begin = wire.exactly(4)
            if begin == b"*1\r\n":
                assert begin + wire.exactly(len(deep) - 4) == deep
            else:
                assert b"not RESP" in begin + wire.line()
            assert wire.reply() is None, "the reply behind it is its own"
            wire.command("MGET", first, other, second)
            assert isinstance(wire.reply(), ErrorReply)


# --------------------------------------------------------------------------------------------------- many connections


@pytest.fixture
def many_files() -> Iterator[None]:
    """So many descriptors as this process may have; the old limit afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 12_000:
        pytest.skip(f"10,000 connections need more than {hard} files; raise the hard limit (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


CONFIG = """
admin = "{admin}"
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
max_clients = MAX
"""


@pytest.mark.usefixtures("many_files")
def test_ten_thousand_idle_clients(fleet: Fleet, new_proxy: NewProxy) -> None:
    count = 10_000
    proxy = new_proxy(fleet.addresses, config=CONFIG.replace("MAX", "10100"))
    with ExitStack() as stack:
        first = [stack.enter_context(proxy.socket()) for _ in range(50)]
        for number, wire in enumerate(first):
            assert wire.ask("SET", f"idle:{number}", "v" * 100) == "OK"
        before = memory(proxy, "VmRSS")
        wires = [stack.enter_context(proxy.socket(timeout=30)) for _ in range(count)]
        for number, wire in enumerate(wires):
            wire.command("SET", f"idle:{number}", "v" * 100)
        assert all(wire.reply() == "OK" for wire in wires)
        grown = memory(proxy, "VmRSS") - before
        assert grown < count * 2 * KIB, f"{grown / count:.0f} bytes a client"
        assert wires[-1].ask("DBSIZE") == count
        spent = cpu_seconds(proxy)
        assert first[0].is_silent(1.0)
        assert cpu_seconds(proxy) - spent < 0.3, "idle clients cost no time"
    with proxy.socket() as wire:
        wait_until(lambda: b"connected_clients:1\r\n" in info(wire), 10, "all are gone")


def info(wire: Wire) -> bytes:
    text = wire.ask("INFO", "clients")
    assert isinstance(text, bytes)
    return text


def test_more_clients_than_allowed(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=CONFIG.replace("MAX", "5"))
    with ExitStack() as stack:
        wires = [stack.enter_context(proxy.socket()) for _ in range(5)]
        assert all(wire.ask("PING") == "PONG" for wire in wires)
        for _ in range(3):
            with proxy.socket() as extra:
                assert extra.until_closed() == b"-ERR max number of clients reached\r\n"
        assert all(wire.ask("PING") == "PONG" for wire in wires)
        wires[0].close()
        wait_until(lambda: is_let_in(proxy), 5, "there is room for one again")
    wait_until(lambda: closed_for(proxy, "max-clients") >= 3, 5, "the reason is logged")


def is_let_in(proxy: Proxy) -> bool:
    with contextlib.suppress(ConnectionError), proxy.socket() as wire:
        return wire.ask("PING") == "PONG"
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_descriptors(fleet: Fleet, new_proxy: NewProxy, workers: int) -> None:
    proxy = new_proxy(fleet.addresses, options=["--workers", str(workers)])
    with proxy.socket() as early, ExitStack() as stack:
        assert early.ask("MGET", *one_key_each()) == [None] * 4
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (256, 256))
        wires = [stack.enter_context(proxy.socket()) for _ in range(400)]
        for wire in wires:
            wire.command("PING")
        served = [wire for wire in wires[:100] if wire.reply() == "PONG"]
        assert len(served) == 100
        spent = cpu_seconds(proxy)
        assert wires[-1].is_silent(1.0), "it waits to be accepted"
        assert cpu_seconds(proxy) - spent < 0.3, "waiting for descriptors costs no time"
        assert early.ask("MGET", *one_key_each()) == [None] * 4, "who is there is served"
        for wire in wires[:200]:
            wire.close()
        assert all(wire.reply() == "PONG" for wire in wires[200:]), "all others are accepted when there is room"
    assert any("accept" in line and "reason" in line for line in proxy.log()), "it is logged"


@pytest.mark.timeout(120)  # alone, without the tests before it, it waits for all of OUTPUT_IDLE_MS
def test_a_forsaken_client_is_closed_after_a_minute(forsaken: tuple[Proxy, Wire]) -> None:
    """The last test of this module: see the fixture."""
    proxy, wire = forsaken
    assert closed_for(proxy, "output-stalled") in (0, 1)
    wait_until(lambda: closed_for(proxy, "output-stalled") == 1, OUTPUT_IDLE_S + 5, "it is closed, with its reason")
    got = len(wire.until_closed())
    assert MIB < got < 64 * MIB, "what the kernel held, and no more"
    with proxy.socket() as other:
        assert other.ask("PING") == "PONG"
