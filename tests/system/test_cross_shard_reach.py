"""What an operation across shards does not reach: a request that touches more than it names is not carried elsewhere.

A transaction whose keys are on several shards is executed on one of them, where the others' keys have been brought. A
SORT that looks for weights there would find none of its own shard's, and answer wrongly.
"""

from collections.abc import Callable

import pytest
from harness import ErrorReply, Fleet, Proxy
from harness.wire import Wire
from system.placement import keys_on

NewProxy = Callable[..., Proxy]

CONFIG = """
[keyspace.main]
listen = "{{listen}}"
{settings}
shards = ["{{shard0}}", "{{shard1}}", "{{shard2}}", "{{shard3}}"]
"""


def executed(wire: Wire, *requests: list[str]) -> object:
    """The reply to EXEC of these."""
    assert wire.ask("MULTI") == "OK"
    for words in requests:
        assert wire.ask(*words) == "QUEUED"
    return wire.ask("EXEC")


@pytest.mark.parametrize(
    ("request_text", "instead"),
    [
        ("SORT {key} BY {tagged}", "ERR 'sort' with a BY or GET pattern reaches keys"),
        ("COPY {key} {beside} DB 1", "ERR 'copy' with DB is possible on one shard only"),
    ],
)
def test_what_reaches_further_stays_with_its_keys(proxy: Proxy, request_text: str, instead: str) -> None:
    near, far = keys_on(0, 1)[0], keys_on(3, 1)[0]
    key, beside, tagged = (f"{{{near}}}{end}" for end in ("ids", "copy", "w_*"))
    words = request_text.format(key=key, beside=beside, tagged=tagged).split(" ")
    with proxy.socket() as wire:
        for number in ("1", "2"):
            wire.ask("RPUSH", key, number)
            wire.ask("SET", f"{{{near}}}w_{number}", str(-int(number)))
        alone = executed(wire, words)
        assert not isinstance(alone, ErrorReply)
        if words[0] == "SORT":
            assert alone == [[b"2", b"1"]], "by weights that the request does not name"
        for other in (["SET", far, "v"], ["GET", far]):
            reply = executed(wire, words, other)
            assert isinstance(reply, ErrorReply)
            assert reply.startswith(instead)
        assert wire.ask("EXISTS", far) == 0, "nothing was executed"


def test_a_script_of_a_transaction_is_held_to_its_keys(proxy: Proxy) -> None:
    near, far = keys_on(0, 1)[0], keys_on(3, 1)[0]
    beside = f"{{{near}}}beside"
    with proxy.socket() as wire:
        script = f"return redis.call('INCR', KEYS[1]) + redis.call('INCR', '{beside}')"
        assert executed(wire, ["EVAL", script, "1", near]) == [2], "alone it runs beside its keys"
        assert executed(wire, ["EVAL", script, "2", near, beside], ["SET", far, "v"]) == [4, "OK"]
        told = executed(wire, ["EVAL", script, "1", near], ["SET", far, "w"])
        assert isinstance(told, list)
        assert isinstance(told[0], ErrorReply)
        assert f"must be given every key: {beside}" in told[0]
        assert [wire.ask("GET", key) for key in (near, beside, far)] == [b"3", b"2", b"w"]


def test_transactions_that_are_off_name_the_setting(fleet: Fleet, new_proxy: NewProxy) -> None:
    near, far = keys_on(0, 1)[0], keys_on(3, 1)[0]
    for settings, named in (
        ('cross_shard = "off"', 'set cross_shard = "strict" or transactions'),
        ('role = "cache"', "set transactions"),
    ):
        proxy = new_proxy(fleet.addresses, config=CONFIG.format(settings=settings))
        with proxy.socket() as wire:
            reply = executed(wire, ["SET", near, "v"], ["SET", far, "v"])
            assert isinstance(reply, ErrorReply)
            assert reply.startswith("CROSSSLOT 'exec' has keys on different shards: ")
            assert f'; leave MULTI out, {named} = "per-shard", or give them' in reply
