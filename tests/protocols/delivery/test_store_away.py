"""The store fails while bytes are asked for: an error that says so, or an answer that visibly breaks off."""

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.ceph import Ceph
from tests.modes import CACHED, MODES, Mode, mode
from tests.protocols import wire
from tests.store.fault_proxy import FaultProxy


@dataclass
class Shaky:
    """A service whose store is reached through something that fails while `failing`, and an asset of it."""

    mode: Mode
    store: FaultProxy
    failing: list[str]
    client: httpx.Client
    body: bytes

    def new_asset(self, name: str) -> str:
        url = f"/b/public/{name}"
        assert self.client.put(url, content=self.body).status_code == 201
        return url


@pytest.fixture(scope="module", params=[name for name in MODES if "disk" not in name])
def shaky(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ceph: Ceph
) -> Iterator[Shaky]:
    failing: list[str] = []
    port = int(ceph.endpoint.rpartition(":")[2])
    folder = tmp_path_factory.mktemp(f"shaky-{request.param}")
    with (
        FaultProxy(port, lambda _: bool(failing)) as store,
        mode(request.param, folder, lambda: ceph, endpoint=store.endpoint) as started,
        started.server.client() as client,
    ):
        yield Shaky(started, store, failing, client, os.urandom(started.size))


@pytest.mark.parametrize("name", [name for name in MODES if "disk" in name])
@pytest.mark.parametrize("empty", [True, False], ids=["empty", "gone"])
def test_a_disk_that_is_not_mounted_is_away_and_nothing_on_it_lost(
    tmp_path: Path, name: str, empty: bool
) -> None:
    with mode(name, tmp_path, no_ceph) as started, started.server.client() as client:
        for url in ("/b/public/large", "/b/public/small"):
            assert client.put(url, content=b"x" * (1000 if "small" in url else 3 << 20)).status_code == 201
        blobs, away = started.server.data_dir / "blobs", tmp_path / "away"
        blobs.rename(away)
        if empty:
            blobs.mkdir()
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["code"], ready.json()["catalogue"]) == (
            503,
            "unavailable",
            "ok",
        )
        assert ready.json()["detail"] == f"store: {ready.json()['store']}"
        for url in ("/b/public/large", "/b/public/small"):
            for asked in ({}, {"Range": "bytes=0-1"}):
                got = client.get(url, headers=asked)
                assert (got.status_code, got.json()["code"]) == (503, "store_unavailable")
                assert got.headers["Retry-After"]
        if empty:
            blobs.rmdir()
        away.rename(blobs)
        assert client.get("/b/public/small").content == b"x" * 1000
        assert client.get("/readyz").status_code == 200


def no_ceph() -> Ceph:
    raise AssertionError("a disk needs none")


def test_a_store_that_is_away_is_told_and_no_cache_keeps_that(shaky: Shaky) -> None:
    url = shaky.new_asset("away")
    shaky.store.spared = 0
    shaky.failing.append("every request")
    try:
        for asked in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=0-1,4-5"}):
            got = shaky.client.get(url, headers=asked)
            assert (got.status_code, got.json()["code"]) in (
                (502, "store_unavailable"),
                (503, "store_unavailable"),
            )
            assert got.headers["Content-Type"] == "application/problem+json"
            assert got.json()["retryable"] is True
            assert not re.search(r"max-age=(?!0\b)|immutable", got.headers.get("Cache-Control", ""))
            assert not {"ETag", "Last-Modified", "Repr-Digest", "Content-Range"} & set(got.headers)
        assert shaky.client.head(url).status_code == 200  # the catalogue knows all of it
    finally:
        shaky.failing.clear()
    assert shaky.client.get(url).content == shaky.body


@pytest.mark.parametrize("spared", [100, 1_000_000, 1_500_000], ids=["in the head", "within", "later"])
def test_a_store_that_breaks_off_is_never_a_whole_answer(shaky: Shaky, spared: int) -> None:
    url = shaky.new_asset(f"breaks-{spared}")
    shaky.store.spared = spared
    shaky.failing.append("every request")
    try:
        with shaky.client.stream("GET", url) as got:
            received = b""
            try:
                for piece in got.iter_bytes():
                    received += piece
            except httpx.TransportError:
                assert got.status_code == 200
            else:  # told, or asked for again in time
                assert got.status_code in (502, 503) or received == shaky.body
        assert got.status_code != 200 or shaky.body.startswith(received), strange(received, shaky.body)
    except httpx.RemoteProtocolError:
        pass  # it broke before the head was out
    finally:
        shaky.failing.clear()
    assert shaky.client.get(url).content == shaky.body


@pytest.mark.parametrize("how", ["the store goes away", "the blob goes", "the asset is replaced"])
def test_what_fails_within_an_answer_never_becomes_part_of_it(shaky: Shaky, how: str) -> None:
    """A client reads slowly meanwhile: what it gets is right as far as it goes, and not taken for the whole."""
    body = os.urandom(shaky.mode.size + (30 << 20 if shaky.mode.size == CACHED else 0))
    url = f"/b/public/{how.replace(' ', '-')}"
    kept = shaky.mode.blobs()
    assert shaky.client.put(url, content=body).status_code == 201
    shaky.store.spared = 0
    with wire.connect(shaky.mode.server.url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(wire.head("GET", url, {"Connection": "close"}))
        received = connection.recv(1 << 16)
        try:
            if how == "the store goes away":
                shaky.failing.append("every request")
            elif how == "the blob goes":
                assert shaky.mode.break_blobs(kept)
            else:
                assert shaky.client.put(url, content=b"next" * 1_000_000).status_code == 200
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            received += wire.read_to_end(connection)
        finally:
            shaky.failing.clear()
            shaky.client.delete(url)
    head, _, content = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {len(body)}\r\n".encode() in head.lower() + b"\r\n"
    assert body.startswith(content), strange(content, body)


def strange(received: bytes, body: bytes) -> str:
    """Where what came is not the body any more, and where in the body it is from."""
    pairs = enumerate(zip(received, body, strict=False))
    at = next((place for place, (one, other) in pairs if one != other), len(body))
    return f"byte {at} is followed by byte {body.find(received[at : at + 64])}"
