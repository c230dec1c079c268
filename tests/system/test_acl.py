"""ACL: what users of a keyspace may do, compared with a real server that has the same users.

The rules below are written into shoal's configuration and given to ACL SETUSER of one plain server. Then both judge
every command that the server knows, the requests of getkeys-cases.txt, and what the users really send.
"""

import re
import shlex
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from harness.wire import Reply, encode
from system.placement import keys_on

from shoal.core import check_acl

RULES = {
    "nothing": "",
    "everything": "+@all ~* &*",
    "reader": "+@read ~k*",
    "writer": "+@write -@dangerous %W~k* %R~s* ~app:*",
    "some": "+get +set +mget +config|get -config|set +subscribe +psubscribe +publish ~k* ~app:* &c* &news:?",
    "harmless": "+@all -@dangerous -@scripting ~* &*",
    "onlooker": "+@all %R~* &c",
    "filler": "+@all %W~* allchannels resetchannels",
    "chooser": "-@all (+@read ~k*) (+@write %W~d* %RW~k2) (+publish &news:*) +ping",
    "picky": "+@all -config +config|get -client|kill -select +select|1 -debug +debug|object ~k1 ~app:1",
    "odd": "allcommands nocommands +@hash +@fast -@slow +@SET allkeys resetkeys ~k[12] ~d? %W~%R &* resetchannels &x",
    "talker": "+@pubsub +@connection &c &news:* &p*",
    "backward": "+@all -@write +set -@string +@transaction +get -get ~app:*",
}
WRONG = [
    "+nosuch", "-nosuch", "+@nosuch", "-@nosuch", "+config|nosuch", "+get|", "nosuch", "~* ~x", "allkeys %R~x", "&* &x",
    "%X~x", "%~x", "%RR~x", "%R", "+config|get|x", "-select|1", "+acl|get|x", "(+nosuch)", "(on)", "(~* ~x)", "+",
    "+@", "@read", "()()",
]  # fmt: skip
# Requests that shoal refuses, or whose keys it finds as the command does and not as servers' ACL does: see
# KNOWN_DIFFERENCES in crates/core/tests/commands.rs.
APART = [
    ["pfmerge", "k1"], ["pfmerge", "app:1"], ["pfmerge", "news:1"], ["pfmerge", "d"], ["eval_ro", "script", "01", "k1"],
    ["evalsha", "sha", "4294967297", "k1"], "georadius k 1 2 3 m store d1 store d2".split(" "),
]  # fmt: skip
# Categories that a version of Redis has not yet, or has otherwise.
OLDER = {"redis7": {"wait"}}


def password(name: str) -> str:
    return f"pw-{name}"


@pytest.fixture(scope="module")
def module_proxy(module_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    shards = ", ".join(f'"{{shard{index}}}"' for index in range(len(module_fleet.servers)))
    users = "".join(
        f'[[keyspace.main.user]]\nname = "{name}"\npassword = "{password(name)}"\nacl = "{rules}"\n'
        for name, rules in RULES.items()
    )
    text = (
        f'workers = 2\nadmin = "{{admin}}"\n[keyspace.main]\nlisten = "{{listen}}"\nshards = [{shards}]\n'
        f'password = "{password("default")}"\nunknown_commands = "first-key"\n{users}'
        '[[keyspace.main.user]]\nname = "away"\npassword = "x"\nacl = "off +@all ~* &*"\n'
    )
    with Proxy(tmp_path_factory.mktemp("proxy"), module_fleet.addresses, config=text) as proxy:
        yield proxy


@pytest.fixture
def proxy(fleet: Fleet, module_proxy: Proxy) -> Proxy:
    """Whoever is asked has to log in first."""
    with log_in(module_proxy, "default") as wire:
        wait_until(lambda: not isinstance(wire.ask("DBSIZE"), ErrorReply), 8, f"all of {len(fleet.servers)} are used")
    return module_proxy


@pytest.fixture
def plain(fleet: Fleet) -> Iterator[Wire]:
    """A server with the same users; their passwords are needed only by who logs in."""
    server = fleet.servers[0]
    with Wire(server.host, server.port.number) as wire:
        for name, rules in RULES.items():
            words = shlex.split(rules.replace("(", "'(").replace(")", ")'"))
            assert wire.ask("ACL", "SETUSER", name, "reset", "on", *words) == "OK", rules
        assert wire.ask("ACL", "LOG", "RESET") == "OK"
        yield wire
        wire.ask("ACL", "DELUSER", *RULES)


def log_in(proxy: Proxy, name: str) -> Wire:
    wire = proxy.socket()
    assert wire.ask("AUTH", name, password(name)) == "OK"
    return wire


def asked(wire: Wire, requests: list[list[str]]) -> list[Reply]:
    """All of them in one go."""
    replies: list[Reply] = []
    for start in range(0, len(requests), 200):
        part = requests[start : start + 200]
        wire.send(b"".join(encode(*request) for request in part))
        replies += [wire.reply() for _ in part]
    return replies


def verdict(reply: Reply) -> str:
    """What DRYRUN says, without the words that versions change."""
    if isinstance(reply, ErrorReply):
        return "error: " + str(reply)
    if isinstance(reply, str):
        return reply
    assert isinstance(reply, bytes)
    found = re.search(rb"(run the '.*' command|access the '.*' (key|channel))$", reply, re.DOTALL)
    assert found, reply
    return found[1].decode()


def known_to(wire: Wire) -> dict[str, int]:
    """Every command and subcommand of a server, and its arity; not of modules, which give them no categories."""
    found = {}
    for entry in rows(wire.ask("COMMAND")):
        for row in (entry, *rows(rows(entry)[9])):
            name, arity, flags = rows(row)[:3]
            assert isinstance(arity, int)
            if "module" not in rows(flags):
                found[raw(name).decode().lower()] = arity
    return found


def rows(reply: Reply) -> list[Reply]:
    assert isinstance(reply, list)
    return reply


def requests_for_every_command(wire: Wire) -> list[list[str]]:
    """Of each the shortest request, and one of several keys. Counts are given too, so that they are found."""
    requests = []
    for name, arity in known_to(wire).items():
        words = name.split("|")
        for key, more in (("k1", 0), ("app:1", 0), ("s1", 2), ("news:1", 0), ("1", 3)):
            least = max(abs(arity) - len(words), 0)
            count = least + more if arity < 0 else least
            requests.append([*words, *([key] * count)])
    text = (Path(__file__).parents[2] / "crates/core/commands/getkeys-cases.txt").read_text()
    lines = [line.removeprefix("!") for line in text.splitlines() if line and not line.startswith("#")]
    return requests + [shlex.split(line) for line in lines]


def test_every_command_is_judged_as_a_server_judges_it(proxy: Proxy, plain: Wire, flavour: str) -> None:
    known = known_to(plain)
    requests = requests_for_every_command(plain)
    differences = []
    with log_in(proxy, "default") as wire:
        for name in RULES:
            dry = [["ACL", "DRYRUN", name, *request] for request in requests]
            for request, ours, theirs in zip(requests, asked(wire, dry), asked(plain, dry), strict=True):
                words = [word.lower() for word in request]
                is_apart = words in APART or words[0] in OLDER.get(flavour, ()) or words[:4:3] == ["migrate", ""]
                if words[0] in known and not is_apart and verdict(ours) != verdict(theirs):
                    differences.append((name, request, verdict(ours), verdict(theirs)))
    assert not differences, (len(differences), differences[:20])


A, B = keys_on(0, 2, "app:")
SENT = [
    f"GET {A}", f"SET {A} 1", f"SET {A} 1 GET", f"MGET {A} {B}", f"DEL {A}", f"EXISTS {A}", f"TYPE {A}",
    f"COPY {A} {B}", f"BITFIELD {A} GET u8 0", f"BITFIELD {A} SET u8 0 1",
    f"BITFIELD {A} OVERFLOW FAIL GET u8 0 INCRBY u8 0 1", f"SORT {A} GET #", f"SORT {A} BY nosort",
    f"SORT {A} BY w*", f"SORT {A}", f"SORT {A} STORE {B}", f"EVAL return{{1}} 1 {A}", f"ZUNIONSTORE {A} 1 {B}",
    f"LMPOP 1 {A} LEFT", "LMPOP x k LEFT", "SELECT 1", "SELECT 2", "CONFIG GET maxmemory", "CONFIG SET maxmemory 0",
    "CONFIG NOSUCH", "CONFIG", "NOSUCH", "GET", "PING", "DBSIZE", "KEYS nothing*", "FLUSHALL", "COMMAND COUNT",
    "COMMAND", "PUBLISH c m", "PUBLISH d m", "PUBLISH news:12 m", "ACL WHOAMI", "ACL LIST", "CLIENT ID",
    "CLIENT KILL ID 99999999", "MULTI", f"GET {A}", f"SET {A} 2", "EXEC", f"WATCH {A}", "UNWATCH", "RANDOMKEY",
    "SCAN 0", f"OBJECT ENCODING {A}", f"XADD {A}:x * f v", "ECHO hi",
]  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_what_is_sent_is_judged_as_a_server_judges_it(
    proxy: Proxy, plain: Wire, fleet: Fleet, flavour: str, name: str
) -> None:
    assert plain.ask("ACL", "SETUSER", name, f">{password(name)}") == "OK"
    server = fleet.servers[0]
    with log_in(proxy, name) as ours, Wire(server.host, server.port.number) as theirs:
        assert theirs.ask("AUTH", name, password(name)) == "OK"
        for line in SENT:
            if line == "ACL LIST" or (line == "SORT" and name == "everything"):
                continue
            told, wanted = ours.ask(*line.split(" ")), theirs.ask(*line.split(" "))
            refusals = [r if isinstance(r, ErrorReply) and is_refusal(r) else None for r in (told, wanted)]
            is_same = refusals[0] == refusals[1]
            if flavour == "redis7":  # it has other words
                is_same = (refusals[0] is None) == (refusals[1] is None)
            assert is_same, (line, told, wanted)


def is_both_refused(*replies: Reply) -> bool:
    """In words that differ between versions."""
    return all(isinstance(reply, ErrorReply) and is_refusal(reply) for reply in replies)


def is_refusal(reply: ErrorReply) -> bool:
    return reply.startswith(("NOPERM", "EXECABORT")) or "insufficient ACL permissions" in reply


def test_channels_of_subscribers(proxy: Proxy, plain: Wire, fleet: Fleet) -> None:
    """A pattern must be one of the rules' own, letter for letter."""
    assert plain.ask("ACL", "SETUSER", "talker", f">{password('talker')}") == "OK"
    server = fleet.servers[0]
    for line in ("SUBSCRIBE d", "SUBSCRIBE c d", "PSUBSCRIBE pa*", "PSUBSCRIBE news:1", "SSUBSCRIBE d"):
        with log_in(proxy, "talker") as ours, Wire(server.host, server.port.number) as theirs:
            theirs.ask("AUTH", "talker", password("talker"))
            told, wanted = ours.ask(*line.split(" ")), theirs.ask(*line.split(" "))
            assert str(told).split(" ")[0] == str(wanted).split(" ")[0] == "NOPERM", (line, told, wanted)
    with log_in(proxy, "talker") as ours:
        assert not str(ours.ask("SUBSCRIBE", "news:5")).startswith("NOPERM")
    with log_in(proxy, "talker") as ours:
        assert not str(ours.ask("PSUBSCRIBE", "news:*")).startswith("NOPERM")


@pytest.mark.parametrize("protocol", [2, 3])
def test_users_are_described_as_a_server_describes_them(proxy: Proxy, plain: Wire, flavour: str, protocol: int) -> None:
    with log_in(proxy, "default") as wire:
        for end in (wire, plain):
            end.ask("HELLO", protocol)
        for name in RULES:
            ours, theirs = (user_fields(end.ask("ACL", "GETUSER", name)) for end in (wire, plain))
            if flavour == "redis7":  # it puts the rules of commands into another order
                ours, theirs = ({k: v for k, v in told.items() if k not in ORDERED} for told in (ours, theirs))
            assert ours == theirs, name
        assert wire.ask("ACL", "GETUSER", "nobody") is None
        lines = lines_of(wire.ask("ACL", "LIST"))
        assert [line.split(" ")[1] for line in lines] == sorted(["default", "away", *RULES])
        assert f"user default on {ALL}" in lines, "what is not ruled may do everything; no password is shown"
        assert f"user away off {ALL}" in lines
        if flavour != "redis7":
            wanted = [line.replace(" sanitize-payload", "") for line in lines_of(plain.ask("ACL", "LIST"))]
            assert {line for line in lines if " default " not in line and " away " not in line} == {
                line for line in wanted if " default " not in line
            }
        assert not any(password(name) in line for line in lines for name in RULES)


ALL = "~* &* +@all"
ORDERED = ("commands", "selectors")


def lines_of(reply: Reply) -> list[str]:
    assert isinstance(reply, list)
    return [line.decode() for line in reply if isinstance(line, bytes)]


def fields(reply: Reply) -> dict[str, Reply]:
    """A map, of either protocol."""
    if isinstance(reply, dict):
        return {name.decode(): value for name, value in reply.items()}
    assert isinstance(reply, list), reply
    return {raw(name).decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def raw(reply: Reply) -> bytes:
    assert isinstance(reply, bytes), reply
    return reply


def user_fields(reply: Reply) -> dict[str, object]:
    """What GETUSER tells, without what only some versions tell."""
    found = fields(reply)
    flags, selectors = found["flags"], found["selectors"]
    assert isinstance(flags, (list, set))
    assert isinstance(selectors, list)
    return {
        **{name: found[name] for name in ("passwords", "commands", "keys", "channels")},
        "flags": sorted(raw(flag) for flag in flags if flag != b"sanitize-payload"),
        "selectors": [
            {name: value for name, value in fields(selector).items() if name != "databases"} for selector in selectors
        ],
    }


def test_what_is_described_can_be_read_again(proxy: Proxy) -> None:
    with log_in(proxy, "default") as wire:
        for name in RULES:
            told = lines_of(wire.ask("ACL", "LIST"))
            (line,) = [line for line in told if line.startswith(f"user {name} ")]
            assert check_acl(line.removeprefix(f"user {name} "))[:2] == ("", "")


@pytest.mark.parametrize("rules", WRONG)
def test_wrong_rules_are_refused_in_a_servers_words(plain: Wire, rules: str) -> None:
    plain.ask("ACL", "SETUSER", "wrong", "reset")
    theirs = [plain.ask("ACL", "SETUSER", "wrong", *rules.split(" "))] if "(~* ~x)" not in rules else []
    theirs = theirs or [plain.ask("ACL", "SETUSER", "wrong", rules)]
    rule, reason, _ = check_acl(rules)
    plain.ask("ACL", "DELUSER", "wrong")
    assert isinstance(theirs[0], ErrorReply) == bool(reason), (theirs, rule, reason)
    if reason:
        assert theirs[0] == f"ERR Error in ACL SETUSER modifier '{rule}': {reason}"


def test_passwords_and_open_parentheses_among_rules() -> None:
    for rule in (">secret", "<secret", "#" + "0" * 64, "!" + "0" * 64):
        assert check_acl(f"+get {rule}")[0] == rule
        assert "password_file" in check_acl(f"+get {rule}")[1]
    assert check_acl("+get (+set ~x") == ("(+set", "Unmatched parenthesis in acl selector", False)
    assert check_acl("+@all ~app:*")[2], "scripts are not judged, and may be run"
    assert not check_acl("+@all -@scripting ~app:*")[2]
    assert not check_acl("+@all ~* &*")[2]


def test_categories(proxy: Proxy, plain: Wire, flavour: str) -> None:
    known = known_to(plain)
    with log_in(proxy, "default") as wire:
        names = lines_of(wire.ask("ACL", "CAT"))
        theirs = lines_of(plain.ask("ACL", "CAT"))
        assert names[: len(theirs)] == theirs
        for name in theirs:
            told = {command for command in lines_of(wire.ask("ACL", "CAT", name)) if command in known}
            wanted = set(lines_of(plain.ask("ACL", "CAT", name)))
            assert told - OLDER.get(flavour, set()) == wanted - OLDER.get(flavour, set()), name
        for words in (["nosuch"], ["@read"], ["read", "write"]):
            assert wire.ask("ACL", "CAT", *words) == plain.ask("ACL", "CAT", *words)


def entries(wire: Wire, *words: str | int) -> list[dict[str, Reply]]:
    reply = wire.ask("ACL", "LOG", *words)
    assert isinstance(reply, list), reply
    return [fields(entry) for entry in reply]


def test_log_is_a_servers(proxy: Proxy, plain: Wire, fleet: Fleet, flavour: str) -> None:
    assert plain.ask("ACL", "SETUSER", "some", f">{password('some')}") == "OK"
    server = fleet.servers[0]

    def refused(connect: Callable[[], Wire]) -> None:
        with connect() as wire:
            wire.ask("AUTH", "some", "wrong")
            wire.ask("AUTH", "nobody", "wrong")
            wire.ask("HELLO", "3", "AUTH", "some", "wrong")
            wire.ask("AUTH", "some", password("some"))
            for line in ("GET x", "GET x", "MGET k1 x y", "DEL k1", "CONFIG SET a b", "PUBLISH d m", "GET k1"):
                wire.ask(*line.split(" "))
            wire.ask("CLIENT", "SETNAME", "n")

    with log_in(proxy, "default") as ours:
        assert ours.ask("ACL", "LOG", "RESET") == "OK"
        refused(proxy.socket)
        refused(lambda: Wire(server.host, server.port.number))
        told, wanted = entries(ours, 100), entries(plain, 100)
        if flavour != "redis7":
            assert list(told[0]) == list(wanted[0])
        shown = ("count", "reason", "context", "object", "username")
        assert [[entry[name] for name in shown] for entry in told] == [
            [entry[name] for name in shown] for entry in wanted
        ]
        assert all(float(raw(entry["age-seconds"])) < 60 for entry in told)
        assert b"user=some" in raw(told[0]["client-info"])
        assert len(entries(ours, 2)) == 2
        assert entries(ours, 0) == entries(ours, -1) == []
        for words in (["x"], ["1", "2"]):
            assert ours.ask("ACL", "LOG", *words) == plain.ask("ACL", "LOG", *words)


def test_what_is_refused_is_counted(proxy: Proxy) -> None:
    def counts(wire: Wire) -> dict[str, int]:
        lines = raw(wire.ask("INFO", "stats")).decode().splitlines()
        found = [line.split(":") for line in lines if line.startswith("acl_access_denied_")]
        return {name.removeprefix("acl_access_denied_"): int(value) for name, value in found}

    with log_in(proxy, "default") as wire, log_in(proxy, "some") as other:
        before = counts(wire)
        if not before:
            pytest.skip("this server's INFO does not count what is refused")
        other.ask("AUTH", "some", "wrong")
        for line in ("DEL k1", "DEL k2", "GET x", "PUBLISH d m", "PUBLISH d m", "PUBLISH d m", "GET k1"):
            other.ask(*line.split(" "))
        after = counts(wire)
        more = {name: after[name] - before[name] for name in ("auth", "cmd", "key", "channel")}
        assert more == {"auth": 1, "cmd": 2, "key": 1, "channel": 3}


def test_log_has_what_every_worker_refused_and_is_bounded(proxy: Proxy) -> None:
    with log_in(proxy, "default") as wire:
        wire.ask("ACL", "LOG", "RESET")
        for number in range(4):  # clients are dealt out in turn
            with log_in(proxy, "reader") as other:
                assert str(other.ask("GET", f"x{number}")).startswith("NOPERM")
        assert {entry["object"] for entry in entries(wire)} == {b"x0", b"x1", b"x2", b"x3"}
        with log_in(proxy, "reader") as other:
            asked(other, [["GET", f"x{number}" + "y" * 2000] for number in range(300)])
        found = entries(wire, 100_000)
        assert 128 <= len(found) <= 256
        assert all(len(raw(entry["object"])) <= 512 for entry in found)
        assert wire.ask("ACL", "LOG", "RESET") == "OK"
        assert entries(wire) == []


def test_a_transaction_with_something_forbidden_is_not_executed(proxy: Proxy) -> None:
    with log_in(proxy, "writer") as wire:
        assert wire.ask("MULTI") == "NOPERM User writer has no permissions to run the 'multi' command"
    with log_in(proxy, "onlooker") as wire, log_in(proxy, "default") as other:
        assert wire.ask("MULTI") == "OK"
        assert wire.ask("GET", A) == "QUEUED"
        assert wire.ask("SET", A, "1") == "NOPERM No permissions to access a key"
        assert wire.ask("EXEC") == "EXECABORT Transaction discarded because of previous errors."
        (entry,) = [entry for entry in entries(other) if entry["username"] == b"onlooker"][:1]
        assert (entry["context"], entry["object"]) == (b"multi", A.encode())


def test_rules_follow_the_user(proxy: Proxy) -> None:
    with proxy.socket() as wire:
        assert str(wire.ask("GET", A)).startswith("NOAUTH")
        assert str(wire.ask("AUTH", "away", "x")).startswith("WRONGPASS")
        assert wire.ask("AUTH", "nothing", password("nothing")) == "OK"
        assert wire.ask("GET", A) == "NOPERM User nothing has no permissions to run the 'get' command"
        assert wire.ask("AUTH", "everything", password("everything")) == "OK"
        assert wire.ask("SET", A, "1") == "OK"
        assert wire.ask("AUTH", "onlooker", "wrong") == "WRONGPASS invalid username-password pair or user is disabled."
        assert wire.ask("ACL", "WHOAMI") == b"everything"
        assert isinstance(wire.ask("HELLO", "3", "AUTH", "onlooker", password("onlooker")), dict)
        assert wire.ask("SET", A, "2") == "NOPERM No permissions to access a key"
        assert wire.ask("GET", A) == b"1"
        assert wire.ask("RESET") == "RESET"
        assert str(wire.ask("GET", A)).startswith("NOAUTH")


def test_what_nobody_knows_is_for_those_who_may_do_everything(proxy: Proxy) -> None:
    """With `unknown_commands = "first-key"` a request goes to a server that may know it; nobody here knows its keys."""
    for name in ("harmless", "onlooker", "some", "nothing"):
        with log_in(proxy, name) as wire:
            assert wire.ask("NOSUCH", A) == f"NOPERM User {name} has no permissions to run the 'NOSUCH' command"
    for name in ("everything", "default"):
        with log_in(proxy, name) as wire:
            assert str(wire.ask("NOSUCH", A)).startswith("ERR unknown command")


def test_large_requests_are_judged_too(proxy: Proxy) -> None:
    """A request that fills the buffer alone goes another way."""
    with log_in(proxy, "reader") as wire:
        assert str(wire.ask("SET", A, "x" * 8_000_000)).startswith("NOPERM")
        assert wire.ask("EXISTS", "k1") == 0


def test_users_cannot_be_changed_here(proxy: Proxy) -> None:
    with log_in(proxy, "default") as wire:
        for line in ("SETUSER x on", "DELUSER reader", "LOAD", "SAVE"):
            assert "in its configuration" in str(wire.ask("ACL", *line.split(" "))), line
        assert re.fullmatch(rb"[0-9a-f]{64}", raw(wire.ask("ACL", "GENPASS")))
        assert isinstance(wire.ask("ACL", "HELP"), list)


def test_dryrun_says_what_is_not_there(proxy: Proxy, plain: Wire) -> None:
    with log_in(proxy, "default") as wire:
        for line in (
            "nobody get k",
            "reader nosuch k",
            "reader get",
            "reader config",
            "reader config nosuch",
            "reader",
        ):
            words = ["ACL", "DRYRUN", *line.split(" ")]
            assert wire.ask(*words) == plain.ask(*words), line


def test_without_users_there_is_the_one_of_all(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    with new_proxy(fleet.addresses).socket() as wire:
        assert lines_of(wire.ask("ACL", "LIST")) == [f"user default on nopass {ALL}"]
        assert user_fields(wire.ask("ACL", "GETUSER", "default"))["flags"] == [b"nopass", b"on"]
        assert wire.ask("ACL", "DRYRUN", "default", "get", "k") == "OK"


def test_who_does_not_log_in_may_have_rules_too(
    fleet: Fleet, new_proxy: Callable[..., Proxy], new_fleet: Callable[..., Fleet]
) -> None:
    """As on a server whose default user wants no password."""
    user = '[[keyspace.main.user]]\nname = "{}"\nacl = "{}"\n'
    guest, open_door, closed = "nopass ~open:* +get +auth +reset +hello +acl|whoami", "nopass +@all ~* &*", "off nopass"
    users = user.format("default", guest) + user.format("any", open_door) + user.format("gone", closed)
    shards = ", ".join(f'"{address}"' for address in fleet.addresses)
    proxy = new_proxy(
        config=f'admin = "{{admin}}"\n[keyspace.main]\nlisten = "{{listen}}"\nshards = [{shards}]\n{users}'
    )
    server = new_fleet(1).servers[0]
    with Wire(server.host, server.port.number) as admin, proxy.socket() as ours:
        for name, rules in (("any", f"on {open_door}"), ("gone", closed), ("default", f"reset on {guest}")):
            assert admin.ask("ACL", "SETUSER", name, *rules.split(" ")) == "OK"
        with Wire(server.host, server.port.number) as theirs:
            lines = (
                "ACL WHOAMI", "GET open:1", "GET x", "SET open:1 v", "AUTH x", "AUTH default x", "GET x", "AUTH gone x",
                "AUTH any whatever", "ACL WHOAMI", "SET open:1 v", "RESET", "ACL WHOAMI", "GET open:1", "GET x",
            )  # fmt: skip
            for line in lines:
                told, wanted = ours.ask(*line.split(" ")), theirs.ask(*line.split(" "))
                assert told == wanted or is_both_refused(told, wanted), (line, told, wanted)
        ours.ask("AUTH", "any", "x")
        assert b"user default on nopass ~open:*" in raw(rows(ours.ask("ACL", "LIST"))[1])


def test_a_refusal_costs_only_its_request(proxy: Proxy) -> None:
    """Order is kept among answers of shoal and of shards, and CLIENT REPLY holds for refusals as for others."""
    with log_in(proxy, "some") as wire, socket.socket():
        wire.send(b"".join(encode(*line.split(" ")) for line in ("GET k1", "GET x", "SET k1 v", "DEL k1", "GET k1")))
        kinds = [type(wire.reply()) for _ in range(5)]
        assert kinds == [type(None), ErrorReply, str, ErrorReply, bytes]
