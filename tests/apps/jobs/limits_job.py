"""limits: each strategy over Redis storage, from several threads: never more than allowed."""

import threading
from collections.abc import Callable
from functools import partial

from job import said_version, step, url
from limits import parse
from limits.storage import storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

THREADS = 4
TRIES = 10
ALLOWED = 15


def taken(hit: Callable[[], bool]) -> int:
    """How many of the tries of all threads were allowed."""
    found: list[bool] = []

    def several() -> None:
        found.extend(hit() for _ in range(TRIES))

    threads = [threading.Thread(target=several) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(found)


def main() -> None:
    said_version("limits")
    storage = storage_from_string(url())
    step("storage", storage.check())
    rate = parse(f"{ALLOWED} per day")
    strategies: dict[str, RateLimiter] = {
        "fixed window": FixedWindowRateLimiter(storage),
        "moving window": MovingWindowRateLimiter(storage),
        "sliding window counter": SlidingWindowCounterRateLimiter(storage),
    }
    for name, limiter in strategies.items():
        step(name, taken(partial(limiter.hit, rate, name, "user")), ALLOWED)
        left = limiter.get_window_stats(rate, name, "user")[1]
        step(f"{name}: used up", (limiter.test(rate, name, "user"), left), (False, 0))
        limiter.clear(rate, name, "user")
        step(f"{name}: cleared", limiter.test(rate, name, "user"))
    users = [f"user-{number}" for number in range(40)]
    step("many users", all(strategies["moving window"].hit(rate, user) for user in users))


if __name__ == "__main__":
    main()
