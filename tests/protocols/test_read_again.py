"""After a restart nobody knows the digests of what came before: it is read again, and nobody waits in the dark."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.protocols.uploading import OCTETS, TUS, create, digest, metadata, offset_of, patch, zeros
from tests.servers import Server

LARGE = 2 << 30  # bytes, none of which takes room on the disk: reading them takes seconds
NAMED = {"Upload_Metadata": metadata(bucket="media", key="large.bin")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data").start()
    yield server
    server.kill()


def restarted(server: Server, size: int) -> None:
    """All bytes but the last row's are there, as after a crash at the end of one endless PATCH."""
    server.kill()
    (incoming,) = (server.data_dir / "blobs" / "incoming").iterdir()
    os.truncate(incoming, size)
    server.start()


def begun(server: Server, size: int) -> str:
    with server.client() as client:
        url = create(client, size, **NAMED)
        assert patch(client, url, 0, b"\0" * 1000).status_code == 204
        return url


def last_patch(server: Server, url: str, size: int, **headers: str) -> httpx.Response:
    with server.client() as client:
        return patch(client, url, size, b"", **headers)


def state(client: httpx.Client, url: str) -> str:
    return str(client.get(url).json()["state"])


def until_completing(client: httpx.Client, url: str) -> None:
    deadline = time.monotonic() + 30
    while (seen := state(client, url)) == "open":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert seen == "completing"


def until_complete(client: httpx.Client, url: str) -> None:
    deadline = time.monotonic() + 60
    while state(client, url) != "complete":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ask_and_go(client: httpx.Client, url: str, size: int) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.patch(url, headers=TUS | OCTETS | {"Upload-Offset": str(size)}, timeout=0.3)
    until_completing(client, url)


def test_the_last_patch_answers_when_it_is_an_asset_and_others_at_once(server: Server) -> None:
    url = begun(server, LARGE)
    restarted(server, LARGE)
    with server.client() as client, ThreadPoolExecutor(2) as pool:
        ending = pool.submit(last_patch, server, url, LARGE)
        until_completing(client, url)
        again = pool.submit(last_patch, server, url, LARGE)
        told = []
        while not ending.done():
            told.append(client.head(url, headers=TUS))
            time.sleep(0.05)
        assert told[0].status_code == 423
        assert "Upload-Offset" not in told[0].headers
        assert int(told[0].headers["Retry-After"]) > 0
        assert {answer.status_code for answer in told} <= {200, 423}
        assert ending.result().status_code == 204
        assert again.result().status_code == 204
        assert offset_of(client, url) == LARGE
        asset = client.get("/v1/assets?bucket=media").json()["assets"][0]
        assert (asset["size"], asset["sha256"]) == (LARGE, zeros(LARGE))
    assert server.run("fsck").returncode == 0


def test_it_can_be_removed_meanwhile(server: Server) -> None:
    url = begun(server, LARGE)
    restarted(server, LARGE)
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        ending = pool.submit(last_patch, server, url, LARGE)
        until_completing(client, url)
        assert client.delete(url, headers=TUS).status_code == 204
        assert ending.result().status_code in (404, 409, 410)  # it did not come to its end
        assert client.get("/b/media/large.bin").status_code == 404
        assert client.head(url, headers=TUS).status_code in (404, 410)
    assert server.run("sweep").returncode == 0
    assert server.run("fsck").returncode == 0


@pytest.mark.parametrize("crash", [False, True], ids=["who asked has gone", "the server died"])
def test_it_goes_on_though_nobody_waits(server: Server, crash: bool) -> None:
    url = begun(server, LARGE)
    restarted(server, LARGE)
    with server.client() as client:
        ask_and_go(client, url, LARGE)
        if crash:
            server.kill()
            assert server.run("sweep").returncode == 0
            assert server.run("fsck").returncode == 0
            server.start()
        until_complete(client, url)
        assert int(client.head("/b/media/large.bin").headers["Content-Length"]) == LARGE


def test_a_head_that_finds_all_bytes_there_does_not_wait(server: Server) -> None:
    url = begun(server, LARGE)
    restarted(server, LARGE)
    with server.client() as client:
        for _ in range(2):
            assert client.head(url, headers=TUS).status_code == 423
        assert client.delete(url, headers=TUS).status_code == 204


def test_a_stop_meanwhile_does_not_wait_and_the_next_start_goes_on(server: Server) -> None:
    url = begun(server, LARGE)
    restarted(server, LARGE)
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        ending = pool.submit(last_patch, server, url, LARGE)
        until_completing(client, url)
        assert server.stop() == 0
        assert ending.result().status_code == 503  # it was not waited for
    server.start()
    with server.client() as client:
        until_complete(client, url)
    assert "Traceback" not in server.logged()


def test_another_digest_than_announced_ends_it(server: Server) -> None:
    size = 100 << 20
    url = begun(server, size)
    restarted(server, size)
    refused = last_patch(server, url, size, Repr_Digest=digest(b"something else"))
    assert refused.status_code == 422, refused.text
    with server.client() as client:
        assert client.get("/b/media/large.bin").status_code == 404
        assert client.head(url, headers=TUS).status_code == 410
    assert server.run("fsck").returncode == 0


def test_what_came_before_an_append_that_did_not_count_is_not_read_again(server: Server) -> None:
    size = 128 << 20
    with server.client() as client:
        url = create(client, size, **NAMED)
        assert patch(client, url, 0, b"\0" * (size - 1)).status_code == 204
        refused = patch(client, url, size - 1, b"x", Upload_Checksum="sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        assert refused.status_code == 460
        (incoming,) = (server.data_dir / "blobs" / "incoming").iterdir()
        with open(incoming, "r+b") as file:  # would be found out, if it were read again
            file.write(b"other")
        assert patch(client, url, size - 1, b"\0").status_code == 204
        asset = client.get("/v1/assets?bucket=media").json()["assets"][0]
    assert asset["sha256"] == zeros(size)


# --- looking at it disturbs nobody, and tells the truth


def test_after_a_crash_a_look_tells_what_is_there(server: Server) -> None:
    url = begun(server, 20 << 20)
    restarted(server, 5 << 20)
    with server.client() as client:
        looked = client.get(url)
        assert (looked.json()["offset"], looked.json()["state"]) == (5 << 20, "open")
        assert offset_of(client, url) == 5 << 20


def test_after_a_loss_a_look_tells_of_it(server: Server) -> None:
    url = begun(server, 20 << 20)
    restarted(server, 999)
    with server.client() as client:
        assert client.get(url).status_code == 410
        assert client.head(url, headers=TUS).status_code == 410


def test_push_waits_for_it(server: Server, tmp_path: Path) -> None:
    """Whoever runs it again sends nothing twice."""
    file = tmp_path / "large.bin"
    file.touch()
    os.truncate(file, LARGE)
    headers = {"Upload_Metadata": metadata(bucket="media", key=file.name), "X_Checksum_SHA256": zeros(LARGE)}
    with server.client() as client:
        url = create(client, LARGE, **headers)
        assert patch(client, url, 0, b"\0" * 1000).status_code == 204
    restarted(server, LARGE)
    with server.client() as client:
        ask_and_go(client, url, LARGE)
        pushed = server.run(
            "push", str(file), "--to", "media", "--server", server.url, "--key", server.admin_key
        )
        assert pushed.returncode == 0, pushed.stderr
        (upload,) = client.get("/v1/uploads").json()["uploads"]
        assert upload["state"] == "complete"
        assert len(client.get("/v1/assets?bucket=media").json()["assets"]) == 1
