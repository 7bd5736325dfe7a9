"""curl, which knows neither protocol: its user does."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.clients.service import MIB, File, Service
from tests.modes import need

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}
PARTIAL = {"Content-Type": "application/partial-upload"}


@dataclass(frozen=True)
class Answers:
    """What curl printed: every head that came, the informational ones first."""

    heads: list[tuple[int, httpx.Headers]]

    @property
    def status(self) -> int:
        return self.heads[-1][0]

    @property
    def headers(self) -> httpx.Headers:
        return self.heads[-1][1]


def curl(service: Service, *arguments: str, headers: Mapping[str, str]) -> Answers:
    need("curl")
    fields = [
        part for name, value in (service.headers | headers).items() for part in ("-H", f"{name}: {value}")
    ]
    command = ["curl", "-sS", "-D", "-", "-o", os.devnull, *fields, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    heads = []
    for head in done.stdout.strip().split("\n\n"):
        first, *lines = head.splitlines()
        pairs = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
        heads.append((int(first.split()[1]), httpx.Headers(pairs)))  # type: ignore[arg-type]
    return Answers(heads)


@pytest.fixture
def halves(file: File, tmp_path: Path) -> tuple[str, str]:
    """The file's first 2 MiB, and its rest."""
    (tmp_path / "first").write_bytes(file.content[: 2 * MIB])
    (tmp_path / "rest").write_bytes(file.content[2 * MIB :])
    return str(tmp_path / "first"), str(tmp_path / "rest")


def test_tus_by_hand(service: Service, file: File, halves: tuple[str, str]) -> None:
    begun = curl(service, "-X", "POST", service.endpoint, headers=TUS | {"Upload-Length": str(file.size)})
    assert begun.status == 201
    url = begun.headers["location"]
    for path, offset, end in [(halves[0], 0, 2 * MIB), (halves[1], 2 * MIB, file.size)]:
        asked = curl(service, "-I", url, headers=TUS)
        assert (asked.status, asked.headers["upload-offset"]) == (200, str(offset))
        more = TUS | BYTES | {"Upload-Offset": str(offset)}
        appended = curl(service, "-X", "PATCH", "--data-binary", f"@{path}", url, headers=more)
        assert (appended.status, appended.headers["upload-offset"]) == (204, str(end))
    service.check(url, file)


def test_tus_in_one_request(service: Service, file: File) -> None:
    headers = TUS | BYTES | {"Upload-Length": str(file.size)}
    done = curl(service, "--data-binary", f"@{file.path}", service.endpoint, headers=headers)
    assert (done.status, done.headers["upload-offset"]) == (201, str(file.size))
    service.check(done.headers["location"], file)


def test_tus_from_a_pipe_whose_length_comes_last(service: Service, file: File) -> None:
    begun = curl(service, "-X", "POST", service.endpoint, headers=TUS | {"Upload-Defer-Length": "1"})
    url = begun.headers["location"]
    # Of a file it says the length, unless it is told to send it in chunks.
    sent = TUS | BYTES | {"Upload-Offset": "0", "Transfer-Encoding": "chunked"}
    assert curl(service, "-X", "PATCH", "-T", str(file.path), url, headers=sent).status == 204
    length = {"Upload-Offset": str(file.size), "Upload-Length": str(file.size), "Content-Length": "0"}
    assert curl(service, "-X", "PATCH", url, headers=TUS | BYTES | length).status == 204
    service.check(url, file)


@pytest.mark.parametrize("version", range(3, 9))
def test_the_draft_in_one_request(service: Service, file: File, version: int) -> None:
    """The 104 names the upload before a byte is read; a proxy would take it for the answer, so there it stays away."""
    complete = {"Upload-Incomplete": "?0"} if version == 3 else {"Upload-Complete": "?1"}
    headers = {"Upload-Draft-Interop-Version": str(version)} | complete
    done = curl(service, "-X", "POST", "-T", str(file.path), service.endpoint, headers=headers)
    assert done.status == 201
    informed = [head for status, head in done.heads if status == 104]
    assert len(informed) == (0 if service.name == "nginx" else 1)
    for head in informed:
        assert head["upload-draft-interop-version"] == str(version)
        service.check(head["location"], file)
    service.check_content(done.headers["content-location"], file)


def test_the_draft_in_two_requests(service: Service, file: File, halves: tuple[str, str]) -> None:
    spoken = {"Upload-Draft-Interop-Version": "8"}
    first = spoken | {"Upload-Complete": "?0"}
    begun = curl(service, "-X", "POST", "-T", halves[0], service.endpoint, headers=first)
    assert (begun.status, begun.headers["upload-complete"]) == (201, "?0")
    url = begun.headers["location"]
    asked = curl(service, "-I", url, headers=spoken)
    assert (asked.status, asked.headers["upload-offset"]) == (204, str(2 * MIB))
    rest = spoken | PARTIAL | {"Upload-Offset": str(2 * MIB), "Upload-Complete": "?1"}
    done = curl(service, "-X", "PATCH", "-T", halves[1], url, headers=rest)
    assert (done.status, done.headers["upload-complete"]) == (201, "?1")
    service.check(url, file)


@pytest.mark.parametrize("pieces", [1, 2])
def test_the_draft_at_the_url_of_a_key(
    service: Service, file: File, halves: tuple[str, str], pieces: int
) -> None:
    key = f"draft/{service.name}-{pieces}.bin"
    spoken = {"Upload-Draft-Interop-Version": "8"}
    complete = {"Upload-Complete": "?1" if pieces == 1 else "?0"}
    path = str(file.path) if pieces == 1 else halves[0]
    done = curl(service, "-T", path, f"{service.url}/b/media/{key}", headers=spoken | complete)
    assert done.status == 201
    if pieces == 2:
        rest = spoken | PARTIAL | {"Upload-Offset": str(2 * MIB), "Upload-Complete": "?1"}
        done = curl(service, "-X", "PATCH", "-T", halves[1], done.headers["location"], headers=rest)
        assert done.status == 201
    service.check_named("media", key, file)
