"""What RQ's worker does; a module of its own, because RQ does not run tasks of `__main__`."""

from job import pause


def add(left: int, right: int) -> int:
    return left + right


def slow(seconds: float) -> str:
    pause(seconds)
    return "slept"


def fail() -> None:
    raise ValueError("on purpose")
