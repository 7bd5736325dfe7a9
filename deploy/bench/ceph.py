"""A real S3 gateway for a benchmark, from deploy/ceph."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import Workplace, free_port

KEYS = {"AWS_ACCESS_KEY_ID": "mediasvc", "AWS_SECRET_ACCESS_KEY": "mediasvc-secret-key"}
CEPH = Path(__file__).parents[1] / "ceph"


@contextmanager
def gateway(place: Workplace) -> Iterator[str]:
    """The address of a fresh gateway in memory, up for the time of the block."""
    port = free_port()
    folder = place.folder / f"ceph-{port}"
    env = os.environ | KEYS
    done = subprocess.run([CEPH, "up", folder, str(port)], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"deploy/ceph did not start: {done.stderr[-1000:]}")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run([CEPH, "down", folder], check=False, capture_output=True)
