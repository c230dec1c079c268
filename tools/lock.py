"""Derives requirements*.lock from pyproject.toml (`make lock`; needs the package index, so people run it, not CI).

Three locks: `requirements.lock` is what runs shoal and builds it, `requirements-dev.lock` adds the tools of tests and
lint with the same versions of everything shared, `requirements-oldest-client.lock` is a second redis-py for the smoke
tests. Beside them one for each requirements*.in of a test suite. Each line carries hashes and the package that wants
it, and no address of any index.

Must stay true: run it with the oldest Python that shoal supports. An older Python needs more packages (async-timeout
before 3.11.3); a lock made by a newer one would leave them out, and `pip --require-hashes` would refuse on the older.
Rejected: `pip-compile pyproject.toml`: it does not read dependency groups, and builds the package for its metadata.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = (
    "--quiet --strip-extras --allow-unsafe --generate-hashes --annotate "
    "--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options"
).split()


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    runtime = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["embedded"],
        *groups["build"],
    ]
    lock("requirements.lock", runtime)
    lock("requirements-dev.lock", [*runtime, *groups["checks"]], constraint="requirements.lock")
    lock("requirements-oldest-client.lock", groups["oldest-client"])
    # Test suites with environments of their own: what they want stands beside them.
    for wanted in sorted((ROOT / "tests").glob("*/requirements*.in")):
        lock(str(wanted.with_suffix(".lock").relative_to(ROOT)), wanted.read_text().splitlines(), source=wanted.name)
    return 0


def lock(name: str, requirements: list[str], constraint: str | None = None, source: str = "pyproject.toml") -> None:
    """Writes one lock file; versions that it has already stay, unless UPGRADE=1 is in the environment."""
    command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, "--output-file", name, "-"]
    if constraint:
        command[-1:-1] = ["--constraint", constraint]
    if os.environ.get("UPGRADE") == "1":
        command.insert(-1, "--upgrade")
    subprocess.run(
        command,
        cwd=ROOT,
        input="\n".join(requirements) + "\n",
        text=True,
        check=True,
        env={**os.environ, "CUSTOM_COMPILE_COMMAND": "make lock"},
    )
    path = ROOT / name
    # Requirements that came through standard input are annotated "-r -"; say where they really stand.
    text = re.sub(r"^(\s+# (?:via| ) +)-r -$", rf"\1{source}", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    print(f"{name}: {text.count('==')} packages")


if __name__ == "__main__":
    sys.exit(main())
