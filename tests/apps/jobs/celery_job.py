"""Celery with Redis as broker and result backend: two processes of the prefork pool, remote control, a canvas."""

from celery import Celery, Task, chain, chord, group
from celery.exceptions import TaskRevokedError
from job import BIN, said_version, step, url, wait_until, worker

app = Celery("apps", broker=url(), backend=url())
GIVE_UP_S = 30


@app.task
def add(left: int, right: int) -> int:
    return left + right


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def third_time(self: Task) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries) + 1


@app.task
def fail() -> None:
    raise ValueError("on purpose")


def main() -> None:
    said_version("celery")
    early = [add.delay(number, 1) for number in range(20)]
    with worker(BIN / "celery", "-A", "celery_job", "worker", "-c", "2", "--loglevel", "INFO") as started:
        started.says(" ready.")
        step("results", [result.get(timeout=GIVE_UP_S) for result in early], list(range(1, 21)))
        step("a chain", chain(add.s(1, 2), add.s(4), add.s(8)).delay().get(timeout=GIVE_UP_S), 15)
        step("a group", group(add.s(n, n) for n in range(10)).delay().get(timeout=GIVE_UP_S), list(range(0, 20, 2)))
        step("a chord", chord([add.s(n, n) for n in range(10)], total.s()).delay().get(timeout=GIVE_UP_S), 90)
        step("retries", third_time.delay().get(timeout=GIVE_UP_S), 3)
        failed = fail.delay()
        step("a failure", repr(failed.get(timeout=GIVE_UP_S, propagate=False)), "ValueError('on purpose')")
        step("later", add.apply_async((3, 4), countdown=1).get(timeout=GIVE_UP_S), 7)
        step("a priority", add.apply_async((5, 6), priority=9).get(timeout=GIVE_UP_S), 11)
        names = [answer for answers in app.control.ping(timeout=3) for answer in answers.values()]
        step("remote control: ping", names, [{"ok": "pong"}])
        queues = app.control.inspect(timeout=3).active_queues() or {}
        step("remote control: queues", [queue["name"] for found in queues.values() for queue in found], ["celery"])
        revoked = add.apply_async((1, 1), countdown=3)
        revoked.revoke()
        try:
            revoked.get(timeout=GIVE_UP_S)
            step("revoked", "it ran")
        except TaskRevokedError:
            step("revoked", True)
        with app.connection_for_read() as connection:
            client = connection.default_channel.client
            wait_until(lambda: client.hlen("unacked") == 0, 20, "nothing is unacknowledged")
            step("nothing is left", client.llen("celery"), 0)
            add.apply_async((1, 1), countdown=600)
            wait_until(lambda: client.hlen("unacked") == 1, 20, "the worker holds a task")
    with app.connection_for_read() as connection:
        step("given back at the worker's end", connection.default_channel.client.llen("celery"), 1)
        step("purged", app.control.purge(connection=connection), 1)


if __name__ == "__main__":
    # Tasks are known by their module's name, which has to be the one that the worker imports.
    import celery_job

    celery_job.main()
