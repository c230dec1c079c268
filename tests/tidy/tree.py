"""Which files belong to the project: what git tracks or would track, so built and ignored files are never judged.

Without git (an unpacked archive) all files count that are not in a folder where builds put theirs.
"""

import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

CORE = "crates/core/src"
# Where builds put their files; git ignores them by .gitignore.
BUILT = {"target", "node_modules", "__pycache__", "shoal-data"}
# Written by programs, from data that people write: judged by their generators, not by their length or words.
GENERATED = {
    "crates/core/src/protocol/command_table.rs",
    "Cargo.lock",
    "crates/core/fuzz/Cargo.lock",
    "tests/clients/node/package-lock.json",
    "tests/clients/go/go.sum",
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-oldest-client.lock",
    "tests/redispy/requirements.lock",
    "tests/apps/requirements-newest.lock",
    "tests/apps/requirements-redis5.lock",
    "tests/apps/node/package-lock.json",
    "tests/apps/go/go.sum",
    "tests/apps/recorded_keys.json",
}


@cache
def files(*suffixes: str) -> tuple[str, ...]:
    """Paths from the root, of files that exist and (if given) end in one of the suffixes."""
    names = _listed_by_git() if (ROOT / ".git").exists() else _found()
    return tuple(name for name in sorted(names) if name.endswith(suffixes or "") and (ROOT / name).is_file())


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(errors="replace")


def is_test(name: str) -> bool:
    """Whether a whole file is for tests or measurements (modules of tests inside a file are found by `rust`)."""
    parts = name.split("/")
    return parts[0] in {"tests", "benchmarks"} or bool({"tests", "benches", "fuzz"} & set(parts[:-1]))


def _listed_by_git() -> set[str]:
    # Whoever runs the tests (root, in a container) need not own the checkout: hence safe.directory.
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    return set(listing.split("\0")) - {""}


def _found() -> set[str]:
    names = set()
    for folder, folders, files_here in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in BUILT and not name.startswith(".")]
        names |= {(Path(folder) / name).relative_to(ROOT).as_posix() for name in files_here}
    return {name for name in names if not name.endswith((".so", ".pyc"))}
