"""Publish and subscribe through shoal.

What one client is told is what a plain server tells, byte for byte; what many get is each message once, from whatever
shard it was published on.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import encode
from system.placement import slot_of

SHARDS = 3
WORKERS = 2
CONFIG = """
workers = 2
admin = "{admin}"
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}", "{shard2}"]
"""

Address = tuple[str, int]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three shards and, last, a plain server beside them."""
    with Fleet(tmp_path_factory.mktemp("servers"), SHARDS + 1, "redis7") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def shared_proxy(servers: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(tmp_path_factory.mktemp("proxy"), servers.addresses[:SHARDS], config=CONFIG) as proxy:
        yield proxy


@pytest.fixture
def proxy(servers: Fleet, shared_proxy: Proxy) -> Proxy:
    """Every shard up and used, nobody subscribed."""
    servers.heal()
    with shared_proxy.socket() as wire:
        wait_until(lambda: all(wire.ask("SET", key, "v") == "OK" for key in one_key_each()), 8, "all shards are used")
        wait_until(lambda: names_of(wire) == [], 5, "subscribers of the test before are gone")
    return shared_proxy


@pytest.fixture
def plain(servers: Fleet) -> Address:
    return split(servers.addresses[SHARDS])


def split(address: str) -> Address:
    host, port = address.rsplit(":", 1)
    return host, int(port)


def one_key_each() -> list[str]:
    """A key of each of three shards."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < SHARDS:
        key = f"key:{number}"
        found.setdefault(slot_of(key.encode()) * SHARDS // 16384, key)
        number += 1
    return [found[shard] for shard in range(SHARDS)]


def channels_each(prefix: str = "ch") -> list[str]:
    """A channel that is published on each of three shards."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < SHARDS:
        channel = f"{prefix}:{number}"
        found.setdefault(slot_of(channel.encode()) % SHARDS, channel)
        number += 1
    return [found[shard] for shard in range(SHARDS)]


def names_of(wire: Wire) -> object:
    return wire.ask("PUBSUB", "CHANNELS")


def connect(address: Address, *, resp3: bool = False) -> Wire:
    wire = Wire(*address)
    if resp3:
        wire.ask("HELLO", 3)
    return wire


def of(proxy: Proxy) -> Address:
    return proxy.host, proxy.port


def raw_until(wire: Wire, marker: bytes) -> bytes:
    """The exact bytes up to a line that ends with the marker."""
    lines = []
    while True:
        lines.append(wire.line())
        if lines[-1].endswith(marker):
            return b"\r\n".join(lines) + b"\r\n"


def talk(address: Address, requests: Sequence[str], *, resp3: bool) -> list[bytes]:
    """What each request is answered with: the bytes before the answer to a PING that follows it."""
    answers = []
    with connect(address, resp3=resp3) as wire:
        for number, request in enumerate(requests):
            wire.command(*request.split(" "))
            if request == "CLIENT REPLY SKIP":
                continue  # it has no answer itself, and the next request is what is to have none
            marker = f"marker-{number}"
            wire.command("PING", marker)
            answers.append(raw_until(wire, marker.encode()))
    # Versions and client numbers are not what is compared.
    return [re.sub(rb":\d+\r\n\$4\r\nmode", b":id\r\n$4\r\nmode", answer) for answer in answers]


CONVERSATIONS = [
    ["SUBSCRIBE a b a", "UNSUBSCRIBE b", "UNSUBSCRIBE nope", "UNSUBSCRIBE", "UNSUBSCRIBE", "GET x"],
    ["PSUBSCRIBE p*", "SUBSCRIBE a", "SSUBSCRIBE s s2", "PUNSUBSCRIBE", "SUNSUBSCRIBE s s2", "UNSUBSCRIBE", "GET x"],
    ["PUNSUBSCRIBE", "SUNSUBSCRIBE", "UNSUBSCRIBE a b", "PUNSUBSCRIBE x", "SUNSUBSCRIBE y"],
    ["SUBSCRIBE a", "GET x", "CONFIG GET x", "NOSUCH", "GET", "CLIENT ID x", "PING", "PING a b", "AUTH x"],
    ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "PUBLISH a", "PUBLISH a b c", "SPUBLISH a", "PUBSUB"],
    ["CLIENT REPLY SKIP", "SUBSCRIBE a", "UNSUBSCRIBE a"],
    ["SUBSCRIBE a", "RESET", "GET x", "UNSUBSCRIBE"],
    ["PUBSUB CHANNELS a b", "PUBSUB NUMPAT x", "PUBSUB NUMSUB", "PUBSUB NOSUCH", "PUBSUB NUMSUB a b a"],
    ["PUBSUB SHARDNUMSUB a", "PUBSUB SHARDCHANNELS", "PUBSUB SHARDCHANNELS a b", "PUBSUB CHANNELS", "PUBSUB NUMPAT"],
    ["PUBLISH nobody m", "SPUBLISH nobody m"],
    ["SSUBSCRIBE s", "GET x", "SUNSUBSCRIBE", "GET x"],
    ["PSUBSCRIBE * *", "PUNSUBSCRIBE *", "PUNSUBSCRIBE *"],
]
CONVERSATIONS_OF_RESP2 = [
    ["SUBSCRIBE a", "MULTI", "HELLO 3", "PUBLISH a x", "PUBSUB CHANNELS", "UNSUBSCRIBE a", "GET x"],
]
CONVERSATIONS_OF_RESP3 = [
    ["SUBSCRIBE a", "GET x", "PUBSUB CHANNELS", "PUBSUB NUMSUB a b", "PUBSUB CHANNELS b*", "PUBSUB CHANNELS [a]*"],
    ["SUBSCRIBE a", "HELLO 2", "GET x", "HELLO 3", "UNSUBSCRIBE a", "HELLO 3", "GET x"],
    ["PSUBSCRIBE a b", "PUBSUB NUMPAT", "PUBLISH nobody x", "UNSUBSCRIBE", "PUNSUBSCRIBE a"],
    ["SUBSCRIBE  a]", *(f"PUBSUB CHANNELS {odd}" for odd in ("", "*", "a\\]", "[a-]", "[]", "?[^", "a]**", "a\\"))],
    ["SSUBSCRIBE s", "PUBSUB SHARDCHANNELS", "PUBSUB SHARDNUMSUB s t", "PUBSUB CHANNELS", "SPUBLISH t x"],
    ["SUBSCRIBE a", "MULTI", "PING", "EXEC", "CLIENT REPLY OFF", "SUBSCRIBE b", "UNSUBSCRIBE a", "CLIENT REPLY ON"],
]


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=" ".join)
@pytest.mark.parametrize("resp3", [False, True], ids=["resp2", "resp3"])
def test_a_client_is_told_what_a_server_tells(
    proxy: Proxy, plain: Address, conversation: list[str], *, resp3: bool
) -> None:
    assert talk(of(proxy), conversation, resp3=resp3) == talk(plain, conversation, resp3=resp3)


@pytest.mark.parametrize("conversation", CONVERSATIONS_OF_RESP2, ids=" ".join)
def test_a_client_of_resp2_is_told_what_a_server_tells(proxy: Proxy, plain: Address, conversation: list[str]) -> None:
    assert talk(of(proxy), conversation, resp3=False) == talk(plain, conversation, resp3=False)


@pytest.mark.parametrize("conversation", CONVERSATIONS_OF_RESP3, ids=" ".join)
def test_a_client_of_resp3_is_told_what_a_server_tells(proxy: Proxy, plain: Address, conversation: list[str]) -> None:
    # Replies that are not given would leave a PING without its answer.
    if "CLIENT REPLY OFF" in conversation:
        for address in (of(proxy), plain):
            with connect(address, resp3=True) as wire:
                wire.send(b"".join(encode(*request.split(" ")) for request in conversation))
                assert [wire.reply() for _ in range(7)] == [
                    [b"subscribe", b"a", 1], "OK", "QUEUED", ["PONG"], [b"subscribe", b"b", 2],
                    [b"unsubscribe", b"a", 1], "OK",
                ]  # fmt: skip
        return
    own, servers = talk(of(proxy), conversation, resp3=True), talk(plain, conversation, resp3=True)
    assert own == servers


def test_quit_and_the_end_of_subscriptions(proxy: Proxy, plain: Address) -> None:
    for address in (of(proxy), plain):
        with connect(address) as wire:
            wire.send(encode("SUBSCRIBE", "a") + encode("PING") + encode("UNSUBSCRIBE", "a") + encode("GET", "x"))
            wire.send(encode("SUBSCRIBE", "b") + encode("QUIT"))
            assert wire.until_closed() == (
                b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n"
                b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n$-1\r\n"
                b"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:1\r\n+OK\r\n"
            )
    with proxy.socket() as wire:
        wait_until(lambda: names_of(wire) == [], 5, "who has left is not subscribed")


def subscribe(wire: Wire, *words: str) -> None:
    wire.command(*words)
    for _ in words[1:]:
        reply = wire.reply()
        assert isinstance(reply, list), reply


def messages_on(address: Address) -> list[list[bytes]]:
    """What subscribers of several kinds and protocols get, and what the publisher is told.

    The channels have one slot, so that their messages come in the order of the publisher.
    """
    with ExitStack() as stack:
        wires = [stack.enter_context(connect(address, resp3=resp3)) for resp3 in (False, True, False, True, True)]
        subscribe(wires[0], "SUBSCRIBE", "{c}:1")
        subscribe(wires[1], "SUBSCRIBE", "{c}:1", "{c}:2")
        subscribe(wires[1], "PSUBSCRIBE", "{c}:1")
        subscribe(wires[2], "PSUBSCRIBE", "{c}:*")
        subscribe(wires[3], "PSUBSCRIBE", "{c}:?")
        subscribe(wires[4], "SSUBSCRIBE", "{c}:1")
        publisher = stack.enter_context(connect(address))
        told = [
            publisher.ask("PUBLISH", "{c}:1", "one"),
            publisher.ask("PUBLISH", "{c}:2", b"\r\n\x00"),
            publisher.ask("PUBLISH", "{c}:3", ""),
            publisher.ask("PUBLISH", "{d}:1", "nobody"),
            publisher.ask("SPUBLISH", "{c}:1", "sharded"),
            publisher.ask("PUBLISH", "{c}:1", "x" * 100_000),
            publisher.ask("PUBLISH", "{c}:1", "the-end"),
            publisher.ask("SPUBLISH", "{c}:1", "the-end"),
        ]
        seen = []
        for wire in wires:
            lines: list[bytes] = []
            while not lines or lines[-1] != b"the-end":
                lines.append(wire.line())
            seen.append(lines)
        return [[str(told).encode()], *seen]


def test_messages_are_a_servers_byte_for_byte(proxy: Proxy, plain: Address) -> None:
    assert messages_on(of(proxy)) == messages_on(plain)


def on_servers(servers: Fleet, channel: str) -> list[int]:
    """How many connections each shard has for a channel."""
    return [servers.client(shard).pubsub_numsub(channel)[0][1] for shard in range(SHARDS)]


def agree(servers: Fleet, channel: str, count: int) -> bool:
    return on_servers(servers, channel) == [count] * SHARDS


def direct(servers: Fleet, shard: int, *words: str) -> object:
    """A command for a shard's server itself."""
    with connect(split(servers.addresses[shard])) as wire:
        return wire.ask(*words)


def test_many_clients_are_one_subscription_and_each_gets_each_message_once(proxy: Proxy, servers: Fleet) -> None:
    clients, rounds = 24, 40
    channels = channels_each()
    with ExitStack() as stack:
        wires = [stack.enter_context(connect(of(proxy), resp3=number % 3 == 0)) for number in range(clients)]
        for wire in wires:
            subscribe(wire, "SUBSCRIBE", *channels)
        for channel in channels:
            assert on_servers(servers, channel) == [WORKERS] * SHARDS
        publisher = stack.enter_context(connect(of(proxy)))
        expected = [[b"message", channel.encode(), b"%d" % turn] for turn in range(rounds) for channel in channels]
        for _, name, text in expected:
            assert publisher.ask("PUBLISH", name, text) == clients
        for wire in wires:
            got = [wire.reply() for _ in expected]
            # One channel's messages come in order, those of several come from several shards.
            for channel in channels:
                mine = [message for message in expected if message[1] == channel.encode()]
                assert [message for message in got if isinstance(message, list) and message[1] == mine[0][1]] == mine
            assert sorted(map(str, got)) == sorted(map(str, expected))
        subscribe(wires[0], "UNSUBSCRIBE", channels[0])
        assert publisher.ask("PUBLISH", channels[0], "x") == clients - 1
        wires[0].command("PING", "end")
        replies = wires[0].reply()
        assert replies in (b"end", [b"pong", b"end"]), "nothing came after the end of the subscription"
        assert publisher.ask("PUBSUB", "NUMSUB", *channels) == [
            channels[0].encode(), clients - 1, channels[1].encode(), clients, channels[2].encode(), clients,
        ]  # fmt: skip
    for channel in channels:
        wait_until(partial(agree, servers, channel, 0), 5, "the last one has left")


def test_the_count_has_those_who_subscribe_at_a_server_directly(proxy: Proxy, servers: Fleet) -> None:
    (channel, *_) = channels_each("direct")
    with ExitStack() as stack:
        for shard in range(SHARDS):
            wire = stack.enter_context(connect(split(servers.addresses[shard])))
            subscribe(wire, "SUBSCRIBE", channel)
        publisher = stack.enter_context(connect(of(proxy)))
        assert publisher.ask("PUBLISH", channel, "x") == 1
        for _ in range(5):
            subscribe(stack.enter_context(connect(of(proxy))), "SUBSCRIBE", channel)
        assert publisher.ask("PUBLISH", channel, "x") == 6
        subscribe(stack.enter_context(connect(of(proxy))), "PSUBSCRIBE", "direct*", "d*")
        assert publisher.ask("PUBLISH", channel, "x") == 8


@pytest.mark.parametrize("resp3", [False, True], ids=["resp2", "resp3"])
def test_what_transactions_and_scripts_publish_arrives(proxy: Proxy, *, resp3: bool) -> None:
    with connect(of(proxy), resp3=resp3) as subscriber, connect(of(proxy)) as publisher:
        subscribe(subscriber, "SUBSCRIBE", "news")
        expected = []
        for key in one_key_each():
            publisher.send(encode("MULTI") + encode("SET", key, 1) + encode("PUBLISH", "news", f"multi {key}"))
            publisher.send(encode("SPUBLISH", "news", "to nobody") + encode("EXEC"))
            assert [publisher.reply() for _ in range(4)] == ["OK", "QUEUED", "QUEUED", "QUEUED"]
            replies = publisher.reply()
            assert isinstance(replies, list)
            assert replies[0] == "OK"
            script = "return redis.call('PUBLISH', ARGV[1], ARGV[2])"
            publisher.ask("EVAL", script, 1, key, "news", f"script {key}")
            expected += [f"multi {key}", f"script {key}"]
        publisher.send(encode("MULTI") + encode("PUBLISH", "news", "alone") + encode("EXEC"))
        publisher.send(encode("PUBLISH", "news", "last"))
        expected += ["alone", "last"]
        got = [subscriber.reply() for _ in expected]
        assert sorted(map(str, got)) == sorted(str([b"message", b"news", text.encode()]) for text in expected)


def test_keyspace_events_come_from_every_shard(proxy: Proxy, servers: Fleet) -> None:
    for shard in range(SHARDS):
        servers.client(shard).config_set("notify-keyspace-events", "KEA")
    try:
        with connect(of(proxy)) as by_key, connect(of(proxy), resp3=True) as by_event, connect(of(proxy)) as writer:
            subscribe(by_key, "PSUBSCRIBE", "__keyspace@0__:*")
            subscribe(by_event, "SUBSCRIBE", "__keyevent@0__:del")
            for key in one_key_each():
                writer.ask("SET", key, "v")
                writer.ask("DEL", key)
            expected = [
                [b"pmessage", b"__keyspace@0__:*", f"__keyspace@0__:{key}".encode(), event]
                for key in one_key_each()
                for event in (b"set", b"del")
            ]
            got = [by_key.reply() for _ in expected]
            assert sorted(map(str, got)) == sorted(map(str, expected))
            deleted = [by_event.reply() for _ in range(SHARDS)]
            assert sorted(map(str, deleted)) == sorted(
                str([b"message", b"__keyevent@0__:del", key.encode()]) for key in one_key_each()
            )
    finally:
        for shard in range(SHARDS):
            servers.client(shard).config_set("notify-keyspace-events", "")


def test_a_shard_that_comes_back_is_subscribed_to_again(proxy: Proxy, servers: Fleet) -> None:
    channels = channels_each("again")
    with ExitStack() as stack:
        early = [stack.enter_context(connect(of(proxy))) for _ in range(WORKERS)]
        for wire in early:
            subscribe(wire, "SUBSCRIBE", *channels)
        publisher = stack.enter_context(connect(of(proxy)))
        servers.kill(1)
        late = stack.enter_context(connect(of(proxy), resp3=True))
        subscribe(late, "SUBSCRIBE", *channels)
        everybody = [*early, late]
        # Whatever would go to the lost shard goes to the next one.
        wait_until(
            lambda: [publisher.ask("PUBLISH", channel, "probe") for channel in channels] == [3, 3, 3], 5, "it goes on"
        )
        for wire in everybody:
            for channel in channels:
                message = wire.reply()
                while message != [b"message", channel.encode(), b"probe"]:
                    message = wire.reply()
        servers.restart(1)
        for channel in channels:
            wait_until(partial(agree, servers, channel, WORKERS), 8, "subscribed again")
        servers.client(1).publish(channels[0], "back")
        for wire in everybody:
            message = wire.reply()
            while message != [b"message", channels[0].encode(), b"back"]:
                assert isinstance(message, list)
                assert message[2] == b"probe"
                message = wire.reply()


def test_a_connection_that_a_server_closes_is_made_again(proxy: Proxy, servers: Fleet) -> None:
    with connect(of(proxy)) as wire:
        subscribe(wire, "SUBSCRIBE", "kept")
        direct(servers, 0, "CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: on_servers(servers, "kept")[0] == 1, 5, "subscribed again")
        servers.client(0).publish("kept", "x")
        assert wire.reply() == [b"message", b"kept", b"x"]
    wait_until(lambda: any("connection-lost" in line for line in proxy.log()), 5, "it is logged")


def test_a_shard_that_forbids_a_channel(proxy: Proxy, servers: Fleet) -> None:
    for shard in (0, 2):
        direct(servers, shard, "ACL", "SETUSER", "default", "resetchannels", "&open*")
    try:
        with connect(of(proxy)) as wire:
            reply = wire.ask("SUBSCRIBE", "open:1", "shut", "other")
            assert isinstance(reply, ErrorReply)
            assert reply.startswith("NOPERM")
            assert wire.ask("GET", "x") is None, "it is not subscribed to anything"
            subscribe(wire, "SUBSCRIBE", "open:1")
            assert isinstance(wire.ask("SUBSCRIBE", "shut"), ErrorReply)
            assert wire.ask("SUBSCRIBE", "open:2") == [b"subscribe", b"open:2", 2]
            for channel, expected in (("open:1", 1), ("open:2", 1), ("shut", 0), ("other", 0)):
                wait_until(partial(agree, servers, channel, expected), 5, "all agree")
    finally:
        for shard in (0, 2):
            direct(servers, shard, "ACL", "SETUSER", "default", "allchannels")


def publish_until(publisher: Wire, channel: str, text: str, condition: Callable[[], bool]) -> int:
    """Publishes until something is the case; how often."""
    sent = 0

    def goes_on() -> bool:
        nonlocal sent
        for _ in range(8):
            publisher.ask("PUBLISH", channel, text)
            sent += 1
        return condition()

    wait_until(goes_on, 30, "enough was published")
    return sent


@pytest.mark.parametrize("resp3", [False, True], ids=["resp2", "resp3"])
def test_who_does_not_read_is_closed_with_a_reason_and_holds_up_nobody(
    servers: Fleet, tmp_path: Path, *, resp3: bool
) -> None:
    with (
        Proxy(tmp_path / "proxy", servers.addresses[:SHARDS], config=CONFIG) as proxy,
        ExitStack() as stack,
    ):
        deaf = [stack.enter_context(connect(of(proxy), resp3=resp3)) for _ in range(WORKERS)]
        well = [stack.enter_context(connect(of(proxy), resp3=resp3)) for _ in range(WORKERS)]
        for wire in (*deaf, *well):
            subscribe(wire, "SUBSCRIBE", "flood")
        counts = [0] * WORKERS
        stop = threading.Event()

        def read(number: int) -> None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                while not stop.is_set():
                    message = well[number].reply()
                    if message == [b"message", b"flood", b"end"]:
                        return
                    counts[number] += 1

        readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(WORKERS)]
        for reader in readers:
            reader.start()
        publisher = stack.enter_context(connect(of(proxy)))
        closed = lambda: sum("reason=subscriber-too-slow" in line for line in proxy.log()) == WORKERS  # noqa: E731
        sent = publish_until(publisher, "flood", "x" * 256 * 1024, closed)
        assert publisher.ask("PUBLISH", "flood", "end") == WORKERS
        for reader in readers:
            reader.join(20)
        stop.set()
        assert counts == [sent] * WORKERS
        for wire in deaf:
            wire.until_closed()


def test_messages_come_between_replies_never_within(proxy: Proxy) -> None:
    """Large replies in pieces, and messages all the time."""
    key, value, values, messages = one_key_each()[0], "v" * 300_000, 100, 2000
    with connect(of(proxy), resp3=True) as wire, connect(of(proxy)) as publisher:
        wire.ask("SET", key, value)
        subscribe(wire, "SUBSCRIBE", "between")

        def publish() -> None:
            publisher.send(b"".join(encode("PUBLISH", "between", number) for number in range(messages)))

        thread = threading.Thread(target=publish, daemon=True)
        thread.start()
        wire.send(encode("GET", key) * values)
        replies = [wire.reply() for _ in range(values + messages)]
        thread.join(10)
        assert [reply for reply in replies if isinstance(reply, bytes)] == [value.encode()] * values
        assert [reply for reply in replies if isinstance(reply, list)] == [
            [b"message", b"between", b"%d" % number] for number in range(messages)
        ]


def test_what_was_published_before_the_end_of_a_subscription_comes(proxy: Proxy) -> None:
    """The shard says that it has ended behind the last message; only then is nobody given any more."""
    with connect(of(proxy), resp3=True) as wire, connect(of(proxy)) as reader, connect(of(proxy)) as publisher:
        for turn in range(50):
            name = f"last:{turn}"
            subscribe(wire, "SUBSCRIBE", name)
            wire.send(encode("PUBLISH", name, "m") + encode("UNSUBSCRIBE", name))
            replies = [wire.reply() for _ in range(3)]
            assert [b"message", name.encode(), b"m"] in replies, replies
            subscribe(reader, "PSUBSCRIBE", f"{name}*")
            assert publisher.ask("PUBLISH", name, "m") == 1
            reader.command("PUNSUBSCRIBE")
            assert reader.reply() == [b"pmessage", f"{name}*".encode(), name.encode(), b"m"]
            assert reader.reply() == [b"punsubscribe", f"{name}*".encode(), 0]


def test_what_shoal_itself_publishes_is_not_seen(proxy: Proxy) -> None:
    with connect(of(proxy)) as everything, connect(of(proxy)) as other:
        subscribe(everything, "PSUBSCRIBE", "*")
        other.ask("SET", one_key_each()[0], "v")
        assert other.ask("WAIT", 0, 100) == 0
        assert other.ask("PUBLISH", "seen", "x") == 1
        assert everything.reply() == [b"pmessage", b"*", b"seen", b"x"]


def test_who_has_subscribed_is_told_of(proxy: Proxy) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(connect(of(proxy), resp3=True)) for _ in range(4)]
        me, *subscribers = wires
        for wire in subscribers:
            subscribe(wire, "SUBSCRIBE", "one", "two")
            subscribe(wire, "PSUBSCRIBE", "p*")
            subscribe(wire, "SSUBSCRIBE", "a", "b", "c")
        text = me.ask("CLIENT", "LIST", "TYPE", "pubsub")
        assert isinstance(text, bytes)
        assert [re.findall(rb"flags=(\w+) .* sub=(\d) psub=(\d) ssub=(\d)", line) for line in text.splitlines()] == [
            [(b"P", b"2", b"1", b"3")]
        ] * 3
        normal = me.ask("CLIENT", "LIST", "TYPE", "normal")
        assert isinstance(normal, bytes)
        assert len(normal.splitlines()) == 1
        assert me.ask("PUBSUB", "NUMPAT") == 1
        names = me.ask("PUBSUB", "CHANNELS")
        assert isinstance(names, list)
        assert sorted(map(str, names)) == ["b'one'", "b'two'"]
        assert me.ask("PUBSUB", "CHANNELS", "t?[aeiou]") == [b"two"]
        assert me.ask("PUBSUB", "SHARDNUMSUB", "a", "x") == [b"a", 3, b"x", 0]
        info = me.ask("INFO", "stats")
        assert isinstance(info, bytes)
        # Two of theirs, and the two on which shoal itself hears of operations across shards.
        assert b"pubsub_channels:4\r\npubsub_patterns:1\r\n" in info
        assert me.ask("CLIENT", "KILL", "TYPE", "normal") == 0
        assert me.ask("CLIENT", "KILL", "TYPE", "pubsub") == 3
        for wire in subscribers:
            wire.until_closed()
        wait_until(lambda: names_of(me) == [], 5, "they are subscribed no more")


def is_next(next_data: Callable[[], object], wanted: bytes) -> bool:
    return next_data() == wanted


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_client_library_of_python(proxy: Proxy, protocol: int) -> None:
    got: list[bytes] = []
    client = proxy.client(protocol=protocol)
    with client.pubsub() as plainly:  # type: ignore[no-untyped-call]  # redis-py's
        plainly.subscribe(py=lambda message: got.append(message["data"]))
        plainly.psubscribe(**{"py:*": lambda message: got.append(message["channel"])})
        thread = plainly.run_in_thread(sleep_time=0.05, daemon=True)
        wait_until(lambda: client.publish("py", "hello") == 1, 5, "it listens")
        wait_until(lambda: client.publish("py:x", "there") == 1, 5, "it listens to the pattern")
        wait_until(lambda: {b"py:x", b"hello"} <= set(got), 5, "both have come")
        thread.stop()
        thread.join(5)
    checking = proxy.client(protocol=protocol, health_check_interval=0.01)
    with checking.pubsub(ignore_subscribe_messages=True) as checked:  # type: ignore[no-untyped-call]  # redis-py's
        checked.subscribe("health", "other")
        checked.ssubscribe("sharded")
        checked.ping()
        wait_until(lambda: client.publish("health", "ready") == 1, 5, "it listens")

        def next_data() -> object:
            message = checked.get_message(timeout=0.05)
            return message and message["data"]

        for number in range(20):
            client.publish("health", str(number))
            wanted = str(number).encode()
            wait_until(partial(is_next, next_data, wanted), 5, "each message, in order, through health checks")
        client.spublish("sharded", "s")
        wait_until(
            lambda: (checked.get_sharded_message(timeout=0.05) or {}).get("data") == b"s", 5, "the sharded message"
        )
        checked.unsubscribe()
        checked.sunsubscribe()
    assert client.ping() is True


def test_a_blocked_reader_of_the_library_is_woken(proxy: Proxy) -> None:
    client = proxy.client()
    with client.pubsub() as subscriber:  # type: ignore[no-untyped-call]  # redis-py's
        subscriber.subscribe("woken")
        assert next(subscriber.listen())["type"] == "subscribe"
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(next(subscriber.listen())["data"]), daemon=True)
        thread.start()
        client.publish("woken", "now")
        thread.join(5)
        assert found == [b"now"]


def test_subscribing_and_leaving_over_and_over(proxy: Proxy, servers: Fleet) -> None:
    """Names come and go at the same time in many clients; in the end everybody agrees on what is left."""
    wrong: list[object] = []

    def turn(seed: int) -> None:
        with connect(of(proxy), resp3=seed % 2 == 0) as wire:
            for number in range(60):
                names = [f"n:{(seed * 7 + number * offset) % 11}" for offset in (1, 2, 3)]
                words = ["SUBSCRIBE", *names] if number % 3 else ["UNSUBSCRIBE", *names]
                wire.command(*words)
                for _ in names:
                    reply = wire.reply()
                    if not isinstance(reply, list) or reply[0] != words[0].lower().encode():
                        wrong.append(reply)
            if seed % 3 == 0:
                wire.ask("RESET")

    threads = [threading.Thread(target=turn, args=(seed,), daemon=True) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    with connect(of(proxy)) as wire:
        wait_until(lambda: names_of(wire) == [], 5, "nobody is subscribed")
    wait_until(
        lambda: [direct(servers, shard, "PUBSUB", "CHANNELS", "n:*") for shard in range(SHARDS)] == [[]] * SHARDS,
        5,
        "nor are we",
    )
