"""Every command of the guides is run, and must print what they say; see `harness/shown.py`. Python runs as doctests."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Fleet, Port
from harness.shown import Document, Stage
from tidy.tree import ROOT

# The guide to benchmarks has commands that take hours.
NAMES = ("twemproxy", "partitioning", "tls", "acl", "applications", "promises")
PAGES = [Document(f"docs/guides/{name}.md") for name in NAMES]


@pytest.fixture
def ports(fleet: Fleet) -> Iterator[dict[str, str]]:
    """Free ones for listeners; two real servers."""
    taken = {number: Port.take() for number in ("22121", "22222", "6380", "6400")}
    servers = {str(7001 + index): str(server.port.number) for index, server in enumerate(fleet.servers[:2])}
    yield {**{number: str(port.number) for number, port in taken.items()}, **servers}
    for port in taken.values():
        port.release()


@pytest.mark.timeout(180)  # a whole guide in one go
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_does_what_the_guide_says(page: Document, tmp_path: Path, ports: dict[str, str]) -> None:
    stage = Stage(page.name, tmp_path, ports)
    try:
        for shown in page.steps():
            stage.play(shown)
    finally:
        stage.stop_background()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_does_what_the_guide_says(page: Document) -> None:
    for line, block in page.blocks("pycon"):
        test = doctest.DocTestParser().get_doctest(block, {}, page.name, page.name, line)
        assert test.examples
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_all_blocks_are_of_a_kind_that_is_tested(page: Document) -> None:
    assert page.languages() <= {"console", "toml", "yaml", "pycon"}
    assert page.commands()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"
