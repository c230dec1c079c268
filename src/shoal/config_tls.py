"""The part of a keyspace's table that says where TLS is spoken, and with which files.

Paths are relative to the configuration file. Every file is read here by the core, exactly as it will be read when the
proxy starts, so that `shoal check` finds what would fail then, and says which setting and which file it is.

Warnings: a key that other users can read, a certificate that has expired or is about to, servers that are not verified.
"""

from __future__ import annotations

import os
import time
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from shoal.core import check_tls
from shoal.password import others_can_read
from shoal.places import format_path
from shoal.tls import ClientTls, ServerTls, tls_problems

if TYPE_CHECKING:
    from typing import Protocol

    from shoal.config_model import KeyspaceTable
    from shoal.endpoint import Endpoint
    from shoal.places import Path
    from shoal.topology import Shard

    class Reader(Protocol):
        """What is needed of the one who reads the file."""

        file: FilePath
        warnings: list[str]

        def wrong(self, path: Path, text: str) -> None: ...
        def endpoint(self, path: Path, text: str, *, port_min: int = 1) -> Endpoint | None: ...
        def has_left_out(self, path: Path, key: str) -> bool: ...


DAY_S = 86_400
# Long enough to renew a certificate by hand.
EXPIRY_WARNING_S = 14 * DAY_S

# Where systems keep the authorities that they trust, in the order in which they are looked for.
SYSTEM_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def read_tls(
    reader: Reader, path: Path, table: KeyspaceTable, listen: Endpoint, shards: tuple[Shard, ...]
) -> tuple[ClientTls | None, ServerTls | None]:
    """Both sides; neither when something is wrong with one, which has been noted then."""
    clients = _clients(reader, path, table)
    servers = _servers(reader, path, table)
    is_good = True
    for setting, text in tls_problems(listen, [shard.endpoint for shard in shards], clients, servers):
        reader.wrong((*path, *setting.split(".")), text)
        is_good = False
    if not is_good:
        return None, None
    for key, wish in (("tls", clients), ("server_tls", servers)):
        if wish is not None:
            _look_into(reader, (*path, key), wish)
    return clients, servers


def _clients(reader: Reader, path: Path, table: KeyspaceTable) -> ClientTls | None:
    given = table.tls
    listen = table.tls_listen
    if given is None:
        if listen is not None and not reader.has_left_out(path, "tls"):
            reader.wrong((*path, "tls_listen"), "needs tls = { cert = ..., key = ... }")
        return None
    place = reader.endpoint((*path, "tls_listen"), listen, port_min=0) if listen is not None else None
    return ClientTls(
        cert=_file(reader, given.cert),
        key=_file(reader, given.key),
        client_ca=_file(reader, given.client_ca) if given.client_ca is not None else None,
        client_auth=given.client_auth,
        min_version=given.min_version,
        listen_host=place.host if place is not None else None,
        listen_port=place.port if place is not None else 0,
    )


def _servers(reader: Reader, path: Path, table: KeyspaceTable) -> ServerTls | None:
    given = table.server_tls
    if given is None:
        return None
    ca = _file(reader, given.ca) if given.ca is not None else None
    if ca is None and given.verify != "none":
        ca = system_authorities()
    if given.verify == "none":
        reader.warnings.append(
            f"{format_path((*path, 'server_tls', 'verify'))}: whoever stands between shoal and a server can read and "
            "change everything; keys and passwords too"
        )
    return ServerTls(
        ca=ca,
        cert=_file(reader, given.cert) if given.cert is not None else None,
        key=_file(reader, given.key) if given.key is not None else None,
        server_name=given.server_name,
        verify=given.verify,
        min_version=given.min_version,
    )


def system_authorities() -> str | None:
    """The file with the authorities that this system trusts, as OpenSSL is told it; None when there is none."""
    named = os.environ.get("SSL_CERT_FILE")
    places = (named, *SYSTEM_AUTHORITIES) if named else SYSTEM_AUTHORITIES
    return next((place for place in places if FilePath(place).is_file()), None)


def expiry_warning(cert: str, expires: int | None, now: float) -> str | None:
    """What to say of a certificate that ends soon or has ended."""
    if expires is None or expires - now > EXPIRY_WARNING_S:
        return None
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
    return f"the certificate in {cert} expired at {when}" if expires <= now else f"{cert} expires at {when}"


def _look_into(reader: Reader, path: Path, wish: ClientTls | ServerTls) -> None:
    setting, text, expires = check_tls(wish)
    if text:
        reader.wrong((*path, setting), text)
        return
    if wish.key is not None and others_can_read(FilePath(wish.key)):
        reader.warnings.append(f"{format_path((*path, 'key'))}: other users can read {wish.key}; chmod 600 it")
    warning = expiry_warning(wish.cert or "", expires, time.time())
    if warning is not None:
        reader.warnings.append(f"{format_path((*path, 'cert'))}: {warning}")


def _file(reader: Reader, text: str) -> str:
    try:
        named = FilePath(text).expanduser()
    except RuntimeError:
        named = FilePath(text)  # nobody's home: the file will not be found, and is named as it was written
    return str((reader.file.parent / named).absolute())
