"""Which files belong to the project: what git tracks or would track, so built and ignored files are never judged."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

CORE = "crates/core/src"
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
}


@cache
def files(*suffixes: str) -> tuple[str, ...]:
    """Paths from the root, of files that exist and (if given) end in one of the suffixes."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    names = sorted(set(listing.split("\0")) - {""})
    return tuple(name for name in names if name.endswith(suffixes or "") and (ROOT / name).is_file())


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(errors="replace")


def is_test(name: str) -> bool:
    """Whether a whole file is for tests or measurements (modules of tests inside a file are found by `rust`)."""
    parts = name.split("/")
    return parts[0] in {"tests", "benchmarks"} or bool({"tests", "benches", "fuzz"} & set(parts[:-1]))
