"""A real S3 service for tests: Ceph's gateway, started by deploy/ceph on ports of its own."""

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

SCRIPT = Path(__file__).parents[1] / "deploy" / "ceph"
ACCESS_KEY, SECRET_KEY = "mediasvc", "mediasvc-secret-key"
REGION = "us-east-1"


def refuse_without_ceph() -> None:
    """Skip where Ceph is not installed; fail where CI is set."""
    missing = [tool for tool in ("ceph-mon", "ceph-osd", "radosgw", "openssl") if not shutil.which(tool)]
    if missing:
        reason = f"{', '.join(missing)} not installed (deploy/ceph install)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


class Ceph:
    """One monitor, one OSD in memory, one gateway: `endpoint` plain, `tls_endpoint` with TLS."""

    access_key, secret_key, region = ACCESS_KEY, SECRET_KEY, REGION

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "cluster"
        self._port = _free_ports()
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.tls_endpoint = f"https://127.0.0.1:{self._port + 1}"
        self.ca_bundle = self._folder / "tls" / "ca.pem"
        self._made: list[str] = []

    @property
    def keys(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    @property
    def gateway_pid(self) -> int:
        return int((self._folder / "run" / "rgw.pid").read_text())

    def up(self) -> None:
        self._run("up")

    def down(self) -> None:
        self._run("down")

    def stop_gateway(self) -> None:
        self._run("rgw-stop")

    def start_gateway(self) -> None:
        self._run("rgw-start")

    def _run(self, command: str) -> None:
        arguments = [SCRIPT, command, self._folder, str(self._port)]
        done = subprocess.run(arguments, env=os.environ | self.keys, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def store_url(self, bucket: str, *, tls: bool = False, endpoint: str | None = None) -> str:
        chosen = endpoint or (self.tls_endpoint if tls else self.endpoint)
        return f"s3://{bucket}?endpoint={chosen}&region={REGION}"

    def environment(self, bucket: str, *, tls: bool = False) -> dict[str, str]:
        """What a `mediasvc` needs to keep its blobs here."""
        env = self.keys | {"MEDIASVC_STORE_URL": self.store_url(bucket, tls=tls)}
        return env | {"AWS_CA_BUNDLE": str(self.ca_bundle)} if tls else env

    def client(self) -> Any:
        """boto3, for tests that look at the store from outside."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def new_bucket(self) -> str:
        """An empty bucket of its own name; `empty_buckets` takes what was put into it."""
        name = f"test-{secrets.token_hex(6)}"
        self._made.append(name)
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name

    def empty_buckets(self) -> None:
        """Give back the room of all buckets of `new_bucket`: a service that is full does not answer any more."""
        client = self.client()
        for bucket in self._made:
            for key in self.keys_of(bucket):
                client.delete_object(Bucket=bucket, Key=key)
            for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
                client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        client.close()
        self._made.clear()

    def unfinished(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that are neither completed nor aborted."""
        client = self.client()
        found = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        client.close()
        return [upload["Key"] for upload in found]

    def keys_of(self, bucket: str) -> list[str]:
        client = self.client()
        found = client.list_objects_v2(Bucket=bucket).get("Contents", [])
        client.close()
        return [item["Key"] for item in found]


def _free_ports() -> int:
    """The first of three free ports in a row (plain, TLS, monitor)."""
    for _ in range(100):
        first = secrets.randbelow(10_000) + 20_000  # below those the kernel hands out
        try:
            for port in range(first, first + 3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no three free ports in a row")
