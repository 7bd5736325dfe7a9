"""What an answer says about its bytes, in every mode: names, types, who may embed and read them."""

import os
import re
import secrets
import time
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

import httpx
import pytest

from tests.modes import Mode
from tests.protocols.delivery.conftest import PHOTO, link

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001"
    "a5f645400000000049454e44ae426082"
)


def test_bytes_leave_the_way_the_mode_is_named_after(each_mode: Mode, api: httpx.Client) -> None:
    body = os.urandom(each_mode.size)
    api.put("/b/media/way", content=body)
    before = handed_over(api, each_mode.plan)
    assert api.get("/b/media/way").content == body
    assert handed_over(api, each_mode.plan) == before + 1


def handed_over(api: httpx.Client, plan: str) -> float:
    counted = re.search(
        rf'mediasvc_downloads_total{{plan="{plan}",status="200"}} (\S+)', api.get("/metrics").text
    )
    return float(counted[1]) if counted else 0


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


@pytest.mark.parametrize(
    "name",
    [
        "日本 語.txt",
        "%41 100%.txt",
        "q'()*!;=,.txt",
        "a+b&c#d?.txt",
        'say "hi".txt',
        "\N{CYCLONE}.txt",
    ],
)
def test_a_name_comes_back_as_it_was_given(api: httpx.Client, nobody: httpx.Client, name: str) -> None:
    body = name.encode() * 1000
    made = api.put(f"/b/media/odd/{quote(name, safe='')}", content=body).json()
    for client, url in (
        (api, f"/b/media/odd/{quote(name, safe='')}"),
        (api, made["url"]),
        (nobody, link(api, made["id"])),
    ):
        got = client.get(url, headers={"Range": "bytes=0-"})
        assert (got.status_code, got.content) == (206, body)
        told = re.fullmatch(
            r"attachment; filename=\"([ -!#-~]+)\"; filename\*=UTF-8''(\S+)",
            got.headers["Content-Disposition"],
        )
        assert told
        assert unquote(told[2]) == name


def test_an_empty_asset(api: httpx.Client) -> None:
    api.put("/b/public/empty", content=b"")
    got = api.get("/b/public/empty")
    assert (got.status_code, got.content, got.headers["Content-Length"]) == (200, b"", "0")
    assert api.get("/b/public/empty", headers={"Range": "bytes=0-"}).status_code == 416
    assert api.head("/b/public/empty").headers["Content-Length"] == "0"


@pytest.mark.parametrize("size", [1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 64 << 20, (64 << 20) + 1])
def test_sizes_where_the_way_changes(each_mode: Mode, api: httpx.Client, size: int) -> None:
    body = os.urandom(1 << 10) * (size >> 10) + b"x" * (size % 1024)
    url = f"/b/public/size-{size}"
    assert api.put(url, content=body).status_code == 201
    for _ in range(2):  # the second time, caches know it
        each_mode.chill()
        assert api.get(url).content == body
    last = api.get(url, headers={"Range": "bytes=-1"})
    assert (last.status_code, last.content) == (206, body[-1:])
    assert last.headers["Content-Range"] == f"bytes {size - 1}-{size - 1}/{size}"
    assert api.get(url, headers={"Range": f"bytes={size}-"}).status_code == 416
    assert api.delete(url).status_code == 204


def test_a_replaced_asset_is_newer_and_never_the_old_one(api: httpx.Client, nobody: httpx.Client) -> None:
    url = f"/b/public/{secrets.token_hex(4)}"
    first = api.put(url, content=b"1" * 100_000).json()
    old = nobody.get(url).headers
    second = api.put(url, content=b"2" * 100_000).json()
    for path in (url, first["url"]):
        got = nobody.get(path, headers={"If-Range": old["ETag"], "Range": "bytes=0-1"})
        assert (got.status_code, got.content) == (200, b"2" * 100_000)
    assert old["ETag"] == first["etag"] != second["etag"] == got.headers["ETag"]
    time.sleep(2.1)
    new = nobody.get(url).headers
    if "Last-Modified" in old:
        assert parsedate_to_datetime(new["Last-Modified"]) > parsedate_to_datetime(old["Last-Modified"])


def test_assets_are_never_recompressed(each_mode: Mode, api: httpx.Client) -> None:
    text = b"compressible\n" * 100_000
    api.put("/b/public/words.txt", content=text)
    for coding in ("gzip", "gzip, deflate, br, zstd", "identity;q=0, gzip"):
        with api.stream("GET", "/b/public/words.txt", headers={"Accept-Encoding": coding}) as got:
            assert b"".join(got.iter_raw()) == text
            assert "Content-Encoding" not in got.headers
            assert got.headers["ETag"].startswith('"')
            assert "accept-encoding" not in got.headers.get("Vary", "").lower()


EXPOSED = "Accept-Ranges Content-Disposition Content-Length Content-Range ETag Repr-Digest X-Request-Id"


@pytest.mark.parametrize(
    ("asked", "status"),
    [({}, 200), ({"Range": "bytes=0-1"}, 206), ({"If-None-Match": "*"}, 304), ({"If-Match": '"x"'}, 412)],
    ids=["whole", "part", "not modified", "failed"],
)
def test_a_script_elsewhere_may_read_what_it_may_ask_for(
    api: httpx.Client, nobody: httpx.Client, asked: dict[str, str], status: int
) -> None:
    api.put("/b/public/read.jpg", content=PHOTO)
    got = nobody.get("/b/public/read.jpg", headers=asked | {"Origin": "https://app.example"})
    assert got.status_code == status
    assert got.headers["Access-Control-Allow-Origin"] == "*"
    exposed = {name.strip() for name in got.headers["Access-Control-Expose-Headers"].split(",")}
    assert set(EXPOSED.split()) <= exposed
    assert "Access-Control-Allow-Credentials" not in got.headers


def test_the_options_of_a_byte_route_need_no_key(nobody: httpx.Client) -> None:
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "range, authorization",
    }
    got = nobody.options("/b/media/anything", headers=asked)
    assert got.status_code == 204
    assert got.headers["Access-Control-Allow-Origin"] == "*"
