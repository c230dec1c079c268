"""Whether an address can be listened on, and the one clear line when it cannot.

The core binds its own listeners when it starts, which is last. Every address is tried here first, so that a taken port
is noticed before an embedded server has been started or a data directory claimed. Sockets are made as the core makes
them (SO_REUSEADDR, IPv6 apart from IPv4), so that both agree about what is free.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from shoal.endpoint import Endpoint
from shoal.errors import ListenError


def bind(endpoint: Endpoint, hint: str = "") -> socket.socket:
    """A bound TCP socket that does not listen yet. Raises ListenError; `hint` says what to do about it."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {endpoint}: {error.strerror}") from None
    family, kind, protocol, _, address = found[0]
    tried = socket.socket(family, kind, protocol)
    try:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        tried.bind(address)
    except OSError as error:
        tried.close()
        raise listen_error(endpoint, error, hint) from None
    return tried


def check_free(endpoint: Endpoint, hint: str = "", *, shared: bool = False) -> None:
    """Raises ListenError when the address cannot be listened on; leaves nothing bound.

    `shared`: others may listen there too (SO_REUSEPORT), so there is nothing to find out.
    """
    if endpoint.is_socket:
        _check_socket(endpoint)
    elif not shared:
        bind(endpoint, hint).close()


def _check_socket(endpoint: Endpoint) -> None:
    """The folder must be writable, and nobody may answer at the path; a socket that nobody serves is replaced."""
    path = Path(endpoint.host)
    if not os.access(path.parent, os.W_OK):
        missing = not path.parent.is_dir()
        reason = "there is no such folder" if missing else "its folder cannot be written to"
        raise ListenError(f"cannot listen on {endpoint}: {reason}")
    if not path.exists():
        return
    if not path.is_socket():
        raise ListenError(f"cannot listen on {endpoint}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(1)
        try:
            tried.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise ListenError(f"cannot listen on {endpoint}: {error.strerror or error}") from None
    raise ListenError(f"cannot listen on {endpoint}: address already in use (another shoal?)")


def listen_error(endpoint: Endpoint, error: OSError, hint: str = "") -> ListenError:
    """The line for a failed bind."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno == errno.EADDRINUSE:
        advice = f"another shoal? choose another with {hint}" if hint else "another shoal?"
    elif error.errno == errno.EACCES:
        advice = "ports below 1024 need a privilege"
    elif error.errno == errno.EADDRNOTAVAIL:
        advice = "this machine has no such address"
    else:
        advice = ""
    return ListenError(f"cannot listen on {endpoint}: {reason}" + (f" ({advice})" if advice else ""))
