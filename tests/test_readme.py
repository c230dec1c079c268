"""Every command that README.md shows is run, and must print what README.md says; see `harness/shown.py`.

The servers at 7001 and 7002 are real. `make test` cannot be run by a test: it is shown that the target exists, runs
both suites and is what CI runs.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Fleet, Port
from harness.shown import Document, Stage
from tidy.tree import ROOT, text

PAGE = Document("README.md")
README = PAGE.text


@pytest.fixture
def stage(tmp_path: Path, fleet: Fleet) -> Iterator[Stage]:
    """Free ports, and real servers."""
    taken = {number: Port.take() for number in ("6380", "6381", "22121", "22222")}
    first, second = (str(server.port.number) for server in fleet.servers[:2])
    ports = {**{number: str(port.number) for number, port in taken.items()}, "7001": first, "7002": second}
    stage = Stage(PAGE.name, tmp_path, ports)
    yield stage
    stage.stop_background()
    for port in taken.values():
        port.release()


@pytest.mark.timeout(180)  # everything that the README shows, in one go
def test_every_command_does_what_the_readme_says(stage: Stage) -> None:
    for shown in PAGE.steps():
        if shown.command != "make test":  # the test below
            stage.play(shown)


def test_make_test_is_shown_and_runs_both_suites_here_and_in_ci() -> None:
    assert "make test" in {shown.command for shown in PAGE.commands()}
    assert "make up" in {shown.command for shown in PAGE.commands()}
    dry = subprocess.run(["make", "-n", "test"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "cargo test --workspace" in dry
    assert "-m pytest" in dry
    assert re.search(r"^step test make test$", text(".ci/run"), re.MULTILINE)


def test_all_blocks_are_of_a_kind_that_is_tested() -> None:
    assert PAGE.languages() == {"console", "toml", "yaml"}


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", text(name)):
            assert (ROOT / target).exists(), f"{name} links to {target}"


def test_options_and_targets_named_in_the_text_exist() -> None:
    targets = set(re.findall(r"`make ([a-z-]+)", README + text("CONTRIBUTING.md")))
    known = set(re.findall(r"^\.PHONY: (\S+)$", text("Makefile"), re.MULTILINE))
    assert targets <= known


def test_the_needed_versions_are_those_of_the_manifests() -> None:
    rust = re.findall(r'^rust-version = "([\d.]+)"$', text("Cargo.toml"), re.MULTILINE)
    python = re.findall(r'^requires-python = ">=([\d.]+)"$', text("pyproject.toml"), re.MULTILINE)
    for name in ("README.md", "Makefile", ".ci/run", "CONTRIBUTING.md"):
        assert set(re.findall(r"Rust (?:\(cargo\) )?(?:>= )?(\d[\d.]*\d)", text(name))) <= set(rust), name
        assert set(re.findall(r"Python (?:>= )?(\d[\d.]*\d)", text(name))) <= set(python), name
    assert f"Rust {rust[0]} or newer" in README
    assert f"Python {python[0]} or newer" in README
