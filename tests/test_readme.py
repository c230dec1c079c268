"""Every command that README.md shows is run, and must print what README.md says.

Flow: fenced `console` blocks are read in order; lines with `$ ` are commands, what follows is their output, where `...`
stands for anything. They run in the project's folder, with the ports of the README replaced by free ones, the servers
at 7001 and 7002 real, and shoal.toml and data in a folder of the test. A command that does not end (make up, shoal
serve) runs until the next such command or the end, and is then stopped as Ctrl-C does it.
`make test` cannot be run by a test: it is shown that the target exists, runs both suites and is what CI runs.
Rejected: a folder of links to the project's files; a build that starts there leaves its paths in .venv.
Must stay true: a command of a kind that is unknown here fails, so nothing in the README is skipped unseen.
"""

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import Fleet, Port, need, process, wait_until
from tidy.tree import ROOT, text

README = text("README.md")
FOLLOW_UP_TIMEOUT_S = 30
START_TIMEOUT_S = 50
STOP_TIMEOUT_S = 30


@dataclass(frozen=True)
class Shown:
    """One command of the README and what it is said to print."""

    command: str
    output: str
    line: int


@dataclass
class Stage:
    """What stands for the README's files and ports, and the program that runs for now."""

    folder: Path
    ports: dict[str, str]
    background: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "background.log"

    def words(self, command: str) -> list[str]:
        """The command's words, with the real file and ports."""
        file = str(self.folder / "shoal.toml")
        return [file if word == "shoal.toml" else word for word in shlex.split(self.with_ports(command))]

    def with_ports(self, shown: str) -> str:
        return re.sub(r"(?<=[ :=])\d{4}\b", lambda found: self.ports.get(found.group(), found.group()), shown)

    def as_shown(self, printed: str) -> str:
        for number, port in self.ports.items():
            printed = re.sub(rf"(?<=[ :]){port}\b", number, printed)
        return printed.replace(f"{self.folder}/", "")


def blocks(language: str) -> Iterator[tuple[int, str]]:
    """(line, text) of the fenced blocks of one language."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield README.count("\n", 0, found.start()) + 2, found[1]


def commands() -> list[Shown]:
    shown = []
    for first, block in blocks("console"):
        line = first
        for part in re.split(r"^(?=\$ )", block, flags=re.MULTILINE):
            if part:
                command, _, output = part.removeprefix("$ ").partition("\n")
                shown.append(Shown(command, output, line))
            line += part.count("\n")
    return shown


@pytest.fixture
def stage(tmp_path: Path, fleet: Fleet) -> Iterator[Stage]:
    """Free ports, real servers, and the README's shoal.toml."""
    listen, admin = Port.take(), Port.take()
    first, second = (str(server.port.number) for server in fleet.servers[:2])
    stage = Stage(tmp_path, {"6380": str(int(listen)), "6381": str(int(admin)), "7001": first, "7002": second})
    ((_, file),) = blocks("toml")
    (tmp_path / "shoal.toml").write_text(stage.with_ports(file))
    yield stage
    stop_background(stage)
    listen.release()
    admin.release()


def run_background(stage: Stage, command: str) -> str:
    """Starts what does not end by itself; what it printed when it said that it is running."""
    stop_background(stage)
    stage.log.write_bytes(b"")
    words = stage.words(command)
    if words == ["make", "up"]:
        listen, admin = stage.ports["6380"], stage.ports["6381"]
        data = stage.folder / "data"
        words.append(f"ARGS=--listen 127.0.0.1:{listen} --admin 127.0.0.1:{admin} --data {data}")
    stage.background = process.start(words, stdout=stage.log, cwd=ROOT, new_session=True)

    def running() -> bool:
        assert stage.background is not None
        if stage.background.poll() is not None:
            raise RuntimeError(f"{command} ended:\n{stage.log.read_text()}")
        return "Ctrl-C" in stage.log.read_text()

    wait_until(running, START_TIMEOUT_S, f"{command} says that it is running")
    return stage.log.read_text()


def stop_background(stage: Stage) -> None:
    """As Ctrl-C in a terminal: the signal goes to make and to what it runs. Nothing may complain."""
    if stage.background is None:
        return
    code = process.end(stage.background, signal.SIGINT, STOP_TIMEOUT_S, group=True)
    stage.background = None
    assert code in {0, -signal.SIGINT}, stage.log.read_text()  # make itself ends by the signal
    printed = stage.log.read_text()
    assert "Error" not in printed, printed
    assert "Traceback" not in printed, printed


def run(stage: Stage, command: str) -> str:
    """Runs a command to its end and returns what it printed, as a terminal would show it."""
    words = stage.words(command)
    if words[0] == "redis-cli":
        # Without a terminal it would print raw values even unasked; the README shows what people see.
        unraw = [] if "--raw" in words else ["--no-raw"]
        words[:1] = [str(need("redis-cli", "redis-tools")), *unraw]
    done = subprocess.run(
        words,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=FOLLOW_UP_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return stage.as_shown(done.stdout)


def judge(shown: Shown, printed: str, *, goes_on: bool = False) -> None:
    """Compares words and lines, not the width of gaps. What goes on running may say more than the README shows."""
    parts = [r"\s+".join(map(re.escape, part.split())) for part in shown.output.split("...")]
    pattern = r"\s*" + r".*".join(rf"\s*{part}\s*" for part in parts) + (r".*" if goes_on else r"\s*")
    if shown.output and not re.fullmatch(pattern, printed, re.DOTALL):
        fault = f"README.md:{shown.line}: {shown.command}\nit shows:\n{shown.output}\nin truth:\n{printed}"
        pytest.fail(fault, pytrace=False)


@pytest.mark.timeout(180)  # everything that the README shows, in one go
def test_every_command_does_what_the_readme_says(stage: Stage) -> None:
    for shown in commands():
        words = shlex.split(shown.command)
        if words == ["make", "test"]:
            continue  # the test below
        if words == ["make", "up"] or words[:2] == [".venv/bin/shoal", "serve"]:
            judge(shown, stage.as_shown(run_background(stage, shown.command)), goes_on=True)
        elif words[0] == "redis-cli" or words[0].startswith(".venv/bin/"):
            judge(shown, run(stage, shown.command))
        else:
            pytest.fail(f"README.md:{shown.line}: no way to test: {shown.command}")


def test_make_test_is_shown_and_runs_both_suites_here_and_in_ci() -> None:
    assert "make test" in {shown.command for shown in commands()}
    assert "make up" in {shown.command for shown in commands()}
    dry = subprocess.run(["make", "-n", "test"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "cargo test --workspace" in dry
    assert "-m pytest" in dry
    assert re.search(r"^step test make test$", text(".ci/run"), re.MULTILINE)


def test_all_blocks_are_of_a_kind_that_is_tested() -> None:
    fences = re.findall(r"^```(.*)$", README, re.MULTILINE)
    assert set(fences[::2]) == {"console", "toml"}
    assert set(fences[1::2]) == {""}


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
