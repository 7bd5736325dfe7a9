"""Somebody else: asks for `/healthz` again and again while others keep the server busy.

A process of its own, for in ours it would wait for the many threads that play the others, too.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import httpx

PAUSE = 0.005  # seconds between two requests


@contextmanager
def visitor(url: str) -> Iterator[list[float]]:
    """The seconds that each of its requests took, filled in when the block ends."""
    waits: list[float] = []
    command = [sys.executable, __file__, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdout.readline()  # the first was answered: what follows is no start of anything
            yield waits
        finally:
            process.stdin.close()
            waits += map(float, process.stdout.read().split())
    if process.returncode:
        raise SystemExit(f"{url}/healthz did not answer")


def p99(waits: list[float]) -> float:
    """The 99th percentile, in milliseconds."""
    return sorted(waits)[int(len(waits) * 0.99)] * 1000


def main(url: str) -> None:
    over, waits = Event(), []

    def until_told() -> None:
        sys.stdin.read()
        over.set()

    Thread(target=until_told, daemon=True).start()
    with httpx.Client(base_url=url, timeout=30) as client:
        client.get("/healthz").raise_for_status()
        print(flush=True)
        while not over.wait(PAUSE):
            began = time.perf_counter()
            client.get("/healthz").raise_for_status()
            waits.append(time.perf_counter() - began)
    print(*waits)


if __name__ == "__main__":
    main(sys.argv[1])
