"""Certificates for tests, made by the real `openssl`: `Authority` signs what a test asks for.

Flow: `Authority(folder)` makes a key and a certificate that signs others; `issue` makes a key, a request and a
certificate in the same folder. Keys are of an elliptic curve, because those take a millisecond to make.
Must stay true: nothing here comes from the library that the proxy uses, which is what is tested.
"""

import datetime as dt
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.needs import need

CONFIG = """
[ca]
default_ca = here
[here]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
unique_subject = no
policy = any
copy_extensions = copy
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
"""

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """Two files: a certificate, and its private key."""

    cert: Path
    key: Path


class Authority:
    """One that signs certificates; `cert` is the file that those who trust it are given."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._openssl = need("openssl", "openssl")
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self._config = self.folder / "openssl.cnf"
        self._config.write_text(CONFIG.format(folder=self.folder))
        (self.folder / "index.txt").touch()
        self.cert = self.folder / "ca.crt"
        self._key = self.folder / "ca.key"
        extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign,cRLSign"]
        self._run("req", "-x509", *_new_key(self._key), "-subj", f"/CN={name}", *extensions, "-out", self.cert)

    def issue(self, name: str, names: Sequence[str] = ("IP:127.0.0.1", "DNS:localhost"), days: int = 30) -> Certificate:
        """A certificate for `names`, valid for so many days; with a negative number it has expired so long ago."""
        made = Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        alternatives = ["-addext", f"subjectAltName={','.join(names)}"] if names else []
        # Without any extension it would be of version 1, which nobody takes any more.
        usage = ["-addext", "keyUsage=digitalSignature"]
        self._run("req", *_new_key(made.key), "-subj", f"/CN={name}", *usage, *alternatives, "-out", request)
        now = dt.datetime.now(dt.UTC)
        end = now + days * DAY
        dates = ["-startdate", _time(min(now, end) - DAY), "-enddate", _time(end)]
        signing: list[str | Path] = ["-cert", self.cert, "-keyfile", self._key, "-in", request, "-out", made.cert]
        self._run("ca", "-batch", "-notext", *dates, *signing)
        return made

    def _run(self, *words: str | Path) -> None:
        command = [str(word) for word in (self._openssl, words[0], "-config", self._config, *words[1:])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def _new_key(file: Path) -> list[str | Path]:
    return ["-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", file]


def _time(when: dt.datetime) -> str:
    return when.strftime("%Y%m%d%H%M%SZ")
