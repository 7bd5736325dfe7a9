"""A real S3 gateway for a benchmark, from deploy/ceph."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import Workplace, free_port

KEYS = {"AWS_ACCESS_KEY_ID": "mediasvc", "AWS_SECRET_ACCESS_KEY": "mediasvc-secret-key"}
CEPH = Path(__file__).parents[1] / "ceph"


@dataclass(frozen=True)
class Gateway:
    """Its address, the bucket made in it, and what a `mediasvc` needs to keep its blobs there."""

    endpoint: str
    bucket: str
    env: Mapping[str, str]


@contextmanager
def gateway(place: Workplace) -> Iterator[Gateway]:
    """A fresh gateway in memory with its store's bucket, up for the time of the block."""
    port = free_port()
    folder = place.folder / f"ceph-{port}"
    env = os.environ | KEYS
    done = subprocess.run([CEPH, "up", folder, str(port)], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"deploy/ceph did not start: {done.stderr[-1000:]}")
    try:
        endpoint = f"http://127.0.0.1:{port}"
        env = KEYS | {"MEDIASVC_STORE_URL": f"s3://bench?endpoint={endpoint}&region=us-east-1"}
        command = [sys.executable, "-m", "mediasvc", "store", "init"]
        done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"mediasvc store init: {done.stderr}")
        yield Gateway(endpoint, "bench", env)
    finally:
        subprocess.run([CEPH, "down", folder], check=False, capture_output=True)
