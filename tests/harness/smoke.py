"""The client smoke tests: runs a client's program of tests/clients (see SCENARIO.md there) and judges what it prints.

A program says `ok <step>` for each step. Passed means: exit code 0 and exactly the steps below, in this order, so that
no client can leave one out unseen.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

CLIENTS = Path(__file__).resolve().parent.parent / "clients"

STEPS = (
    "connect",
    "strings",
    "binary",
    "many-keys",
    "hash",
    "list",
    "sorted-set",
    "scan",
    "pipeline",
    "script",
    "info",
    "name",
    "database",
    "far-keys",
    "error",
)

# A program takes one to three seconds; a client that retries for ever must not hang the run.
TIMEOUT_S = 50.0


def run_scenario(
    argv: Sequence[str | Path],
    address: str,
    target: Literal["one", "shards"],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Runs the program against the address; fails with everything it printed."""
    host, port = address.rsplit(":", 1)
    command = [*map(str, argv), host, port, target]
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{command} hangs; it printed:\n{(error.stdout or b'').decode()}") from None
    steps = tuple(line.removeprefix("ok ") for line in done.stdout.splitlines() if line.startswith("ok "))
    assert done.returncode == 0, f"{command} failed after {len(steps)} steps; it printed:\n{done.stdout}"
    assert steps == STEPS, f"{command} ran other steps; it printed:\n{done.stdout}"
