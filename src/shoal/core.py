"""The one door to `shoal._core`: imported when first needed, with a clear error when it has not been built.

Everything else in the control plane that needs a plain answer of the core (is this rule good, where does this key go,
how large may that be) asks here. Rejected: importing the core at the top of each module. Then `shoal --help` would
load it, and a missing build would be a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from shoal.errors import CoreMissingError

if TYPE_CHECKING:
    from shoal._core import Proxy
    from shoal.tls import ClientTls, ServerTls
    from shoal.topology import Topology


@cache
def require_core() -> None:
    """Does nothing when the core can be imported; raises CoreMissingError when not."""
    try:
        import shoal._core  # noqa: F401  (only whether it can be imported)
    except ImportError as error:
        raise CoreMissingError(f"the data plane is not built for this Python: run make build ({error})") from None


def core_version() -> str:
    """The version of core and package: they are built together."""
    require_core()
    from shoal import _core

    return _core.version()


@cache
def _limits() -> dict[str, int]:
    require_core()
    from shoal import _core

    return {name: value for name, value, _, _ in _core.limits()}


def limit(name: str) -> int:
    """A bound of the core by its name in `limits.rs`; KeyError for a name that it does not have."""
    return _limits()[name]


def check_affinity(rule: str) -> str | None:
    """None when the rule is usable, else what is wrong with it."""
    require_core()
    from shoal import _core

    return _core.check_affinity(rule)


def check_acl(rules: str) -> tuple[str, str, bool]:
    """(rule, what is wrong with it, whether scripts pass by the rules): two empty texts when the rules can be used."""
    require_core()
    from shoal import _core

    return _core.check_acl(rules)


def check_tls(wish: ClientTls | ServerTls) -> tuple[str, str, int | None]:
    """(setting, what is wrong, when our certificate expires): the files are read; "" when nothing is wrong."""
    require_core()
    from shoal import _core
    from shoal.tls import ClientTls

    return _core.check_client_tls(wish) if isinstance(wish, ClientTls) else _core.check_server_tls(wish)


def locate(key: bytes, affinity: Sequence[str]) -> tuple[bytes, int]:
    """(what is hashed, slot): a part of the key, the whole of it, or the name that a rule gives."""
    require_core()
    from shoal import _core

    return _core.locate(key, affinity)


def start_proxy(topology: Topology, workers: int) -> Proxy:
    """Starts the data plane. Raises OSError and ValueError as the core does."""
    require_core()
    from shoal import _core

    return _core.Proxy(topology.keyspaces, workers)
