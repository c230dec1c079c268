"""Counting syscalls, in runs of their own.

First choice are the kernel's tracepoints, counted in the kernel by `perf stat`: the subject runs at full speed, so
that its batches are as large as ever. `strace -c` stops the subject at each call; requests pile up meanwhile, and
every subject looks better than it is, the more so the more calls it makes. It is used where perf may not read
tracepoints, and the record says which it was. Never compare figures of the two.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.load import run_load
from benchmarks.processes import POLL_SECONDS, BenchError
from benchmarks.reckon import SyscallCount
from benchmarks.workloads import Workload

# Runs the load, inside the command given, and returns when it has ended.
Load = Callable[[Sequence[str]], None]
Counter = Callable[[str, Path, Load], tuple[int, dict[str, int]]]

TOTAL_EVENT = "raw_syscalls:sys_enter"
EVENT_PREFIX = "syscalls:sys_enter_"
TRACING = Path("/sys/kernel/tracing/events/syscalls")
# A traced subject makes a few thousand syscalls a second.
STRACE_TURNS_MAX = 10_000
ATTACH_SECONDS_MAX = 5.0
DETACH_SECONDS_MAX = 10.0

# Counted apart, since they tell what a loop does with its sockets; the rest only in the total.
NAMED = (
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_ctl",
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "write",
    "writev",
    "sendto",
    "sendmsg",
    "getpeername",
    "accept4",
    "io_uring_enter",
    "futex",
)


def parse_perf_stat(text: str) -> tuple[int, dict[str, int]]:
    """Total and counts by name of `perf stat -x ,`; BenchError without a total."""
    total: int | None = None
    by_name: dict[str, int] = {}
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) < 3 or not fields[0].isdigit():
            continue
        count, event = int(fields[0]), fields[2]
        if event == TOTAL_EVENT:
            total = count
        elif event.startswith(EVENT_PREFIX) and count:
            by_name[event.removeprefix(EVENT_PREFIX)] = count
    if total is None:
        raise BenchError(f"perf stat counted nothing: {text.strip()[:300]!r}")
    return total, by_name


def parse_strace(text: str) -> tuple[int, dict[str, int]]:
    """Total and counts by name of the table of `strace -c`; BenchError without a table.

    Columns: % time, seconds, usecs/call, calls, errors (may be blank), syscall.
    """
    by_name: dict[str, int] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) in (5, 6) and fields[3].isdigit() and fields[-1] != "total":
            by_name[fields[-1]] = int(fields[3])
    if not by_name:
        raise BenchError(f"strace counted nothing: {text.strip()[:300]!r}")
    return sum(by_name.values()), by_name


def count_syscalls(
    subject: str,
    pids: Sequence[int],
    port: int,
    workload: Workload,
    requests: int,
    cores: Iterable[int],
    directory: Path,
) -> SyscallCount:
    """Count while a load runs. BenchError when neither perf nor strace can."""
    core_list = tuple(cores)
    out = directory / f"syscalls-{subject}-{workload.name}.txt"
    reasons = []
    methods: list[tuple[str, Counter, int]] = [
        ("perf stat", _with_perf, requests),
        ("strace -c", _with_strace, min(requests, STRACE_TURNS_MAX * workload.pipeline)),
    ]
    for method, count, number in methods:
        try:
            total, by_name = count(
                ",".join(str(pid) for pid in pids), out, partial(_load, port, workload, number, core_list)
            )
        except BenchError as error:
            reasons.append(f"{method}: {error}")
            continue
        return SyscallCount(workload.name, subject, method, number, total, by_name)
    raise BenchError("; ".join(reasons))


def _load(port: int, workload: Workload, requests: int, cores: Sequence[int], around: Sequence[str]) -> None:
    run_load(port, workload, requests, cores, around)


def _with_perf(pids: str, out: Path, load: Load) -> tuple[int, dict[str, int]]:
    """`perf stat -p PIDS COMMAND` counts those processes for as long as the command runs."""
    if not shutil.which("perf") or not TRACING.is_dir():
        raise BenchError("perf or its tracepoints are not at hand")
    events = [TOTAL_EVENT, *(EVENT_PREFIX + n for n in NAMED if (TRACING / f"sys_enter_{n}").is_dir())]
    load(["perf", "stat", "-x", ",", "-o", str(out), "-e", ",".join(events), "-p", pids, "--"])
    return parse_perf_stat(out.read_text())


def _with_strace(pids: str, out: Path, load: Load) -> tuple[int, dict[str, int]]:
    if not shutil.which("strace"):
        raise BenchError("not installed")
    command = ["strace", "-c", "-f", "-o", str(out), *(word for pid in pids.split(",") for word in ("-p", pid))]
    said = out.with_suffix(".err")
    with said.open("wb") as sink:
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + ATTACH_SECONDS_MAX
        while "attached" not in said.read_text():
            if tracer.poll() is not None or time.monotonic() > deadline:
                raise BenchError(said.read_text().strip()[:300] or "did not attach")
            time.sleep(POLL_SECONDS)
        load(())
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(DETACH_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()
    return parse_strace(out.read_text())
