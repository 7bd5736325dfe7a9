"""MEDIASVC_DELIVERY=redirect: everything is decided here, and the store is named for a short time."""

import base64
import hashlib
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.ceph import Ceph
from tests.modes import Mode, mode
from tests.protocols.delivery.conftest import PHOTO, finished, link
from tests.protocols.delivery.test_clients import WAYS, run, stored
from tests.protocols.delivery.test_fields import HOSTILE
from tests.servers import Server

BODY = os.urandom(300_000)


@pytest.fixture(scope="module")
def redirecting(tmp_path_factory: pytest.TempPathFactory, ceph: Ceph) -> Iterator[Mode]:
    with mode("redirect", tmp_path_factory.mktemp("redirect"), lambda: ceph) as started:
        yield started
        started.server.check_leftovers()


@pytest.fixture(scope="module")
def each_server(redirecting: Mode) -> Server:
    return redirecting.server


@pytest.fixture(scope="module")
def urls(api: httpx.Client) -> dict[str, str]:
    asset = api.put("/b/media/data.bin", content=BODY).json()
    api.put("/b/public/data.bin", content=BODY)
    return {"key": "/b/public/data.bin", "id": asset["url"], "link": link(api, asset["id"])}


@pytest.fixture(params=["key", "id", "link"])
def url(request: pytest.FixtureRequest, urls: dict[str, str]) -> str:
    return urls[request.param]


def follow(got: httpx.Response, headers: dict[str, str] = {}) -> httpx.Response:  # noqa: B006
    """What the store says to whoever was sent to it, without the key."""
    return httpx.get(got.headers["Location"], headers=headers)


def test_get_names_the_store_for_a_short_time(redirecting: Mode, api: httpx.Client, url: str) -> None:
    got = api.get(url)
    assert got.status_code == 307
    assert got.headers["Cache-Control"] == "no-store"
    assert redirecting.ceph is not None
    assert got.headers["Location"].startswith(redirecting.ceph.endpoint + "/")
    asked = parse_qs(urlsplit(got.headers["Location"]).query)
    assert 0 < int(asked["X-Amz-Expires"][0]) <= 300
    assert redirecting.ceph.secret_key not in got.headers["Location"]
    there = follow(got)
    assert (there.status_code, there.content) == (200, BODY)
    assert there.headers["Content-Disposition"].startswith("attachment")
    assert there.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("field", "part"),
    [("bytes=0-0", slice(0, 1)), ("bytes=20-", slice(20, None)), ("bytes=-7", slice(-7, None))],
)
def test_a_range_is_the_stores(api: httpx.Client, url: str, field: str, part: slice) -> None:
    got = api.get(url, headers={"Range": field})
    assert got.status_code == 307
    there = follow(got, {"Range": field})
    assert (there.status_code, there.content) == (206, BODY[part])


def test_head_is_answered_here(api: httpx.Client, url: str) -> None:
    for asked in ({}, {"Range": "bytes=0-1"}):
        got = api.head(url, headers=asked)
        assert got.status_code == 200
        assert got.headers["Content-Length"] == str(len(BODY))
        assert got.headers["ETag"] == f'"{hashlib.sha256(BODY).hexdigest()[:32]}"'
        digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
        assert got.headers["Repr-Digest"] == f"sha-256=:{digest}:"
        assert got.headers["Content-Type"] == "application/octet-stream"


def test_preconditions_are_decided_here(api: httpx.Client, url: str) -> None:
    etag = api.head(url).headers["ETag"]
    for asked, status in (
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": '"x"'}, 307),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": etag}, 200),  # the store's tag is another: it would say 412 to whoever sends this on
        ({"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412),
        ({"Range": f"bytes={len(BODY)}-"}, 416),
        ({"If-None-Match": etag, "Range": "bytes=0-1"}, 304),
    ):
        got = api.get(url, headers=asked)
        assert got.status_code == status, asked
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        if status >= 400:
            assert got.headers["Content-Type"] == "application/problem+json"
            assert got.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_nothing_uploaded_runs_at_the_stores_address(api: httpx.Client, content: bytes) -> None:
    api.put("/b/public/hostile", content=content, headers={"Content-Type": "text/html"})
    there = follow(api.get("/b/public/hostile"))
    assert there.content == content
    if there.headers["Content-Type"].partition(";")[0] not in ("image/png", "image/gif"):
        assert there.headers["Content-Disposition"].startswith("attachment")


def test_a_picture_is_shown_inline_with_its_name_and_type(api: httpx.Client) -> None:
    made = api.put("/b/public/%E5%86%99%E7%9C%9F.jpg", content=PHOTO).json()
    there = follow(api.get(made["url"]))
    assert there.content == PHOTO
    assert there.headers["Content-Type"] == "image/jpeg"
    assert re.fullmatch(
        r"inline; filename=.*; filename\*=UTF-8''%E5%86%99%E7%9C%9F.jpg", there.headers["Content-Disposition"]
    )
    forced = follow(api.get(made["url"] + "?download"))
    assert forced.headers["Content-Disposition"].startswith("attachment")
    thumb = finished(api, str(made["id"]))["renditions"]["thumb"]["url"]
    small = follow(api.get(thumb))
    assert (small.status_code, small.headers["Content-Type"]) == (200, "image/webp")


def test_a_store_with_a_public_name_is_named_by_it(
    ceph: Ceph, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`public_endpoint` is what clients reach the store at: here, the same one with TLS."""
    public = ceph.tls_endpoint
    bucket = ceph.new_bucket()
    url = f"{ceph.store_url(bucket)}&public_endpoint={public}"
    folder = tmp_path_factory.mktemp("public")
    with (
        mode("redirect", folder, lambda: ceph, MEDIASVC_STORE_URL=url) as started,
        started.server.client() as client,
    ):
        client.put("/b/media/x", content=BODY).raise_for_status()
        got = client.get("/b/media/x")
        assert got.headers["Location"].startswith(f"{public}/{bucket}/")
        trusted = ssl.create_default_context(cafile=str(ceph.ca_bundle))
        assert httpx.get(got.headers["Location"], verify=trusted).content == BODY


def test_a_store_on_disk_cannot_be_named(tmp_path: Path) -> None:
    refused = Server(tmp_path / "data", MEDIASVC_DELIVERY="redirect").run("serve", "--port", "0")
    assert refused.returncode not in (0, 2, -9)
    assert "MEDIASVC_DELIVERY" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def large(api: httpx.Client) -> tuple[bytes, dict[str, str]]:
    body = os.urandom(20 << 20)
    return body, stored(api, "large.bin", body)


@WAYS
@pytest.mark.parametrize(
    "command",
    [
        ("curl", "-sSfL", "-C", "-", "-o", "part"),
        ("wget", "-q", "-c", "-O", "part"),
        ("aria2c", "--no-conf", "-c", "-x16", "-s16", "-k1M", "--file-allocation=none", "-o", "part"),
    ],
    ids=["curl", "wget", "aria2"],
)
def test_clients_follow_and_resume(
    large: tuple[bytes, dict[str, str]], way: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    body, urls = large
    (tmp_path / "part").write_bytes(body[:5_000_003])
    run(*command, urls[way], cwd=tmp_path)
    assert (tmp_path / "part").read_bytes() == body
