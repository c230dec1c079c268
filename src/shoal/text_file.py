"""Reads a file that people write: bounded, as UTF-8, with errors that name it."""

from __future__ import annotations

from pathlib import Path

from shoal.errors import ConfigError, Problem

# A larger file is something else that was named by mistake.
TEXT_BYTES_MAX = 4 * 1024 * 1024


def read_text(file: Path, what: str) -> str:
    """The text, without a byte order mark. Raises ConfigError; `what` is what the file should be."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError([Problem(f"cannot read {file}: {error.strerror}")]) from None
    if len(raw) > TEXT_BYTES_MAX:
        raise ConfigError([Problem(f"longer than {TEXT_BYTES_MAX} bytes: not {what}", file=str(file))])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([Problem("not UTF-8 text", file=str(file))]) from None
