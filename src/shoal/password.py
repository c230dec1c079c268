"""Where a password comes from: written in the file, read from another file, or from the environment.

Each password `X` of the configuration has three spellings, `X`, `X_file` and `X_env`, of which at most one may be
given. Whatever goes wrong is said without the value. A password read from a file loses one line end, because
editors and `echo` add it; nothing else is changed.
"""

from __future__ import annotations

import os
from pathlib import Path

# A password file is a line, not a log that someone named by mistake.
PASSWORD_BYTES_MAX = 4096


def read_password_file(path: Path) -> str:
    """The password in a file. Raises ValueError that says what is wrong, never with any of the content."""
    try:
        with path.open("rb") as file:
            raw = file.read(PASSWORD_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(raw) > PASSWORD_BYTES_MAX:
        raise ValueError(f"{path} is longer than {PASSWORD_BYTES_MAX} bytes: not a password file")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def read_password_env(name: str) -> str:
    """The password in an environment variable. Raises ValueError when it is not set or empty."""
    value = os.environ.get(name)
    if value is None:
        raise ValueError(f"the environment variable {name} is not set")
    if not value:
        raise ValueError(f"the environment variable {name} is empty")
    return value


def others_can_read(path: Path) -> bool:
    """Whether users other than the owner may read the file; False when it cannot be asked."""
    try:
        return bool(path.stat().st_mode & 0o044)
    except OSError:
        return False
