"""PUBLISH behind SUBSCRIBEs whose replies nobody has read: on one server what came first is done first.

Libraries subscribe without reading the reply and publish on another connection. Sent in this order over one worker,
each message must arrive; over several, PUBLISH waits for what the other workers have taken, and never for long.
"""

import time
from collections.abc import Callable

import pytest
from harness import Fleet, Proxy, Wire
from harness.wire import encode

CHANNELS = [f"channel:{number}" for number in range(30)]
ROUNDS = 20


def subscribed_and_published(reader: Wire, writer: Wire, round_: int) -> list[object]:
    """Many SUBSCRIBEs in one piece, unread; then a message on the last. What the writer is told, and the reader."""
    names = [f"{name}:{round_}" for name in CHANNELS]
    reader.send(b"".join(encode("SUBSCRIBE", name) for name in names))
    told = writer.ask("PUBLISH", names[-1], "hello")
    heard = [reader.reply() for _ in names]
    assert heard == [[b"subscribe", name.encode(), index + 1] for index, name in enumerate(names)]
    message = reader.reply() if told else None
    reader.send(b"".join(encode("UNSUBSCRIBE", name) for name in names))
    for _ in names:
        reader.reply()
    return [told, message]


def test_a_message_finds_subscriptions_that_were_sent_before_it(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy(fleet.addresses, options=["--workers", "1"])
    with proxy.socket() as reader, proxy.socket() as writer:
        assert [reader.ask("PING"), writer.ask("PING")] == ["PONG", "PONG"]
        for number in range(ROUNDS):
            found = subscribed_and_published(reader, writer, number)
            assert found == [1, [b"message", f"{CHANNELS[-1]}:{number}".encode(), b"hello"]]


def test_subscriptions_and_other_requests_in_one_piece_are_answered_in_order(proxy: Proxy, fleet: Fleet) -> None:
    server = fleet.servers[0]

    def replies(wire: Wire) -> list[object]:
        requests = (
            "HELLO 3; SUBSCRIBE a b; PSUBSCRIBE a*; SUBSCRIBE a; PING x; SET k v; UNSUBSCRIBE b; SUBSCRIBE c; GET k; "
            "PUNSUBSCRIBE; SSUBSCRIBE s; RESET; PING"
        ).split("; ")
        wire.send(b"".join(encode(*request.split()) for request in requests))
        # SUBSCRIBE of two names has two answers, and HELLO's differ.
        answers = [wire.reply() for _ in range(len(requests) + 1)]
        return list(answers[1:])

    with proxy.socket() as ours, Wire(server.host, server.port.number) as theirs:
        assert replies(ours) == replies(theirs)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_shard_that_does_not_confirm_holds_up_no_publisher(
    fleet: Fleet, new_proxy: Callable[..., Proxy], workers: str
) -> None:
    proxy = new_proxy(fleet.addresses, options=["--workers", workers])
    with proxy.socket() as reader, proxy.socket() as writer, proxy.socket() as other:
        for wire in (reader, writer, other):
            assert wire.ask("PING") == "PONG"
        reader.ask("SUBSCRIBE", "before")
        fleet.stop(3)
        try:
            # One client after the other is on each of the workers.
            reader.command("SUBSCRIBE", "frozen")
            for wire in (writer, other):
                begun = time.monotonic()
                # On a shard that is well; shoal's bound is a tenth of a second, the test's is for a busy machine.
                assert wire.ask("PUBLISH", "before", "x") == 1
                assert time.monotonic() - begun < 3
        finally:
            fleet.cont(3)
