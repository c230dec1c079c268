"""Fixtures and the report of a run.

`fleet` (four real servers) and `proxy` (shoal over them) live for a module, because starting them takes longer than
most tests; each test finds every server up and empty and the proxy running, whatever the test before did to them.
`new_fleet`, `new_proxy` and `new_fault` make more of them, for one test. Set SHOAL_TEST_FLAVOUR to run all of it over
another server (`valkey`, `redis7`, `redis8`).
The end of a run lists what was skipped and what would bring it; a failed test shows the ends of the proxies' logs.
"""

import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness import FLAVOURS, Fault, Fleet, Proxy, Server
from harness.needs import missing

SHARDS = 4


# Whoever runs the tests under nohup, or in the background, has these ignored, and a child inherits that; what a signal
# does to the proxy is tested here as a terminal or a supervisor would send it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def flavour() -> str:
    """The servers that the shared fleet runs."""
    chosen = os.environ.get("SHOAL_TEST_FLAVOUR", "valkey")
    assert chosen in FLAVOURS, f"SHOAL_TEST_FLAVOUR={chosen}: there are {', '.join(FLAVOURS)}"
    return chosen


@pytest.fixture(scope="module")
def module_fleet(tmp_path_factory: pytest.TempPathFactory, flavour: str) -> Iterator[Fleet]:
    """The module's servers as they are; tests want `fleet`."""
    with Fleet(tmp_path_factory.mktemp("fleet"), SHARDS, flavour) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def proxy_options() -> list[str]:
    """Further words for the command line of the module's proxy; a module overrides it."""
    return []


@pytest.fixture(scope="module")
def module_proxy(
    module_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory, proxy_options: list[str]
) -> Iterator[Proxy]:
    """The module's proxy as it is; tests want `proxy`."""
    with Proxy(tmp_path_factory.mktemp("proxy"), module_fleet.addresses, options=proxy_options) as proxy:
        yield proxy


@pytest.fixture
def fleet(module_fleet: Fleet) -> Fleet:
    """Four servers, all up and empty."""
    module_fleet.heal()
    return module_fleet


@pytest.fixture
def proxy(fleet: Fleet, module_proxy: Proxy) -> Proxy:
    """shoal over the fleet, running."""
    if not module_proxy.running:
        module_proxy.start()
    return module_proxy


@pytest.fixture
def new_fleet(tmp_path: Path, flavour: str) -> Iterator[Callable[..., Fleet]]:
    """`new_fleet(count, flavour=..., settings=[...])`: servers for this test alone."""
    with ExitStack() as stack:
        made = 0

        def make(count: int = 1, flavour: str = flavour, settings: tuple[str, ...] = ()) -> Fleet:
            nonlocal made
            made += 1
            return stack.enter_context(Fleet(tmp_path / f"fleet-{made}", count, flavour, settings))

        yield make


@pytest.fixture
def new_proxy(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """`new_proxy(endpoints, options=[...], config="...", env={...})`: a proxy for this test alone."""
    with ExitStack() as stack:
        made = 0

        def make(*arguments: Any, **options: Any) -> Proxy:
            nonlocal made
            made += 1
            return stack.enter_context(Proxy(tmp_path / f"proxy-{made}", *arguments, **options))

        yield make


@pytest.fixture
def new_fault() -> Iterator[Callable[..., Fault]]:
    """`new_fault(server, seed=0)`: a relay in front of that server, for this test alone."""
    with ExitStack() as stack:

        def make(server: Server, seed: int = 0) -> Fault:
            return stack.enter_context(Fault(server.host, server.port.number, seed))

        yield make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for proxy in Proxy.living:
            report.sections.append((f"end of the log of the proxy on {proxy.address}", proxy.tail()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was not run. The counts follow below it, as pytest's last line."""
    if terminalreporter.config.option.collectonly:
        return
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.section("skipped")
    if not skipped and not missing:
        terminalreporter.write_line("nothing was skipped")
    for (what, remedy), tests in sorted(missing.items()):
        terminalreporter.write_line(f"{len(tests)} for want of {what}: {remedy}")
        for test in sorted(tests):
            terminalreporter.write_line(f"    {test}")
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "is not on this machine" not in reason:
            terminalreporter.write_line(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")
