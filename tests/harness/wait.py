"""Waiting for a condition: the only place of the tests that sleeps.

A test that sleeps for a second is slow where the machine is fast and fails where it is slow. Here a test names what it
waits for; the pause between two looks grows, so that short waits cost little and long ones do not keep a core busy.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_FIRST_S = 0.001
PAUSE_MAX_S = 0.1


def wait_until(condition: Callable[[], T | None], timeout: float, message: str) -> T:
    """Returns the first true value of the condition; fails with the message when there is none within the timeout.

    An AssertionError or OSError of the condition counts as "not yet", and is shown when the time is over.
    """
    deadline = time.monotonic() + timeout
    pause = PAUSE_FIRST_S
    reason: Exception | None = None
    while True:
        try:
            value = condition()
            if value:
                return value
            reason = None
        except (AssertionError, OSError) as error:
            reason = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {message}") from reason
        time.sleep(pause)
        pause = min(pause * 1.5, PAUSE_MAX_S)
