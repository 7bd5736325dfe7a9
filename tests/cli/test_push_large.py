"""A large file that is pushed goes on where it stopped, whoever broke off."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Server, running
from tests.waiting import until

MIB = 1024 * 1024


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data") as server:
        yield server
        server.check_leftovers()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(200 * MIB + 12_345))
    return path


def begun(server: Server, file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mediasvc", "push", str(file), "--to", "media/in", "--json"]
    env = server.env | {"MEDIASVC_SERVER": server.url, "MEDIASVC_KEY": server.admin_key}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def uploads(server: Server) -> list[dict[str, Any]]:
    with server.client() as client:
        found: list[dict[str, Any]] = client.get("/v1/uploads").raise_for_status().json()["uploads"]
    return found


def well_on_its_way(server: Server) -> bool:
    return any(one["offset"] >= 32 * MIB for one in uploads(server))


def is_there(server: Server, file: Path) -> bool:
    with server.client() as client:
        return client.get(f"/b/media/in/{file.name}").content == file.read_bytes()


def test_a_push_that_was_killed_goes_on_in_the_next_run(own_server: Server, file: Path) -> None:
    first = begun(own_server, file)
    until(lambda: well_on_its_way(own_server), seconds=60)
    first.kill()
    first.communicate()
    (upload,) = uploads(own_server)
    assert upload["state"] == "open"
    second = begun(own_server, file)
    said, complained = second.communicate(timeout=120)
    assert second.returncode == 0, said + complained
    assert [one["id"] for one in uploads(own_server)] == [upload["id"]]
    assert is_there(own_server, file)


def test_a_server_that_dies_meanwhile_is_gone_on_with(own_server: Server, file: Path) -> None:
    pushing = begun(own_server, file)
    until(lambda: well_on_its_way(own_server), seconds=60)
    own_server.kill()
    own_server.start()
    said, complained = pushing.communicate(timeout=120)
    assert pushing.returncode == 0, said + complained
    assert len(uploads(own_server)) == 1
    assert is_there(own_server, file)


def test_an_upload_that_is_over_is_begun_again(own_server: Server, file: Path) -> None:
    first = begun(own_server, file)
    until(lambda: well_on_its_way(own_server), seconds=60)
    first.kill()
    first.communicate()
    (upload,) = uploads(own_server)
    httpx.delete(upload["url"], headers=own_server.headers).raise_for_status()
    second = begun(own_server, file)
    said, complained = second.communicate(timeout=120)
    assert second.returncode == 0, said + complained
    assert is_there(own_server, file)
