"""redis-py's locks: eight threads share one, a lock of another is not released, one that is held can be extended."""

import threading

import redis
from job import HOST, PORT, said_version, step
from redis.exceptions import LockNotOwnedError

THREADS = 8
ROUNDS = 20


def count_up(rounds: int) -> None:
    """Reads, adds and writes, which loses counts unless nobody else does at the same time."""
    client = redis.Redis(HOST, PORT)
    for _ in range(rounds):
        with client.lock("lock:counter", timeout=10, sleep=0.002):
            client.set("counter", int(client.get("counter") or 0) + 1)
    client.close()


def main() -> None:
    said_version("redis")
    client = redis.Redis(HOST, PORT)
    mine = client.lock("lock:one", timeout=10)
    step("acquire", mine.acquire())
    step("held by one", client.lock("lock:one").acquire(blocking=False), False)
    step("waits in vain", client.lock("lock:one", blocking_timeout=0.2).acquire(), False)
    step("extend", bool(mine.extend(20)) and client.ttl("lock:one") > 20)
    step("reacquire", bool(mine.reacquire()) and client.ttl("lock:one") <= 10)
    client.set("lock:one", "somebody else's")
    try:
        mine.release()
        step("release of another's", "released")
    except LockNotOwnedError:
        step("release of another's", client.get("lock:one"), b"somebody else's")

    threads = [threading.Thread(target=count_up, args=(ROUNDS,)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    step("one at a time", int(client.get("counter") or 0), THREADS * ROUNDS)

    many = [client.lock(f"lock:{number}", timeout=10) for number in range(40)]
    step("locks of many names", all(lock.acquire(blocking=False) for lock in many))
    for lock in many:
        lock.release()
    step("all released", client.exists(*(f"lock:{number}" for number in range(40))), 0)


if __name__ == "__main__":
    main()
