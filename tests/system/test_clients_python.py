"""redis-py, the newest and the oldest line in wide use, sync and asyncio, RESP2 and RESP3: tests/clients/SCENARIO.md.

Each also runs against one plain server, so that what fails against shoal alone is shoal's fault.
"""

import sys
from pathlib import Path

import pytest
from harness import Fleet, Proxy
from harness.needs import lack
from harness.smoke import CLIENTS, run_scenario

# Installed there by `make test-python`, from requirements-oldest-client.lock.
OLDEST = Path(__file__).resolve().parent.parent.parent / ".cache" / "redis53"

VERSIONS = ("newest", "oldest")
KINDS = (
    pytest.param([], id="sync-default"),
    pytest.param(["--asyncio"], id="asyncio-default"),
    pytest.param(["--protocol", "2"], id="sync-resp2"),
    pytest.param(["--protocol", "3"], id="sync-resp3"),
    pytest.param(["--asyncio", "--protocol", "3"], id="asyncio-resp3"),
)


def program(options: list[str]) -> list[str | Path]:
    return [sys.executable, CLIENTS / "python" / "scenario.py", *options]


def environment(version: str) -> dict[str, str]:
    if version == "newest":
        return {}
    if not (OLDEST / "redis").is_dir():
        lack("redis-py 5.3", "make .cache/redis53/.installed")
    return {"PYTHONPATH": str(OLDEST)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", KINDS)
def test_over_one_plain_server(fleet: Fleet, version: str, options: list[str]) -> None:
    run_scenario(program(options), fleet.addresses[0], "one", env=environment(version))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", KINDS)
def test_over_shards(proxy: Proxy, version: str, options: list[str]) -> None:
    run_scenario(program(options), proxy.address, "shards", env=environment(version))
