"""The data directory of `shoal up`: whose it is, what is in it, and who may use it now.

    shoal-data/
      layout.json      format, shards with their slots, the servers that wrote it; written once, before any data
      lock             held (flock) by `shoal up` and by every server it started
      shard-0/ ...     one server's directory: server.conf, server.log, appendonlydir/

What must stay true:
  - a directory that is not ours, or holds another layout, is refused before anything in it is touched;
  - data is only ever opened by one set of servers: the servers inherit the lock, so that it outlives a killed parent
    for as long as one of them still writes;
  - the slots of a shard are those with which its data was written: they are read from the layout, never dealt anew.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shoal.distribution import SlotRange
from shoal.embedded import ServerBinary
from shoal.errors import DataDirectoryError
from shoal.private_file import write_private
from shoal.topology import deal_slots, parse_slots, slot_problems

FORMAT = 1
LAYOUT_NAME = "layout.json"
LOCK_NAME = "lock"
LAYOUT_BYTES_MAX = 1024 * 1024
SHARDS_DEFAULT = 4
# Servers of a killed parent get SIGTERM at once and need a moment to write their last bytes.
LOCK_WAIT_SECONDS = 10.0
LOCK_RETRY_SECONDS = 0.05


@dataclass(frozen=True)
class Layout:
    """Which shards the directory holds, and which slots each was given."""

    shards: tuple[str, ...]
    slots: tuple[SlotRange, ...]
    written_by: str = ""

    def as_json(self) -> bytes:
        shards = [
            {"name": name, "slots": [str(part) for part in self.slots if part.shard == index]}
            for index, name in enumerate(self.shards)
        ]
        content = {"format": FORMAT, "shards": shards, "written_by": self.written_by}
        return (json.dumps(content, indent=2) + "\n").encode()


def new_layout(shards: int) -> Layout:
    """A layout for a new directory: shards s0, s1, ... with the slots dealt evenly."""
    return Layout(tuple(f"s{index}" for index in range(shards)), deal_slots(shards))


def read_layout(directory: Path) -> Layout | None:
    """The layout of a directory; None when it is new or empty. Changes nothing. Raises DataDirectoryError."""
    try:
        names = {entry.name for entry in directory.iterdir()}
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise DataDirectoryError(f"{directory} is not a directory") from None
    except OSError as error:
        raise _os_error("read", directory, error) from None
    if LAYOUT_NAME not in names:
        if names <= {LOCK_NAME, LAYOUT_NAME + ".new"}:
            return None
        raise DataDirectoryError(f"{directory} is not empty and holds no data of shoal; choose another with --data")
    return _parse_layout(directory / LAYOUT_NAME)


def _parse_layout(path: Path) -> Layout:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(LAYOUT_BYTES_MAX))
        if content["format"] != FORMAT:
            raise DataDirectoryError(
                f"{path.parent} was written by another version of shoal (format {content['format']}, not {FORMAT})"
            )
        names = tuple(str(shard["name"]) for shard in content["shards"])
        slots = tuple(
            SlotRange(*parse_slots(text), index)
            for index, shard in enumerate(content["shards"])
            for text in shard["slots"]
        )
        layout = Layout(names, slots, str(content.get("written_by", "")))
    except OSError as error:
        raise _os_error("read", path, error) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataDirectoryError(f"{path} is damaged; choose another directory with --data") from None
    problems = list(slot_problems(slots, names))
    if problems or not names or any(not re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names):
        raise DataDirectoryError(f"{path} is damaged: {problems[0] if problems else 'no shards'}")
    return layout


class DataDirectory:
    """A directory that is ours from `claim` to `release`."""

    def __init__(self, path: Path, layout: Layout, lock: int) -> None:
        self.path = path
        self.layout = layout
        self.lock = lock

    @classmethod
    def claim(cls, path: Path, shards: int | None) -> DataDirectory:
        """Takes the directory, making it when it is new. Raises DataDirectoryError and then has changed nothing.

        `shards` is how many are wanted; None takes what the directory has.
        """
        _check_count(path, read_layout(path), shards)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _os_error("write", path, error) from None
        try:
            _take_lock(path, lock)
            layout = read_layout(path)  # again: before the lock, another process may have just made it
            _check_count(path, layout, shards)
            if layout is None:
                layout = new_layout(shards if shards is not None else SHARDS_DEFAULT)
                write_private(path / LAYOUT_NAME, layout.as_json())
        except OSError as error:
            os.close(lock)
            raise _os_error("write", path, error) from None
        except BaseException:
            os.close(lock)
            raise
        return cls(path, layout, lock)

    def shard_path(self, index: int) -> Path:
        return self.path.absolute() / f"shard-{index}"

    def note_binary(self, binary: ServerBinary) -> None:
        """Remembers which server wrote the data last: an older one may not be able to read it."""
        if self.layout.written_by != str(binary):
            self.layout = Layout(self.layout.shards, self.layout.slots, str(binary))
            with suppress(OSError):  # only a hint for a later error
                write_private(self.path / LAYOUT_NAME, self.layout.as_json())

    def release(self) -> None:
        """Gives the lock up; it stays held while a server that inherited it lives. Idempotent."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def _check_count(path: Path, layout: Layout | None, shards: int | None) -> None:
    if layout is not None and shards is not None and len(layout.shards) != shards:
        have = len(layout.shards)
        raise DataDirectoryError(
            f"{path} holds {have} shard{'s' * (have != 1)}, not {shards}: "
            f"use --shards {have}, or another directory with --data"
        )


def _take_lock(path: Path, lock: int) -> None:
    """Takes the lock; waits for the servers of a parent that died, refuses at once when the parent lives."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            owner = _owner(lock)
            if owner is not None and _lives(owner):
                raise DataDirectoryError(
                    f"{path} is in use by another shoal up (pid {owner}); choose another with --data"
                ) from None
            if time.monotonic() >= deadline:
                raise DataDirectoryError(
                    f"{path} is in use by servers that an earlier shoal up left behind; stop them first"
                ) from None
            time.sleep(LOCK_RETRY_SECONDS)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _owner(lock: int) -> int | None:
    text = os.pread(lock, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _os_error(verb: str, path: Path, error: OSError) -> DataDirectoryError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = "the disk is full"
    return DataDirectoryError(f"cannot {verb} {path}: {reason}")
