"""The store is S3 and goes away, or the server does, in the middle of an upload."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.ceph import Ceph
from tests.protocols.wire import connect, head
from tests.servers import Server

MIB = 1 << 20
LARGE = 40 * MIB  # several parts


@dataclass
class OnS3:
    """A server, and the store's bucket that is all its own."""

    server: Server
    ceph: Ceph
    bucket: str

    def clean(self, assets: int) -> None:
        """After one sweep: rows and bytes agree, and the store holds nothing else."""
        swept = self.server.run("sweep")
        assert swept.returncode == 0, swept.stderr
        checked = self.server.run("fsck", "--deep", "--json")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert self.ceph.unfinished(self.bucket) == []
        assert len(self.ceph.keys_of(self.bucket)) == assets

    def parts_on_their_way(self) -> None:
        deadline = time.monotonic() + 20
        while not self.ceph.unfinished(self.bucket):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def on_s3(ceph: Ceph, tmp_path: Path) -> Iterator[OnS3]:
    bucket = ceph.new_bucket()
    server = Server(tmp_path / "data", **ceph.environment(bucket)).start()
    with server.client() as client:
        client.put("/b/media/kept", content=b"kept").raise_for_status()
    yield OnS3(server, ceph, bucket)
    assert server.stop() == 0


def begin(server: Server, name: str, key: str) -> "contextlib.closing[socket.socket]":
    """An upload of which most has been sent, and the rest never is."""
    connection = connect(server.url)
    headers = {"Authorization": f"Bearer {key}", "Content-Length": str(LARGE)}
    connection.sendall(head("PUT", f"/b/media/{name}", headers) + os.urandom(LARGE * 3 // 4))
    return contextlib.closing(connection)


def test_a_client_that_goes_away_leaves_no_parts_in_the_store(on_s3: OnS3) -> None:
    with begin(on_s3.server, "half", on_s3.server.admin_key):
        on_s3.parts_on_their_way()
    deadline = time.monotonic() + 20
    while on_s3.ceph.unfinished(on_s3.bucket) and time.monotonic() < deadline:  # no sweep: at once
        time.sleep(0.05)
    on_s3.clean(assets=1)


def test_a_killed_server_leaves_nothing_that_a_sweep_does_not_find(on_s3: OnS3) -> None:
    with begin(on_s3.server, "half", on_s3.server.admin_key):
        on_s3.parts_on_their_way()
        on_s3.server.kill()
    on_s3.clean(assets=1)
    with on_s3.server.start().client() as client:
        assert client.get("/b/media/kept").content == b"kept"
        assert client.get("/b/media/half").status_code == 404
        assert client.put("/b/media/half", content=os.urandom(LARGE)).status_code == 201
    on_s3.clean(assets=2)


def test_a_store_that_dies_in_the_middle_is_told_and_loses_nothing_acknowledged(on_s3: OnS3) -> None:
    answers: list[httpx.Response] = []
    content = os.urandom(LARGE)

    def slowly() -> Iterator[bytes]:
        for start in range(0, LARGE, MIB):
            yield content[start : start + MIB]
            time.sleep(0.02)

    def upload() -> None:
        with on_s3.server.client() as another:
            answers.append(another.put("/b/media/large", content=slowly()))

    with on_s3.server.client() as client:
        uploading = threading.Thread(target=upload)
        uploading.start()
        on_s3.parts_on_their_way()
        os.kill(on_s3.ceph.gateway_pid, signal.SIGKILL)
        try:
            began = time.monotonic()
            uploading.join(60)
            assert time.monotonic() - began < 40
            (answer,) = answers
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable"), answer.text
            assert "Retry-After" in answer.headers
            assert client.get("/v1/assets?bucket=media").status_code == 200  # what needs no store goes on
        finally:
            on_s3.ceph.stop_gateway()
            on_s3.ceph.start_gateway()
        deadline = time.monotonic() + 30
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert client.get("/b/media/kept").content == b"kept"
        assert client.get("/b/media/large").status_code == 404
        assert client.put("/b/media/large", content=content).status_code == 201
        assert client.get("/b/media/large").content == content
    on_s3.server.stop()  # what it could not remove while the store was away belongs to a dead run now
    on_s3.server.start()
    on_s3.clean(assets=2)
