"""What clients see when shards, networks and the proxy itself fail: an error that says so, never a wrong reply.

Values are unique tokens, so that a reply which was given to the wrong request cannot look right.
"""

import random
import re
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from harness import ErrorReply, Fault, Fleet, Mischief, Proxy, Wire, wait_until
from harness.wire import encode
from system.fake_shard import FakeShard
from system.placement import SHARDS, keys_of, keys_on, one_key_each

NewFleet = Callable[..., Fleet]
NewProxy = Callable[..., Proxy]
NewFault = Callable[..., Fault]

# "At once": no time-out of seconds was waited for. The machine may be busy.
AT_ONCE_S = 1.0
# The longest wait between two tries is 2 s; a server starts within moments.
RECONNECT_S = 8.0

DOWN = re.compile(r"ERR shard 's\d+' at \S+ is down \(.+\); the request was not sent")
LOST = re.compile(r"ERR connection to shard 's\d+' at \S+ was lost \(.+\); whether the request was executed is unknown")


def is_loss(reply: object) -> bool:
    return isinstance(reply, ErrorReply) and bool(DOWN.fullmatch(reply) or LOST.fullmatch(reply))


def answers(proxy: Proxy, key: str) -> bool:
    with proxy.socket() as wire:
        return not isinstance(wire.ask("GET", key), ErrorReply)


def config(**settings: str | int) -> str:
    """The fleet's shards with further settings of the keyspace."""
    lines = "\n".join(f"{name} = {value!r}".replace("'", '"') for name, value in settings.items())
    shards = ", ".join(f'"{{shard{i}}}"' for i in range(SHARDS))
    return f'admin = "{{admin}}"\n[keyspace.main]\nlisten = "{{listen}}"\nshards = [{shards}]\n{lines}\n'


# ---------------------------------------------------------------------------------------------------- dying shards


def test_a_killed_shard_fails_alone_at_once_and_comes_back(proxy: Proxy, fleet: Fleet) -> None:
    keys = one_key_each()
    with proxy.socket() as wire:
        assert wire.ask("MSET", *(word for key in keys for word in (key, key))) == "OK"
        fleet.kill(2)
        for _ in range(20):
            started = time.monotonic()
            for shard, key in enumerate(keys):
                reply = wire.ask("GET", key)
                if shard == 2:
                    assert is_loss(reply), reply
                    assert f"'s2' at {fleet.addresses[2]}" in str(reply)
                else:
                    assert reply == key.encode()
            assert time.monotonic() - started < AT_ONCE_S
        split = wire.ask("MGET", *keys)
        assert is_loss(split), "a split request with a missing part is an error, not a shorter answer"
        assert is_loss(wire.ask("DBSIZE"))
        assert wire.ask("MGET", keys[0], keys[1]) == [keys[0].encode(), keys[1].encode()]
        fleet.restart(2)
        wait_until(lambda: wire.ask("GET", keys[2]) is None, RECONNECT_S, "the shard is used again")
        assert wire.ask("SET", keys[2], "new") == "OK"


def test_a_client_in_mid_request_gets_an_error_when_its_shard_dies(proxy: Proxy, fleet: Fleet) -> None:
    key, other = one_key_each()[1:3]
    with proxy.socket() as wire:
        wire.ask("SET", other, "there")
        fleet.stop(1)
        wire.send(encode("INCR", key) + encode("GET", other) + encode("MGET", other, key) + encode("GET", other))
        assert wire.is_silent(0.1), "the first reply is not there, so no other may be given"
        fleet.kill(1)
        replies = [wire.reply() for _ in range(4)]
    assert is_loss(replies[0])
    assert "whether the request was executed is unknown" in str(replies[0])
    assert replies[1] == replies[3] == b"there"
    assert is_loss(replies[2])


def test_pipelines_go_on_over_a_restart(proxy: Proxy, fleet: Fleet) -> None:
    keys = one_key_each()
    with proxy.socket() as wire:
        count = 2000
        data = b"".join(encode("ECHO", number) + encode("SET", keys[number % 4], number) for number in range(count))
        wire.send(data)
        fleet.kill(3)
        replies = [wire.reply() for _ in range(2 * count)]
        assert replies[::2] == [str(number).encode() for number in range(count)]
        for number, reply in enumerate(replies[1::2]):
            assert reply == "OK" or (number % 4 == 3 and is_loss(reply)), (number, reply)
        fleet.restart(3)
        wait_until(lambda: wire.ask("SET", keys[3], "x") == "OK", RECONNECT_S, "the shard is used again")


class Reader(threading.Thread):
    """A client that reads tokens of all shards in pipelines and keeps what was wrong."""

    def __init__(self, proxy: Proxy, tokens: dict[str, bytes], seed: int) -> None:
        super().__init__(daemon=True)
        self.proxy = proxy
        self.tokens = tokens
        self.random = random.Random(seed)
        self.ending = threading.Event()
        self.wrong: list[object] = []
        self.right = self.failed = self.closed = 0

    def run(self) -> None:
        while not self.ending.is_set():
            try:
                with self.proxy.socket() as wire:
                    while not self.ending.is_set():
                        self.turn(wire)
            except (ConnectionError, TimeoutError) as error:
                self.closed += 1
                if isinstance(error, TimeoutError):
                    self.wrong.append(error)

    def turn(self, wire: Wire) -> None:
        keys = self.random.choices(list(self.tokens), k=self.random.randint(1, 60))
        many = self.random.choices(list(self.tokens), k=5)
        wire.send(b"".join(encode("GET", key) for key in keys) + encode("MGET", *many))
        for key in keys:
            self.judge(wire.reply(), self.tokens[key])
        self.judge(wire.reply(), [self.tokens[key] for key in many])

    def judge(self, reply: object, expected: object) -> None:
        if reply == expected:
            self.right += 1
        elif is_loss(reply):
            self.failed += 1
        else:
            self.wrong.append((reply, expected))


def have_read(readers: list[Reader], count: int) -> bool:
    return sum(reader.right for reader in readers) >= count


def test_no_reply_is_ever_given_to_the_wrong_request(fleet: Fleet, new_proxy: NewProxy, new_fault: NewFault) -> None:
    faults = [new_fault(server, seed) for seed, server in enumerate(fleet.servers)]
    proxy = new_proxy([fault.address for fault in faults], options=["--workers", "2"])
    rng = random.Random(5)
    tokens = {key: b"%s=%s" % (key.encode(), rng.randbytes(rng.choice([1, 30, 2000])).hex().encode())
              for shard in range(SHARDS) for key in keys_on(shard, 15)}  # fmt: skip
    proxy.client().mset(tokens)
    readers = [Reader(proxy, tokens, seed) for seed in range(6)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(30):
            before = sum(reader.right for reader in readers)
            fault = rng.choice(faults)
            fault.replies = Mischief(cut_after=rng.randint(0, 50_000), cut_with=rng.choice(["rst", "fin"]))
            wait_until(partial(have_read, readers, before + 200), 20, "clients go on")
            fault.replies = Mischief(dribble=rng.choice([0, 0, 500]))
    finally:
        for reader in readers:
            reader.ending.set()
        for reader in readers:
            reader.join(20)
    assert not [reader.wrong for reader in readers if reader.wrong]
    assert all(reader.right > 500 for reader in readers)
    assert sum(reader.failed + reader.closed for reader in readers) > 10, "something was cut"


# ---------------------------------------------------------------------------------------------------- slow shards


def test_a_frozen_shard_costs_its_own_clients_timeout_ms(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, config=config(timeout_ms=400))
    keys = one_key_each()
    with proxy.socket() as stuck, proxy.socket() as other:
        assert stuck.ask("GET", keys[0]) is None
        fleet.stop(0)
        started = time.monotonic()
        stuck.command("GET", keys[0])
        rounds = 0
        while time.monotonic() - started < 0.3:
            assert other.ask("GET", keys[1]) is None
            rounds += 1
        assert rounds > 50, "other shards are as fast as before"
        reply = stuck.reply()
        took = time.monotonic() - started
        assert is_loss(reply), reply
        assert "no answer within 400 ms" in str(reply)
        assert 0.35 < took < 3
        assert is_loss(stuck.ask("GET", keys[0]))
        fleet.cont(0)
        wait_until(lambda: stuck.ask("GET", keys[0]) is None, RECONNECT_S, "the shard is used again")


def test_a_frozen_shard_is_found_out_without_any_request(fleet: Fleet, new_proxy: NewProxy) -> None:
    """The probe: at most PROBE_MS + PROBE_TIMEOUT_MS, 6 seconds, although no client has asked for anything."""
    proxy = new_proxy(fleet.addresses)
    wait_until(lambda: answers(proxy, one_key_each()[1]), 5, "it is up")
    fleet.stop(1)
    wait_until(lambda: any("event=shard-down" in line and "shard=s1" in line for line in proxy.log()), 12, "noticed")
    with proxy.socket() as wire:
        assert is_loss(wire.ask("GET", one_key_each()[1]))


def test_a_shard_that_refuses_connections_fails_at_once(fleet: Fleet, new_proxy: NewProxy) -> None:
    fleet.kill(1)
    proxy = new_proxy(fleet.addresses)
    with proxy.socket() as wire:
        started = time.monotonic()
        reply = wire.ask("GET", one_key_each()[1])
        assert time.monotonic() - started < AT_ONCE_S
        assert isinstance(reply, ErrorReply)
        assert DOWN.fullmatch(reply)
        assert "refused" in reply
        assert wire.ask("GET", one_key_each()[0]) is None


# ------------------------------------------------------------------------------------------------- broken networks


def test_a_reset_at_any_byte_of_the_replies(fleet: Fleet, new_proxy: NewProxy, new_fault: NewFault) -> None:
    fault = new_fault(fleet.servers[0])
    proxy = new_proxy([fault.address, *fleet.addresses[1:]])
    first, second, third = keys_on(0, 3)
    (other,) = keys_on(1, 1)
    values = {first: b"one", second: b"2" * 40, third: b"3" * 11, other: b"elsewhere"}
    proxy.client().mset(values)
    whole = sum(len(b"$%d\r\n%s\r\n" % (len(value), value)) for key, value in values.items() if key != other)
    for count in range(0, whole + 3, 3):
        wait_until(lambda: answers(proxy, first), RECONNECT_S, f"up before the cut after {count} bytes")
        fault.replies = Mischief(cut_after=count)
        with proxy.socket() as wire:
            wire.send(b"".join(encode("GET", key) for key in (first, second, other, third)))
            replies: list[object] = []
            try:
                replies += [wire.reply() for _ in range(4)]
            except ConnectionError:
                replies.append("closed")
        fault.replies = Mischief()
        for reply, key in zip(replies, (first, second, other, third), strict=False):
            # Closed is right where a part of this reply had been passed on already; nothing else can be said then.
            assert reply == values[key] or is_loss(reply) or reply == "closed", (count, replies)
    closed = [line for line in proxy.log() if "event=client-closed" in line and "reason=reply-cut" in line]
    assert len(closed) <= whole


def test_dribbled_bytes_arrive_whole(fleet: Fleet, new_proxy: NewProxy, new_fault: NewFault) -> None:
    faults = [new_fault(server, seed) for seed, server in enumerate(fleet.servers)]
    for fault in faults:
        fault.replies = fault.requests = Mischief(dribble=3)
    proxy = new_proxy([fault.address for fault in faults])
    rng = random.Random(6)
    values = {f"d{number}": rng.randbytes(number * 5) for number in range(20)}
    with proxy.socket(timeout=30) as wire:
        for protocol in (2, 3):
            wire.ask("HELLO", protocol)
            assert wire.ask("MSET", *(word for pair in values.items() for word in pair)) == "OK"
            assert wire.ask("MGET", *values, "none") == [*values.values(), None]
            wire.send(b"".join(encode("GET", key) for key in values))
            assert [wire.reply() for _ in values] == list(values.values())
            assert wire.ask("HSET", "h", "f", "v", "g", "w") in (0, 2)
            hash_reply = wire.ask("HGETALL", "h")
            assert hash_reply == ([b"f", b"v", b"g", b"w"] if protocol == 2 else {b"f": b"v", b"g": b"w"})
            for key in one_key_each():
                # Known to the proxy after the first, unknown to the other shards: NOSCRIPT comes in pieces, too.
                assert wire.ask("EVAL", "return ARGV[1]", 1, key, "x") == b"x"
                assert wire.ask("EVALSHA", "098e0f0d1448c0a81dafe820f66d460eb09263da", 1, key, "y") == b"y"


def test_a_cut_in_the_middle_of_a_large_reply_closes_the_client(
    fleet: Fleet, new_proxy: NewProxy, new_fault: NewFault
) -> None:
    fault = new_fault(fleet.servers[0])
    proxy = new_proxy([fault.address, *fleet.addresses[1:]])
    (key,) = keys_on(0, 1)
    fleet.client(0).set(key, b"x" * 5_000_000)
    with proxy.socket() as wire:
        assert wire.ask("STRLEN", key) == 5_000_000
        fault.replies = Mischief(cut_after=2_000_000)
        wire.command("GET", key)
        data = wire.until_closed()
    # How much came is the network's affair (a reset destroys what was not read yet); it is the beginning of the reply.
    assert len(data) < 5_000_000
    assert (b"$5000000\r\n" + b"x" * 5_000_000).startswith(data)
    wait_until(lambda: any("reason=reply-cut" in line for line in proxy.log()), 5, "the reason is logged")


# ------------------------------------------------------------------------------------------- shards that talk rubbish


RUBBISH = [
    b"hello\r\n",
    b"*-7\r\n",
    b"$99999999999999999999\r\n",
    b"\0" * 50,
    b"$5\r\nhello??",
    b"*1\r\n@\r\n",
    b"+a\nb\r\n",
]


@pytest.mark.parametrize("rubbish", RUBBISH, ids=range(len(RUBBISH)))
def test_rubbish_instead_of_a_reply(fleet: Fleet, new_proxy: NewProxy, rubbish: bytes) -> None:
    with FakeShard(lambda _: rubbish) as fake:
        proxy = new_proxy([fake.address, *fleet.addresses[1:]])
        with proxy.socket(timeout=5) as wire, proxy.socket() as other:
            wire.command("GET", keys_on(0, 1)[0])
            line = wire.line()
            if not LOST.fullmatch(line.decode().removeprefix("-")):
                # Some of it looked right and had been passed on: then the connection must end.
                assert rubbish.startswith(line)
                wire.until_closed()
            assert other.ask("GET", keys_on(1, 1)[0]) is None
        wait_until(lambda: any("not RESP" in line for line in proxy.log()), 5, "the reason is logged")


def test_replies_that_nobody_asked_for(fleet: Fleet, new_proxy: NewProxy) -> None:
    """Two replies to one request: the second must not become the answer to the next request."""
    with FakeShard(lambda words: b"+%s\r\n+too-much\r\n" % words[1]) as fake:
        proxy = new_proxy([fake.address, *fleet.addresses[1:]])
        first, second = (key.encode() for key in keys_on(0, 2))
        with proxy.socket() as wire:
            assert wire.ask("GET", first) == first.decode()
            for _ in range(20):
                reply = wire.ask("GET", second)
                assert reply == second.decode() or is_loss(reply), reply
        wait_until(lambda: any("nobody asked for" in line for line in proxy.log()), 5, "the reason is logged")


def test_words_out_of_the_blue(fleet: Fleet, new_proxy: NewProxy) -> None:
    with FakeShard(lambda words: b"+%s\r\n" % words[1]) as fake:
        proxy = new_proxy([fake.address, *fleet.addresses[1:]])
        key = keys_on(0, 1)[0]
        with proxy.socket() as wire:
            assert wire.ask("GET", key) == key
            fake.say(b"-ERR idle timeout\r\n")
            wait_until(lambda: any("nobody asked for" in line for line in proxy.log()), 5, "the connection is given up")
            wait_until(lambda: wire.ask("GET", key) == key, RECONNECT_S, "and made again")
        assert fake.accepted >= 2


def test_a_shard_that_is_still_loading(fleet: Fleet, new_proxy: NewProxy) -> None:
    words = b"-LOADING Valkey is loading the dataset in memory\r\n"
    with FakeShard(lambda _: b"+OK\r\n", {b"INFO": words}) as fake:
        proxy = new_proxy([fake.address, *fleet.addresses[1:]])
        with proxy.socket() as wire:
            reply = wire.ask("GET", keys_on(0, 1)[0])
            assert is_loss(reply)
            assert "LOADING" in str(reply)


# --------------------------------------------------------------------------------------------- passwords of shards


def test_a_shard_that_wants_a_password(new_fleet: NewFleet, new_proxy: NewProxy, tmp_path: Path) -> None:
    fleet = new_fleet(2, settings=("requirepass right-secret",))
    for secret, expected in ((None, "NOAUTH"), ("wrong-secret", "WRONGPASS"), ("right-secret", None)):
        options = []
        if secret is not None:
            file = tmp_path / "password"
            file.write_text(secret + "\n")
            file.chmod(0o600)
            options = ["--server-password-file", str(file)]
        proxy = new_proxy(fleet.addresses, options=options)
        with proxy.socket() as wire:
            reply = wire.ask("SET", "k", "v")
            if expected is None:
                assert reply == "OK"
            else:
                assert is_loss(reply), reply
                assert expected in str(reply)
                assert fleet.addresses[0] in str(reply) or fleet.addresses[1] in str(reply)
        assert "secret" not in "\n".join(proxy.log())
        assert b"secret" not in Path(f"/proc/{proxy.pid}/cmdline").read_bytes()
        proxy.end()


# ---------------------------------------------------------------------------------------------------- the proxy itself


def test_sigterm_answers_what_is_in_flight(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, options=["--drain-timeout-ms", "8000"])
    keys = one_key_each()
    with proxy.socket() as wire, proxy.socket() as idle:
        assert wire.ask("SET", keys[0], "v") == "OK"
        assert idle.ask("PING") == "PONG"
        fleet.stop(0)
        wire.send(encode("GET", keys[0]) + encode("GET", keys[1]) + encode("MGET", *keys))
        assert wire.is_silent(0.2)
        stopping = threading.Thread(target=wait_for_log, args=(proxy, "event=stopping", lambda: fleet.cont(0)))
        stopping.start()
        started = time.monotonic()
        assert proxy.stop() == 0
        assert time.monotonic() - started < 5
        stopping.join()
        assert [wire.reply() for _ in range(3)] == [b"v", None, [b"v", None, None, None]]
        assert wire.until_closed() == b""
        assert idle.until_closed() == b""
    assert any("event=stopped drained=yes" in line for line in proxy.log())


def wait_for_log(proxy: Proxy, text: str, then: Callable[[], None]) -> None:
    try:
        wait_until(lambda: any(text in line for line in proxy.log()), 10, f"the log says {text}")
    finally:
        then()


def test_sigterm_is_bounded_by_the_drain_timeout(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses, options=["--drain-timeout-ms", "300"])
    with proxy.socket() as wire:
        assert wire.ask("GET", one_key_each()[0]) is None
        fleet.stop(0)
        wire.command("GET", one_key_each()[0])
        assert wire.is_silent(0.1)
        started = time.monotonic()
        assert proxy.stop() == 0
        assert 0.2 < time.monotonic() - started < 4
        wire.until_closed()
    assert any("event=stopped drained=no" in line for line in proxy.log())
    with pytest.raises(ConnectionRefusedError):
        proxy.socket()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name)
def test_an_idle_proxy_stops_at_once(fleet: Fleet, new_proxy: NewProxy, number: signal.Signals) -> None:
    proxy = new_proxy(fleet.addresses, options=["--workers", "3"])
    started = time.monotonic()
    assert proxy._end(number, 10) == 0
    assert time.monotonic() - started < 3


def test_a_killed_proxy_leaves_the_shards_as_they_are(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses)
    proxy.client().mset({f"k{i}": i for i in range(100)})
    proxy.kill()
    assert sum(len(keys_of(fleet, shard)) for shard in range(SHARDS)) == 100
    proxy.start()
    assert proxy.client().get("k99") == b"99"


def test_clients_that_vanish_leave_nothing_behind(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(fleet.addresses)
    (key,) = keys_on(0, 1)
    with proxy.socket() as survivor:
        assert survivor.ask("SET", key, "token") == "OK"
        fleet.stop(0)
        for number in range(50):
            wire = proxy.socket()
            wire.send(encode("GET", key) + encode("SET", f"half:{number}", "x")[:-3])
            wire.reset()
        survivor.command("GET", key)
        fleet.cont(0)
        assert survivor.reply() == b"token"
        wait_until(lambda: survivor_count(survivor) == 1, 5, "the others are gone")


def survivor_count(wire: Wire) -> int:
    text = wire.ask("CLIENT", "LIST")
    assert isinstance(text, bytes)
    return text.count(b"\n")


def test_an_endpoint_by_name(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy([f"localhost:{server.port.number}" for server in fleet.servers])
    client = proxy.client()
    client.mset({f"k{i}": i for i in range(40)})
    assert sum(len(keys_of(fleet, shard)) for shard in range(SHARDS)) == 40
    fleet.restart(0)
    wait_until(lambda: answers(proxy, one_key_each()[0]), RECONNECT_S, "the name is looked up again")


def test_a_name_that_means_nothing(fleet: Fleet, new_proxy: NewProxy) -> None:
    proxy = new_proxy(["no-such-host.invalid:7000", *fleet.addresses[1:]])
    with proxy.socket() as wire:
        reply = wire.ask("GET", one_key_each()[0])
        assert is_loss(reply), reply
        assert "no-such-host.invalid:7000" in str(reply)
        assert wire.ask("GET", one_key_each()[1]) is None
