"""dramatiq: a worker process of four threads; results, pipelines, groups, delays, retries, dead letters, limits."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.rate_limits import ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend as LimitBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from job import BIN, HOST, PORT, said_version, step, wait_until, worker

broker = RedisBroker(host=HOST, port=PORT)
limits = LimitBackend(host=HOST, port=PORT)
broker.add_middleware(Results(backend=RedisBackend(host=HOST, port=PORT)))
broker.add_middleware(dramatiq.middleware.GroupCallbacks(limits))
dramatiq.set_broker(broker)

GIVE_UP_MS = 20_000


@dramatiq.actor(store_results=True)
def add(left: int, right: int) -> int:
    return left + right


@dramatiq.actor(max_retries=1, min_backoff=1, max_backoff=10)
def fail() -> None:
    raise ValueError("on purpose")


@dramatiq.actor(queue_name="other", store_results=True)
def total(numbers: list[int]) -> int:
    return sum(numbers)


@dramatiq.actor
def finished() -> None:
    broker.client.set("group-is-done", 1)


def dead_letters() -> int:
    return int(broker.client.zcard("dramatiq:default.XQ"))


def main() -> None:
    said_version("dramatiq")
    messages = [add.send(number, 1) for number in range(20)]
    with worker(BIN / "dramatiq", "dramatiq_job", "--processes", "1", "--threads", "4") as started:
        started.says("is ready for action")
        got = [message.get_result(block=True, timeout=GIVE_UP_MS) for message in messages]
        step("results", got, list(range(1, 21)))
        step("another queue", total.send([1, 2, 3]).get_result(block=True, timeout=GIVE_UP_MS), 6)
        chain = add.message(1, 2) | add.message(4)
        step("a pipeline", chain.run().get_result(block=True, timeout=GIVE_UP_MS), 7)
        group = dramatiq.group([add.message(n, n) for n in range(10)])
        group.add_completion_callback(finished.message())
        found = list(group.run().get_results(block=True, timeout=GIVE_UP_MS))
        step("a group", found, list(range(0, 20, 2)))
        step("its callback", wait_until(lambda: broker.client.get("group-is-done"), 20, "the callback"), b"1")
        later = add.send_with_options(args=(3, 4), delay=500)
        step("later", later.get_result(block=True, timeout=GIVE_UP_MS), 7)
        fail.send()
        step("a dead letter", wait_until(dead_letters, 20, "the failed message is a dead letter"), 1)

    first, other = (ConcurrentRateLimiter(limits, "one-at-a-time", limit=1) for _ in range(2))
    with first.acquire(), other.acquire(raise_on_failure=False) as second:
        step("one at a time", second, False)
    window = WindowRateLimiter(limits, "window", limit=3, window=60)
    taken = []
    for _ in range(5):
        with window.acquire(raise_on_failure=False) as acquired:
            taken.append(acquired)
    step("three in a window", taken, [True, True, True, False, False])


if __name__ == "__main__":
    main()
