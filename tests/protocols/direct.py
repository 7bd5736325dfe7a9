"""A server over a real S3 store, and what a browser does with the URLs it gives."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.ceph import Ceph
from tests.servers import Server, running

MIB = 1 << 20


class OverS3:
    """The server, its store's bucket, and clients: `api` with the admin key, `nobody` without any."""

    def __init__(self, server: Server, ceph: Ceph, bucket: str) -> None:
        self.server, self._ceph, self._bucket = server, ceph, bucket
        self.api, self.nobody = server.client(), server.client(anonymous=True)

    def unfinished(self) -> list[str]:
        return self._ceph.unfinished(self._bucket)

    def objects(self) -> list[str]:
        return self._ceph.keys_of(self._bucket)

    def put_together(self) -> None:
        """Complete the one multipart upload there is, as a server does that then dies."""
        client, bucket = self._ceph.client(), self._bucket
        (one,) = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
        named = {"Bucket": bucket, "Key": one["Key"], "UploadId": one["UploadId"]}
        parts = [
            {"PartNumber": part["PartNumber"], "ETag": part["ETag"]}
            for part in client.list_parts(**named)["Parts"]
        ]
        client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
        client.close()

    def abort_all(self) -> None:
        """As a lifecycle rule does it."""
        client, bucket = self._ceph.client(), self._bucket
        for one in client.list_multipart_uploads(Bucket=bucket)["Uploads"]:
            client.abort_multipart_upload(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"])
        client.close()

    def close(self) -> None:
        self.api.close()
        self.nobody.close()


def over_s3(ceph: Ceph, folder: Path) -> Iterator[OverS3]:
    bucket = f"mediasvc-{secrets.token_hex(4)}"
    env = ceph.environment(bucket)
    Server(folder, **env).prepare_store()
    with running(folder, **env) as server:
        over = OverS3(server, ceph, bucket)
        try:
            yield over
            server.check_leftovers()
        finally:
            over.close()


def send(url: str, body: bytes) -> httpx.Response:
    """As a browser does it: PUT, and no more."""
    return httpx.put(url, content=body, headers={"Origin": "https://page.example"}, timeout=60)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def assert_all_is_swept(server: Server) -> None:
    swept = server.run("sweep")
    assert swept.returncode == 0, swept.stderr
    checked = server.run("fsck", "--json")
    assert checked.returncode == 0, checked.stdout
