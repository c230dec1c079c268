"""huey: a consumer with two workers; results, retries, pipelines, locks, a task for later, one that is revoked."""

from huey import RedisHuey
from job import BIN, HOST, PORT, said_version, step, wait_until, worker

huey = RedisHuey("app", host=HOST, port=PORT)


@huey.task()
def add(left: int, right: int) -> int:
    return left + right


@huey.task(retries=2)
def third_time(name: str) -> int:
    """Fails twice; how often it ran is kept in huey's own store."""
    count = int(huey.get(name, peek=True) or 0) + 1
    huey.put(name, count)
    if count < 3:
        raise ValueError("not yet")
    return count


@huey.task()
@huey.lock_task("only-one")
def alone() -> str:
    return "alone"


def main() -> None:
    said_version("huey")
    results = [add(number, 1) for number in range(20)]
    step("enqueued", huey.pending_count(), 20)
    with worker(BIN / "huey_consumer", "huey_job.huey", "-w", "2") as started:
        started.says("The following commands are available")
        step("results", [result.get(blocking=True, timeout=20) for result in results], list(range(1, 21)))
        step("retries", retried(), 3)
        step("a lock", alone().get(blocking=True, timeout=20), "alone")
        step("later", add.schedule((3, 4), delay=1).get(blocking=True, timeout=20), 7)
        chain = huey.enqueue(add.s(1, 1).then(add, 5).then(add, 6))
        step("a pipeline", chain.get(blocking=True, timeout=20), [2, 7, 13])
        revoked = add.schedule((1, 1), delay=60)
        revoked.revoke()
        step("revoked", revoked.is_revoked())
        step("scheduled", huey.scheduled_count(), 1)
        step("map", add.map([(n, n) for n in range(5)]).get(blocking=True, timeout=20), [0, 2, 4, 6, 8])
    huey.flush()
    step("flushed", (huey.pending_count(), huey.scheduled_count()), (0, 0))


def retried() -> object:
    third_time("tries")
    return wait_until(lambda: huey.get("tries", peek=True) == 3 and 3, 20, "the third try")


if __name__ == "__main__":
    # Tasks are known by their module's name, which has to be the one that the worker imports.
    import huey_job

    huey_job.main()
