"""Bytes out over the wire: RFC 9110 on /b, /f and /i, private and public, with real clients."""

import hashlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server

BODY = os.urandom(300_000)
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001"
    "a5f645400000000049454e44ae426082"
)


@dataclass(frozen=True)
class Place:
    """A URL and what it must give."""

    client: httpx.Client
    url: str
    body: bytes


@pytest.fixture(scope="module")
def places(each_server: Server, api: httpx.Client, nobody: httpx.Client) -> dict[str, Place]:
    found = {}
    for bucket, client in (("media", api), ("public", nobody)):
        asset = api.put(f"/b/{bucket}/data.bin", content=BODY).json()
        found[f"{bucket} b"] = Place(client, f"/b/{bucket}/data.bin", BODY)
        found[f"{bucket} f"] = Place(client, asset["url"].removeprefix(each_server.url), BODY)
        picture = api.put(f"/b/{bucket}/dot.png", content=PNG).json()
        deadline = time.monotonic() + 30
        while (now := api.get(f"/v1/assets/{picture['id']}").json())["state"] == "processing":
            assert time.monotonic() < deadline, now
            time.sleep(0.05)
        url = now["renditions"]["thumb"]["url"].removeprefix(each_server.url)
        found[f"{bucket} i"] = Place(client, url, api.get(url).content)
    time.sleep(1.1)  # Last-Modified is sent once it lies behind
    return found


PLACES = [f"{bucket} {kind}" for bucket in ("media", "public") for kind in "bfi"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    return places[request.param]


def test_the_whole(place: Place) -> None:
    got = place.client.get(place.url)
    assert got.status_code == 200
    assert got.content == place.body
    assert got.headers["Content-Length"] == str(len(place.body))
    assert got.headers["ETag"] == f'"{hashlib.sha256(place.body).hexdigest()[:32]}"'
    assert got.headers["Accept-Ranges"] == "bytes"
    assert got.headers["Repr-Digest"].startswith("sha-256=:")
    assert "sandbox" in got.headers["Content-Security-Policy"]
    assert "default-src 'none'" in got.headers["Content-Security-Policy"]
    assert got.headers["Content-Disposition"].startswith(("inline", "attachment"))
    assert parsedate_to_datetime(got.headers["Last-Modified"]) <= parsedate_to_datetime(got.headers["Date"])


def test_head_tells_the_same(place: Place) -> None:
    ignored = {"date", "x-request-id"}
    get, head = place.client.get(place.url), place.client.head(place.url)
    assert head.content == b""
    told = [{k: v for k, v in one.headers.items() if k not in ignored} for one in (get, head)]
    assert told[0] == told[1]


RANGES = {
    "first": ("bytes=0-0", slice(0, 1)),
    "middle": ("bytes=10-19", slice(10, 20)),
    "open": ("bytes=20-", slice(20, None)),
    "suffix": ("bytes=-7", slice(-7, None)),
    "past the end": ("bytes=5-99999999999999999999", slice(5, None)),
    "long suffix": ("bytes=-99999999", slice(0, None)),
    "upper case": ("BYTES=0-3", slice(0, 4)),
}


@pytest.mark.parametrize(("field", "part"), RANGES.values(), ids=RANGES)
def test_a_part(place: Place, field: str, part: slice) -> None:
    got = place.client.get(place.url, headers={"Range": field})
    start, stop, _ = part.indices(len(place.body))
    assert got.status_code == 206
    assert got.content == place.body[part]
    assert got.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(place.body)}"


@pytest.mark.parametrize(
    "field", ["bytes=5-3", "lines=1-2", "bytes=x", "bytes", "bytes=1-2-3", "bytes=--1", ""]
)
def test_a_range_without_sense_is_left_aside(place: Place, field: str) -> None:
    got = place.client.get(place.url, headers={"Range": field})
    assert (got.status_code, got.content) == (200, place.body)


@pytest.mark.parametrize("field", ["bytes=99999999-", "bytes=-0"])
def test_a_range_outside_is_416(place: Place, field: str) -> None:
    got = place.client.get(place.url, headers={"Range": field})
    assert (got.status_code, got.json()["code"]) == (416, "range_not_satisfiable")
    assert got.headers["Content-Range"] == f"bytes */{len(place.body)}"


def test_several_parts(place: Place) -> None:
    got = place.client.get(place.url, headers={"Range": "bytes=0-1,10-11,-2"})
    assert got.status_code == 206
    kind, _, boundary = got.headers["Content-Type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    parts = got.content.split(b"--" + boundary.encode())
    assert parts[-1] == b"--\r\n"
    contents = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:-1]]
    assert contents == [place.body[0:2], place.body[10:12], place.body[-2:]]
    assert int(got.headers["Content-Length"]) == len(got.content)


def test_a_thousand_ranges_cost_nothing(place: Place) -> None:
    field = "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2000, 2))
    assert place.client.get(place.url, headers={"Range": field}).status_code in (200, 206, 416)


def test_preconditions(place: Place) -> None:
    got = place.client.get(place.url)
    etag, modified = got.headers["ETag"], got.headers["Last-Modified"]
    earlier = formatdate(parsedate_to_datetime(modified).timestamp() - 10, usegmt=True)
    for headers, status in (
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f'"x", W/{etag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-Modified-Since": modified}, 304),
        ({"If-Modified-Since": earlier}, 200),
        ({"If-Modified-Since": "nonsense"}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": modified}, 200),
        ({"If-Match": etag}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": f"W/{etag}"}, 412),
        ({"If-Match": '"x"'}, 412),
        ({"If-Unmodified-Since": modified}, 200),
        ({"If-Unmodified-Since": earlier}, 412),
        ({"If-Match": etag, "If-Unmodified-Since": earlier}, 200),
        ({"If-Match": etag, "If-None-Match": etag}, 304),
        ({"If-Range": etag, "Range": "bytes=0-1"}, 206),
        ({"If-Range": '"x"', "Range": "bytes=0-1"}, 200),
        ({"If-Range": f"W/{etag}", "Range": "bytes=0-1"}, 200),
        ({"If-Range": earlier, "Range": "bytes=0-1"}, 200),
        ({"If-None-Match": etag, "Range": "bytes=0-1"}, 304),
        ({"If-Match": '"x"', "Range": "bytes=0-1"}, 412),
    ):
        for method in ("GET", "HEAD"):
            answer = place.client.request(method, place.url, headers=headers)
            expected = 200 if method == "HEAD" and status == 206 else status
            assert answer.status_code == expected, (method, headers)
            if status == 304:
                assert answer.content == b""
                assert answer.headers["ETag"] == etag
                assert "Cache-Control" in answer.headers


def test_who_may_keep_a_copy(places: dict[str, Place]) -> None:
    for name, place in places.items():
        control = place.client.get(place.url).headers["Cache-Control"]
        if name.startswith("media"):
            assert control == "private, no-cache"
        elif name == "public i":
            assert "v=" in place.url
            assert control == "public, max-age=31536000, immutable"
            for other in ("", "?v=99", "?v="):
                stale = place.client.get(place.url.partition("?")[0] + other)
                assert stale.headers["Cache-Control"] == "public, no-cache"
        else:
            assert control == "public, no-cache"


def test_download_forces_an_attachment(api: httpx.Client) -> None:
    api.put("/b/public/show.png", content=PNG)
    assert api.get("/b/public/show.png").headers["Content-Disposition"].startswith("inline")
    for query in ("?download", "?download=1", "?x=1&download"):
        assert api.get("/b/public/show.png" + query).headers["Content-Disposition"].startswith("attachment")


HOSTILE = {
    "html": b"<!DOCTYPE html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "xml": b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><script>1</script></html>',
    "pdf": b"%PDF-1.4\n1 0 obj << /JS (app.alert(1)) >>",
    "gif with html": b"GIF89a/*<html><script>*/=1;</script>",
    "js": b"alert(1)",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("declared", ["text/html", "image/png", "image/svg+xml", "text/javascript"])
def test_nothing_uploaded_runs(api: httpx.Client, content: bytes, declared: str) -> None:
    api.put("/b/public/hostile", content=content, headers={"Content-Type": declared})
    got = api.get("/b/public/hostile")
    assert got.headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert "sandbox" in got.headers["Content-Security-Policy"]
    if got.headers["Content-Type"].partition(";")[0] not in ("image/png", "image/gif"):
        assert got.headers["Content-Disposition"].startswith("attachment")


def test_an_empty_asset(api: httpx.Client) -> None:
    api.put("/b/public/empty", content=b"")
    assert api.get("/b/public/empty").content == b""
    assert api.get("/b/public/empty", headers={"Range": "bytes=0-"}).status_code == 416
    assert api.head("/b/public/empty").headers["Content-Length"] == "0"


def test_a_replaced_asset_is_newer(api: httpx.Client) -> None:
    url = f"/b/public/{secrets.token_hex(4)}"
    first = api.put(url, content=b"1").json()
    old = api.get(url).headers
    api.put(url, content=b"2")
    time.sleep(2.1)
    new = api.get(url).headers
    assert new["ETag"] != old["ETag"] == first["etag"]
    if "Last-Modified" in old:
        assert parsedate_to_datetime(new["Last-Modified"]) > parsedate_to_datetime(old["Last-Modified"])


# ---- real clients


@pytest.fixture(scope="module")
def large(api: httpx.Client) -> Iterator[bytes]:
    body = os.urandom(20 << 20)
    assert api.put("/b/public/large.bin", content=body).status_code == 201
    return body


def test_curl_resumes(each_server: Server, large: bytes, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(large[:7_000_001])
    done = subprocess.run(
        ["curl", "-sSf", "-C", "-", "-o", str(tmp_path / "part"), f"{each_server.url}/b/public/large.bin"],
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "part").read_bytes() == large


@pytest.mark.skipif(shutil.which("wget") is None, reason="wget is not installed")
def test_wget_resumes(each_server: Server, large: bytes, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(large[:5_000_003])
    done = subprocess.run(
        ["wget", "-q", "-c", f"{each_server.url}/b/public/large.bin"],
        cwd=tmp_path,
        timeout=60,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "large.bin").read_bytes() == large


def test_a_client_that_leaves_stops_nothing_else(
    each_server: Server, api: httpx.Client, large: bytes
) -> None:
    for _ in range(20):
        with wire.connect(each_server.url) as connection:
            connection.sendall(wire.head("GET", "/b/public/large.bin", {}))
            assert connection.recv(1000)
    assert api.get("/b/public/large.bin").content == large


def test_a_download_under_way_survives_delete(each_server: Server, api: httpx.Client) -> None:
    body = os.urandom(20 << 20)
    api.put("/b/public/doomed.bin", content=body)
    with wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("GET", "/b/public/doomed.bin", {}))
        received = connection.recv(1000)
        assert api.delete("/b/public/doomed.bin").status_code == 204
        assert api.get("/b/public/doomed.bin").status_code == 404
        head, _, content = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        while len(content) < len(body) and (piece := connection.recv(1 << 20)):
            content += piece
    assert body.startswith(content)  # whole, or visibly broken off
