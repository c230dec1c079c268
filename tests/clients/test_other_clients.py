"""ioredis, node-redis, go-redis and Jedis with their defaults: SCENARIO.md, over one plain server and over shards.

Not in `make test` (they need Node.js, Go and Java, and fetch packages once) but in `make test-clients`, which CI runs.
Flow: a fixture per language installs what its lock file says into the build folders, then its program runs per test.
Must stay true: only locked versions run. npm and Go check the hashes themselves; Maven does not, so we check its jars.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness import Fleet, Proxy, need
from harness.needs import lack
from harness.smoke import CLIENTS, run_scenario

# Fetching and compiling count into the first test of a language.
pytestmark = [pytest.mark.other_clients, pytest.mark.timeout(420)]

CACHE = CLIENTS.parent.parent / ".cache" / "clients"
INSTALL_TIMEOUT_S = 360.0


def install(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Runs a package tool; fails with what it said."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{argv[0]} failed:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def node() -> Path:
    """The node program, with node_modules as package-lock.json says."""
    program = need("node", "nodejs")
    npm = need("npm", "npm")
    install(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=CLIENTS / "node")
    return program


@pytest.fixture(scope="module")
def go_program() -> Path:
    """The compiled Go program: with the newest go-redis where Go is new enough, else with the one for Debian 12."""
    go = need("go", "golang-go")
    folder = CLIENTS / "go"
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = folder / ("go.mod" if _go_version(go) >= _go_wanted(folder / "go.mod") else "debian12.mod")
    program = CACHE / "go-redis"
    install(go, "build", "-mod=readonly", f"-modfile={lock.name}", "-o", program, ".", cwd=folder)
    return program


@pytest.fixture(scope="module")
def jedis() -> Sequence[str | Path]:
    """The command that runs the Java program, with the jars that jars.sha256 names."""
    java = need("java", "default-jdk-headless")
    need("javac", "default-jdk-headless")  # java compiles the source it is given
    folder = CLIENTS / "java"
    jars = CACHE / "jars"
    lines = [line.split() for line in (folder / "jars.sha256").read_text().splitlines()]
    wanted = {name: digest for digest, name in lines}
    if _hashes(jars) != wanted:
        for stale in jars.glob("*.jar"):
            stale.unlink()
        maven = need("mvn", "maven")
        install(maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={jars}", cwd=folder)
    assert _hashes(jars) == wanted, "the jars are not those of tests/clients/java/jars.sha256"
    return [java, "-cp", f"{jars}/*", folder / "Scenario.java"]


def _hashes(folder: Path) -> dict[str, str]:
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.glob("*.jar")}


def _go_version(go: Path) -> tuple[int, int]:
    found = re.search(r"go(\d+)\.(\d+)", install(go, "version", cwd=CLIENTS))
    if found is None:
        lack("a Go that says its version", "apt-get install golang-go")
    return int(found[1]), int(found[2])


def _go_wanted(modfile: Path) -> tuple[int, int]:
    found = re.search(r"^go (\d+)\.(\d+)", modfile.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("program", ["ioredis.mjs", "node-redis.mjs"])
def test_node_over_one_plain_server(fleet: Fleet, node: Path, program: str) -> None:
    run_scenario([node, CLIENTS / "node" / program], fleet.addresses[0], "one")


@pytest.mark.parametrize("program", ["ioredis.mjs", "node-redis.mjs"])
def test_node_over_shards(proxy: Proxy, node: Path, program: str) -> None:
    run_scenario([node, CLIENTS / "node" / program], proxy.address, "shards")


def test_go_over_one_plain_server(fleet: Fleet, go_program: Path) -> None:
    run_scenario([go_program], fleet.addresses[0], "one")


def test_go_over_shards(proxy: Proxy, go_program: Path) -> None:
    run_scenario([go_program], proxy.address, "shards")


def test_jedis_over_one_plain_server(fleet: Fleet, jedis: Sequence[str | Path]) -> None:
    run_scenario(jedis, fleet.addresses[0], "one")


def test_jedis_over_shards(proxy: Proxy, jedis: Sequence[str | Path]) -> None:
    run_scenario(jedis, proxy.address, "shards")
