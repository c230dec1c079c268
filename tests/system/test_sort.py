"""SORT with BY and GET patterns beside a real server: as there where a pattern stays on one shard, else refused."""

from collections.abc import Callable, Iterator

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire
from system.placement import keys_on, shard_of

# Elements that a server puts in the place of a star; one of them tries to be a hash tag.
ELEMENTS = ["3", "1", "2", "{other}", "plain"]

SORTS = [
    "SORT {s}list BY {s}w_* ALPHA",
    "SORT {s}list BY {s}w_* DESC ALPHA GET # GET {s}v_*",
    "SORT_RO {s}list BY nosort GET {s}h_*->name",
    "SORT {s}list by weight:{s}:*->rank get {s}h_*->name get # LIMIT 1 3",
    "SORT {s}list BY {s}w_* ALPHA STORE {s}sorted",
    "SORT {s}list BY nosort GET nothing",
    "SORT {s}list BY {s}w_*",
    "SORT {s}list BY {s}w_* GET",
    "SORT {s}set BY {s}w_* ALPHA LIMIT 0 2",
    "SORT_RO {s}list BY {s}w_* STORE {s}d",
]


@pytest.fixture
def plain(fleet: Fleet) -> Iterator[Wire]:
    """A connection to one of the servers itself, in a database of its own."""
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as plain:
        plain.ask("SELECT", 9)
        yield plain


def fill(wire: Wire, prefix: str = "{s}") -> None:
    for number, element in enumerate(ELEMENTS):
        wire.ask("RPUSH", f"{prefix}list", element)
        wire.ask("SADD", f"{prefix}set", element)
        wire.ask("SET", f"{prefix}w_{element}", f"weight {number * 7 % 5}")
        wire.ask("SET", f"{prefix}v_{element}", f"value of {element}")
        wire.ask("HSET", f"{prefix}h_{element}", "name", f"name of {element}")
        wire.ask("HSET", f"weight:{prefix}:{element}", "rank", str(number * 3 % 5))


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("request_text", SORTS)
def test_patterns_with_the_tag_of_the_key_are_as_on_one_server(
    proxy: Proxy, plain: Wire, request_text: str, protocol: int
) -> None:
    with proxy.socket() as wire:
        for end in (wire, plain):
            end.ask("HELLO", protocol)
            fill(end)
        words = request_text.split(" ")
        assert wire.ask(*words) == plain.ask(*words)
        assert wire.ask("LRANGE", "{s}sorted", 0, -1) == plain.ask("LRANGE", "{s}sorted", 0, -1)


def test_a_pattern_that_may_reach_another_shard_is_refused_by_name(proxy: Proxy, plain: Wire) -> None:
    with proxy.socket() as wire:
        fill(wire)
        for option, pattern in (("BY", "w_*"), ("GET", "v_*"), ("GET", "*{s}"), ("BY", "{s*}"), ("GET", "v_*->f")):
            for command in ("SORT", "SORT_RO"):
                reply = wire.ask(command, "{s}list", option, pattern)
                assert isinstance(reply, ErrorReply)
                assert f"with {option} '{pattern}' reaches keys that it does not name" in reply
        far = next(key for key in keys_on(3 - shard_of(b"s"), 1, "far"))
        reply = wire.ask("SORT", "{s}list", "BY", f"{{{far}}}w_*")
        assert isinstance(reply, ErrorReply)
        assert reply.startswith("CROSSSLOT 'sort'")
        assert f"{{{far}}}w_*" in reply
        reply = wire.ask("SORT", "{s}list", "BY", "{s}w_*", "ALPHA", "STORE", far)
        assert isinstance(reply, ErrorReply), "keys that a pattern names would have to be brought along"
        assert wire.ask("EXISTS", far, "{s}sorted") == 0
        # Without a pattern it is one operation over two shards.
        fill(plain)
        for words in (["SORT", "{s}list", "ALPHA", "STORE", far], ["LRANGE", far, "0", "-1"]):
            assert wire.ask(*words) == plain.ask(*words)


def test_over_one_shard_every_pattern_goes_through(fleet: Fleet, new_proxy: Callable[..., Proxy], plain: Wire) -> None:
    proxy = new_proxy(fleet.addresses[:1])
    with proxy.socket() as wire:
        for end in (wire, plain):
            fill(end, "")
            end.ask("SET", "w_1", "a")
        for words in (
            ["SORT", "list", "BY", "w_*", "ALPHA", "GET", "#", "GET", "h_*->name"],
            ["SORT", "list", "BY", "*", "ALPHA"],
            ["SORT", "list", "BY", "w_*", "ALPHA", "STORE", "sorted"],
            ["LRANGE", "sorted", "0", "-1"],
        ):
            assert wire.ask(*words) == plain.ask(*words)


def test_an_affinity_rule_puts_the_keys_of_a_pattern_together(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy(fleet.addresses, options=["--affinity", "^bull:([^:]+):", "--affinity", "^rq:"])
    with proxy.socket() as wire:
        for queue in ("mail", "video", "sound"):
            wire.ask("RPUSH", f"bull:{queue}:ids", 1, 2, 3)
            for number in (1, 2, 3):
                wire.ask("SET", f"bull:{queue}:at:{number}", 10 - number)
            assert wire.ask("SORT", f"bull:{queue}:ids", "BY", f"bull:{queue}:at:*") == [b"3", b"2", b"1"]
        reply = wire.ask("SORT", "bull:mail:ids", "BY", "bull:*")
        assert isinstance(reply, ErrorReply)
        assert "BY 'bull:*' reaches keys" in reply
