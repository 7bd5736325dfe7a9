"""Waiting for what comes about by itself."""

import time
from collections.abc import Callable


def until(happened: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)
