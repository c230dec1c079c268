"""Configurations of Twemproxy: read as the real nutcracker reads them, and converted without moving a key."""

import subprocess
from pathlib import Path

import pytest
from harness.needs import need

from shoal.config import parse_config
from shoal.errors import ConfigError
from shoal.nutcracker import database_warnings, keyspace_of, parse_pools, topology_of
from shoal.nutcracker_toml import toml_of
from shoal.ring import Ring

SERVERS = " servers:\n - 127.0.0.1:7001:1\n - 127.0.0.1:7002:1\n"


def pool(text: str, name: str = "alpha", servers: str = SERVERS) -> str:
    return f"{name}:\n listen: 127.0.0.1:22121\n{text}{servers}"


# Each: a file, and whether it is good. The real nutcracker has to say the same.
FILES: dict[str, tuple[str, bool]] = {
    "least": (pool(""), True),
    "everything": (
        pool(
            " hash: murmur\n hash_tag: '{}'\n distribution: modula\n timeout: 400\n backlog: 100\n preconnect: true\n"
            " redis: true\n tcpkeepalive: true\n redis_auth: secret\n redis_db: 3\n"
            " server_connections: 2\n auto_eject_hosts: true\n server_retry_timeout: 2000\n server_failure_limit: 3\n"
            " client_connections: 10\n"
        ),
        True,
    ),
    "two pools": (pool("") + "b:\n listen: 127.0.0.1:22122\n redis: true\n" + SERVERS, True),
    "sockets": ("a:\n listen: /tmp/a.sock 0666\n servers:\n - /tmp/b.sock:1 one\n - /tmp/c.sock:2\n", True),
    "names and weights": (pool("", servers=" servers:\n - 127.0.0.1:1:5 x\n - 127.0.0.1:2:1 y\n"), True),
    "random": (pool(" distribution: random\n"), True),
    "random with weights": (
        pool(" distribution: random\n", servers=" servers:\n - 127.0.0.1:1:5\n - 127.0.0.1:2:1\n"),
        True,
    ),
    "empty": ("", False),
    "a list": ("- a\n- b\n", False),
    "unknown key": (pool(" colour: red\n"), False),
    "key twice": (pool(" hash: md5\n hash: md5\n"), False),
    "no listen": ("a:\n" + SERVERS, False),
    "no servers": ("a:\n listen: 127.0.0.1:22121\n", False),
    "servers empty": (pool("", servers=" servers: []\n"), False),
    "same listen": (pool("") + pool("", "beta"), False),
    "yes is no truth value": (pool(" redis: yes\n"), False),
    "a number with a sign": (pool(" timeout: -1\n"), False),
    "a number with letters": (pool(" timeout: 4s\n"), False),
    "unknown hash": (pool(" hash: sha1\n"), False),
    "unknown distribution": (pool(" distribution: jump\n"), False),
    "tag of one": (pool(" hash_tag: '{'\n"), False),
    "tag of three": (pool(" hash_tag: '{}x'\n"), False),
    "no connections": (pool(" server_connections: 0\n"), False),
    "auth for memcached": (pool(" redis_auth: secret\n"), False),
    "weight 0": (pool("", servers=" servers:\n - 127.0.0.1:7001:0\n"), False),
    "no weight": (pool("", servers=" servers:\n - 127.0.0.1\n"), False),
    "same name": (pool("", servers=" servers:\n - 127.0.0.1:1:1 x\n - 127.0.0.1:2:1 x\n"), False),
    "same server": (pool("", servers=" servers:\n - 127.0.0.1:1:1\n - 127.0.0.1:1:2\n"), False),
    "bad port": (pool("", servers=" servers:\n - 127.0.0.1:99999:1\n"), False),
    "nested too deep": ("a:\n listen:\n  b: c\n" + SERVERS, False),
    "not YAML": ("a: [", False),
    "large numbers": (
        pool(
            " backlog: 100000\n timeout: 100000000\n auto_eject_hosts: true\n server_retry_timeout: 100000000\n"
            " server_failure_limit: 5000\n server_connections: 100\n client_connections: 5000000\n"
        ),
        True,
    ),
    "random with large weights": (
        pool(" distribution: random\n", servers=" servers:\n - 127.0.0.1:1:5000\n - 127.0.0.1:2:1\n"),
        True,
    ),
    "a database for memcached": (pool(" redis_db: 99\n"), True),
    "a database behind sockets": (
        "a:\n listen: /tmp/a.sock\n redis: true\n redis_db: 2\n servers:\n - /tmp/b.sock:1\n",
        True,
    ),
}

# What the real nutcracker takes and shoal refuses, each with what shoal says. docs/guides/twemproxy.md lists them.
DIFFERENCES: dict[str, tuple[str, str]] = {
    "a mode that is no octal number": (
        "a:\n listen: /tmp/a.sock rwx\n" + SERVERS,
        'n.yml:2: a.listen: not permissions in octal: "rwx"',
    ),
    "one address under two names": (
        pool("", servers=" servers:\n - 127.0.0.1:1:1 x\n - 127.0.0.1:1:2 y\n"),
        'n.yml:5: alpha.servers: server "y" is at 127.0.0.1:1, as server "x" is: '
        "shoal serves each address of a pool once",
    ),
    "a database, and servers of both kinds": (
        pool(" redis: true\n redis_db: 3\n", servers=" servers:\n - 127.0.0.1:1:1\n - /tmp/b.sock:1\n"),
        "n.yml:4: alpha.redis_db: is 3, but Twemproxy uses database 0 on servers behind sockets (/tmp/b.sock): the "
        "pool's keys are in two databases, which shoal does not serve together; move them to one",
    ),
    "a weight that shoal does not have": (
        pool("", servers=" servers:\n - 127.0.0.1:1:1\n - 127.0.0.1:2:1001\n"),
        "n.yml:5: alpha.servers: weight 1001: shoal takes 1 to 1000",
    ),
    "a database that shoal does not have": (
        pool(" redis: true\n redis_db: 256\n"),
        "n.yml:4: alpha.redis_db: is 256: shoal serves databases 0 to 255",
    ),
}


def nutcrackers_verdict(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "nutcracker.yml"
    file.write_text(text)
    argv: list[str | Path] = [need("nutcracker", "nutcracker"), "-t", "-c", file]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("name", FILES)
def test_the_verdict_is_the_real_nutcrackers(name: str, tmp_path: Path) -> None:
    text, good = FILES[name]
    done = nutcrackers_verdict(text, tmp_path)
    assert (done.returncode == 0) == good, f"the table is wrong: {done.stderr}"
    if good:
        topology_of(parse_pools(text, "n.yml"))
        return
    with pytest.raises(ConfigError) as caught:
        parse_pools(text, "n.yml")
    assert all(line.startswith("n.yml") for line in caught.value.lines())


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_only_shoal_refuses_it_refuses_with_the_reason(name: str, tmp_path: Path) -> None:
    text, complaint = DIFFERENCES[name]
    done = nutcrackers_verdict(text, tmp_path)
    assert done.returncode == 0, f"no difference any more: {done.stderr}"
    with pytest.raises(ConfigError) as caught:
        parse_pools(text, "n.yml")
    assert caught.value.lines() == [complaint]


def test_all_problems_are_named_with_their_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pools(pool(" redis: yes\n hash: sha1\n colour: red\n"), "n.yml")
    assert [line[:30] for line in caught.value.lines()] == [
        "n.yml:3: alpha.redis: must be ",
        "n.yml:4: alpha.hash: must be o",
        "n.yml:5: alpha.colour: unknown",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (pool(" redis_auth: secret\n"), "n.yml:3: alpha.redis_auth: is for redis: true only"),
        (pool("") + "b:\n hash: md5\n listen: 127.0.0.1:22121\n" + SERVERS, "n.yml:8: b.listen: pool alpha listens"),
        (
            pool("", servers=" servers:\n - 127.0.0.1:1\n"),
            "n.yml:4: alpha.servers: not host:port:weight or /path:weight",
        ),
        ("a:\n\tlisten: 127.0.0.1:1\n", "n.yml:2: not valid YAML: found character"),
        ("a:\n\tlisten: 127.0.0.1:1\n", "; YAML is indented with spaces"),
    ],
)
def test_a_beginners_mistake_is_named_where_it_is(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pools(text, "n.yml")
    (line,) = caught.value.lines()
    assert complaint in line


def test_the_other_kind_of_file_is_recognized(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shoal serve --nutcracker FILE"):
        parse_config(pool(""), tmp_path / "nutcracker.yml")
    with pytest.raises(ConfigError, match="shoal serve FILE"):
        parse_pools(toml_of(parse_pools(pool(""), "n.yml"), "n.yml"), "shoal.toml")


def test_defaults_are_twemproxys() -> None:
    (made,) = topology_of(parse_pools(pool(""), "n.yml")).keyspaces
    assert (made.protocol, made.role, made.hash_tag, made.timeout_ms) == ("memcached", "store", "none", 0)
    assert (made.distribution.kind, made.distribution.hash) == ("ketama", "fnv1a_64")
    assert (made.backlog, made.connections, made.preconnect, made.tcp_keepalive) == (512, 1, False, False)


def test_everything_is_carried_over() -> None:
    (made,) = topology_of(parse_pools(FILES["everything"][0], "n.yml")).keyspaces
    assert made.ejection is not None
    assert (made.ejection.after, made.ejection.retry_after_ms) == (3, 2000)
    assert (made.database, made.connections, made.reuse_port, made.tcp_keepalive) == (3, 2, False, True)
    assert [(user.name, user.password) for user in made.users] == [("default", "secret")]
    assert [shard.password for shard in made.shards] == ["secret", "secret"]
    assert "secret" not in repr(parse_pools(FILES["everything"][0], "n.yml"))


def test_names_on_the_ring_are_twemproxys() -> None:
    text = "a:\n listen: 127.0.0.1:1\n servers:\n - h:11211:1\n - h:11212:2\n - /s:3\n - i:11211:4 name\n"
    (made,) = topology_of(parse_pools(text, "n.yml")).keyspaces
    assert [shard.ring_name for shard in made.shards] == ["h", "h:11212", "/s:", "name"]
    assert [shard.name for shard in made.shards] == ["s0", "s1", "s2", "name"]
    assert [shard.weight for shard in made.shards] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", [name for name, (_, good) in FILES.items() if good])
def test_the_converted_file_maps_every_key_the_same(name: str, tmp_path: Path) -> None:
    pools = parse_pools(FILES[name][0], "n.yml")
    config = parse_config(toml_of(pools, "n.yml"), tmp_path / "shoal.toml")
    keys = [f"user:{number}".encode() for number in range(500)] + [b"a{b}c", b"\xff\xfe", b""]
    for one, converted in zip(pools, config.topology.keyspaces, strict=True):
        made = keyspace_of(one)
        assert made == converted, "not a setting is lost"
        assert Ring(made).indexes(keys) == Ring(converted).indexes(keys)


def test_the_converted_file_says_what_was_odd() -> None:
    text = toml_of(
        parse_pools(pool(" client_connections: 7\n auto_eject_hosts: true\n redis: true\n"), "n.yml"), "n.yml"
    )
    assert "client_connections: 7 does nothing" in text
    assert "56 consecutive ids" in text
    assert "has to answer first" in text
    random = toml_of(parse_pools(FILES["random with weights"][0], "n.yml"), "n.yml")
    assert "weights do nothing in Twemproxy" in random
    strange = toml_of(parse_pools(pool("", name="my pool/ü"), "n.yml"), "n.yml")
    assert "cannot have that name" in strange


def test_reuseport_is_taken_though_not_every_build_of_twemproxy_knows_it() -> None:
    """Twemproxy 0.5.0 has it in its source; Debian's build refuses it. A file that has it ran somewhere."""
    (made,) = topology_of(parse_pools(pool(" reuseport: true\n"), "n.yml")).keyspaces
    assert made.reuse_port


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a database behind sockets", "Twemproxy uses database 0 on servers behind sockets"),
        ("a database for memcached", "memcached has no databases"),
    ],
)
def test_a_database_that_twemproxy_does_not_select_is_not_selected(name: str, reason: str) -> None:
    pools = parse_pools(FILES[name][0], "n.yml")
    assert keyspace_of(pools[0]).database == 0
    (warning,) = database_warnings(pools)
    assert warning == f"{pools[0].name}.redis_db: is {pools[0].redis_db}, but {reason}; database 0 is used here too"
    assert f"# redis_db: {pools[0].redis_db} does nothing: {reason}." in toml_of(pools, "n.yml")
    assert database_warnings(parse_pools(FILES["everything"][0], "n.yml")) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (pool("", servers=" servers:\n" + "".join(f" - 10.0.{n >> 8}.{n & 255}:1:1\n" for n in range(20_000))), "4096"),
        ("".join(pool("", name=f"p{n}") for n in range(2_000)), "at most 256 pools"),
        ("a: " + "[" * 50_000 + "]" * 50_000, "not valid YAML"),
        ("a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9)), "must be a map of settings"),
        ("a: &a [*a]\n", "not valid YAML|must be a map"),
    ],
)
def test_what_is_no_file_of_twemproxys_is_refused_and_not_a_crash(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_pools(text, "nutcracker.yml")


def test_odd_names_of_pools_stay_apart() -> None:
    text = pool("", "a b") + pool("", "a/b").replace("22121", "22122")
    one, other = topology_of(parse_pools(text, "n.yml")).keyspaces
    assert one.name != other.name
    assert one.name.startswith("pool_a_b")
