"""Every exception that the control plane raises on purpose, and the exit code each one stands for.

    ShoalError                 1   something failed while running
    ├── UsageError             2   the person who called us can mend it: an argument, a file, a port
    │   ├── ConfigError            the configuration file; holds all its problems, each with its place
    │   ├── TopologyError          shards and slots that contradict each other; holds all problems
    │   ├── ListenError            an address that cannot be listened on
    │   ├── DataDirectoryError     a data directory of another layout, in use, or not writable
    │   └── BinaryMissingError     no valkey-server or redis-server to start
    ├── NoShardError           1   a key that no range of its keyspace holds
    ├── FleetError             1   an embedded server did not start
    └── CoreMissingError       1   the data plane has not been built

The text of an exception is what the user reads after `shoal: `, so it is a whole thought without a capital or a
full stop. It never holds a password. Anything else that escapes is a bug of ours and is reported as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2

# What `--help` and the reference say of each code; a test compares the two.
EXIT_CODES: dict[int, str] = {
    EXIT_OK: "done, or stopped by SIGTERM or Ctrl-C",
    EXIT_FAILURE: "failed while running, or stopped at once by a second signal",
    EXIT_USAGE: "something you can mend: an argument, the file, a taken port, a data directory",
}


# Nobody mends more of them in one go.
PROBLEMS_SHOWN_MAX = 200


class ShoalError(Exception):
    """Base of everything raised on purpose."""

    exit_code: ClassVar[int] = EXIT_FAILURE

    def lines(self) -> list[str]:
        """What to print, one line per problem."""
        return str(self).splitlines()


class UsageError(ShoalError):
    """The person who called us can mend it."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where. `path` is "keyspace.main.shards[2]", `line` counts from 1."""

    text: str
    path: str = ""
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.path, self.text) if part)


class _ManyProblemsError(UsageError):
    """An error that reports everything that is wrong at once, so that it is mended in one go."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)

    def lines(self) -> list[str]:
        shown = [str(problem) for problem in self.problems[:PROBLEMS_SHOWN_MAX]]
        more = len(self.problems) - len(shown)
        return [*shown, f"and {more} more"] if more else shown


class ConfigError(_ManyProblemsError):
    """The configuration file cannot be used."""


class TopologyError(_ManyProblemsError):
    """Keyspaces, shards and slots that contradict each other."""


class ListenError(UsageError):
    """An address that cannot be listened on."""


class DataDirectoryError(UsageError):
    """A data directory that belongs to another layout or another process, or cannot be written."""


class BinaryMissingError(UsageError):
    """No server binary was found to start."""


class NoShardError(ShoalError):
    """No shard holds a key: no range of its keyspace, and no fallback, says where it goes."""


class FleetError(ShoalError):
    """An embedded server did not start."""


class CoreMissingError(ShoalError):
    """`shoal._core` cannot be imported: it has not been built for this interpreter."""
