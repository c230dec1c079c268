"""redis-py's source distribution and the virtual environment that its tests run in, both in `.cache/redispy`.

Flow: requirements.lock -> virtual environment; source.lock -> pip download -> unpacked. Each is made once for each text
of its lock file, whose hash is in its folder's name. pip checks the hashes.
Must stay true: nothing of it comes into the project, and redis-py is never installed: its tests take the package
beside them, as its authors run them.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "redispy"
INSTALL_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Source:
    """Where redis-py and an interpreter for its tests are."""

    version: str
    folder: Path
    python: Path


def prepare() -> Source:
    """Fetches and unpacks what is not there yet. Raises CalledProcessError when pip fails; pip has said why."""
    python = _environment(HERE / "requirements.lock")
    lock = HERE / "source.lock"
    name, _, version = _requirement(lock).partition("==")
    folder = CACHE / f"source-{_digest(lock)}"
    unpacked = folder / f"{name}-{version}"
    if not unpacked.exists():
        shutil.rmtree(folder, ignore_errors=True)
        # Without isolation, so that pip builds the metadata with our locked setuptools instead of fetching its own.
        _pip(
            python, "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
            "--require-hashes", "-r", lock, "-d", folder / "download",
        )  # fmt: skip
        (archive,) = (folder / "download").glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return Source(version, unpacked, python)


def _environment(lock: Path) -> Path:
    """The interpreter of an environment with exactly what the lock file says."""
    folder = CACHE / f"venv-{_digest(lock)}"
    python = folder / "bin" / "python"
    done = folder / ".installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=INSTALL_TIMEOUT_S)
        _pip(python, "install", "--require-hashes", "-r", lock)
        done.touch()
    return python


def _pip(python: Path, *words: str | Path) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S, stdin=subprocess.DEVNULL)


def _requirement(lock: Path) -> str:
    lines = [line for line in lock.read_text().splitlines() if "==" in line and not line.startswith("#")]
    assert len(lines) == 1, f"{lock.name} names one package"
    return lines[0].split()[0]


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
