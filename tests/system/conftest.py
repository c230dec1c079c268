"""Fixtures of the system tests: `proxy` as everywhere, once it uses every shard again.

The test before may have killed shards; the fleet is whole again at once, the proxy tries them in its own time.
"""

import pytest
from harness import ErrorReply, Proxy, wait_until
from system.placement import one_key_each


@pytest.fixture
def proxy(proxy: Proxy) -> Proxy:
    wait_until(lambda: uses_every_shard(proxy), 8, "every shard is used again")
    return proxy


def uses_every_shard(proxy: Proxy) -> bool:
    with proxy.socket() as wire:
        return not any(isinstance(wire.ask("GET", key), ErrorReply) for key in one_key_each())
