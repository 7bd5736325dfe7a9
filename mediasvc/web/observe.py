"""Counts an upload, whatever becomes of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from mediasvc import metrics
from mediasvc.core.errors import MediasvcError


class Outcome:
    """Told once the bytes are acknowledged."""

    def __init__(self, door: str) -> None:
        self._door = door

    def stored(self, size: int) -> None:
        metrics.upload_bytes.labels(self._door).inc(size)


@contextmanager
def upload(door: str) -> Iterator[Outcome]:
    """Wraps the receiving of one file through a door (put, dropbox, form)."""
    began, outcome = time.monotonic(), "broken"
    try:
        yield Outcome(door)
        outcome = "stored"
    except MediasvcError as error:
        outcome = error.code
        raise
    finally:
        metrics.uploads.labels(door, outcome).inc()
        metrics.upload_seconds.labels(door).observe(time.monotonic() - began)
