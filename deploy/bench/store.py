"""A file into S3 through the service, against boto3's own multipart upload of it to the same gateway."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import boto3
from ceph import KEYS, gateway
from machine import AUTHORISED, Best, Figure, Workplace, curl, mediasvc


def measure(place: Workplace) -> Iterator[Figure]:
    source = place.file(512)
    with gateway(place) as endpoint:
        url = f"s3://bench?endpoint={endpoint}&region=us-east-1"
        provision(url)
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        with mediasvc(place, MEDIASVC_STORE_URL=url, **KEYS) as ours:
            through, direct = Best(), float("inf")
            for _ in range(place.rounds):
                started = time.perf_counter()
                client.upload_file(str(source), "bench", "direct")
                direct = min(direct, time.perf_counter() - started)
                client.delete_object(Bucket="bench", Key="direct")
                through.measure(ours, lambda: curl("-T", source, "-H", AUTHORISED, f"{ours.url}/b/media/x"))
                curl("-X", "DELETE", "-H", AUTHORISED, f"{ours.url}/b/media/x")
    speed = source.stat().st_size / 1e6
    note = f"{speed / through.seconds:.0f} and {speed / direct:.0f} MB/s"
    yield Figure("512 MiB into S3, throughput ÷ boto3's own", direct / through.seconds, "×", 0.7, True, note)


def provision(url: str) -> None:
    """Make the store's bucket."""
    env = os.environ | KEYS | {"MEDIASVC_STORE_URL": url}
    done = subprocess.run(
        [sys.executable, "-m", "mediasvc", "store", "init"], env=env, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"mediasvc store init: {done.stderr}")
