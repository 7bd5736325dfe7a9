"""Hundreds of readers that take a few kilobytes a second each: what one costs, and what others feel meanwhile."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ceph import gateway
from machine import AUTHORISED, Figure, Server, Workplace, curl, get, mediasvc
from visitor import p99, visitor

READERS = 500
SECONDS = 8.0


def measure(place: Workplace) -> Iterator[Figure]:
    source = place.file(1024)
    with mediasvc(place) as ours:
        yield from slow_readers(ours, source, "from disk", 50)
    with gateway(place) as s3, mediasvc(place, **s3.env) as ours:
        yield from slow_readers(ours, source, "streamed from S3", 1024)


def slow_readers(
    ours: Server, source: Path, way: str, goal: float, *, readers: int = READERS, patience: float = 200
) -> Iterator[Figure]:
    """Memory of each in KiB, and the 99th percentile of other requests in ms; `goal` and `patience` are the most."""
    curl("-T", source, "-H", AUTHORISED, f"{ours.url}/b/media/slow")
    idle = ours.resident()
    done = threading.Event()
    sockets = [get(f"{ours.url}/b/media/slow", receive_buffer=8192) for _ in range(readers)]
    reading = threading.Thread(target=read_slowly, args=(sockets, done))
    reading.start()
    busy = 0.0
    with visitor(ours.url) as waits:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            busy = max(busy, ours.resident())
            time.sleep(0.01)
    done.set()
    reading.join()
    for reader in sockets:
        reader.close()
    yield Figure(
        f"{readers} slow readers {way}, memory of each", (busy - idle) * 1024 / readers, "KiB", goal, False
    )
    yield Figure(f"`/healthz` meanwhile, p99 ({way})", p99(waits), "ms", patience, False)


def read_slowly(sockets: list[socket.socket], done: threading.Event) -> None:
    """Each takes 4 KiB a second until `done`."""
    while not done.is_set():
        for reader in sockets:
            reader.recv(4096)
            time.sleep(1 / len(sockets))
