"""A service that strangers' clients upload to, and what must have come of it."""

import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.servers import Server

MIB = 1 << 20
PATIENCE = 60  # seconds


@dataclass(frozen=True)
class File:
    """What is uploaded: it lies at `path` for the clients that read files."""

    path: Path
    content: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.content)

    @classmethod
    def of(cls, path: Path, size: int) -> "File":
        """Of random bytes: no piece of it is like another."""
        path.write_bytes(content := os.urandom(size))
        return cls(path, content)


@dataclass(frozen=True)
class Service:
    """A running server; clients use `endpoint` and `headers`."""

    name: str
    server: Server

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v1/uploads"

    @property
    def headers(self) -> dict[str, str]:
        return self.server.headers

    def check(self, upload_url: str, file: File) -> None:
        """The upload has become an asset, and its bytes are the file's."""
        upload_id = upload_url.rpartition("/")[2]
        with self.server.client() as client:
            deadline = time.monotonic() + PATIENCE
            while (told := client.get(f"/v1/uploads/{upload_id}").raise_for_status().json())[
                "state"
            ] == "completing":
                assert time.monotonic() < deadline, told
                time.sleep(0.05)
            assert told["state"] == "complete", told
            assert (told["offset"], told["length"]) == (file.size, file.size)
            check_asset(client, told["asset"], file)

    def check_named(self, bucket: str, key: str, file: File) -> None:
        with self.server.client() as client:
            found = client.get("/v1/assets", params={"bucket": bucket, "prefix": key}).raise_for_status()
            (asset,) = found.json()["assets"]
            check_asset(client, asset, file)

    def check_content(self, url: str, file: File) -> None:
        """What is at this URL is the file."""
        with self.server.client() as client:
            assert client.get(url).raise_for_status().content == file.content

    def only_upload(self) -> str:
        """The URL of the one upload that there is."""
        with self.server.client() as client:
            (upload,) = client.get("/v1/uploads").raise_for_status().json()["uploads"]
            return str(upload["url"])

    def wait_for(self, upload_url: str, size: int) -> None:
        """Until so many bytes are received; nobody is disturbed."""
        with self.server.client() as client:
            deadline = time.monotonic() + PATIENCE
            path = f"/v1/uploads/{upload_url.rpartition('/')[2]}"
            while client.get(path).raise_for_status().json()["offset"] < size:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def check_asset(client: httpx.Client, asset: dict[str, object], file: File) -> None:
    """What it says of itself, and what it gives, are the file's."""
    expected = hashlib.sha256(file.content).hexdigest()
    path = "/f/" + str(asset["url"]).partition("/f/")[2]
    found = hashlib.sha256(client.get(path).raise_for_status().content).hexdigest()
    assert (asset["size"], asset["sha256"], found) == (file.size, expected, expected)
