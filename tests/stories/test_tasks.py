"""Work in the background outlives decoders that are killed and servers that die in the middle of it."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Server
from tests.stories.history import picture

ATTEMPTS = 5


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, to be killed; at the end nothing lies about."""
    server = Server(tmp_path / "data").start()
    yield server
    assert server.stop() == 0
    checked = server.run("fsck", "--deep", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def decoders(of: int) -> list[int]:
    """The decoder processes of a server."""
    children = Path(f"/proc/{of}/task").glob("*/children")
    found = [int(pid) for path in children for pid in path.read_text().split()]
    return [pid for pid in found if b"decoder_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    """A zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def caught(server: Server) -> int:
    """A decoder of the server, stopped in what it was doing."""
    deadline = time.monotonic() + 30
    while not (found := decoders(server.pid)):
        assert time.monotonic() < deadline, server.logged()[-2000:]
        time.sleep(0.002)
    os.kill(found[0], signal.SIGSTOP)
    return found[0]


def dies(decoder: int) -> bool:
    """Whether it ends by itself: one that was caught as it started has yet to notice that it is alone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(decoder, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while alive(decoder) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(decoder)


def seen(client: httpx.Client, asset_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"/v1/assets/{asset_id}").json()
    return answer


def until(client: httpx.Client, asset_id: str, *states: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (asset := seen(client, asset_id))["state"] not in states or asset["tasks"]["pending"]:
        assert time.monotonic() < deadline, asset
        time.sleep(0.02)
    return asset


def timeline(client: httpx.Client, asset_id: str) -> dict[str, Any]:
    (task,) = client.get(f"/v1/assets/{asset_id}/tasks").json()["tasks"]
    return dict(task)


def test_a_task_that_takes_its_server_down_is_run_again_and_buried_after_the_fifth_time(
    mortal: Server,
) -> None:
    with mortal.client() as client:
        asset_id = client.put("/b/media/picture", content=picture()).json()["id"]
    for _ in range(ATTEMPTS):
        decoder = caught(mortal)
        mortal.kill()
        assert dies(decoder)
        mortal.start()
    with mortal.client() as client:
        asset = until(client, asset_id, "damaged")
        assert asset["tasks"] == {"pending": 0, "failed": 1}
        task = timeline(client, asset_id)
        assert (task["state"], task["attempts"]) == ("failed", ATTEMPTS)
        assert "died" in task["detail"]
        assert client.get("/b/media/picture").content == picture()
        other = client.put("/b/media/another", content=picture()).json()["id"]
        until(client, other, "ready")
        (busy,) = decoders(mortal.pid)
        mortal.kill()
        assert dies(busy)
        mortal.start()
        assert list((mortal.data_dir / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("how", "state", "attempts"), [(signal.SIGKILL, "ready", 2), (signal.SIGSEGV, "damaged", 1)]
)
def test_a_decoder_that_dies_harms_its_own_task_at_most(
    server: Server, how: signal.Signals, state: str, attempts: int
) -> None:
    """Killed from outside: tried again. Crashed on its picture: one lenient try, and it counts as damaged."""
    with server.client() as client:
        first = client.put(f"/b/media/warm-{how.name}", content=picture()).json()["id"]
        until(client, first, "ready")
        decoder = caught(server)
        asset_id = client.put(f"/b/media/{how.name}", content=picture()).json()["id"]
        while timeline(client, asset_id)["state"] != "running":
            time.sleep(0.01)
        time.sleep(0.1)  # for the request to reach the decoder
        os.kill(decoder, how)
        if how is not signal.SIGKILL:  # which needs no waking, and may have been buried already
            os.kill(decoder, signal.SIGCONT)
        asset = until(client, asset_id, state)
        assert set(asset["renditions"]) == {"thumb", "grid", "preview"}
        assert timeline(client, asset_id)["attempts"] == attempts
        assert client.get("/readyz").status_code == 200


def test_stopping_the_server_puts_the_task_back(mortal: Server) -> None:
    with mortal.client() as client:
        asset_id = client.put("/b/media/picture", content=picture()).json()["id"]
        decoder = caught(mortal)
        assert mortal.stop() == 0
    assert not alive(decoder)
    clean = mortal.run("fsck", "--json")
    assert clean.returncode == 0, clean.stdout
    with mortal.start().client() as client:
        until(client, asset_id, "ready")
        assert timeline(client, asset_id)["attempts"] == 1


def test_a_rendition_lost_on_disk_is_repaired_beside_the_server(server: Server) -> None:
    with server.client() as client:
        asset = client.put("/b/media/repaired", content=picture()).json()
        made = until(client, asset["id"], "ready")["renditions"]["thumb"]["url"]
        before = client.get(made).content
        lost = [
            path
            for path in (server.data_dir / "blobs").glob("??/??/*")
            if path.stat().st_size == len(before) and path.read_bytes() == before
        ]
        for path in lost:  # those of the other tests, too
            path.unlink()
        assert server.run("fsck").returncode == 1
        repaired = server.run("fsck", "--repair")
        assert repaired.returncode == 1
        assert "queued again" in repaired.stdout
        until(client, asset["id"], "ready")
        again = seen(client, asset["id"])["renditions"]["thumb"]["url"]
        assert client.get(again).content == before
        assert server.run("fsck", "--deep").returncode == 0
