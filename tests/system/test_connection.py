"""What clients ask on connecting and about themselves: answered as one server would answer.

Where a server's words are known to be the same, a plain server is asked as well and compared with.
"""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import Reply, encode
from system.placement import SHARDS, one_key_each, slot_of

NewFleet = Callable[..., Fleet]
NewProxy = Callable[..., Proxy]
Words = list[str]


@pytest.fixture
def wire(proxy: Proxy) -> Iterator[Wire]:
    with proxy.socket() as wire:
        yield wire


@pytest.fixture
def plain(fleet: Fleet) -> Iterator[Wire]:
    """A connection to one of the servers itself."""
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        yield plain


def text(reply: Reply) -> str:
    assert isinstance(reply, bytes), reply
    return reply.decode()


def pairs(reply: Reply) -> dict[str, Reply]:
    """A map of RESP3, or the same as a flat array."""
    if isinstance(reply, list):
        return {text(name): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
    assert isinstance(reply, dict), reply
    return {name.decode(): value for name, value in reply.items()}


def number(reply: Reply) -> int:
    assert isinstance(reply, int), reply
    return reply


# -------------------------------------------------------------------------------------------------------------- HELLO


def test_hello_switches_the_protocol(wire: Wire, fleet: Fleet) -> None:
    key = one_key_each()[0]
    wire.ask("HSET", key, "f", "v")
    for protocol in (2, 3, 2):
        greeting = wire.ask("HELLO", protocol)
        assert isinstance(greeting, dict if protocol == 3 else list)
        told = pairs(greeting)
        assert told["proto"] == protocol
        assert (told["server"], told["mode"], told["role"]) == (b"redis", b"standalone", b"master")
        assert told["version"] == fleet.client(0).info()["redis_version"].encode()
        assert told["id"] == wire.ask("CLIENT", "ID")
        assert told["modules"] == []
        assert wire.ask("HGETALL", key) == ([b"f", b"v"] if protocol == 2 else {b"f": b"v"})
    assert pairs(wire.ask("HELLO"))["proto"] == 2, "without a number nothing changes"


def test_hello_with_name(wire: Wire) -> None:
    assert wire.ask("CLIENT", "GETNAME") is None
    assert pairs(wire.ask("HELLO", 3, "SETNAME", "me"))["proto"] == 3
    assert wire.ask("CLIENT", "GETNAME") == b"me"


@pytest.mark.parametrize(
    "words",
    [
        ["HELLO", "4"],
        ["HELLO", "1"],
        ["HELLO", "x"],
        ["HELLO", "3", "NOPE"],
        ["HELLO", "3", "SETNAME"],
        ["HELLO", "3", "SETNAME", "with space"],
        ["HELLO", "3", "AUTH", "default"],
    ],
    ids=" ".join,
)
def test_hello_errors_change_nothing(wire: Wire, plain: Wire, words: Words) -> None:
    told = plain.ask(*words)
    assert isinstance(told, ErrorReply)
    assert wire.ask(*words) == told
    assert isinstance(wire.ask("HGETALL", "none"), list), "still RESP2"
    assert wire.ask("CLIENT", "GETNAME") is None


# -------------------------------------------------------------------------------------------------------------- AUTH

USERS = """
[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
password = "the-default-secret"
[[keyspace.main.user]]
name = "anna"
password = "anna-secret"
"""

NOAUTH = "NOAUTH Authentication required."
WRONGPASS = "WRONGPASS invalid username-password pair or user is disabled."


@pytest.fixture
def guarded(fleet: Fleet, new_proxy: NewProxy) -> Proxy:
    """A proxy that wants passwords."""
    return new_proxy(fleet.addresses, config=USERS)


def test_before_auth_only_greetings_are_answered(guarded: Proxy, new_fleet: NewFleet) -> None:
    server = new_fleet(1, settings=("requirepass the-default-secret",)).servers[0]
    with guarded.socket() as wire, Wire(server.host, server.port.number) as plain:
        for words in (
            ["GET", "k"],
            ["PING"],
            ["ECHO", "x"],
            ["MGET", "a", "b"],
            ["INFO"],
            ["COMMAND"],
            ["CLIENT", "ID"],
            ["SELECT", "1"],
            ["SCAN", "0"],
            ["EVAL", "return 1", "1", "k"],
            ["MULTI"],
            ["HELLO"],
            ["HELLO", "3"],
            ["HELLO", "3", "SETNAME", "x"],
            ["HELLO", "3", "AUTH", "default", "wrong"],
            ["AUTH", "wrong"],
            ["AUTH", "default", "wrong"],
            ["AUTH", "nobody", "the-default-secret"],
            ["AUTH", ""],
            ["AUTH"],
            ["AUTH", "a", "b", "c"],
            ["RESET"],
        ):
            assert wire.ask(*words) == plain.ask(*words), words
        assert wire.ask("SHOAL", "TOPOLOGY") == NOAUTH
        assert wire.ask("AUTH", "anna", "the-default-secret") == WRONGPASS
        assert wire.ask("AUTH", "anna-secret") == WRONGPASS
        assert wire.ask("QUIT") == "OK"
        assert wire.until_closed() == b""


@pytest.mark.parametrize(
    ("words", "user"),
    [
        (["AUTH", "the-default-secret"], "default"),
        (["AUTH", "default", "the-default-secret"], "default"),
        (["AUTH", "anna", "anna-secret"], "anna"),
        (["HELLO", "3", "AUTH", "anna", "anna-secret", "SETNAME", "n"], "anna"),
        (["HELLO", "2", "SETNAME", "n", "AUTH", "default", "the-default-secret"], "default"),
    ],
    ids=[0, 1, 2, 3, 4],
)
def test_who_shows_a_password_is_let_in(guarded: Proxy, words: Words, user: str) -> None:
    with guarded.socket() as wire:
        assert not isinstance(wire.ask(*words), ErrorReply)
        assert wire.ask("SET", "k", "v") == "OK"
        assert f" user={user} " in text(wire.ask("CLIENT", "INFO"))
        assert wire.ask("AUTH", "anna", "wrong") == WRONGPASS
        assert wire.ask("GET", "k") == b"v", "a failed AUTH takes nothing away"
        assert wire.ask("RESET") == "RESET"
        assert wire.ask("GET", "k") == NOAUTH


def test_requests_behind_auth_in_one_packet(guarded: Proxy) -> None:
    with guarded.socket() as wire:
        wire.send(encode("GET", "k") + encode("AUTH", "the-default-secret") + encode("SET", "k", "v"))
        assert [wire.reply() for _ in range(3)] == [NOAUTH, "OK", "OK"]


def test_who_has_no_password_gets_no_memory(guarded: Proxy, new_fleet: NewFleet) -> None:
    server = new_fleet(1, settings=("requirepass x",)).servers[0]
    for data in (b"*11\r\n", b"*2\r\n$3\r\nGET\r\n$16385\r\n"):
        with guarded.socket() as wire, Wire(server.host, server.port.number) as plain:
            for end in (wire, plain):
                end.send(data)
            assert wire.until_closed() == plain.until_closed()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_passwords_are_in_no_log_and_no_process_list(guarded: Proxy) -> None:
    with guarded.socket() as wire:
        wire.ask("AUTH", "a-wrong-secret")
        wire.ask("AUTH", "anna", "anna-secret")
        wire.ask("HELLO", 3, "AUTH", "anna", "other-secret")
        told = (["SHOAL", "TOPOLOGY"], ["INFO", "everything"], ["CLIENT", "LIST"], ["CONFIG", "GET", "*"])
        shown = [str(wire.ask(*words)) for words in told]
        shown.append(str(wire.ask("SHOAL", "EXPLAIN", "AUTH", "a-wrong-secret")))
        assert all(len(text) > 20 for text in shown)
    with guarded.socket() as wire:
        wire.send(b"AUTH half-a-secret")
    # All that ps can know.
    process = [Path(f"/proc/{guarded.pid}/{name}").read_text() for name in ("cmdline", "comm", "environ")]
    assert guarded.stop() == 0
    for place in (*shown, *guarded.log(), *process):
        assert "secret" not in place


def test_auth_where_no_password_is_set(wire: Wire, plain: Wire) -> None:
    for words in (["AUTH", "x"], ["AUTH", "nobody", "x"], ["AUTH", "default", "x"], ["HELLO", "2", "AUTH", "u", "x"]):
        ours, theirs = wire.ask(*words), plain.ask(*words)
        assert isinstance(ours, ErrorReply) == isinstance(theirs, ErrorReply), words
        assert not isinstance(theirs, ErrorReply) or ours == theirs


# ------------------------------------------------------------------------------------------- PING, QUIT, RESET, inline


def test_ping_and_echo(wire: Wire, plain: Wire) -> None:
    for words in (
        ["PING"],
        ["ping", "x"],
        ["PING", ""],
        ["ECHO", "x"],
        ["PING", "a", "b"],
        ["ECHO"],
        ["ECHO", "a", "b"],
    ):
        assert wire.ask(*words) == plain.ask(*words)


def test_quit_answers_and_closes(wire: Wire) -> None:
    wire.send(encode("SET", one_key_each()[1], "v") + encode("QUIT") + encode("SET", one_key_each()[1], "late"))
    assert wire.until_closed() == b"+OK\r\n+OK\r\n"


def test_reset_forgets_everything(wire: Wire) -> None:
    wire.ask("HELLO", 3, "SETNAME", "n")
    wire.ask("SELECT", 4)
    wire.ask("SET", "k", "in four")
    wire.ask("CLIENT", "NO-EVICT", "ON")
    wire.command("CLIENT", "REPLY", "OFF")
    assert wire.ask("RESET") == "RESET"
    assert wire.ask("GET", "k") is None
    assert wire.ask("CLIENT", "GETNAME") is None
    assert isinstance(wire.ask("HGETALL", "none"), list)
    line = text(wire.ask("CLIENT", "INFO"))
    assert " resp=2 " in line
    assert " db=0 " in line
    assert " flags=N " in line


def test_inline_requests(wire: Wire, plain: Wire) -> None:
    requests = b"""PING
SET inline "a b\\x41\\n"
GET inline
  get   'inline'
MSET one 1 two 2
MGET one two none
SET quoted 'it\\'s'
GET quoted
NOSUCH a
GET
ECHO \xe9\x01
"""
    for data in (requests, requests.replace(b"\n", b"\r\n")):
        for end in (wire, plain):
            end.send(data)
        assert [wire.reply() for _ in range(11)] == [plain.reply() for _ in range(11)]
    wire.send(b"GET in")
    wire.send(b"line\r\n*1\r\n$4\r\nPING\r\n")
    assert isinstance(wire.reply(), bytes)
    assert wire.reply() == "PONG"


# ------------------------------------------------------------------------------------------------------------- CLIENT


def listed(reply: Reply) -> dict[int, dict[str, str]]:
    """CLIENT LIST by id."""
    clients = {}
    for line in text(reply).splitlines():
        fields = dict(field.split("=", 1) for field in line.split(" "))
        clients[int(fields["id"])] = fields
    return clients


@pytest.fixture
def wide(fleet: Fleet, new_proxy: NewProxy) -> Proxy:
    """Several workers: clients are spread over them."""
    return new_proxy(fleet.addresses, options=["--workers", "3"])


def test_client_list_over_several_workers(wide: Proxy, plain: Wire) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(wide.socket()) for _ in range(12)]
        ids = [number(wire.ask("CLIENT", "ID")) for wire in wires]
        assert len(set(ids)) == 12
        wires[5].ask("CLIENT", "SETNAME", "five")
        wires[5].ask("CLIENT", "SETINFO", "LIB-NAME", "lib(1)")
        wires[5].ask("CLIENT", "SETINFO", "lib-ver", "9.9")
        wires[5].ask("HELLO", 3)
        wires[5].ask("SELECT", 7)
        wires[6].command("GET", "k")
        assert wires[6].reply() is None
        clients = listed(wires[0].ask("CLIENT", "LIST"))
        assert set(clients) == set(ids)
        host, port = wires[5].socket.getsockname()
        five = clients[ids[5]]
        expected = {
            "addr": f"{host}:{port}",
            "laddr": wide.address,
            "name": "five",
            "lib-name": "lib(1)",
            "lib-ver": "9.9",
            "db": "7",
            "resp": "3",
            "user": "default",
            "cmd": "select",
        }
        assert {name: five[name] for name in expected} == expected
        assert clients[ids[6]]["cmd"] == "get"
        assert clients[ids[0]]["cmd"] == "client|list"
        some = listed(wires[1].ask("CLIENT", "LIST", "ID", ids[2], ids[7], 999_999))
        assert set(some) == {ids[2], ids[7]}
        assert set(listed(wires[1].ask("CLIENT", "LIST", "TYPE", "normal"))) == set(ids)
        assert text(wires[1].ask("CLIENT", "LIST", "TYPE", "pubsub")) == ""
        # The fields of a plain server's line, so that tools which parse them find what they look for.
        theirs = set(next(iter(listed(plain.ask("CLIENT", "LIST")).values())))
        assert {"id", "addr", "laddr", "fd", "name", "age", "idle", "flags", "db", "cmd", "user"} <= set(five)
        assert set(five) - theirs == set()


def test_client_kill(wide: Proxy) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(wide.socket()) for _ in range(10)]
        ids = [number(wire.ask("CLIENT", "ID")) for wire in wires]
        me = wires[0]
        assert me.ask("CLIENT", "KILL", "ID", ids[3]) == 1
        assert wires[3].until_closed() == b""
        assert me.ask("CLIENT", "KILL", "ID", ids[3]) == 0
        address = "{}:{}".format(*wires[4].socket.getsockname())
        assert me.ask("CLIENT", "KILL", address) == "OK"
        assert wires[4].until_closed() == b""
        missing = me.ask("CLIENT", "KILL", address)
        assert missing == "ERR No such client"
        assert me.ask("CLIENT", "KILL", "ADDR", "{}:{}".format(*wires[5].socket.getsockname())) == 1
        assert me.ask("CLIENT", "KILL", "TYPE", "pubsub") == 0
        assert me.ask("CLIENT", "KILL", "USER", "nobody") in (0, "ERR No such user 'nobody'")
        assert set(listed(me.ask("CLIENT", "LIST"))) == set(ids) - {ids[3], ids[4], ids[5]}
        assert me.ask("CLIENT", "KILL", "LADDR", wide.address, "SKIPME", "yes") == 6
        assert set(listed(me.ask("CLIENT", "LIST"))) == {ids[0]}
        assert me.ask("CLIENT", "KILL", "ID", ids[0], "SKIPME", "no") == 1
        assert me.until_closed() == b""
    wait_until(lambda: sum("reason=killed" in line for line in wide.log()) >= 9, 5, "each is logged with its reason")


def test_client_reply(wire: Wire) -> None:
    keys = one_key_each()
    wire.command("CLIENT", "REPLY", "OFF")
    for key in keys:
        wire.command("SET", key, "muted")
        wire.command("GET", key)
    wire.command("MGET", *keys)
    wire.command("NOSUCH")
    wire.command("PING")
    assert wire.ask("CLIENT", "REPLY", "ON") == "OK"
    assert wire.ask("MGET", *keys) == [b"muted"] * SHARDS
    wire.command("CLIENT", "REPLY", "SKIP")
    wire.command("SET", keys[0], "skipped")
    assert wire.ask("GET", keys[0]) == b"skipped"
    wire.command("CLIENT", "REPLY", "SKIP")
    wire.command("MGET", *keys)
    assert wire.ask("PING") == "PONG"
    assert isinstance(wire.ask("CLIENT", "REPLY", "MAYBE"), ErrorReply)


@pytest.mark.parametrize(
    "words",
    [
        "CLIENT",
        "CLIENT NOSUCH",
        "CLIENT ID x",
        "CLIENT SETNAME",
        "CLIENT SETNAME two words",
        "CLIENT SETNAME bad\nname",
        "CLIENT SETNAME ''",
        "CLIENT SETINFO NOPE x",
        "CLIENT SETINFO LIB-NAME with\tblank",
        "CLIENT SETINFO LIB-NAME",
        "CLIENT NO-EVICT ON",
        "CLIENT NO-EVICT OFF",
        "CLIENT NO-EVICT PERHAPS",
        "CLIENT NO-TOUCH ON",
        "CLIENT NO-TOUCH",
        "CLIENT LIST TYPE nope",
        "CLIENT LIST NOPE",
        "CLIENT KILL ID 0",
        "CLIENT KILL NOPE x",
        "CLIENT KILL ID",
        "CLIENT KILL SKIPME maybe",
        "CLIENT KILL 1.2.3.4:5",
        "CLIENT REPLY",
        "CLIENT GETREDIR",
        "CLIENT GETNAME",
    ],
)
def test_client_subcommands_answer_as_a_server(wire: Wire, plain: Wire, words: str) -> None:
    parts = ["" if part == "''" else part for part in words.split(" ")]
    ours, theirs = wire.ask(*parts), plain.ask(*parts)
    assert ours == theirs


def test_client_help_is_a_list_of_lines(wire: Wire) -> None:
    lines = wire.ask("CLIENT", "HELP")
    assert isinstance(lines, list)
    assert "TRACKINGINFO" in lines


# ----------------------------------------------------------------------------------------------- COMMAND, CLUSTER, ...


@pytest.mark.parametrize(
    "words",
    [
        "COMMAND COUNT",
        "COMMAND INFO get mset nosuch",
        "COMMAND DOCS get",
        "COMMAND GETKEYS MSET a 1 b 2",
        "COMMAND GETKEYS PING",
        "COMMAND GETKEYSANDFLAGS SET a 1",
        "COMMAND LIST FILTERBY PATTERN xr*",
        "COMMAND LIST FILTERBY ACLCAT hyperloglog",
        "COMMAND NOSUCH",
        "COMMAND DOCS nosuch",
    ],
)
@pytest.mark.parametrize("protocol", [2, 3])
def test_command_tells_what_a_server_tells(wire: Wire, plain: Wire, words: str, protocol: int) -> None:
    for end in (wire, plain):
        end.ask("HELLO", protocol)
    ours, theirs = wire.ask(*words.split(" ")), plain.ask(*words.split(" "))
    if isinstance(theirs, list) and "LIST" in words:
        assert isinstance(ours, list)
        assert sorted(map(str, ours)) == sorted(map(str, theirs))
    elif "NOSUCH" in words:
        assert isinstance(ours, ErrorReply)
        assert ours.lower() == str(theirs).lower()
    else:
        assert ours == theirs


def test_command_lists_every_command(wire: Wire, plain: Wire) -> None:
    ours, theirs = wire.ask("COMMAND"), plain.ask("COMMAND")
    assert isinstance(ours, list)
    assert isinstance(theirs, list)
    assert {str(entry[0]) for entry in ours if isinstance(entry, list)} >= {
        str(entry[0]) for entry in theirs if isinstance(entry, list)
    }


@pytest.mark.parametrize(
    "words",
    ["CLUSTER INFO", "CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER NODES", "CLUSTER MYID",
     "READONLY", "READWRITE", "ASKING", "CLUSTER COUNTKEYSINSLOT 1"],
)  # fmt: skip
def test_shoal_appears_as_one_server_without_cluster_mode(wire: Wire, words: str) -> None:
    """Redis' words; Valkey answers some of these although it has no cluster either."""
    assert wire.ask(*words.split(" ")) == "ERR This instance has cluster support disabled"


def test_the_slot_of_a_key_can_be_asked_for(wire: Wire) -> None:
    for key in ("", "a", "{a}b", "{}{a}", "123456789"):
        assert wire.ask("CLUSTER", "KEYSLOT", key) == slot_of(key.encode())


# ------------------------------------------------------------------------------------------------ INFO and CONFIG GET


def sections(reply: Reply) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text(reply).split("\r\n"):
        if line.startswith("# "):
            assert line[2:] not in found, f"section {line} twice"
            current = found.setdefault(line[2:], {})
        elif line:
            name, _, value = line.partition(":")
            assert name not in current, f"{name} twice"
            current[name] = value
    return found


def test_info_is_one_server_s(wire: Wire, fleet: Fleet, proxy: Proxy) -> None:
    keys = [f"info:{i}" for i in range(200)]
    wire.ask("MSET", *(word for key in keys for word in (key, "v" * 1000)))
    for key in keys[:50]:
        wire.ask("EXPIRE", key, 1000)
    wire.ask("SELECT", 5)
    wire.ask("MSET", "a", 1, "b", 2, "c", 3)
    told = sections(wire.ask("INFO"))
    theirs = [fleet.client(shard).info() for shard in range(SHARDS)]
    server = told["Server"]
    assert server["redis_version"] == theirs[0]["redis_version"]
    assert server.get("redis_mode", server.get("server_mode")) == "standalone"
    assert server["tcp_port"] == str(proxy.port)
    assert server["process_id"] == str(proxy.pid)
    assert re.fullmatch(r"[0-9a-f]{40}", server["run_id"])
    assert 0 <= int(server["uptime_in_seconds"]) < 600
    assert told["Replication"]["role"] == "master"
    assert told["Replication"]["connected_slaves"] == "0"
    assert "master_host" not in told["Replication"]
    assert told["Cluster"]["cluster_enabled"] == "0"
    assert told["Clients"]["connected_clients"] == "1"
    spaces = {name: dict(pair.split("=") for pair in value.split(",")) for name, value in told["Keyspace"].items()}
    assert list(spaces) == ["db0", "db5"]
    assert (spaces["db0"]["keys"], spaces["db0"]["expires"]) == ("200", "50")
    # The servers estimate it, in their own time.
    assert 0 <= int(spaces["db0"]["avg_ttl"]) <= 1_000_000
    assert spaces["db5"]["keys"] == "3"
    used = int(told["Memory"]["used_memory"])
    assert abs(used - sum(info["used_memory"] for info in theirs)) < 4_000_000
    assert re.fullmatch(r"\d+\.\d\dM", told["Memory"]["used_memory_human"])
    assert abs(float(told["Memory"]["used_memory_human"][:-1]) - used / 1024**2) < 0.02
    assert int(told["Stats"]["total_commands_processed"]) > 4 * 2
    assert told["Shoal"]["shards"] == told["Shoal"]["shards_up"] == "4"
    assert told["Shoal"]["shards_down"] == "0"
    assert told["Shoal"]["keyspace"] == "main"
    assert list(told)[-1] == "Shoal"


@pytest.mark.parametrize("words", ["keyspace", "SERVER memory", "shoal", "all", "everything", "commandstats", "nosuch"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_info_sections(wire: Wire, plain: Wire, words: str, protocol: int) -> None:
    for end in (wire, plain):
        end.ask("HELLO", protocol)
        end.ask("SET", "k", "v")
    ours, theirs = (set(sections(end.ask("INFO", *words.split(" ")))) for end in (wire, plain))
    assert ours == theirs | ({"Shoal"} if words in ("shoal", "all", "everything") else set())


def test_info_while_a_shard_is_down(wire: Wire, fleet: Fleet) -> None:
    fleet.kill(1)
    assert isinstance(wire.ask("GET", one_key_each()[1]), ErrorReply)
    told = sections(wire.ask("INFO"))
    assert told["Shoal"]["shards_down"] == "1"
    assert told["Shoal"]["shards_up"] == "3"
    assert told["Replication"]["role"] == "master"


def test_config_get(wire: Wire, fleet: Fleet) -> None:
    for shard in range(SHARDS):
        fleet.client(shard).config_set("maxmemory", str((shard + 1) * 100_000_000))
    assert pairs(wire.ask("CONFIG", "GET", "maxmemory")) == {"maxmemory": b"1000000000"}
    assert pairs(wire.ask("CONFIG", "GET", "databases")) == {"databases": b"16"}
    assert set(pairs(wire.ask("CONFIG", "GET", "maxmemory*", "save"))) >= {"maxmemory", "maxmemory-policy", "save"}
    assert pairs(wire.ask("CONFIG", "GET", "nosuch")) == {}
    wire.ask("HELLO", 3)
    assert wire.ask("CONFIG", "GET", "databases") == {b"databases": b"16"}
    for shard in range(SHARDS):
        fleet.client(shard).config_set("maxmemory", "0")


# ------------------------------------------------------------------------------------------- what is not supported yet


@pytest.mark.parametrize(
    "words",
    [
        "DEBUG SLEEP 10", "SHUTDOWN", "REPLICAOF no one", "SCRIPT DEBUG YES",
        "MODULE UNLOAD x", "MIGRATE h 1 k 0 1", "FAILOVER", "PSYNC ? -1",
        "SYNC", "CONFIG SET x y",
    ],
)  # fmt: skip
def test_what_is_refused_says_why_and_leaves_the_connection_open(wire: Wire, fleet: Fleet, words: str) -> None:
    reply = wire.ask(*words.split(" "))
    assert isinstance(reply, ErrorReply), reply
    assert reply.startswith("ERR '")
    assert len(reply.split("' ", 1)[1]) > 20, "it says why"
    assert wire.ask("SET", one_key_each()[0], "v") == "OK"
    assert all(server.running for server in fleet.servers)


# --------------------------------------------------------------------------------------------------------- many at once


def test_many_clients_connect_at_once_over_workers(wide: Proxy) -> None:
    wrong: list[object] = []

    def connect(seed: int) -> None:
        for turn in range(20):
            with wide.socket() as wire:
                wire.send(encode("HELLO", 3) + encode("SET", f"{seed}:{turn}", turn) + encode("GET", f"{seed}:{turn}"))
                replies = [wire.reply() for _ in range(3)]
                if replies[1:] != ["OK", str(turn).encode()]:
                    wrong.append(replies)

    threads = [threading.Thread(target=partial(connect, seed), daemon=True) for seed in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    with wide.socket() as wire:
        assert wire.ask("DBSIZE") == 200
        wait_until(lambda: len(listed(wire.ask("CLIENT", "LIST"))) == 1, 5, "the others are gone")


def test_a_browser_that_was_made_to_talk_is_closed(proxy: Proxy) -> None:
    """A web page may send a form to a port of this machine; its body must not become commands."""
    with Wire(proxy.host, proxy.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\nSET hacked 1\r\n")
        assert wire.until_closed().startswith(b"-ERR this is not an HTTP port")
    with proxy.client() as client:
        assert client.get("hacked") is None
    wait_until(lambda: any("reason=http" in line for line in proxy.log()), 10, "the reason is logged")
