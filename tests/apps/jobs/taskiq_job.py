"""taskiq with taskiq-redis: a worker over a stream, one over a list; results, retries, a schedule kept in Redis."""

import asyncio

from job import BIN, said_version, step, url, worker
from taskiq import AsyncBroker, SimpleRetryMiddleware
from taskiq_redis import ListQueueBroker, ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

streams = RedisStreamBroker(url()).with_result_backend(RedisAsyncResultBackend(url()))
streams.add_middlewares(SimpleRetryMiddleware(default_retry_count=3))
lists = ListQueueBroker(url(), queue_name="taskiq-list").with_result_backend(RedisAsyncResultBackend(url()))
schedule = ListRedisScheduleSource(url())


@streams.task
async def add(left: int, right: int) -> int:
    return left + right


@streams.task(retry_on_error=True)
async def fail() -> None:
    raise ValueError("on purpose")


@lists.task
async def double(number: int) -> int:
    return 2 * number


async def answers(broker: AsyncBroker, name: str) -> None:
    await broker.startup()
    if broker is streams:
        tasks = [await add.kiq(number, 1) for number in range(20)]
        expected = list(range(1, 21))
    else:
        tasks = [await double.kiq(number) for number in range(20)]
        expected = list(range(0, 40, 2))
    results = [await task.wait_result(timeout=20) for task in tasks]
    step(f"results over a {name}", [result.return_value for result in results], expected)


async def run() -> None:
    with worker(BIN / "taskiq", "worker", "--workers", "1", "taskiq_job:streams") as started:
        started.says("Listening started")
        await answers(streams, "stream")
        broken = await fail.kiq()
        result = await broken.wait_result(timeout=20)
        step("a failure", (result.is_err, str(result.error)), (True, "on purpose"))
    with worker(BIN / "taskiq", "worker", "--workers", "1", "taskiq_job:lists") as started:
        started.says("Listening started")
        await answers(lists, "list")
    await schedule.startup()
    await add.schedule_by_cron(schedule, "* * * * *", 1, 2)
    await add.schedule_by_cron(schedule, "0 0 * * *", 3, 4)
    found = await schedule.get_schedules()
    step("schedules", sorted(entry.args for entry in found), [[1, 2], [3, 4]])
    for entry in found:
        await schedule.delete_schedule(entry.schedule_id)
    step("schedules deleted", await schedule.get_schedules(), [])
    await schedule.shutdown()
    await streams.shutdown()
    await lists.shutdown()


def main() -> None:
    said_version("taskiq-redis")
    asyncio.run(asyncio.wait_for(run(), 120))


if __name__ == "__main__":
    main()
