"""Clients whose upload is broken off: by a server that dies, by a line that goes dead, by another client."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest

from tests.clients.line import Line
from tests.clients.npm import TusJs
from tests.clients.service import MIB, File, Service
from tests.clients.test_tus_js import DRAFTS, WAYS
from tests.modes import need
from tests.protocols.wire import connect, head

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}
RIGHT_AWAY = {"retryDelays": [0]}  # after that they give up


def options(line_or_service: str, service: Service, more: Mapping[str, object] = {}) -> dict[str, object]:
    return {"endpoint": f"{line_or_service}/v1/uploads", "headers": service.headers} | dict(more)


DRAFT = {draft: {"protocol": draft} for draft in DRAFTS}
KILLED = [
    pytest.param(kind, (WAYS | DRAFT)[way], id=f"{kind}-{way}")
    for kind, ways in {
        "disk": ("one-patch", "chunked", "parallel", *DRAFTS),
        "nginx": ("one-patch", DRAFTS[1]),
        "s3": ("one-patch", "parallel", DRAFTS[1]),
    }.items()
    for way in ways
]


@pytest.mark.parametrize(("mortal", "way"), KILLED, indirect=["mortal"])
def test_kill_9_in_the_middle_and_the_client_goes_on(
    mortal: Service, line: Line, new_file: Callable[[int], File], way: Mapping[str, object]
) -> None:
    file = new_file(40 * MIB + 1)
    line.hold_after(30 * MIB)
    with TusJs(file, options(line.url, mortal, way)) as client:
        line.wait_until_held()
        mortal.server.kill()
        mortal.server.start()
        line.target = mortal.url
        line.cut()
        mortal.check(client.finish(), file)
        creations = [event for event in client.heard if event.get("sent") == "POST"]
        if mortal.name == "nginx":
            return  # which says 502 meanwhile, and to a HEAD that is told so this client begins anew
        assert len(creations) == (4 if "parallelUploads" in way else 1)  # parts, and what they become
        if not {"chunkSize", "parallelUploads"} & set(way):
            again = client.offsets()[-1]
            assert (
                again > (30 - 16 - 8) * MIB
            )  # 16 that a crash may cost, 8 for what sockets and buffers hold


@pytest.mark.parametrize("mortal", ["nginx"], indirect=True)
def test_a_client_that_is_killed_goes_on_in_its_next_run(
    mortal: Service, line: Line, new_file: Callable[[int], File], tmp_path: Path
) -> None:
    file, memory = new_file(40 * MIB), str(tmp_path / "urls.json")
    line.hold_after(30 * MIB)
    with TusJs(file, options(line.url, mortal), memory=memory) as client:
        line.wait_until_held()
        client.kill()
        first = client.last("url")
    line.cut()
    with TusJs(file, options(line.url, mortal), memory=memory) as client:
        assert client.finish() == first
        assert client.offsets()[0] > 0
        mortal.check(first, file)


@pytest.mark.parametrize("protocol", [{}, {"protocol": "ietf-draft-05"}], ids=["tus", "draft"])
def test_a_second_client_goes_on_while_the_first_hangs(
    mortal: Service, line: Line, new_file: Callable[[int], File], protocol: dict[str, object]
) -> None:
    """The first neither sends nor closes; nobody waits for it to do either."""
    file = new_file(24 * MIB)
    line.hold_after(16 * MIB)
    with TusJs(file, options(line.url, mortal, protocol)) as hung:
        line.wait_until_held()
        url = mortal.only_upload()
        with TusJs(file, options(line.url, mortal, protocol | {"uploadUrl": url} | RIGHT_AWAY)) as second:
            assert second.finish() == url
            assert second.offsets()[0] > 0
        mortal.check(url, file)
        assert hung.running
    # What a late client still has to send changes nothing.
    line.cut()
    mortal.check(url, file)


def test_two_clients_at_once_end_with_the_file(service: Service, large: File) -> None:
    """Two tabs with the same file and the same upload: each takes over from the other, again and again."""
    created = httpx.post(service.endpoint, headers=service.headers | TUS | {"Upload-Length": str(large.size)})
    url = created.headers["location"]
    with (
        TusJs(large, options(service.url, service, {"uploadUrl": url, "chunkSize": 5 * MIB})) as one,
        TusJs(large, options(service.url, service, {"uploadUrl": url, "chunkSize": 3 * MIB})) as other,
    ):
        assert one.finish() == other.finish() == url
    service.check(url, large)


def test_two_contents_are_never_mixed(
    mortal: Service, line: Line, new_file: Callable[[int], File], tmp_path: Path
) -> None:
    """Whoever comes first has it: another file's bytes are not what the upload goes on with."""
    need("curl")
    ours, theirs = new_file(24 * MIB), new_file(24 * MIB)
    line.hold_after(16 * MIB)
    with TusJs(ours, options(line.url, mortal)):
        line.wait_until_held()
        url = mortal.only_upload()
        headers = mortal.headers | TUS | BYTES | {"Upload-Offset": "0"}
        fields = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
        said = ["-w", "%{http_code}", "-o", os.devnull, "--data-binary", f"@{theirs.path}"]
        intruder = subprocess.run(
            ["curl", "-s", "-X", "PATCH", *fields, *said, url], capture_output=True, text=True, timeout=60
        )
        assert intruder.stdout == "409"
        line.cut()
    with TusJs(ours, options(line.url, mortal, {"uploadUrl": url})) as client:
        assert client.finish() == url
    mortal.check(url, ours)


@pytest.mark.parametrize("service", ["disk", "s3"], indirect=True)
@pytest.mark.parametrize("dialect", ["tus", "draft"])
def test_whoever_hears_that_all_is_there_finds_the_asset(
    service: Service, new_file: Callable[[int], File], dialect: str
) -> None:
    """Clients take `offset = length` for the end: one that lost the answer asks, and is done."""
    file = new_file(8 * MIB)
    draft = {"Upload-Draft-Interop-Version": "6"}
    spoken = TUS if dialect == "tus" else draft
    create = (
        spoken | {"Upload-Length": str(file.size)} | ({} if dialect == "tus" else {"Upload-Complete": "?0"})
    )
    append = TUS | BYTES
    if dialect == "draft":
        append = draft | {"Content-Type": "application/partial-upload", "Upload-Complete": "?1"}
    for attempt in range(12):
        url = httpx.post(service.endpoint, headers=service.headers | create).headers["location"]
        headers = service.headers | append | {"Upload-Offset": "0", "Content-Length": str(file.size)}
        path = re.sub("https?://[^/]+", "", url)
        with connect(service.url) as connection:
            connection.sendall(
                head("PATCH", path, headers, host=service.url.rpartition("/")[2]) + file.content
            )
            time.sleep(attempt / 300)  # the moment that matters is when all has come, and nothing is said yet
            asked = httpx.head(url, headers=service.headers | spoken, timeout=30)
            if asked.headers["upload-offset"] == str(file.size):
                service.check(url, file)


@pytest.mark.parametrize(
    "service", ["disk", "s3"], indirect=True
)  # nginx drops what it holds when a client goes
def test_a_body_that_lacks_only_its_end_is_complete_when_asked(service: Service, file: File) -> None:
    """In chunks, of which the empty last one never comes: every byte is here, and tus wants no more than that."""
    create = service.headers | TUS | {"Upload-Length": str(file.size)}
    url = httpx.post(service.endpoint, headers=create).headers["location"]
    headers = service.headers | TUS | BYTES | {"Upload-Offset": "0", "Transfer-Encoding": "chunked"}
    path = re.sub("https?://[^/]+", "", url)
    with connect(service.url) as connection:
        raw = head("PATCH", path, headers, host=service.url.rpartition("/")[2])
        connection.sendall(raw + b"%x\r\n%b\r\n" % (file.size, file.content))
    service.wait_for(url, file.size)
    asked = httpx.head(url, headers=service.headers | TUS, timeout=30)
    assert asked.headers["upload-offset"] == str(file.size)
    service.check(url, file)
