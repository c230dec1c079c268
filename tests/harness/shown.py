"""What a document shows is what happens: `Document` has its blocks, `Stage` stands for its files, ports and terminals.

Flow: fenced `console` blocks are read in order; lines with `$ ` are commands, what follows is their output, where
`...` stands for anything. A block of a file (toml, yaml) is written into the stage's folder when the commands come to
it: under the name in its first line (`# nutcracker.yml`), else as shoal.toml. Commands run in the project's folder;
words that name a file of the stage mean that one, and ports are replaced by free ones. A command that does not end
(make up, shoal serve) runs until the next such command or the end, and is then stopped as Ctrl-C does it.
Must stay true: a command of a kind that is unknown here fails, so nothing in a document is skipped unseen.
Rejected: a folder of links to the project's files; a build that starts there leaves its paths in .venv.
"""

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import process
from harness.needs import need
from harness.wait import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
FOLLOW_UP_TIMEOUT_S = 30
START_TIMEOUT_S = 50
STOP_TIMEOUT_S = 30
FILE_LANGUAGES = ("toml", "yaml")
FILE_DEFAULT = "shoal.toml"


@dataclass(frozen=True)
class Shown:
    """One command and what it is said to print, or (without a command) a file and its text."""

    command: str
    output: str
    line: int
    file: str = ""


class Document:
    """A page of Markdown, by its path from the root."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (ROOT / name).read_text()

    def languages(self) -> set[str]:
        """Those of its fenced blocks."""
        return set(re.findall(r"^```(.*)$", self.text, re.MULTILINE)[::2])

    def blocks(self, language: str) -> Iterator[tuple[int, str]]:
        """(line, text) of the blocks of one language."""
        for found in re.finditer(rf"^```{language}\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL):
            yield self.text.count("\n", 0, found.start()) + 2, found[1]

    def commands(self) -> list[Shown]:
        """Those of all console blocks."""
        shown = []
        for first, block in self.blocks("console"):
            line = first
            for part in re.split(r"^(?=\$ )", block, flags=re.MULTILINE):
                if part:
                    command, _, output = part.removeprefix("$ ").partition("\n")
                    shown.append(Shown(command, output, line))
                line += part.count("\n")
        return shown

    def files(self) -> list[Shown]:
        """Those that it shows, with the names that they say."""
        shown = []
        for language in FILE_LANGUAGES:
            for line, block in self.blocks(language):
                named = re.match(r"# ([\w-]+\.(?:toml|yml))\n", block)
                shown.append(Shown("", block, line, named[1] if named else FILE_DEFAULT))
        return shown

    def steps(self) -> list[Shown]:
        """Files and commands, as a reader comes to them."""
        return sorted(self.files() + self.commands(), key=lambda shown: shown.line)


@dataclass
class Stage:
    """What stands for a document's files and ports, and the program that runs for now."""

    name: str
    folder: Path
    ports: dict[str, str]
    background: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "background.log"

    def write(self, shown: Shown) -> None:
        """A file, with the real ports."""
        file = self.folder / shown.file
        file.write_text(self.with_ports(shown.output))
        file.chmod(0o600)

    def words(self, command: str) -> list[str]:
        """The command's words, with the real files and ports."""
        names = {file.name for file in self.folder.iterdir() if file.is_file()}
        words = shlex.split(self.with_ports(command))
        return [str(self.folder / word) if word in names else word for word in words]

    def with_ports(self, shown: str) -> str:
        return re.sub(
            r"(?<=[ :=])\d{4,5}\b|(?<=, )\d{4,5}\b", lambda found: self.ports.get(found.group(), found.group()), shown
        )

    def as_shown(self, printed: str) -> str:
        for number, port in self.ports.items():
            printed = re.sub(rf"(?<=[ :]){port}\b", number, printed)
        return printed.replace(f"{self.folder}/", "")

    def play(self, shown: Shown) -> None:
        """Writes the file, or runs the command and judges what it printed."""
        if shown.file:
            self.write(shown)
            return
        words = shlex.split(shown.command)
        if words == ["make", "up"] or words[:2] == [".venv/bin/shoal", "serve"]:
            judge(self, shown, self.as_shown(self.run_background(shown.command)), goes_on=True)
        elif words[0] in ("redis-cli", "openssl") or words[0].startswith(".venv/bin/"):
            judge(self, shown, self.run(shown.command))
        else:
            pytest.fail(f"{self.name}:{shown.line}: no way to test: {shown.command}")

    def run_background(self, command: str) -> str:
        """Starts what does not end by itself; what it printed when it said that it is running."""
        self.stop_background()
        self.log.write_bytes(b"")
        words = self.words(command)
        if words == ["make", "up"]:
            listen, admin = self.ports["6380"], self.ports["6381"]
            data = self.folder / "data"
            words.append(f"ARGS=--listen 127.0.0.1:{listen} --admin 127.0.0.1:{admin} --data {data}")
        self.background = process.start(words, stdout=self.log, cwd=ROOT, new_session=True)

        def running() -> bool:
            assert self.background is not None
            if self.background.poll() is not None:
                raise RuntimeError(f"{command} ended:\n{self.log.read_text()}")
            return "Ctrl-C" in self.log.read_text()

        wait_until(running, START_TIMEOUT_S, f"{command} says that it is running")
        return self.log.read_text()

    def stop_background(self) -> None:
        """As Ctrl-C in a terminal: the signal goes to make and to what it runs. Nothing may complain."""
        if self.background is None:
            return
        code = process.end(self.background, signal.SIGINT, STOP_TIMEOUT_S, group=True)
        self.background = None
        assert code in {0, -signal.SIGINT}, self.log.read_text()  # make itself ends by the signal
        printed = self.log.read_text()
        assert "Error" not in printed, printed
        assert "Traceback" not in printed, printed

    def run(self, command: str) -> str:
        """Runs a command to its end and returns what it printed, as a terminal would show it."""
        command, _, target = command.partition(" > ")
        words = self.words(command)
        if words[0] == "redis-cli":
            # Without a terminal it would print raw values even unasked; documents show what people see.
            unraw = [] if "--raw" in words else ["--no-raw"]
            words[:1] = [str(need("redis-cli", "redis-tools")), *unraw]
        done = subprocess.run(
            words,
            cwd=self.folder if words[0] == "openssl" else ROOT,  # it makes files, on the stage
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FOLLOW_UP_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}"
        if target:
            (self.folder / target).write_text(done.stdout)
            return ""
        return self.as_shown(done.stdout)


def judge(stage: Stage, shown: Shown, printed: str, *, goes_on: bool = False) -> None:
    """Compares words and lines, not the width of gaps. What goes on running may say more than the document shows."""
    parts = [r"\s+".join(map(re.escape, part.split())) for part in shown.output.split("...")]
    pattern = r"\s*" + r".*".join(rf"\s*{part}\s*" for part in parts) + (r".*" if goes_on else r"\s*")
    if shown.output and not re.fullmatch(pattern, printed, re.DOTALL):
        fault = f"{stage.name}:{shown.line}: {shown.command}\nit shows:\n{shown.output}\nin truth:\n{printed}"
        pytest.fail(fault, pytrace=False)
