"""What the figures were measured on: without it a record says nothing.

No host name, no path, no user: a record is published.
"""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.subjects import Subject

VERSION_SECONDS_MAX = 10.0


def parse_cpu_model(text: str) -> str:
    """The first model name of /proc/cpuinfo, or "unknown"."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return "unknown"


def parse_meminfo_gib(text: str) -> float:
    """Total memory of /proc/meminfo in GiB; 0 when it is not stated."""
    for line in text.splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / 1024 / 1024, 1)
    return 0.0


def describe() -> dict[str, Any]:
    """The machine."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    return {
        "cpu": parse_cpu_model(cpuinfo),
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in cpuinfo,
        "memory_gib": parse_meminfo_gib(Path("/proc/meminfo").read_text()),
        "kernel": platform.release(),
        "system": _os_name(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def host_kind(machine: dict[str, Any]) -> str:
    """A word for file names: cores, processor, and whether it is a virtual machine."""
    cpu = "-".join("".join(c if c.isalnum() else " " for c in machine["cpu"]).lower().split()[:3])
    return f"{machine['cores']}-core-{cpu}{'-vm' if machine['virtual'] else ''}"


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"


def first_line(command: Sequence[str]) -> str:
    """The first line that a command prints, or why there is none."""
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=VERSION_SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines else "unknown"


def versions(subjects: Sequence[Subject]) -> dict[str, str]:
    """Every program whose version bears on the figures."""
    found = {
        "redis-server": first_line(["redis-server", "--version"]),
        "redis-benchmark": first_line(["redis-benchmark", "--version"]),
        "python": platform.python_version(),
        "commit": first_line(["git", "describe", "--always", "--dirty"]),
    }
    found.update({subject.name: first_line(subject.version) for subject in subjects if subject.version})
    return found
