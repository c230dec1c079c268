"""Where each package is installed: one folder in .cache/apps for each lock file, made once for each text of it.

Python's from requirements-*.lock by pip with hashes; JavaScript's from package-lock.json by `npm ci`; Go's from go.sum;
Java's by Maven, whose jars are compared with jars.sha256; Ruby's are Debian's own packages.
Must stay true: only locked versions run, and what is missing on the machine is said with the package that brings it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "apps"
INSTALL_TIMEOUT_S = 600.0


class MissingError(Exception):
    """Something that the machine lacks; the text says what would bring it."""


@dataclass(frozen=True)
class Environment:
    """How a program of one kind is started."""

    command: tuple[str | Path, ...]
    folder: Path
    env: Mapping[str, str]


def python(name: str) -> Environment:
    """A virtual environment with exactly what requirements-NAME.lock says."""
    lock = HERE / f"requirements-{name}.lock"
    folder = CACHE / f"{name}-{_digest(lock)}"
    program = folder / "bin" / "python"

    def make() -> None:
        _run(sys.executable, "-m", "venv", folder)
        _run(program, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--require-hashes", "-r", lock)

    _once(folder, make)
    jobs = HERE / "jobs"
    return Environment((program,), jobs, {"PYTHONPATH": str(jobs), "PYTHONDONTWRITEBYTECODE": "1"})


def node() -> Environment:
    """The programs beside node_modules as package-lock.json says; never in the project's own folder."""
    source = HERE / "node"
    folder = CACHE / f"node-{_digest(source / 'package-lock.json')}"
    program, npm = _need("node", "nodejs"), _need("npm", "npm")

    def make() -> None:
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder)
        _run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=folder)

    _once(folder, make)
    for script in source.glob("*.mjs"):
        shutil.copy(script, folder)
    return Environment((program,), folder, {})


def go() -> Environment:
    """A compiled program."""
    source = HERE / "go"
    program = CACHE / "go-redis"
    compiler = _need("go", "golang-go")
    CACHE.mkdir(parents=True, exist_ok=True)
    _run(compiler, "build", "-mod=readonly", "-o", program, ".", folder=source)
    return Environment((program,), CACHE, {})


def java() -> Environment:
    """java with the jars that jars.sha256 names; it compiles the source it is given."""
    source = HERE / "java"
    jars = CACHE / "jars"
    program = _need("java", "default-jdk-headless")
    _need("javac", "default-jdk-headless")
    wanted = {name: digest for digest, name in map(str.split, (source / "jars.sha256").read_text().splitlines())}
    if _hashes(jars) != wanted:
        maven = _need("mvn", "maven")
        for stale in jars.glob("*.jar"):
            stale.unlink()
        _run(maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={jars}", folder=source)
    if _hashes(jars) != wanted:
        raise MissingError("the jars are not those of tests/apps/java/jars.sha256")
    return Environment((program, "-cp", f"{jars}/*"), source, {})


def ruby() -> Environment:
    """Debian's Ruby with Debian's Sidekiq: RubyGems is not asked."""
    program = _need("ruby", "ruby")
    _need("sidekiq", "ruby-sidekiq")
    return Environment((program,), HERE / "ruby", {})


MAKERS: dict[str, Callable[[], Environment]] = {
    "newest": lambda: python("newest"),
    "redis5": lambda: python("redis5"),
    "node": node,
    "go": go,
    "java": java,
    "ruby": ruby,
}


def _once(folder: Path, make: Callable[[], None]) -> None:
    done = folder / ".installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        make()
        done.touch()


def _need(program: str, package: str) -> Path:
    path = shutil.which(program)
    if path is None:
        raise MissingError(f"{program} is not on this machine: apt-get install {package}")
    return Path(path)


def _run(*argv: str | Path, folder: Path | None = None) -> None:
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=folder,
        env={**os.environ, "PIP_NO_INPUT": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise MissingError(f"{Path(argv[0]).name} failed:\n{done.stdout}")


def _hashes(folder: Path) -> dict[str, str]:
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.glob("*.jar")}


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
