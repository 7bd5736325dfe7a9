"""What is asked in bad faith, and stores that fail, in every mode: refused or told, never leaked, never cached."""

import re
import time

import httpx
import pytest

from tests.modes import Mode
from tests.protocols import wire
from tests.protocols.delivery.conftest import PHOTO, finished, link
from tests.watch import check_headers

BODY = bytes(range(256)) * 4096

FORGED = {
    "X-Accel-Redirect": "/_blobs/00/00/00000000000000000000000000000000",
    "X-Accel-Limit-Rate": "1",
    "X-Accel-Buffering": "no",
    "X-Accel-Expires": "31536000",
    "X-S3-Uri": "/evil?X-Amz-Signature=0",
    "X-S3-Host": "evil.example",
    "X-S3-Range": "bytes=0-0",
    "X-S3-Cache-Id": "0",
    "X-ETag": '"evil"',
    "X-Cache-Control": "public, max-age=31536000",
    "X-CSP": "default-src *",
    "X-CORP": "same-origin",
    "X-Repr-Digest": "sha-256=:evil:",
    "X-Download-Id": "ast_evil.0",
    "X-Limit-Key": "evil",
    "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Port": "1",
    "X-Real-IP": "127.0.0.1",
    "X-Original-URI": "/b/public/plain",
    "X-Original-Method": "GET",
    "X-Rewrite-URL": "/b/public/plain",
    "X-HTTP-Method-Override": "DELETE",
    "Forwarded": "for=127.0.0.1;host=evil.example;proto=https",
}
VARYING = {"date", "x-request-id"}


@pytest.fixture(scope="module")
def plain(each_mode: Mode, api: httpx.Client) -> str:
    """The path of a public asset."""
    assert api.put("/b/public/plain", content=BODY).status_code == 201
    assert api.put("/b/media/secret", content=BODY).status_code == 201
    time.sleep(1.1)  # Last-Modified is sent once it lies behind
    return "/b/public/plain"


@pytest.mark.parametrize("name", [*FORGED, "all of them"])
def test_a_forged_header_changes_nothing(plain: str, nobody: httpx.Client, name: str) -> None:
    forged = FORGED if name == "all of them" else {name: FORGED[name]}
    told = []
    for headers in ({}, forged):
        got = nobody.get(plain, headers=headers)
        assert (got.status_code, got.content) == (200, BODY)
        told.append({name: value for name, value in got.headers.items() if name not in VARYING})
        refused = nobody.get("/b/media/secret", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorised")
    assert told[0] == told[1]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:1", "localhost", "127.0.0.1"])
def test_a_strange_host_changes_nothing_about_the_bytes(each_mode: Mode, plain: str, host: str) -> None:
    got = wire.exchange(each_mode.server.url, wire.head("GET", plain, {}, host=host))
    check_headers(got.headers, got.status)
    assert (got.status, got.content) == (200, BODY)
    assert not any("evil" in value for value in got.headers.values())


ESCAPES = [
    "/_blobs/", "/_blobs/{folder}/{blob}", "//_blobs/{folder}/{blob}", "/./_blobs/{folder}/{blob}",
    "/%5Fblobs/{folder}/{blob}", "/_blobs%2F{folder}%2F{blob}", "/x/../_blobs/{folder}/{blob}",
    "/x/%2e%2e/_blobs/{folder}/{blob}", "/b/public/../../_blobs/{folder}/{blob}",
    "/b/public/%2e%2e/%2e%2e/_blobs/{folder}/{blob}", "/b/public/..%2f..%2fadmin.key",
    "/b/public/..%252f..%252fadmin.key", "/b/public/%c0%ae%c0%ae/admin.key", "/b/public/..\\..\\admin.key",
    "/b/public/..;/..;/admin.key", "/b/public/plain%00.png", "/b/..%2fmedia/secret", "/b/public/../media/secret",
    "/b/public/..%2fmedia/secret", "/b/public%2f..%2fmedia/secret", "/f/../b/media/secret",
    "/f/ast_x/../../b/media/secret", "/i/thumb/..%2f..%2f{blob}.webp", "/f/{blob}/x", "/b/blobs/{blob}",
    "/_blobs/../admin.key", "/_blobs/..%2fadmin.key", "/_blobs/%2e%2e/admin.key", "/../../../../etc/passwd",
    "/@s3", "/@s3cache", "/%40s3", "/.refused", "/@gone", "/_preflight", "/z/../../etc/passwd", "/catalogue.db",
    "/b/public/" + "a/" * 2000, "/f/" + "%2e%2e%2f" * 100 + "etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("path", ESCAPES, ids=[path[:40] for path in ESCAPES])
def test_no_path_leads_out(each_mode: Mode, plain: str, path: str) -> None:
    blob = min(each_mode.blobs())
    told = [each_mode.server.admin_key.encode(), b"root:", b"SQLite", b"<html", BODY[:64]]
    path = path.format(blob=blob, folder=f"{blob[:2]}/{blob[2:4]}")
    for headers in ({}, FORGED):
        got = wire.exchange(each_mode.server.url, wire.head("GET", path, headers))
        check_headers(got.headers, got.status)
        assert 400 <= got.status < 500
        assert got.headers["Content-Type"] == "application/problem+json"
        assert "no-store" in got.headers.get("Cache-Control", "no-store")
        assert not any(secret in got.content for secret in told)


@pytest.mark.parametrize("count", [17, 1000, 3000])
def test_a_thousand_ranges_cost_no_more_than_the_whole(plain: str, nobody: httpx.Client, count: int) -> None:
    for field in (
        ",".join(f"{n}-{n}" for n in range(0, 2 * count, 2)),
        ",".join(["0-"] * count),
        ",".join(["-1"] * count),
        "," * (4 * count),
    ):
        got = nobody.get(plain, headers={"Range": "bytes=" + field})
        assert got.status_code in (200, 416)
        assert len(got.content) <= len(BODY)


def test_what_is_not_there_is_a_problem_that_no_cache_keeps(api: httpx.Client, nobody: httpx.Client) -> None:
    unknown = "ast_" + "0" * 36
    for path in (
        "/b/public/nothing",
        f"/f/{unknown}/x",
        f"/i/thumb/{unknown}.webp",
        "/b/nowhere/x",
        "/f/x/y",
    ):
        for got in (api.get(path), api.get(path, headers={"Range": "bytes=0-1", "If-None-Match": "*"})):
            assert (got.status_code, got.json()["code"]) == (404, "not_found")
            assert got.headers["Cache-Control"] == "no-store"
        assert api.head(path).status_code == 404
        assert nobody.get(path).status_code in (401, 404)


def metric(api: httpx.Client, name: str) -> float:
    found = re.search(rf"(?m)^{name} (\S+)$", api.get("/metrics").text)
    return float(found[1]) if found else 0


def test_a_lost_blob_is_a_404_that_no_cache_keeps_and_that_shows(
    each_mode: Mode, api: httpx.Client, nobody: httpx.Client
) -> None:
    kept = each_mode.blobs()
    lost = api.put("/b/public/lost.bin", content=bytes(each_mode.size)).json()
    picture = finished(api, api.put("/b/public/lost.jpg", content=PHOTO).json()["id"])
    urls = [
        "/b/public/lost.bin",
        lost["url"],
        picture["renditions"]["thumb"]["url"],
        link(api, lost["id"]),
    ]
    missing = metric(api, "mediasvc_blobs_missing_total")
    assert len(each_mode.break_blobs(kept)) >= 3
    try:
        for url in urls:
            for asked in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=0-1,4-5"}, {"If-Match": "*"}):
                got = nobody.get(url, headers=asked)
                assert (got.status_code, got.json()["code"]) == (404, "not_found"), (url, asked)
                assert got.headers["Content-Type"] == "application/problem+json"
                assert not re.search(r"max-age=(?!0\b)|immutable", got.headers.get("Cache-Control", ""))
                assert not {"ETag", "Last-Modified", "Repr-Digest"} & set(got.headers)
        deadline = time.monotonic() + 10
        while metric(api, "mediasvc_blobs_missing_total") < missing + 4 * len(urls):
            assert time.monotonic() < deadline, "the loss does not show in /metrics"
            time.sleep(0.1)
        assert each_mode.server.run("fsck", "--json").returncode == 1
        # What takes its place is served at once.
        again = api.put("/b/public/lost.bin", content=BODY)
        assert again.status_code == 200
        assert [nobody.get(url).content == BODY for url in (*urls[:2], urls[3])] == [True] * 3
    finally:
        for asset in (lost, picture):
            api.delete(f"/v1/assets/{asset['id']}")
