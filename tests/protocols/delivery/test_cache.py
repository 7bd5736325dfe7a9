"""What nginx keeps of a store far away, and what it asks the store for."""

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.ceph import Ceph
from tests.modes import MIB, Mode, mode
from tests.protocols import wire
from tests.store.fault_proxy import FaultProxy

BODY = os.urandom(24 * MIB + 17)


@dataclass
class Watched:
    """A service behind nginx; `asked` holds the ranges that nginx asked the store for, "" for a whole."""

    mode: Mode
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
        yield Watched(started, client, asked, away)


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
