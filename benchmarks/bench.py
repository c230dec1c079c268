"""The run: which cell comes when.

    for each scene: shards up and filled -> subjects up and checked
        -> cells sized on the baseline
        -> rounds: for each workload, each subject once, in an order that rotates
        -> syscalls, in runs of their own
        -> two workers against one, when shoal is among the subjects
    everything stopped

Placement: load generator, subject and shards share one core, so that nothing is charged for waking another core and
every subject pays the same for the company it has; the harness keeps off that core when there is another.

A subject that fails is left out from then on and named at the end; the others go on. Without the baseline, or without
shards, there is nothing to compare, and the run ends.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks import accounting, reckon
from benchmarks.load import LoadResult, run_load
from benchmarks.processes import BenchError, Running, Stage, move_to
from benchmarks.reckon import Sample, SyscallCount, WorkerSample
from benchmarks.scenes import SCENES
from benchmarks.shards import Witness
from benchmarks.subjects import BASELINE, SHOAL, Setting, Subject
from benchmarks.syscalls import count_syscalls
from benchmarks.workloads import (
    CAPACITY_CLIENTS,
    CAPACITY_WORKLOADS,
    SLOTS,
    SYSCALL_REACH,
    Workload,
    by_name,
)

SIZING_SECONDS = 0.25
# In fewer requests than these, connecting would show in the syscalls per request.
SYSCALL_REQUESTS_MIN = {1: 40_000, 16: 160_000}
ONE_CORE = "one core"
ALL_CORES = "all cores"
# So many of a proxy's own looks (once a second at each shard) may find nothing, in a load of at least so many requests.
OWN_LOOKS_MAX = 60
OWN_LOOKS_FROM = 2_000


@dataclass(frozen=True)
class Plan:
    """What to run."""

    subjects: tuple[Subject, ...]
    workloads: tuple[Workload, ...]
    rounds: int
    seconds: float
    core: int
    cores: tuple[int, ...]
    syscalls: bool = True
    capacity: bool = True


@dataclass
class Outcome:
    """What came of it. `failures` has a line for each subject or part that had to be left out."""

    samples: list[Sample] = field(default_factory=list)
    syscalls: list[SyscallCount] = field(default_factory=list)
    workers: list[WorkerSample] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    resident_start_kib: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Actor:
    """A subject that is up in one scene: where it listens and which processes it consists of."""

    name: str
    scene: str
    port: int
    pids: tuple[int, ...]

    def cpu_ns(self) -> int:
        return accounting.cpu_ns(self.pids)


class Bench:
    """One run over one stage."""

    def __init__(self, plan: Plan, stage: Stage, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.outcome = Outcome()
        self._stage = stage
        self._say = say
        # By name of the set of servers.
        self._servers: dict[str, list[Running]] = {}
        self._actors: list[Actor] = []

    def run(self) -> Outcome:
        """The whole run; BenchError when it makes no sense to go on."""
        others = set(self.plan.cores) - {self.plan.core}
        os.sched_setaffinity(0, others or {self.plan.core})
        for scene in dict.fromkeys(workload.scene for workload in self.plan.workloads):
            self._open(scene)
        if not self._actors:
            raise BenchError("nothing to measure:\n" + "\n".join(self.outcome.failures))
        self._size_cells()
        self._rounds()
        if self.plan.syscalls:
            self._count_syscalls()
        if self.plan.capacity:
            self._attempt("two workers", SLOTS, self._reckon_workers)
        return self.outcome

    def _open(self, name: str) -> None:
        """Start the servers of a scene, unless another scene has, and every subject that knows it."""
        scene = SCENES[name]
        if scene.servers not in self._servers:
            self._say(f"starting and filling {scene.servers} servers")
            try:
                servers = scene.start(self._stage, {self.plan.core})
                scene.fill(servers, scene.ranges)
            except BenchError as error:
                # The other scenes can still be measured.
                self._say(f"{name} left out: {error}")
                self.outcome.failures.append(f"{name}: {error}")
                return
            self._servers[scene.servers] = servers
        for subject in self.plan.subjects:
            if name in subject.scenes:
                self._attempt(subject.name, name, partial(self._admit, subject, name))

    def _servers_of(self, scene: str) -> list[Running]:
        return self._servers[SCENES[scene].servers]

    def _attempt(self, name: str, scene: str, step: Callable[[], None]) -> bool:
        """Do a step; when it fails, drop that subject in that scene. Without the baseline there is no going on."""
        try:
            step()
        except BenchError as error:
            if name == BASELINE:
                raise BenchError(f"{name}, the baseline, failed: {error}") from error
            self._say(f"{labelled(name, scene)} left out: {error}")
            self.outcome.failures.append(f"{labelled(name, scene)}: {error}")
            self._actors = [actor for actor in self._actors if (actor.name, actor.scene) != (name, scene)]
            return False
        return True

    def _start(self, subject: Subject, name: str, scene: str, cores: Sequence[int], workers: int = 1) -> Actor:
        """Start a subject under a name of this run, check its answers, and say where it is."""
        if subject.command is None:
            shard = self._servers_of(scene)[0]
            return Actor(name, scene, shard.port, (shard.process.pid,))
        place = labelled(name, scene).replace(" ", "-")
        directory = self._stage.directory / place
        directory.mkdir()
        port, second_port = self._stage.free_port(), self._stage.free_port()
        endpoints = tuple(shard.endpoint for shard in self._servers_of(scene))
        setting = Setting(port, second_port, endpoints, directory, workers, scene)
        running = self._stage.start(place, port, subject.command(setting), cores)
        SCENES[scene].check_answers(port, place)
        return Actor(name, scene, port, tuple(accounting.with_descendants(running.process.pid)))

    def _admit(self, subject: Subject, scene: str) -> None:
        actor = self._start(subject, subject.name, scene, (self.plan.core,))
        self._actors.append(actor)
        label = labelled(actor.name, scene)
        self.outcome.resident_start_kib[label] = accounting.resident_kib(actor.pids)
        self._say(f"{labelled(subject.title, scene)} is up and answers")

    def _size_cells(self) -> None:
        """Find out how many requests fill a cell, on a scene's first subject: the baseline if it was asked for."""
        for workload in self.plan.workloads:
            actor = next((actor for actor in self._actors if actor.scene == workload.scene), None)
            if actor is None:
                continue
            turn = (workload.clients, workload.pipeline)
            trial = reckon.requests_for(workload.guess_per_s, SIZING_SECONDS, *turn)
            per_s = self._load(actor.port, workload, trial, (self.plan.core,)).requests_per_s
            seconds = self.plan.seconds * workload.weight
            self.outcome.requests[workload.name] = reckon.requests_for(per_s, seconds, *turn)

    def _load(self, port: int, workload: Workload, requests: int, cores: Sequence[int]) -> LoadResult:
        """One load, with the shards as witnesses that it arrived, hit its keys and was not answered with errors."""
        witness, servers = SCENES[workload.scene].witness, self._servers_of(workload.scene)
        before = witness(servers)
        result = run_load(port, workload, requests, cores)
        problem = objection(witness(servers).since(before), workload, requests)
        if problem:
            raise BenchError(f"{workload.name}: {problem}")
        return result

    def _rounds(self) -> None:
        for number in range(self.plan.rounds):
            self._say(f"round {number + 1} of {self.plan.rounds}")
            for place, workload in enumerate(self.plan.workloads):
                actors = {actor.name: actor for actor in self._actors if actor.scene == workload.scene}
                for name in reckon.rotated(list(actors), number + place):
                    self._attempt(name, workload.scene, partial(self._cell, number, workload, actors[name]))

    def _cell(self, number: int, workload: Workload, actor: Actor) -> None:
        requests = self.outcome.requests[workload.name]
        stolen = accounting.steal_ms(self.plan.core)
        before = accounting.wait_quiet(actor.cpu_ns)
        result = self._load(actor.port, workload, requests, (self.plan.core,))
        spent = accounting.wait_quiet(actor.cpu_ns) - before
        self.outcome.samples.append(
            Sample(
                round=number,
                workload=workload.name,
                subject=actor.name,
                requests=requests,
                cpu_ns=spent,
                requests_per_s=result.requests_per_s,
                p50_ms=result.p50_ms,
                p99_ms=result.p99_ms,
                resident_kib=accounting.resident_kib(actor.pids),
                steal_ms=accounting.steal_ms(self.plan.core) - stolen,
            )
        )

    def _count_syscalls(self) -> None:
        for name in SYSCALL_REACH:
            if name not in self.outcome.requests:
                continue
            workload = by_name(name)
            requests = max(self.outcome.requests[name], SYSCALL_REQUESTS_MIN[workload.pipeline])
            for actor in (actor for actor in self._actors if actor.scene == workload.scene):
                self._say(f"syscalls of {actor.name}, {name}")
                try:
                    counted = count_syscalls(
                        actor.name,
                        actor.pids,
                        actor.port,
                        workload,
                        requests,
                        (self.plan.core,),
                        self._stage.directory,
                    )
                except BenchError as error:
                    self.outcome.failures.append(f"syscalls of {actor.name}: {error}")
                    continue
                self.outcome.syscalls.append(counted)

    def _reckon_workers(self) -> None:
        """The same load on shoal with one worker and with two, with all on one core and with all on every core."""
        shoal = next((subject for subject in self.plan.subjects if subject.name == SHOAL), None)
        wanted = [by_name(name) for name in CAPACITY_WORKLOADS if name in self.outcome.requests]
        if shoal is None or not shoal.takes_workers or not wanted:
            return
        actors = {n: self._start(shoal, f"{SHOAL}-{n}-workers", SLOTS, (self.plan.core,), n) for n in (1, 2)}
        placements: dict[str, tuple[int, ...]] = {ONE_CORE: (self.plan.core,)}
        if len(self.plan.cores) > 1:
            placements[ALL_CORES] = self.plan.cores
        for placement, cores in placements.items():
            move_to((shard.process.pid for shard in self._servers_of(SLOTS)), cores)
            move_to((pid for actor in actors.values() for pid in actor.pids), cores)
            for number in range(self.plan.rounds):
                self._say(f"two workers, {placement}, round {number + 1} of {self.plan.rounds}")
                for workload in wanted:
                    for workers in (1, 2) if number % 2 == 0 else (2, 1):
                        self._worker_cell(number, workload, placement, cores, workers, actors[workers])

    def _worker_cell(
        self, number: int, workload: Workload, placement: str, cores: Sequence[int], workers: int, actor: Actor
    ) -> None:
        turn = CAPACITY_CLIENTS * workload.pipeline
        requests = max(1, self.outcome.requests[workload.name] // turn) * turn
        crowded = replace(workload, clients=CAPACITY_CLIENTS)
        accounting.wait_quiet(actor.cpu_ns)
        before = accounting.thread_cpu_ns(actor.pids)
        self._load(actor.port, crowded, requests, cores)
        accounting.wait_quiet(actor.cpu_ns)
        after = accounting.thread_cpu_ns(actor.pids)
        spent = tuple(nanoseconds - before.get(thread, 0) for thread, nanoseconds in after.items())
        self.outcome.workers.append(WorkerSample(number, workload.name, placement, workers, requests, spent))


def labelled(name: str, scene: str) -> str:
    """A subject's name in a scene; the first scene goes without saying."""
    return name if scene == SLOTS else f"{name} ({scene})"


def objection(seen: Witness, workload: Workload, requests: int) -> str | None:
    """What the shards' counters say against a cell, or None. Errors of the load generator's own questions about the
    configuration, which some subjects refuse, never reach a shard."""
    if seen.error_replies:
        return f"shards answered {seen.error_replies} errors"
    # A proxy may look once a second whether there are records of its own, and mostly there are none.
    if workload.reads and seen.misses > (OWN_LOOKS_MAX if requests >= OWN_LOOKS_FROM else 0):
        return f"{seen.misses} reads found no key"
    keys = requests * workload.keys_per_request
    if workload.reads and seen.hits < keys:
        return f"shards saw {seen.hits} reads of {keys}"
    if seen.commands < requests and workload.keys_per_request == 1:
        return f"shards saw {seen.commands} commands of {requests}"
    return None


def run(plan: Plan, directory: Path, say: Callable[[str], None]) -> Outcome:
    """Run a plan with its files in `directory`; whatever happens, no process stays."""
    with Stage(directory) as stage:
        return Bench(plan, stage, say).run()
