"""CPU time, memory and syscalls of a process, from the kernel's own books.

CPU time is the figure that noise moves least: it does not grow while a process waits for a core. It contains the
kernel's work done on the process's behalf (for loopback TCP that is most of it, the delivery to the peer's socket
included), which is right: that work is what a proxy costs.

A subject may be several threads, and (behind a wrapper) several processes: all of them are counted. Nanoseconds come
from /proc/PID/task/*/schedstat; where the kernel keeps none, user and system time come from /proc/PID/stat in clock
ticks.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PROC = Path("/proc")
QUIET_POLL_SECONDS = 0.01
QUIET_SECONDS_MAX = 0.3


def parse_schedstat(text: str) -> int:
    """Nanoseconds on a core: the first of the three numbers of a schedstat file."""
    return int(text.split(maxsplit=1)[0])


def parse_stat_ticks(text: str) -> int:
    """User plus system time, in clock ticks, of a /proc/PID/stat line.

    The second field is the name in parentheses and may contain anything, blanks and parentheses too.
    """
    fields = text[text.rindex(")") + 1 :].split()
    return int(fields[11]) + int(fields[12])


def parse_stat_parent(text: str) -> int:
    """The parent's pid of a /proc/PID/stat line."""
    return int(text[text.rindex(")") + 1 :].split()[1])


def parse_status_kib(text: str, field: str) -> int:
    """A memory figure of /proc/PID/status in KiB; 0 when it is not there (a zombie has none)."""
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0])
    return 0


def parse_steal_ticks(text: str, core: int) -> int:
    """Ticks that the host took from one core, of /proc/stat; 0 when the core is not listed."""
    for line in text.splitlines():
        fields = line.split()
        if fields and fields[0] == f"cpu{core}":
            return int(fields[8]) if len(fields) > 8 else 0
    return 0


def with_descendants(root: int) -> list[int]:
    """The process and everything it has started, as of now."""
    children: dict[int, list[int]] = {}
    for entry in PROC.glob("[0-9]*"):
        try:
            children.setdefault(parse_stat_parent((entry / "stat").read_text()), []).append(int(entry.name))
        except OSError:
            continue
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def thread_cpu_ns(pids: Iterable[int]) -> dict[int, int]:
    """CPU time of each living thread of these processes, by thread id."""
    spent: dict[int, int] = {}
    for pid in pids:
        for task in (PROC / str(pid) / "task").glob("*"):
            try:
                spent[int(task.name)] = parse_schedstat((task / "schedstat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                if not (task / "stat").exists():
                    continue
                tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
                spent[int(task.name)] = parse_stat_ticks((task / "stat").read_text()) * tick_ns
    return spent


def cpu_ns(pids: Iterable[int]) -> int:
    """CPU time of these processes, all threads together."""
    return sum(thread_cpu_ns(pids).values())


def cpu_clock() -> str:
    """Which of the two books `thread_cpu_ns` reads here."""
    return "schedstat (ns)" if (PROC / "self/schedstat").exists() else "stat (clock ticks)"


def wait_quiet(read: Callable[[], int]) -> int:
    """The CPU time once it has stopped growing: the end of a load is not the end of the work it caused.

    Bounded, since a subject may have a timer of its own.
    """
    deadline = time.monotonic() + QUIET_SECONDS_MAX
    before = read()
    while time.monotonic() < deadline:
        time.sleep(QUIET_POLL_SECONDS)
        now = read()
        if now == before:
            break
        before = now
    return before


def resident_kib(pids: Iterable[int]) -> int:
    """Resident memory of these processes."""
    total = 0
    for pid in pids:
        try:
            total += parse_status_kib((PROC / str(pid) / "status").read_text(), "VmRSS")
        except OSError:
            continue
    return total


def steal_ms(core: int) -> int:
    """Time the host took from a core since boot."""
    return parse_steal_ticks((PROC / "stat").read_text(), core) * 1000 // os.sysconf("SC_CLK_TCK")
