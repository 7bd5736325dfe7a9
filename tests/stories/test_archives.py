"""Archives whose bytes go missing: a clear answer beforehand, a visible break afterwards, never a whole-looking ZIP."""

import os
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.modes import Mode, mode

WAYS = ["direct-disk", "direct-s3", "nginx-disk"]
LARGE = 20 << 20  # more than any buffer between the two ends holds


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mode]:
    folder = tmp_path_factory.mktemp(request.param)
    with mode(request.param, folder, lambda: request.getfixturevalue("ceph")) as started:
        yield started


def archive_of(client: httpx.Client, folder: str, **contents: bytes) -> tuple[str, int]:
    for key, content in contents.items():
        client.put(f"/b/media/{folder}/{key}", content=content).raise_for_status()
    made = client.post("/v1/archives", json={"prefix": f"{folder}/", "expires_in": "1h"}).raise_for_status()
    return made.json()["url"], made.json()["size"]


def lost(client: httpx.Client) -> float:
    found = client.get("/metrics").text
    return sum(
        float(line.split()[1])
        for line in found.splitlines()
        if line.startswith("mediasvc_blobs_missing_total")
    )


def test_a_first_blob_that_is_lost_is_told_before_the_first_byte(way: Mode) -> None:
    with way.server.client() as client:
        before = way.blobs()
        url, _ = archive_of(client, "first", a=b"x" * 100_000, b=b"y")
        way.break_blobs(before)
        counted = lost(client)
        answer = httpx.get(url)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.headers["Cache-Control"] == "no-store"
        assert lost(client) == counted + 1


def broken_off(url: str, size: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Download what announces `size` bytes, and see it break before the last; `meanwhile` is done after the first."""
    got = 0
    try:
        with httpx.stream("GET", url) as answer:
            assert (answer.status_code, answer.headers["Content-Length"]) == (200, str(size))
            for chunk in answer.iter_bytes(1 << 16):
                if not got:
                    meanwhile()
                got += len(chunk)
    except httpx.RemoteProtocolError:
        assert got < size
        return
    pytest.fail("it looks whole")


@pytest.mark.parametrize("size", [100, LARGE], ids=["small", "large"])
def test_a_blob_lost_further_on_breaks_the_connection(way: Mode, size: int) -> None:
    folder = f"later{size}"
    with way.server.client() as client:
        client.put(f"/b/media/{folder}/a", content=os.urandom(LARGE)).raise_for_status()
        before = way.blobs()
        url, whole = archive_of(client, folder, b=b"z" * size)
        way.break_blobs(before)
        counted = lost(client)
        broken_off(url, whole)
        assert lost(client) == counted + 1


def test_what_is_deleted_while_it_is_sent_breaks_the_connection(way: Mode) -> None:
    with way.server.client() as client:
        client.put("/b/media/deleted/a", content=os.urandom(LARGE)).raise_for_status()
        before = way.blobs()
        last = client.put("/b/media/deleted/b", content=os.urandom(LARGE)).raise_for_status().json()
        url, whole = archive_of(client, "deleted")

        def delete_the_last() -> None:
            client.delete(f"/v1/assets/{last['id']}").raise_for_status()
            deadline = time.monotonic() + 30
            while way.blobs() != before:
                assert time.monotonic() < deadline
                time.sleep(0.05)

        broken_off(url, whole, delete_the_last)
        assert httpx.get(url).status_code == 410
