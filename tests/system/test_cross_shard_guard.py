"""What a script with keys on several shards may do at home: the line before it, on real servers of every flavour."""

from collections.abc import Iterator

import pytest
from harness import FLAVOURS, Fleet, Wire
from harness.wire import Reply
from system.cross_shard import SOURCE, array, refusal

GUARD = "".join(f"{line.strip()} " for line in (SOURCE / "lua/guard.lua").read_text().splitlines())


@pytest.fixture(scope="module", params=FLAVOURS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("one"), 1, request.param) as fleet:
        yield fleet


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def wire(server: Fleet, request: pytest.FixtureRequest) -> Iterator[Wire]:
    server.heal()
    with Wire(server.servers[0].host, server.servers[0].port.number) as wire:
        wire.ask("HELLO", request.param)
        wire.ask("SET", "other", "kept")
        wire.ask("RPUSH", "list", 2, 1)
        yield wire


def run(wire: Wire, script: str, *keys: str) -> Reply:
    return wire.ask("EVAL", GUARD + script, len(keys), *keys)


def test_a_script_does_what_it_would_do_alone(wire: Wire) -> None:
    script = """
        redis.call('SET', KEYS[1], 7)
        redis.call('MSET', KEYS[1], 8.5, KEYS[2], 'x')
        local wrong = redis.pcall('LPUSH', KEYS[1], 1)
        redis.setresp(2)
        redis.log(redis.LOG_DEBUG, 'nothing')
        return {redis.call('GET', KEYS[1]), redis.call('get', KEYS[2]), wrong.err:match('WRONGTYPE'), redis.sha1hex(''),
                redis.call('SORT', 'list'), redis.call('PING'), redis.call('COPY', KEYS[2], KEYS[1], 'REPLACE')}
    """
    given = ("a b", "c", "list")
    assert run(wire, script, *given) == wire.ask("EVAL", script, 3, *given)
    assert wire.ask("GET", "a b") == b"x"
    assert len(str(array(run(wire, "return redis.call('TIME')"))[0])) > 9
    assert run(wire, "return redis.call('PUBLISH', 'channel', 'm')") == 0
    assert run(wire, "(function() return 1 end)() return #KEYS", "a") == 1


@pytest.mark.parametrize(
    "command",
    [
        "'GET', 'other'",
        "'SET', 'other', 'v'",
        "'MGET', KEYS[1], 'other'",
        "'RENAME', KEYS[1], 'other'",
        "'SORT', KEYS[1], 'STORE', 'other'",
        "'SORT', KEYS[1], 'BY', 'oth*'",
        "'sort', KEYS[1], 'get', 'oth*'",
        "'ZUNIONSTORE', KEYS[1], 2, KEYS[1], 'other'",
        "'XREAD', 'STREAMS', 'other', '0'",
        "'MEMORY', 'USAGE', 'other'",
        "'COPY', KEYS[1], KEYS[1], 'DB', 1",
        "'MOVE', KEYS[1], 1",
        "'SCAN', 0",
        "'KEYS', '*'",
        "'RANDOMKEY'",
        "'DBSIZE'",
        "'FLUSHALL'",
        "'SELECT', 1",
        "'SWAPDB', 0, 1",
        "'HGETALL', '__shoal:m'",
    ],
)
def test_what_is_not_of_its_keys_is_an_error_and_nothing_happens(wire: Wire, command: str) -> None:
    before = {key: wire.ask("DUMP", key) for key in array(wire.ask("KEYS", "*")) if isinstance(key, bytes)}
    assert "with keys on several shards" in refusal(run(wire, f"return redis.call({command})", "list"))
    seen = run(wire, f"return {{redis.pcall({command}).err, 'and on'}}", "list")
    text, after = array(seen)
    assert isinstance(text, bytes)
    assert text.startswith(b"ERR a script with keys on several shards")
    assert after == b"and on"
    assert {key: wire.ask("DUMP", key) for key in before} == before
    assert wire.ask("DBSIZE") == len(before)


def test_the_name_that_valkey_gives_it_is_guarded_too(wire: Wire) -> None:
    assert "every key: other" in refusal(run(wire, "return server.call('GET', 'other')", "list"))


def test_lines_keep_their_numbers(wire: Wire) -> None:
    assert ":3: " in refusal(run(wire, "\n\nreturn nothing.at_all", "list"))


def test_flags_stay_in_front(wire: Wire) -> None:
    """The core puts the guard behind a first line of flags; a server takes it there."""
    script = f"#!lua flags=no-writes\n{GUARD}return redis.call("
    assert wire.ask("EVAL", f"{script}'LRANGE', KEYS[1], 0, 0)", 1, "list") == [b"2"]
    assert "every key: other" in refusal(wire.ask("EVAL", f"{script}'GET', 'other')", 1, "list"))
    refusal(wire.ask("EVAL", f"{script}'LPOP', KEYS[1])", 1, "list"))
    assert wire.ask("LLEN", "list") == 2
