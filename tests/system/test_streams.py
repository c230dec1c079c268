"""Streams of several shards read with one request, with and without waiting. A plain server is the judge of replies."""

from collections.abc import Iterator

import pytest
from harness import ErrorReply, Fleet, Proxy, Wire, wait_until
from system.placement import keys_on, one_key_each


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def wire(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Wire]:
    with proxy.socket() as wire:
        wire.ask("HELLO", request.param)
        yield wire


def until_blocked(proxy: Proxy) -> None:
    with proxy.client() as client:
        wait_until(lambda: any("b" in str(line["flags"]) for line in client.client_list()), 5, "it waits")


def test_streams_of_several_shards_are_merged_as_one_server_does_it(wire: Wire, fleet: Fleet) -> None:
    keys = one_key_each("xs")
    judged = keys_on(0, 4, "judge")
    with Wire(fleet.servers[0].host, fleet.servers[0].port.number) as judge:
        judge.ask("HELLO", 3 if isinstance(wire.ask("HELLO"), dict) else 2)

        def both(*words: str) -> None:
            ours = wire.ask(*(keys[int(word[1:])] if word[0] == "@" else word for word in words))
            theirs = judge.ask(*(judged[int(word[1:])] if word[0] == "@" else word for word in words))
            shown = repr(theirs)
            for judged_key, key in zip(judged, keys, strict=True):
                shown = shown.replace(judged_key, key)
            assert repr(ours) == shown, words

        all_of_them = ("@3", "@1", "@0", "@2")
        both("XREAD", "STREAMS", *all_of_them, "0", "0", "0", "0")
        for number in range(3):
            for key in ("@3", "@0"):
                both("XADD", key, f"1-{number + 1}", "f", "v")
        both("XREAD", "COUNT", "2", "STREAMS", *all_of_them, "0", "0", "1-2", "0")
        both("XREAD", "STREAMS", *all_of_them, "$", "$", "$", "$")
        both("XREAD", "BLOCK", "1000", "STREAMS", *all_of_them, "0", "0", "1-2", "$")
        both("XREAD", "STREAMS", *all_of_them, "0", "0")
        both("XREAD", "STREAMS", *all_of_them, "x", "0", "0", "0")
        both("XREADGROUP", "GROUP", "g", "c", "STREAMS", "@3", "@0", ">", ">")
        for key in ("@3", "@0"):
            both("XGROUP", "CREATE", key, "g", "0")
        both("XREADGROUP", "GROUP", "g", "c", "COUNT", "1", "STREAMS", "@3", "@0", ">", ">")
        both("XREADGROUP", "GROUP", "g", "c", "BLOCK", "50", "NOACK", "STREAMS", "@3", "@0", ">", ">")
        both("XREADGROUP", "GROUP", "g", "c", "BLOCK", "50", "STREAMS", "@3", "@0", ">", ">")
        both("SET", "@1", "text")
        both("XREAD", "STREAMS", *all_of_them, "0", "0", "0", "0")
        judge.ask("DEL", *judged)


@pytest.mark.parametrize("over", ["one", "several"])
def test_a_reader_is_given_what_comes_after_it_began_to_wait(proxy: Proxy, wire: Wire, over: str) -> None:
    keys = one_key_each("xw") if over == "several" else keys_on(2, 3, "xw")
    with proxy.socket() as other:
        for key in keys:
            other.ask("XADD", key, "1-1", "old", "v")
        wire.command("XREAD", "BLOCK", 0, "STREAMS", *keys, *("$" for _ in keys))
        until_blocked(proxy)
        other.ask("XADD", keys[1], "2-1", "f", "v")
        entries = [[b"2-1", [b"f", b"v"]]]
        reply = wire.reply()
    assert reply in ([[keys[1].encode(), entries]], {keys[1].encode(): entries})


def test_a_group_reads_each_entry_once(proxy: Proxy, wire: Wire) -> None:
    keys = one_key_each("xg")
    with proxy.socket() as other:
        for key in keys:
            other.ask("XGROUP", "CREATE", key, "g", "$", "MKSTREAM")
        ask = ["XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", *keys, *(">" for _ in keys)]
        for number, key in enumerate(keys):
            wire.command(*ask)
            until_blocked(proxy)
            other.ask("XADD", key, f"5-{number}", "f", "v")
            entries = [[f"5-{number}".encode(), [b"f", b"v"]]]
            assert wire.reply() in ([[key.encode(), entries]], {key.encode(): entries})
            assert other.ask("XACK", key, "g", f"5-{number}") == 1
        wire.command(*ask)
        until_blocked(proxy)
        other.ask("DEL", keys[2])
        assert isinstance(reply := wire.reply(), ErrorReply)
        assert "NOGROUP" in reply
