"""MONITOR over all workers: the same lines as on one plain redis-server, which is asked the same."""

import re
import time
from collections.abc import Iterator

import pytest
from harness.fleet import Fleet
from harness.proxy import Proxy
from harness.wait import wait_until
from harness.wire import ErrorReply, Wire, encode

CONFIG = """
workers = 3
admin = "{admin}"
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}"]
[keyspace.other]
listen = "OTHER"
shards = ["{shard0}", "{shard1}"]
"""

LINE = re.compile(r"(\d+\.\d{6}) \[(\d+) ([^\]]+)\] (.*)")
END = '"ECHO" "the end"'

Address = tuple[str, int]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two shards and, last, a plain server beside them."""
    with Fleet(tmp_path_factory.mktemp("fleet"), 3, "redis7") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def proxy(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    config = CONFIG.replace("OTHER", str(folder / "other.sock"))
    with Proxy(folder, fleet.addresses[:2], config=config) as proxy:
        yield proxy


@pytest.fixture
def ours(proxy: Proxy) -> Address:
    return address(proxy.address)


@pytest.fixture
def theirs(fleet: Fleet) -> Address:
    return address(fleet.addresses[2])


@pytest.fixture(params=["plain", "shoal"])
def either(request: pytest.FixtureRequest, ours: Address, theirs: Address) -> Address:
    return theirs if request.param == "plain" else ours


def address(text: str) -> Address:
    host, port = text.rsplit(":", 1)
    return host, int(port)


def name_of(wire: Wire) -> str:
    host, port = wire.socket.getsockname()
    return f"{host}:{port}"


def monitor(at: Address, protocol: int = 2) -> Wire:
    wire = Wire(*at)
    if protocol == 3:
        wire.ask("HELLO", 3)
    assert wire.ask("MONITOR") == "OK"
    return wire


def lines_until_end(wire: Wire) -> list[tuple[str, str, str]]:
    """Database, client and request of each line, up to the one that ends a test. What a script did is left out."""
    found: list[tuple[str, str, str]] = []
    while True:
        line = wire.reply()
        assert isinstance(line, str), line
        parts = LINE.fullmatch(line)
        assert parts, line
        when, database, client, words = parts.groups()
        assert abs(float(when) - time.time()) < 30
        if words == END:
            return found
        if client != "lua":
            found.append((database, client, words))


def shown(at: Address, requests: list[str | bytes], protocol: int = 2) -> list[tuple[str, str]]:
    """What a monitor is shown of one client's requests; blanks within an argument are written as `~`."""
    with monitor(at, protocol) as watcher, Wire(*at) as client:
        for request in requests:
            if isinstance(request, bytes):
                client.send(request)
                client.reply()
            else:
                client.ask(*[word.replace("~", " ") for word in request.split()])
        client.ask("ECHO", "the end")
        lines = lines_until_end(watcher)
        assert {line[1] for line in lines} <= {name_of(client)}
        return [(database, words) for database, _, words in lines]


REQUESTS: dict[str, list[str | bytes]] = {
    "plain": ["SET k v", "get k", "Get~ k", "DEL k", "INCRBY n 0007", "KEYS *", "DBSIZE", "TIME", "PING", "ping x"],
    "quoting": [encode("SET", "k", bytes(range(256))), encode("ECHO", b'a"b\\c\r\n\t\x07\x08'), encode("SET", "k", "")],
    "inline": [b"SET k 'two words'\r\n", b"PING\r\n"],
    "refused": ["NOSUCH x", "GET", "CLIENT NOSUCH", "GET k", "SET k v NX~ XX", "LPUSH k x", "INCR k"],
    "administrative": [
        "CONFIG GET maxmemory",
        "CLIENT LIST",
        "CLIENT SETNAME me",
        "CLIENT GETNAME",
        "SLOWLOG LEN",
        "CLIENT ID",
    ],
    "passwords": [
        "AUTH secret",
        "AUTH you secret",
        "HELLO 2 AUTH default secret SETNAME x",
        "HELLO 3",
        "HELLO 2 SETNAME y",
    ],
    "databases": ["SELECT 3", "SET k v", "SELECT 99", "RESET", "GET k"],
    "split": ["MSET a 1 b 2 c 3", "MGET a b c", "EXISTS a b c nosuch", "DEL a b c"],
    "scripts": [
        "EVAL return~redis.call('SET',KEYS[1],ARGV[1]) 1 k v",
        "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 1 k",
    ],
    "waiting": ["BLPOP nothing 0.05", "RPUSH q 1", "BLPOP q 0", "BLPOP n1 n2 n3 0.05", "WAIT 0 10"],
    "transaction": ["MULTI", "SET k 1", "PING", "INCR k", "EXEC", "GET k"],
    "discarded": ["MULTI", "SET k 1", "DISCARD", "EXEC"],
    "spoiled": ["MULTI", "SET k 1", "NOSUCH", "SET k 2", "EXEC", "EXEC"],
    "channels": ["PUBLISH c m", "SUBSCRIBE c", "PING", "UNSUBSCRIBE c", "PUBSUB NUMSUB c"],
    "tracked": ["HELLO 3", "CLIENT TRACKING ON", "GET nothing", "MGET a1 b1 c1", "CLIENT TRACKING OFF"],
    "published": ["MULTI", "PUBLISH c m", "EXEC"],
    "watched": ["WATCH k", "MULTI", "SET k 1", "EXEC", "WATCH k", "UNWATCH"],
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("what", REQUESTS)
def test_what_is_shown_is_what_a_server_shows(ours: Address, theirs: Address, what: str, protocol: int) -> None:
    expected = shown(theirs, REQUESTS[what], protocol)
    assert shown(ours, REQUESTS[what], protocol) == expected
    assert expected or what == "administrative"


def test_quit_is_shown(either: Address) -> None:
    with monitor(either) as watcher, Wire(*either) as client:
        assert client.ask("QUIT") == "OK"
        with Wire(*either) as last:
            last.ask("ECHO", "the end")
        assert [line[2] for line in lines_until_end(watcher)] == ['"QUIT"']


def test_requests_that_wait_behind_others_are_shown_once(ours: Address) -> None:
    """SELECT and WAIT are put off until every reply before them is there, and a pause holds what writes."""
    with monitor(ours) as watcher, Wire(*ours) as client, Wire(*ours) as pauser:
        assert pauser.ask("CLIENT", "PAUSE", 100_000, "WRITE") == "OK"
        client.send(encode("GET", "k") + encode("SET", "k", "v") + encode("SELECT", 1) + encode("GET", "k"))
        assert client.reply() in (None, b"v", b"1")
        assert pauser.ask("CLIENT", "UNPAUSE") == "OK"
        assert [client.reply() for _ in range(3)] == ["OK", "OK", None]
        client.ask("ECHO", "the end")
        assert [line[2] for line in lines_until_end(watcher)] == [
            '"GET" "k"',
            '"SET" "k" "v"',
            '"SELECT" "1"',
            '"GET" "k"',
        ]


def test_a_monitor_sees_the_clients_of_every_worker_and_no_other_keyspace(proxy: Proxy, ours: Address) -> None:
    with monitor(ours) as first, monitor(ours) as second:
        clients = [Wire(*ours) for _ in range(6)]
        for number, client in enumerate(clients):
            assert client.ask("SET", f"k{number}", number) == "OK"
        other = proxy.client(unix_socket_path=str(proxy.folder / "other.sock"))
        assert other.set("hidden", "v")
        clients[0].ask("ECHO", "the end")
        # Lines of different workers come in no order; the last one's may come after the end of another's.
        expected = {(name_of(client), f'"SET" "k{number}" "{number}"') for number, client in enumerate(clients)}
        for watcher in (first, second):
            seen: set[tuple[str, str]] = set()
            while not seen >= expected:
                line = watcher.reply()
                assert isinstance(line, str)
                parts = LINE.fullmatch(line)
                assert parts
                seen.add((parts[3], parts[4]))
            assert not any("hidden" in words for _, words in seen)
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    "words",
    [
        "GET k", "SET k v", "KEYS *", "DBSIZE", "EVAL return~1 0", "PUBLISH c m", "NOSUCH", "PING", "ECHO x",
        "SELECT 1", "CLIENT GETNAME",
    ],
)  # fmt: skip
def test_what_a_monitor_may_ask_itself(ours: Address, theirs: Address, words: str) -> None:
    replies = []
    for at in (theirs, ours):
        with monitor(at) as watcher:
            replies.append(watcher.ask(*[word.replace("~", " ") for word in words.split()]))
    assert replies[1] == replies[0]


def test_a_monitor_in_a_transaction(either: Address) -> None:
    with monitor(either) as watcher:
        assert watcher.ask("MULTI") == "OK"
        assert LINE.fullmatch(str(watcher.reply()))
        assert watcher.ask("GET", "k") == ErrorReply("ERR Replica can't interact with the keyspace")
        assert isinstance(watcher.ask("EXEC"), ErrorReply)


def test_reset_ends_it_and_it_can_begin_again(either: Address) -> None:
    with monitor(either) as watcher, Wire(*either) as client:
        assert listed_flags(client, name_of(watcher)) == "O"
        watcher.command("MONITOR")  # says nothing
        assert watcher.ask("RESET") == "RESET"
        assert listed_flags(client, name_of(watcher)) == "N"
        client.ask("GET", "k")
        assert watcher.ask("GET", "nothing") is None
        assert watcher.ask("MONITOR") == "OK"
        client.ask("ECHO", "the end")
        assert lines_until_end(watcher) == []


def listed_flags(client: Wire, name: str) -> str:
    reply = client.ask("CLIENT", "LIST")
    assert isinstance(reply, bytes)
    line = next(line for line in reply.decode().splitlines() if f" addr={name} " in line)
    return line.split(" flags=")[1].split(" ")[0]


def test_without_replies_a_monitor_is_shown_nothing(either: Address) -> None:
    with Wire(*either) as watcher, Wire(*either) as client:
        watcher.command("CLIENT", "REPLY", "OFF")
        watcher.command("MONITOR")
        wait_until(lambda: listed_flags(client, name_of(watcher)) == "O", 5, "it watches")
        client.ask("GET", "k")
        watcher.command("RESET")
        assert watcher.reply() == "RESET"


def test_monitors_that_come_and_go_leave_nothing_behind(ours: Address, proxy: Proxy) -> None:
    for _ in range(20):
        monitor(ours).close()
        with monitor(ours) as watcher:
            watcher.reset()
    with Wire(*ours) as client, monitor(ours) as watcher:
        client.ask("ECHO", "the end")
        assert lines_until_end(watcher) == []
        assert client.ask("QUIT") == "OK"
    assert proxy.running


def test_a_monitor_that_does_not_read_is_closed_with_a_reason(ours: Address, proxy: Proxy) -> None:
    value = "v" * 1_000_000
    with monitor(ours) as lazy, Wire(*ours) as client, monitor(ours) as watcher:
        count = 0
        while not any("reason=monitor-too-slow" in line for line in proxy.log()):
            assert client.ask("SET", "large", value) == "OK"
            assert value in str(watcher.reply())
            count += 1
            assert count < 300, "some 32 MB and what the sockets hold are enough"
        assert count > 30
        lazy.until_closed()
        client.ask("ECHO", "the end")
        assert lines_until_end(watcher) == []


def test_a_line_that_is_too_long_closes_the_monitor_and_nobody_else(ours: Address) -> None:
    with monitor(ours) as watcher, Wire(*ours) as client:
        assert client.ask("SET", "huge", b"\0" * 10_000_000) == "OK"
        assert watcher.until_closed() == b""
        assert client.ask("STRLEN", "huge") == 10_000_000
        client.ask("DEL", "huge")


def test_requests_do_not_wait_for_monitors_when_they_are_in_a_pipeline(ours: Address) -> None:
    with monitor(ours) as watcher, Wire(*ours) as client:
        client.send(b"".join(encode("SET", f"p{number}", number) for number in range(500)))
        assert [client.reply() for _ in range(500)] == ["OK"] * 500
        client.ask("ECHO", "the end")
        assert [line[2] for line in lines_until_end(watcher)] == [f'"SET" "p{n}" "{n}"' for n in range(500)]
