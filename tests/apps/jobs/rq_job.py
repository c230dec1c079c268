"""RQ: two queues and one worker; results, dependencies, retries, failures, a task for later, a task that is stopped."""

from datetime import timedelta

import redis
from job import BIN, HOST, PORT, said_version, step, url, wait_until, worker
from rq import Queue, Retry, Worker
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq_tasks import add, fail, slow


def ended(job: Job) -> JobStatus | None:
    """The status of a job that is over, else None."""
    status = job.get_status(refresh=True)
    over = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED)
    return status if status in over else None


def status_of(job: Job) -> str:
    return str(wait_until(lambda: ended(job), 30, f"{job.func_name} is over; it is {job.get_status()}").value)


def main() -> None:
    said_version("rq")
    connection = redis.Redis(HOST, PORT)
    high, low = Queue("high", connection=connection), Queue("default", connection=connection)
    jobs = [low.enqueue(add, number, 1) for number in range(20)] + [high.enqueue(add, 40, 2)]
    step("enqueued", (high.count, low.count), (1, 20))
    with worker(BIN / "rq", "worker", "--url", url(), "--with-scheduler", "high", "default") as started:
        started.says("Listening on")
        step("jobs of two queues", [status_of(job) for job in jobs], ["finished"] * 21)
        step("results", [job.return_value(refresh=True) for job in jobs], [*range(1, 21), 42])
        step("the worker is known", len(Worker.all(connection=connection)), 1)

        first = low.enqueue(slow, 0.2)
        second = low.enqueue(add, 2, 3, depends_on=first)
        step("a dependent job", (status_of(second), second.return_value(refresh=True)), ("finished", 5))

        broken = low.enqueue(fail, retry=Retry(max=1))
        step("a failure, after a retry", status_of(broken), "failed")
        step("it is registered", broken.id in FailedJobRegistry(queue=low))
        step("requeued", broken.requeue() is not None and status_of(broken), "failed")

        later = low.enqueue_in(timedelta(seconds=1), add, 3, 4)
        step("later", (status_of(later), later.return_value(refresh=True)), ("finished", 7))

        long = low.enqueue(slow, 60)
        wait_until(lambda: long.get_status(refresh=True) == JobStatus.STARTED, 20, "the long job begins")
        send_stop_job_command(connection, long.id)
        step("stopped by command", status_of(long), "stopped")
        step("the queues are empty", (high.count, low.count), (0, 0))


if __name__ == "__main__":
    main()
