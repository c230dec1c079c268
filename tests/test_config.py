"""The configuration file: what it means, and that everything wrong with it is said at once, with its place."""

import tomllib
from pathlib import Path

import pytest

from shoal import places
from shoal.config import Config, load_config, parse_config
from shoal.endpoint import Endpoint
from shoal.errors import ConfigError
from shoal.ring import Ring
from shoal.text_file import TEXT_BYTES_MAX
from shoal.topology import Ejection

FILE = Path("shoal.toml")

EVERYTHING = r"""
workers = 2
admin = "127.0.0.1:6381"
log = "json"
log_level = "debug"
drain_timeout_ms = 100
scheduling = "normal"

[keyspace.main]
listen = "0.0.0.0:6380"
distribution = "slots"
affinity = ['^bull:([^:]+):', "^rq:"]
affinity_presets = ["arq"]
unknown_commands = "first-key"
transactions = "per-shard"
cross_shard = "strict"
multi_key = "strict"
cross_shard_functions = true
debug_commands = true
timeout_ms = 0
max_clients = 5
password = "hidden-default"
server_username = "proxy"
server_password_env = "SHOAL_TEST_SERVER_PASSWORD"

[[keyspace.main.user]]
name = "app"
password_file = "app.password"
acl = "+@all -@scripting ~app:*"

[[keyspace.main.shard]]
name = "left"
address = "127.0.0.1:7001"
slots = ["0-8000", "8002"]

[[keyspace.main.shard]]
address = "[::1]:7002"
slots = ["8003-16383", "8001"]
username = "other"
password = "hidden-other"

[keyspace.second]
listen = "127.0.0.1:6390"
shards = ["127.0.0.1:7003", "127.0.0.1:7004", "127.0.0.1:7005"]
"""


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, FILE)
    assert caught.value.exit_code == 2
    return caught.value.lines()


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("SHOAL_TEST_SERVER_PASSWORD", "hidden-server")
    (tmp_path / "app.password").write_text("hidden-app\n")
    (tmp_path / "app.password").chmod(0o600)
    file = tmp_path / "shoal.toml"
    file.write_text(EVERYTHING)
    file.chmod(0o600)
    return load_config(file)


def test_every_setting_arrives(everything: Config) -> None:
    assert (everything.workers, everything.admin) == (2, Endpoint("127.0.0.1", 6381))
    assert (everything.log, everything.log_level, everything.drain_timeout_ms) == ("json", "debug", 100)
    assert everything.scheduling == "normal"
    main = everything.topology.keyspace("main")
    assert main.listen == Endpoint("0.0.0.0", 6380)
    assert main.affinity == ("^bull:([^:]+):", "^rq:", "^arq: => arq")
    assert main.affinity_presets == ("arq",)
    assert main.unknown_commands_first_key
    assert main.transactions_per_shard
    assert (main.cross_shard, main.multi_key_strict, main.cross_shard_functions) == (True, True, True)
    assert main.debug_commands
    assert (main.timeout_ms, main.max_clients) == (0, 5)
    assert [(user.name, user.password) for user in main.users] == [("default", "hidden-default"), ("app", "hidden-app")]
    assert [user.acl for user in main.users] == [None, "+@all -@scripting ~app:*"]
    left, right = main.shards
    assert (left.name, left.host, left.port, left.username, left.password) == (
        *("left", "127.0.0.1", 7001),
        *("proxy", "hidden-server"),
    )
    assert (right.name, right.host, right.username, right.password) == ("s1", "::1", "other", "hidden-other")
    assert [main.shard_of(slot).name for slot in (0, 8000, 8001, 8002, 8003, 16383)] == [
        *("left", "left", "s1", "left", "s1", "s1"),
    ]
    second = everything.topology.keyspace("second")
    assert [shard.name for shard in second.shards] == ["s0", "s1", "s2"]
    assert [str(part) for part in second.slots] == ["0-5460", "5461-10922", "10923-16383"]
    assert second.users == ()
    assert not second.unknown_commands_first_key
    assert not second.transactions_per_shard
    assert (second.cross_shard, second.multi_key_strict, second.cross_shard_functions) == (True, False, False)
    assert not second.debug_commands


def test_the_home_shard_is_found_by_its_name() -> None:
    text = '[keyspace.main]\nshards = ["a:1", "b:1", "c:1"]\nhome_shard = "s2"'
    assert parse_config(text, FILE).topology.keyspace("main").home_shard == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", True),
        ('cross_shard = "strict"', True),
        ('cross_shard = "off"', False),
        ('role = "cache"', False),
        ('role = "cache"\ndistribution = "random"', False),
        ('role = "cache"\ncross_shard = "off"', False),
        ('protocol = "memcached"', False),
        ('protocol = "memcached"\ncross_shard = "off"', False),
    ],
)
def test_operations_across_shards_are_the_default_where_keys_stay(settings: str, expected: bool) -> None:
    config = parse_config(f'[keyspace.main]\nshards = ["a:1", "b:1"]\n{settings}', FILE)
    assert config.topology.keyspace("main").cross_shard is expected


def test_no_password_in_a_repr(everything: Config) -> None:
    assert "hidden" not in repr(everything)


def test_two_lines_are_enough() -> None:
    config = parse_config('[keyspace.main]\nshards = ["127.0.0.1:7001"]', FILE)
    assert config.topology.keyspace("main").home_shard == 0
    assert config.topology.keyspace("main").listen == Endpoint("127.0.0.1", 6380)
    assert (config.workers, config.admin, config.log, config.log_level) == (1, None, "logfmt", "info")


# A body is put below `[keyspace.main]` (line 1), so its first line is line 2.
BODIES = [
    (
        'shards = ["a:1", "b:1"]\nhome_shard = "s2"',
        'shoal.toml:3: keyspace.main.home_shard: there is no shard "s2" (there are s0, s1)',
    ),
    ("shards = []", "shoal.toml:2: keyspace.main.shards: there is no shard"),
    ("", 'shoal.toml:1: keyspace.main.shards: shards are missing; add shards = ["127.0.0.1:7001", ...]'),
    ('shards = ["a:1", "b"]', 'shoal.toml:2: keyspace.main.shards[1]: not host:port: "b"'),
    ('shards = [\n "a:1",\n 7]', "shoal.toml:4: keyspace.main.shards[1]: must be a string"),
    ('shards = "a:1"', 'shoal.toml:2: keyspace.main.shards: must be a list, as in ["a", "b"]'),
    ('shards = ["a:1", "a:1"]', "shoal.toml:1: keyspace.main: shards s0 and s1 have the same address a:1"),
    ('shards = ["a:1"]\nlisen = "b:1"', 'shoal.toml:3: keyspace.main.lisen: unknown key (did you mean "listen"?)'),
    ('shards = ["a:1"]\nworkers = 2', "keyspace.main.workers: unknown key here; it belongs to the top of the file"),
    ('shards = ["a:1"]\nrole = "master"', 'keyspace.main.role: must be "store" or "cache"'),
    ('shards = ["a:1"]\neject_after = 3', "shoal.toml:3: keyspace.main.eject_after: a store never ejects a shard"),
    ('shards = ["a:1"]\nrole = "cache"\nejected_max = 1', "of 1 shards one at least has to stay"),
    ('shards = ["a:1"]\ntimeout = 3', 'keyspace.main.timeout: unknown key (did you mean "timeout_ms"?)'),
    ('shards = ["a:1"]\ndistribution = "random"', 'no key would be found again; say role = "cache"'),
    ('shards = ["a:1"]\nhash = "md5"', 'keyspace.main.hash: distribution "slots" has its own hash'),
    ('shards = ["a:1"]\ndistribution = "ketama"\nhash = "sha1"', "keyspace.main.hash: must be one of one_at_a_time"),
    ('shards = ["a:1"]\nhash_tag = "{"', "keyspace.main.hash_tag: must be two characters"),
    ('shards = ["a:1"]\nlisten_mode = "0666"', "listen_mode: permissions are for sockets"),
    ('shards = ["a:1"]\nlisten = "/tmp/s"\nlisten_mode = "rw"', "listen_mode: must be permissions in octal"),
    ('shards = ["a:1"]\nconnections = 65', "keyspace.main.connections: must be at most 64"),
    ('shards = ["a:1"]\ndatabase = 256', "keyspace.main.database: must be at most 255"),
    ('shards = ["a:1"]\nprotocol = "memcached"\npassword = "x"', "memcached has no AUTH in its text protocol"),
    ('shards = ["a:1"]\nprotocol = "memcached"\ndatabase = 1', "memcached has no databases"),
    ('shards = ["a:1"]\nprotocol = "memcached"\ntransactions = "per-shard"', "memcached has no transactions"),
    ('shards = ["/s", "/s"]', "shards s0 and s1 have the same address /s"),
    ('shards = ["./s"]', "write the absolute path of a socket"),
    ('shards = ["a:1"]\nfallback = "jump"', 'fallback: only distribution "range" has a fallback'),
    ('shards = ["a:1"]\ndistribution = "range"', "keyspace.main.range: a distribution by range needs a table"),
    ('shards = ["a:1"]\nrange = []', 'keyspace.main.range: is for distribution = "range", and this is "slots"'),
    ('shards = ["a:1"]\nreplicas = "off"', "keyspace.main.replicas: not yet supported: for now"),
    ('shards = ["a:1"]\ndistribution = "x"', "keyspace.main.distribution: must be one of slots, codis, ketama, modula"),
    ('shards = ["a:1"]\naffinity = ["ok", "(("]', "shoal.toml:3: keyspace.main.affinity[1]: "),
    ('shards = ["a:1"]\naffinity = ["^a => "]', "affinity[0]: there is no name after =>"),
    (
        'shards = ["a:1"]\naffinity_presets = ["rq", "celry"]',
        'affinity_presets[1]: there is no preset "celry" (there are arq,',
    ),
    ('shards = ["a:1"]\naffinity_presets = ["rq", "rq"]', 'affinity_presets[1]: "rq" is there already'),
    ('shards = ["a:1"]\naffinity_presets = "rq"', "affinity_presets: must be a list"),
    ('shards = ["a:1"]\nprotocol = "memcached"\ncross_shard = "strict"', "memcached has no operations across shards"),
    ('shards = ["a:1"]\nrole = "cache"\ncross_shard = "strict"', "a cache lets keys move when a shard fails"),
    ('shards = ["a:1"]\ncross_shard = "off"\nmulti_key = "strict"', 'multi_key = "strict" is a part of cross_shard'),
    ('shards = ["a:1"]\nrole = "cache"\nmulti_key = "strict"', 'multi_key = "strict" is a part of cross_shard'),
    (
        'shards = ["a:1"]\ncross_shard = "off"\ncross_shard_functions = true',
        "cross_shard_functions is a part of cross_shard",
    ),
    ('shards = ["a:1"]\ncross_shard = true', 'keyspace.main.cross_shard: must be "strict" or "off"'),
    ('shards = ["a:1"]\ntransactions = "split"', 'keyspace.main.transactions: must be "one-shard" or "per-shard"'),
    ('shards = ["a:1"]\nunknown_commands = "x"', 'keyspace.main.unknown_commands: must be "refuse" or "first-key"'),
    ('shards = ["a:1"]\ntimeout_ms = -1', "keyspace.main.timeout_ms: must be at least 0"),
    ('shards = ["a:1"]\ntimeout_ms = "5"', "keyspace.main.timeout_ms: must be a whole number"),
    ('shards = ["a:1"]\nmax_clients = 0', "keyspace.main.max_clients: must be at least 1"),
    ('shards = ["a:1"]\nlisten = "x"', 'shoal.toml:3: keyspace.main.listen: not host:port: "x"'),
    ('shards = ["127.0.0.1:6380"]', "shard s0 is 127.0.0.1:6380, where keyspace main itself listens"),
    ('shards = ["a:1"]\npassword = ""', "shoal.toml:3: keyspace.main.password: is empty"),
    ('shards = ["a:1"]\npassword = 5', "shoal.toml:3: keyspace.main.password: must be a string"),
    (
        'shards = ["a:1"]\npassword_file = "nowhere"',
        "shoal.toml:3: keyspace.main.password_file: cannot read nowhere: No",
    ),
    ('shards = ["a:1"]\npassword_env = "NOT_SET"', "password_env: the environment variable NOT_SET is not set"),
    ('shards = ["a:1"]\nserver_username = "x"', "there is a server_username but no server_password"),
    (
        'shards = ["a:1"]\npassword = "x"\npassword_env = "HOME"',
        "keyspace.main.password: give only one of password, password_file and password_env",
    ),
    ('shards = ["a:1"]\n[[keyspace.main.user]]\nname = "u"', 'keyspace.main.user[0]: user "u" has no password'),
    (
        'shards = ["a:1"]\npassword = "x"\n[[keyspace.main.user]]\nname = "default"\npassword = "y"',
        'shoal.toml:5: keyspace.main.user[0].name: there is already a user "default"',
    ),
    *(
        (
            f'shards = ["a:1"]\n[[keyspace.main.user]]\nname = "u"\npassword = "y"\nacl = "{rules}"',
            f"shoal.toml:6: keyspace.main.user[0].acl: {complaint}",
        )
        for rules, complaint in (
            ("+get +nosuch", '"+nosuch": Unknown command or category name in ACL'),
            ("+@reed ~x", '"+@reed": Unknown command or category name in ACL'),
            ("+get (~x +set", '"(~x": Unmatched parenthesis in acl selector'),
            ("+get >pw", '">pw": passwords are not among these rules'),
            ("~* ~x", '"~x": Adding a pattern after the * pattern'),
            ("+get x", '"x": Syntax error'),
            ("nopass +get", '"nopass": user "u" has a password; leave one of them out'),
        )
    ),
    (
        'shards = ["a:1"]\n[[keyspace.main.shard]]\naddress = "b:1"',
        "write either shards = [...] or [[shard]] tables, not both",
    ),
    ("[[keyspace.main.shard]]\nname = 'x'", "shoal.toml:2: keyspace.main.shard[0].address: missing"),
    (
        '[[keyspace.main.shard]]\naddress = "a:1"\nslots = ["0-9x"]',
        "shoal.toml:4: keyspace.main.shard[0].slots[0]: not a slot or a range of slots",
    ),
    (
        '[[keyspace.main.shard]]\naddress = "a:1"\nslots = ["0-9"]\n[[keyspace.main.shard]]\naddress = "b:1"',
        "shoal.toml:5: keyspace.main.shard[1]: has no slots, though other shards have",
    ),
    ('[[keyspace.main.shard]]\naddress = "a:1"\nslots = ["0-9"]', "slots 10-16383 belong to no shard"),
    ('[[keyspace.main.shard]]\naddress = "a:1"\nusername = "u"', "there is a username but no password"),
    ('[[keyspace.main.shard]]\naddress = "a:1"\nslot = ["0-9"]', 'slot: unknown key (did you mean "slots"?)'),
]


@pytest.mark.parametrize(("body", "expected"), BODIES)
def test_what_is_wrong_with_a_keyspace_is_said_with_its_place(body: str, expected: str) -> None:
    lines = complaints(f"[keyspace.main]\n{body}\n")
    assert any(expected in line for line in lines), lines
    assert len(lines) == 1, "one mistake, one line"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "shoal.toml: keyspace: there is no keyspace; begin with [keyspace.main]"),
        ("workers = 0", "shoal.toml:1: workers: must be at least 1"),
        ("workers = 65", "shoal.toml:1: workers: must be at most 64"),
        ("workers = true", "shoal.toml:1: workers: must be a whole number"),
        ('admin = "x"', 'shoal.toml:1: admin: not host:port: "x"'),
        ('log = "xml"', 'shoal.toml:1: log: must be "logfmt" or "json"'),
        ("drain_timeout_ms = 3600001", "drain_timeout_ms: must be at most 3600000"),
        ('shards = ["a:1"]', "shoal.toml:1: shards: unknown key here; it belongs to [keyspace.NAME]"),
        ("keyspace = 5", "shoal.toml:1: keyspace: must be a table"),
        ('keyspace.main = "x"', "shoal.toml:1: keyspace.main: must be a table"),
        ("a = 1\na = 2", "shoal.toml:2: not valid TOML: Cannot overwrite a value"),
        ("a = ", "shoal.toml:1: not valid TOML: Invalid value"),
        ('[keyspace."a b"]\nshards = ["a:1"]', 'keyspace."a b": not a keyspace name: "a b"'),
        (
            'admin = "127.0.0.1:6380"\n[keyspace.main]\nshards = ["a:1"]',
            "admin: keyspace main listens on 127.0.0.1:6380",
        ),
    ],
)
def test_what_is_wrong_with_the_file_is_said_with_its_place(text: str, expected: str) -> None:
    lines = complaints(text)
    assert any(expected in line for line in lines), lines


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a = " + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("a = " + "{a = " * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
        (".".join("a" * 50_000) + " = 1", "a key has too many parts"),
        ("[" + ".".join("a" * 50_000) + "]", "a key has too many parts"),
        ("workers = " + "9" * 100_000, "too many digits"),
        (
            "".join(
                f'[keyspace.k{n}]\nshards = ["127.0.0.1:7001"]\nlisten = "127.0.0.1:{n + 1}"\n' for n in range(2_000)
            ),
            "at most 256 keyspaces",
        ),
        ('[keyspace.main]\nshards = ["127.0.0.1:7001"]\npassword_file = "~no-such-user/x"', "nobody's home"),
    ],
)
def test_what_is_no_configuration_is_refused_and_not_a_crash(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_config(text, FILE)


def test_of_very_many_mistakes_the_first_are_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("".join(f"k{number} = 1\n" for number in range(1_000)), FILE)
    lines = caught.value.lines()
    assert len(lines) < 300
    assert lines[1].startswith("shoal.toml:1: k0: unknown key")
    assert lines[-1].endswith(" more")


def test_everything_wrong_is_said_at_once_in_the_order_of_the_file() -> None:
    text = """\
wrokers = 2
[keyspace.one]
listen = "nowhere"
shards = ["a:1", "b"]
affinity = ["(("]
timeout_ms = -1
[keyspace.two]
listen = "127.0.0.1:7001"
shards = ["127.0.0.1:7001"]
distribution = "chord"
[[keyspace.two.user]]
name = "u"
"""
    lines = complaints(text)
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4", "5", "6", "7", "10", "11"]


GUIDE = """
[keyspace.main]
distribution = "range"
{more}
range = [{{ prefix = "user:"{kind}, ranges = [{ranges}] }}]
[[keyspace.main.shard]]
name = "r0"
address = "127.0.0.1:7001"
[[keyspace.main.shard]]
name = "r1"
address = "127.0.0.1:7002"
"""
TWO = '{ upto = 10000, shard = "r0" }, { upto = 20000, shard = "r1" }'


def guide(ranges: str, more: str = "", kind: str = "") -> str:
    return GUIDE.format(ranges=ranges, more=more, kind=kind)


def test_the_partitioning_guides_ranges_are_read() -> None:
    config = parse_config(guide(TWO), Path("shoal.toml"))
    (table,) = config.topology.keyspace("main").distribution.tables
    assert [(part.first, part.last, part.shard) for part in table.parts] == [(None, "10000", 0), (None, "20000", 1)]
    assert any("no fallback" in warning for warning in config.warnings)
    config = parse_config(guide(TWO, 'fallback = "jump"'), Path("shoal.toml"))
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("ranges", "more", "kind", "complaint"),
    [
        (
            TWO.replace("r1", "r9"),
            "",
            "",
            'shoal.toml:5: keyspace.main.range[0].ranges[1].shard: there is no shard "r9"',
        ),
        (TWO.replace("20000", "9"), "", "", 'keyspace.main.range: table "user:": ranges must ascend'),
        (TWO.replace("{ upto = 20", "{ from = 5, upto = 20"), "", "", "ranges overlap at 5"),
        (TWO.replace("{ upto = 20", "{ from = 10002, upto = 20"), "", "", "close the gap or give a fallback"),
        ('{ shard = "r0" }, { upto = 5, shard = "r1" }', "", "", "only the last range may be open above"),
        ('{ upto = "x", shard = "r0" }', "", "", "ids are numbers here"),
        ('{ upto = -1, shard = "r0" }', "", "", "ids are numbers here"),
        ('{ upto = 7, shard = "r0" }', "", ', ids = "text"', 'ids are text here: write "7"'),
        ('{ upto = true, shard = "r0" }', "", "", "keyspace.main.range[0].ranges[0].upto: must be"),
        ('{ shard = "r0", up = 1 }', "", "", 'unknown key (did you mean "upto"?)'),
        ('{ shard = "r0" }', 'fallback = "random"', "", "keyspace.main.fallback: must be one of"),
    ],
)
def test_ranges_that_contradict_themselves_are_refused(ranges: str, more: str, kind: str, complaint: str) -> None:
    lines = complaints(guide(ranges, more, kind))
    assert any(complaint in line for line in lines), lines


def test_a_gap_with_a_fallback_is_none() -> None:
    text = guide(TWO.replace("{ upto = 20", "{ from = 10002, upto = 20"), 'fallback = "rendezvous"')
    assert parse_config(text, Path("shoal.toml")).topology.keyspace("main").distribution.fallback is not None


def test_a_cache_with_all_of_its_settings() -> None:
    text = """
[keyspace.main]
listen = "/run/shoal.sock"
listen_mode = "0660"
role = "cache"
eject_after = 3
retry_after_ms = 2000
eject_on_replies = true
ejected_max = 2
readmit_ms = 500
probe_interval_ms = 200
connections = 2
preconnect = false
tcp_keepalive = false
database = 3
backlog = 100
reuse_port = true
distribution = "ketama"
hash = "murmur"
signed_char = false
hash_tag = "$$"
shards = ["10.0.0.1:11211", "10.0.0.2:6379", "/run/redis.sock"]
"""
    made = parse_config(text, Path("shoal.toml")).topology.keyspace("main")
    assert (made.listen.is_socket, made.listen_mode, made.role) == (True, 0o660, "cache")
    assert made.ejection == Ejection(3, 2000, True, 2, 500)
    assert [shard.ring_name for shard in made.shards] == ["10.0.0.1", "10.0.0.2:6379", "/run/redis.sock:"]
    assert (made.distribution.hash, made.distribution.signed_char, made.hash_tag) == ("murmur", False, "$$")
    assert (made.probe_interval_ms, made.connections, made.preconnect, made.database) == (200, 2, False, 3)
    assert not made.tcp_keepalive


def test_rendezvous_knows_shards_by_name_or_address_and_not_by_place() -> None:
    text = '[keyspace.main]\ndistribution = "rendezvous"\nshards = ["a:1", "b:1", "c:1"]'
    keys = [f"k{number}".encode() for number in range(300)]

    def addresses(text: str) -> list[str]:
        keyspace = parse_config(text, Path("shoal.toml")).topology.keyspace("main")
        return [str(keyspace.shards[index or 0].endpoint) for index in Ring(keyspace).indexes(keys)]

    before, after = addresses(text), addresses(text.replace('"a:1", ', ""))
    assert {one for one, other in zip(before, after, strict=True) if one != other} == {"a:1"}, "only its own keys move"
    named = "[[keyspace.main.shard]]\naddress = '{}:1'\nname = '{}'\n"
    text = '[keyspace.main]\ndistribution = "rendezvous"\n'
    moved = addresses(text + named.format("x", "one") + named.format("b", "two"))
    assert [
        address.replace("y", "x") for address in addresses(text + named.format("y", "one") + named.format("b", "two"))
    ] == moved


def test_traps_of_hashes_are_warned_of() -> None:
    text = '[keyspace.main]\ndistribution = "ketama"\nshards = ["a:1", "b:1"]'
    (warning,) = parse_config(text, Path("shoal.toml")).warnings
    assert "56 consecutive ids" in warning
    (warning,) = parse_config(f'{text}\nhash = "crc32"', Path("shoal.toml")).warnings
    assert "every key on one shard" in warning
    assert parse_config(f'{text}\nhash = "murmur"', Path("shoal.toml")).warnings == ()


def test_several_mistakes_in_one_list_of_tables_keep_their_places() -> None:
    shard = '[[keyspace.main.shard]]\naddress = "a:{}"\n{}\n'
    text = "[keyspace.main]\n" + shard.format(1, "x = 1") + shard.format(2, "y = 1") + shard.format(0, "")
    lines = complaints(text)
    assert [line.split(": ")[:2] for line in lines] == [
        ["shoal.toml:4", "keyspace.main.shard[0].x"],
        ["shoal.toml:7", "keyspace.main.shard[1].y"],
        ["shoal.toml:9", "keyspace.main.shard[2].address"],
    ]


def test_no_mistake_repeats_a_password() -> None:
    shard = '[[keyspace.main.shard]]\naddress = "redis://u:hidden@h:1"\npassword = ["hidden"]\n'
    user = '[[keyspace.main.user]]\nname = "u"\npassword = { hidden = 1 }\npassword_env = 1\n'
    lines = complaints(f'[keyspace.main]\npasswort = "hidden"\nserver_password = 1\n{shard}{user}')
    assert len(lines) >= 4
    assert "hidden" not in "".join(lines).replace("password.hidden", "")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "not UTF-8"), (b"x" * 5000, "longer than 4096 bytes")],
)
def test_a_password_file_that_cannot_be_one_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "pw").write_bytes(content)
    with pytest.raises(ConfigError, match=complaint):
        parse_config('[keyspace.main]\nshards = ["a:1"]\npassword_file = "pw"', tmp_path / "shoal.toml")


@pytest.mark.parametrize("content", [b"a b ", b"a b \n", b"a b \r\n"])
def test_a_password_file_loses_one_line_end_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pw").write_bytes(content)
    config = parse_config('[keyspace.main]\nshards = ["a:1"]\npassword_file = "pw"', tmp_path / "shoal.toml")
    assert config.topology.keyspace("main").users[0].password == "a b "


def test_what_is_probably_not_meant_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "shoal.toml"
    file.write_text('[keyspace.main]\nlisten = "0.0.0.0:6380"\nshards = ["a:1"]\nserver_password = "hidden"')
    file.chmod(0o644)
    open_to_all, exposed = load_config(file).warnings
    assert "keyspace.main.server_password: other users can read this file" in open_to_all
    assert "everyone who can reach 0.0.0.0:6380 may use it" in exposed
    file.chmod(0o600)
    assert load_config(file).warnings == (exposed,)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for name, content, complaint in [
        ("missing", None, "No such file"),
        ("binary", b"\xff\xfe", "not UTF-8"),
        ("large", b"#" * (TEXT_BYTES_MAX + 1), "not a configuration file"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=complaint) as caught:
            load_config(tmp_path / name)
        assert len(caught.value.lines()) == 1


TRICKY = '''\
a = 1 # [not.a.table]
"quoted key".'lit.eral' = """
[no]
b = 2 \\""" still"""""
c.d."e\\u0041" = [1, [2, "]", '#'],
  { x = 1, y.z = [true, 1979-05-27 07:32:00] }, # comment ]
  """
  multi""",
]
[t . "u"]
k = \'\'\'
'x = 1\'\'\'
[[t.list]]
n = 1
[t.list.sub]
m = {}
[[t.list]]
n = [ ]
[[t.list.inner]]
p = -inf
[[t.list.inner]]
p = 0xff
[last]
'''


def all_paths(value: object, here: places.Path = ()) -> set[places.Path]:
    """The obvious twin: every path of the parsed value."""
    found = {here} if here else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= all_paths(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= all_paths(inner, (*here, index))
    return found


@pytest.mark.parametrize("text", [TRICKY, EVERYTHING, "", "x=1", '[a]\n[b]\n"" = 1', TRICKY.replace("\n", "\r\n")])
def test_every_path_has_a_place(text: str) -> None:
    found = places.find_places(text)
    assert set(found) == all_paths(tomllib.loads(text))
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        (("a",), "a = 1"),
        (("quoted key", "lit.eral"), '"quoted key"'),
        (("c", "d", "eA"), 'c.d."e'),
        (("c", "d", "eA", 2, "y", "z", 1), "{ x = 1"),
        (("t", "u", "k"), "k = "),
        (("t", "list", 0, "sub", "m"), "m = {}"),
        (("t", "list", 1, "n"), "n = [ ]"),
        (("t", "list", 1, "inner", 1, "p"), "p = 0xff"),
        (("last",), "[last]"),
    ],
)
def test_a_place_is_the_line_on_which_it_stands(path: places.Path, mark: str) -> None:
    line = places.find_places(TRICKY)[path]
    assert mark in TRICKY.splitlines()[line - 1]


def test_a_path_without_a_place_of_its_own_has_that_of_its_table() -> None:
    found = places.find_places("[keyspace.main]\n")
    assert places.line_of(found, ("keyspace", "main", "shards", 3)) == 1
    assert places.line_of(found, ("other",)) is None
    assert places.format_path(("keyspace", "a b", "shards", 2)) == 'keyspace."a b".shards[2]'


@pytest.mark.parametrize(
    ("rules", "is_warned"),
    [("+@all ~* &*", False), ("+@all ~app:*", True), ("+@all -@scripting ~app:*", False), ("+fcall_ro ~x", True)],
)
def test_rules_that_scripts_pass_by_are_warned_of(rules: str, is_warned: bool) -> None:
    user = f'[[keyspace.main.user]]\nname = "u"\npassword = "y"\nacl = "{rules}"\n'
    config = parse_config(f'[keyspace.main]\nshards = ["127.0.0.1:7001"]\n{user}', FILE)
    said = [warning for warning in config.warnings if "may run scripts" in warning]
    assert [warning.split(":")[0] for warning in said] == ["keyspace.main.user[0].acl"] * is_warned


@pytest.mark.parametrize(
    ("rules", "is_open"),
    [
        ("nopass +get", True),
        ("NOPASS", True),
        ("nopass resetpass", False),
        ("reset nopass", True),
        ("nopass reset", False),
    ],
)
def test_a_user_without_a_password_must_be_meant_so(rules: str, is_open: bool) -> None:
    user = f'[[keyspace.main.user]]\nname = "default"\nacl = "{rules}"'
    text = f'[keyspace.main]\nlisten = "0.0.0.0:1"\nshards = ["127.0.0.1:7001"]\n{user}'
    if not is_open:
        assert any('user "default" has no password' in line for line in complaints(text))
        return
    config = parse_config(text, FILE)
    assert not config.topology.keyspace("main").wants_login
    assert any("there is no password" in warning for warning in config.warnings)
