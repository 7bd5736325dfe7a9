"""What nginx keeps of a store far away, and what it asks the store for."""

import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.ceph import Ceph
from tests.modes import MIB, Mode, mode
from tests.protocols import wire
from tests.store.fault_proxy import FaultProxy
from tests.waiting import until

BODY = os.urandom(24 * MIB + 17)


@dataclass
class Watched:
    """A service behind nginx; `asked` holds the ranges that nginx asked the store for, "" for a whole."""

    mode: Mode
    store: FaultProxy
    client: httpx.Client
    asked: list[str]
    away: threading.Event

    def new_asset(self, name: str) -> str:
        url = f"/b/public/{name}"
        assert self.client.put(url, content=BODY).status_code == 201
        self.asked.clear()
        return url


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, ceph: Ceph) -> Iterator[Watched]:
    asked: list[str] = []
    away = threading.Event()

    def see(data: bytes) -> bool:
        if re.match(rb"GET \S+X-Amz-Signature=", data):
            found = re.search(rb"(?im)^range: (\S+)", data)
            asked.append(found[1].decode() if found else "")
        return away.is_set()

    with (
        FaultProxy(int(ceph.endpoint.rpartition(":")[2]), see) as store,
        mode(
            "nginx-cache-warm", tmp_path_factory.mktemp("watched"), lambda: ceph, endpoint=store.endpoint
        ) as started,
        started.server.client() as client,
    ):
        yield Watched(started, store, client, asked, away)


def test_what_was_sent_as_a_whole_is_there_while_the_store_is_away(watched: Watched) -> None:
    url = watched.new_asset("kept")
    etag = watched.client.get(url).headers["ETag"]
    assert watched.asked == [""]
    watched.away.set()
    try:
        for field, part in {
            "bytes=0-": slice(0, None),
            "bytes=7-9000000": slice(7, 9_000_001),
            "bytes=20000000-": slice(20_000_000, None),
            "bytes=-5": slice(-5, None),
        }.items():
            for more in ({}, {"If-Range": etag}):
                got = watched.client.get(url, headers={"Range": field} | more)
                assert (got.status_code, got.content) == (206, BODY[part])
                assert got.headers["ETag"] == etag
        assert watched.client.get(url).content == BODY
    finally:
        watched.away.clear()
    assert watched.asked == [""]


def test_a_part_is_asked_for_as_a_part_and_not_kept(watched: Watched) -> None:
    url = watched.new_asset("part")
    for _ in range(2):
        got = watched.client.get(url, headers={"Range": "bytes=5000000-5000009"})
        assert (got.status_code, got.content) == (206, BODY[5_000_000:5_000_010])
    assert watched.asked == ["bytes=5000000-5000009"] * 2


def test_parts_of_something_new_do_not_wait_for_each_other(watched: Watched) -> None:
    url = watched.new_asset("parts")
    starts = range(0, 16 * MIB, MIB)

    def part(start: int) -> bytes:
        return httpx.get(
            watched.mode.server.url + url, headers={"Range": f"bytes={start}-{start + MIB - 1}"}
        ).content

    with ThreadPoolExecutor(16) as readers:
        assert b"".join(readers.map(part, starts)) == BODY[: 16 * MIB]
    assert sorted(watched.asked) == sorted(f"bytes={start}-{start + MIB - 1}" for start in starts)


def test_many_readers_of_something_new_are_one_request_to_the_store(watched: Watched) -> None:
    url = watched.new_asset("sought")
    with ThreadPoolExecutor(12) as readers:
        got = list(readers.map(lambda _: httpx.get(watched.mode.server.url + url).content, range(12)))
    assert got == [BODY] * 12
    assert watched.asked == [""]


def test_a_reader_who_goes_away_leaves_the_cache_right(watched: Watched) -> None:
    url = watched.new_asset("left")
    with wire.connect(watched.mode.server.url) as connection:
        connection.sendall(wire.head("GET", url, {}))
        assert connection.recv(100_000)
    assert watched.client.get(url).content == BODY
    assert len(watched.asked) in (1, 2)


@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=10-200009"}], ids=["whole", "part"])
@pytest.mark.parametrize("status", [301, 403, 404, 410, 418, 429, 500, 503, 507, 529])
def test_what_a_store_says_instead_is_told_in_our_words_and_kept_by_nobody(
    watched: Watched, status: int, asked: dict[str, str]
) -> None:
    url, body = f"/b/public/says-{status}-{len(asked)}", BODY[:300_000]
    assert watched.client.put(url, content=body).status_code == 201
    watched.store.instead = (
        f'HTTP/1.1 {status} No\r\nCache-Control: max-age=600\r\nX-Accel-Expires: 600\r\nETag: "no"\r\n'
        "Location: /elsewhere\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
    ).encode()
    watched.away.set()
    try:
        told = watched.client.get(url, headers=asked)
    finally:
        watched.away.clear()
        watched.store.instead = b""
    expected = (404, "not_found") if status == 404 else (502, "store_unavailable")
    assert (told.status_code, told.json()["code"]) == expected
    assert told.headers["Content-Type"] == "application/problem+json"
    assert told.headers["Cache-Control"] == "no-store"
    assert told.headers["X-Content-Type-Options"] == "nosniff"
    assert not {"ETag", "Content-Disposition", "Location", "Last-Modified"} & set(told.headers)
    got = watched.client.get(url)
    assert (got.status_code, got.content) == (200, body)
    assert got.headers["Content-Disposition"].startswith("attachment")


def missing(watched: Watched) -> float:
    found = re.search(
        r"^mediasvc_blobs_missing_total (\S+)$", watched.client.get("/metrics").text, re.MULTILINE
    )
    assert found
    return float(found[1])


@pytest.mark.parametrize("downloads", [1, 2])
def test_a_link_to_lost_bytes_says_so_with_its_last_download_too(watched: Watched, downloads: int) -> None:
    others, counted = watched.mode.blobs(), missing(watched)
    asset = watched.client.put(f"/b/media/lost-{downloads}", content=BODY[:4000]).json()
    wanted = {"expires_in": 3600, "max_downloads": downloads}
    url = watched.client.post(f"/v1/assets/{asset['id']}/links", json=wanted).json()["url"]
    assert len(watched.mode.break_blobs(keep=others)) == 1
    for number in range(1, downloads + 1):
        got = watched.client.get(url)
        assert (got.status_code, got.json()["code"]) == (404, "not_found")
        assert missing(watched) == counted + number
    # What came to nothing is given back, once nginx has told of it.
    until(lambda: watched.client.get(url).status_code == 404)


def test_a_link_is_not_used_up_by_a_store_that_fails(watched: Watched) -> None:
    asset = watched.client.put("/b/media/refused-link", content=BODY[:4000]).json()
    wanted = {"expires_in": 3600, "max_downloads": 1}
    url = watched.client.post(f"/v1/assets/{asset['id']}/links", json=wanted).json()["url"]
    watched.away.set()
    try:
        assert watched.client.get(url).status_code == 502
    finally:
        watched.away.clear()
    got = []
    until(lambda: got.append(watched.client.get(url)) or got[-1].status_code == 200)
    assert got[-1].content == BODY[:4000]
    time.sleep(3)
    assert watched.client.get(url).status_code == 403
