"""arq: a worker process; results, a task that exists once, deferral, retries, an abort, the worker's health."""

import asyncio
from typing import Any

from arq import Retry, create_pool
from arq.connections import RedisSettings
from arq.jobs import JobStatus
from job import BIN, HOST, PORT, said_version, step, worker


async def add(_: dict[str, Any], left: int, right: int) -> int:
    return left + right


async def third_time(context: dict[str, Any]) -> int:
    if context["job_try"] < 3:
        raise Retry(defer=0.1)
    return int(context["job_try"])


async def for_ever(_: dict[str, Any]) -> None:
    await asyncio.Event().wait()


class WorkerSettings:
    """What `arq arq_job.WorkerSettings` reads."""

    functions = (add, third_time, for_ever)
    redis_settings = RedisSettings(HOST, PORT)
    allow_abort_jobs = True


async def run() -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    jobs = [await pool.enqueue_job("add", number, 1) for number in range(20)]
    once = [await pool.enqueue_job("add", 5, 5, _job_id="only-once") for _ in range(2)]
    step("a task exists once", [job is not None for job in once], [True, False])
    step("queued", len(await pool.queued_jobs()), 21)
    with worker(BIN / "arq", "arq_job.WorkerSettings") as started:
        started.says("Starting worker")
        step("results", [await job.result(timeout=20) for job in jobs if job], list(range(1, 21)))
        assert once[0] is not None
        step("the one task", await once[0].result(timeout=20), 10)
        again = await pool.enqueue_job("third_time")
        assert again is not None
        step("retries", await again.result(timeout=20), 3)
        later = await pool.enqueue_job("add", 3, 4, _defer_by=1)
        assert later is not None
        step("deferred", await later.status(), JobStatus.deferred)
        step("later", await later.result(timeout=20), 7)
        long = await pool.enqueue_job("for_ever")
        assert long is not None
        while await long.status() != JobStatus.in_progress:
            pass
        step("aborted", await long.abort(timeout=20))
        step("results are kept", len(await pool.all_job_results()), 24)
        step("health", await pool.get("arq:queue:health-check") is not None)
    await pool.aclose()


def main() -> None:
    said_version("arq")
    asyncio.run(asyncio.wait_for(run(), 90))


if __name__ == "__main__":
    main()
