"""A file into S3 through the service, against boto3's own multipart upload of it to the same gateway."""

import time
from collections.abc import Iterator

import boto3
from ceph import KEYS, gateway
from machine import AUTHORISED, Best, Figure, Workplace, curl, mediasvc


def measure(place: Workplace) -> Iterator[Figure]:
    source = place.file(512)
    with gateway(place) as s3:
        client = boto3.client(
            "s3",
            endpoint_url=s3.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        with mediasvc(place, **s3.env) as ours:
            through, direct = Best(), float("inf")
            for _ in range(place.rounds):
                started = time.perf_counter()
                client.upload_file(str(source), s3.bucket, "direct")
                direct = min(direct, time.perf_counter() - started)
                client.delete_object(Bucket=s3.bucket, Key="direct")
                through.measure(ours, lambda: curl("-T", source, "-H", AUTHORISED, f"{ours.url}/b/media/x"))
                curl("-X", "DELETE", "-H", AUTHORISED, f"{ours.url}/b/media/x")
    speed = source.stat().st_size / 1e6
    note = f"{speed / through.seconds:.0f} and {speed / direct:.0f} MB/s"
    yield Figure("512 MiB into S3, throughput ÷ boto3's own", direct / through.seconds, "×", 0.7, True, note)
