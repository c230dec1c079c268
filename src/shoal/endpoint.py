"""An endpoint is the address of one server process or of one listener of ours: host and port, or the path of a socket.

Text is `host:port`, with IPv6 addresses in brackets (`[::1]:6380`), or an absolute path (`/run/redis.sock`), which
is kept as the host, with port 0. Parsing is strict, because a wrong guess here sends someone's keys to someone else's
server: no default port, no URL, no relative path.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

PORT_MAX = 65535
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")


@dataclass(frozen=True, order=True)
class Endpoint:
    """A host (name or address, without brackets) and a port; or the path of a socket and 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if self.is_socket:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_socket(self) -> bool:
        """A socket in the file system."""
        return self.host.startswith("/")

    @property
    def is_wildcard(self) -> bool:
        """Listening here means listening on every interface."""
        return self.host in ("0.0.0.0", "::", "*")

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        if self.host == "localhost" or self.is_socket:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def canonical(self) -> Endpoint:
        """The same place spelt one way (localhost is 127.0.0.1); names are not resolved."""
        return Endpoint(_canonical(self.host), self.port)

    def reaches(self, other: Endpoint) -> bool:
        """Whether connecting to `other` ends at a listener bound to `self`; a name is compared as text."""
        if self.port != other.port or self.is_socket != other.is_socket:
            return False
        everywhere = self.is_wildcard and (other.is_loopback or other.is_wildcard)
        return everywhere or self.canonical == other.canonical


def parse_endpoint(text: str, *, port_min: int = 1) -> Endpoint:
    """Reads `host:port`. Raises ValueError that says what is wrong; `port_min=0` allows "any free port"."""
    if "://" in text:
        raise ValueError(f'write host:port, not a URL: "{_without_secrets(text)}"')
    if text.startswith("/"):
        return _socket(text)
    if text.startswith((".", "unix:")):
        raise ValueError(f'write the absolute path of a socket, as in /run/redis.sock: "{text}"')
    host, colon, port_text = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f'not host:port: "{_without_secrets(text)}"')
    if host.startswith("[") and host.endswith("]"):
        host = _ipv6(host[1:-1])
    elif ":" in host:
        raise ValueError(f'write an IPv6 address in brackets, as in [::1]:6380: "{text}"')
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError(f'not a host name or address: "{_without_secrets(host)}"')
    if not re.fullmatch(r"[0-9]{1,5}", port_text):
        raise ValueError(f'not a port: "{port_text}"')
    port = int(port_text)
    if not port_min <= port <= PORT_MAX:
        raise ValueError(f"port {port} is not between {port_min} and {PORT_MAX}")
    return Endpoint(host, port)


# What the kernel's address of a socket holds, its end mark apart.
SOCKET_PATH_BYTES_MAX = 107


def _socket(path: str) -> Endpoint:
    if len(path.encode()) > SOCKET_PATH_BYTES_MAX:
        raise ValueError(f"the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes: {path}")
    if not path.isprintable():
        raise ValueError("the path of a socket has characters that cannot be printed")
    return Endpoint(path, 0)


def _ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError(f'not an IPv6 address: "{text}"') from None


def _canonical(host: str) -> str:
    if host.startswith("/"):
        return host
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().rstrip(".")


def _without_secrets(text: str) -> str:
    """Someone may have written redis://:password@host; what stands before the @ is not repeated."""
    return re.sub(r"(^|//)[^/]*@", r"\1***@", text)
