"""Many assets as one ZIP, in every mode: whole, in parts, by programs that resume, and only as long as it is true."""

import io
import os
import random
import re
import subprocess
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.modes import need
from tests.protocols import wire

FILES = {
    "notes/a.txt": b"hello",
    "notes/empty": b"",
    "pictures/zoë 🎞/film.bin": random.Random(1).randbytes(3_000_001),
    "pictures/b.bin": random.Random(2).randbytes(300_000),
    "pictures/small.bin": random.Random(3).randbytes(65_537),
}


@dataclass(frozen=True)
class Zip:
    """An archive of FILES, and all its bytes as they came over the wire once."""

    url: str
    body: bytes


def packed(api: httpx.Client, **wanted: object) -> dict[str, Any]:
    made = api.post("/v1/archives", json={"expires_in": "1h", **wanted})
    assert made.status_code == 201, made.text
    answer = made.json()
    assert set(answer) == {"url", "size", "expires_at"}
    return answer


@pytest.fixture(scope="module")
def archive(api: httpx.Client, nobody: httpx.Client) -> Zip:
    for key, content in FILES.items():
        api.put(f"/b/media/zip/{key}", content=content).raise_for_status()
    made = packed(api, prefix="zip/")
    got = nobody.get(made["url"])
    assert (got.status_code, len(got.content)) == (200, made["size"])
    time.sleep(2.1)  # Last-Modified is sent once it lies behind
    return Zip(made["url"], got.content)


def test_everything_is_in_it(archive: Zip) -> None:
    with zipfile.ZipFile(io.BytesIO(archive.body)) as opened:
        assert opened.testzip() is None
        assert {info.filename: opened.read(info) for info in opened.infolist()} == FILES
        now = datetime.now(UTC).timestamp()
        for info in opened.infolist():
            made = datetime(*info.date_time, tzinfo=UTC).timestamp()
            assert 0 <= now - made < 600


def test_its_head_is_that_of_the_whole(archive: Zip, nobody: httpx.Client) -> None:
    head, got = nobody.head(archive.url), nobody.get(archive.url)
    for answer in (head, got):
        assert answer.status_code == 200
        assert answer.headers["Content-Length"] == str(len(archive.body))
        assert answer.headers["Content-Type"] == "application/zip"
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="zip.zip"')
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert re.fullmatch(r'"[\w-]+"', answer.headers["ETag"])
        assert "Last-Modified" in answer.headers
        assert "Content-Encoding" not in answer.headers
    assert head.content == b""
    assert got.content == archive.body


def test_any_range_is_that_part(archive: Zip, nobody: httpx.Client) -> None:
    size, noise = len(archive.body), random.Random(4)
    spans = [(0, 1), (size - 1, size), (size - 30, size), (0, size)]
    spans += [tuple(sorted(noise.sample(range(size + 1), 2))) for _ in range(30)]
    for start, stop in spans:
        got = nobody.get(archive.url, headers={"Range": f"bytes={start}-{stop - 1}"})
        assert (got.status_code, got.headers["Content-Range"]) == (206, f"bytes {start}-{stop - 1}/{size}")
        assert got.content == archive.body[start:stop]
    assert nobody.get(archive.url, headers={"Range": "bytes=-9"}).content == archive.body[-9:]


def test_conditions_hold(archive: Zip, nobody: httpx.Client) -> None:
    head = nobody.head(archive.url).headers
    etag, made = head["ETag"], head["Last-Modified"]

    def status(method: str = "GET", **headers: str) -> int:
        asked = {name.replace("_", "-"): value for name, value in headers.items()}
        return nobody.request(method, archive.url, headers=asked).status_code

    assert status(If_None_Match=etag) == status("HEAD", If_None_Match=etag) == 304
    assert status(If_Modified_Since=made) == 304
    assert status(If_Match='"other"') == 412
    assert status(If_Unmodified_Since="Sat, 01 Jan 2000 00:00:00 GMT") == 412
    assert status(Range="bytes=0-0", If_Range=etag) == status(Range="bytes=0-0", If_Range=made) == 206
    assert status(Range="bytes=0-0", If_Range='"other"') == 200
    assert status(Range="bytes=0-0,5-6") in (200, 206)
    assert status("HEAD", Range="bytes=0-0") == 200
    beyond = nobody.get(archive.url, headers={"Range": f"bytes={len(archive.body)}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(archive.body)}")


PROGRAMS = {
    "curl": ["curl", "-sSf", "-C", "-", "-o", "part"],
    "wget": ["wget", "-q", "-c", "-O", "part"],
    "aria2c": [
        "aria2c", "--no-conf", "-q", "-x16", "-s16", "-k1M", "--allow-overwrite=true", "--file-allocation=none",
        "-o", "part",
    ],
}  # fmt: skip


@pytest.mark.parametrize("command", PROGRAMS.values(), ids=PROGRAMS)
def test_programs_resume_it(archive: Zip, command: list[str], tmp_path: Path) -> None:
    need(command[0], "unzip")
    if command[0] != "aria2c":
        (tmp_path / "part").write_bytes(archive.body[:1_234_567])
    done = subprocess.run([*command, archive.url], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "part").read_bytes() == archive.body
    tested = subprocess.run(["unzip", "-tq", tmp_path / "part"], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout


def test_unzip_makes_the_files_and_nothing_beside_them(api: httpx.Client, tmp_path: Path) -> None:
    """Names that would leave the folder, clash, or be a device on Windows."""
    wanted = ["..\\..\\up.txt", "C:x", "same.txt", "same.txt", "SAME.txt", "aux", "b\ta"]
    ids = []
    for number, name in enumerate(wanted):
        asset = api.put(f"/b/media/odd/{number}", content=b"%d" % number).json()
        ids.append(asset["id"])
        api.patch(f"/v1/assets/{asset['id']}", json={"name": name}).raise_for_status()
    (tmp_path / "in").mkdir()
    (tmp_path / "a.zip").write_bytes(httpx.get(packed(api, assets=ids)["url"]).content)
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    subprocess.run(["unzip", "-q", "../a.zip"], cwd=tmp_path / "in", check=True, env=environment)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "in"]
    made = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    assert made == {
        "up.txt": b"0", "C_x": b"1", "same.txt": b"2", "same (2).txt": b"3", "SAME (3).txt": b"4", "_aux": b"5",
        "ba": b"6",
    }  # fmt: skip


def _delete(api: httpx.Client, asset: dict[str, Any]) -> None:
    api.delete(f"/v1/assets/{asset['id']}").raise_for_status()


def _replace(api: httpx.Client, asset: dict[str, Any]) -> None:
    api.put(f"/b/media/{asset['key']}", content=b"other bytes").raise_for_status()


def _revoke(api: httpx.Client, asset: dict[str, Any]) -> None:
    api.delete(f"/v1/assets/{asset['id']}/links").raise_for_status()


@pytest.mark.parametrize("change", [_delete, _replace, _revoke], ids=["deleted", "replaced", "revoked"])
def test_it_ends_before_it_would_be_wrong(
    api: httpx.Client, nobody: httpx.Client, change: Callable[[httpx.Client, dict[str, Any]], None]
) -> None:
    folder = change.__name__.strip("_")
    assets = [api.put(f"/b/media/{folder}/{key}", content=b"x" * 9).json() for key in "abc"]
    made = packed(api, prefix=f"{folder}/")
    assert nobody.get(made["url"]).status_code == 200
    change(api, assets[1])
    for answer in (nobody.get(made["url"]), nobody.get(made["url"], headers={"Range": "bytes=0-0"})):
        assert (answer.status_code, answer.json()["code"]) == (410, "archive_ended")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert nobody.head(made["url"]).status_code == 410


def test_only_its_link_opens_it(archive: Zip, api: httpx.Client, nobody: httpx.Client) -> None:
    bare, query = archive.url.split("?")
    other = packed(api, prefix="zip/notes/")["url"].split("?")[1]
    renamed = bare.rpartition("/")[0] + "/anything.zip"
    assert nobody.head(f"{renamed}?{query}").status_code == 200
    for url in (
        bare, f"{bare}?{other}", archive.url[:-1], archive.url + "A", archive.url + "&x=1", f"{bare}?{query}&{query}",
        re.sub(r"exp=\d", "exp=9", archive.url),
    ):  # fmt: skip
        for client in (nobody, api):
            answer = client.get(url)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), url
    assert nobody.get(re.sub(r"/z/zip_..", "/z/zip_00", archive.url)).status_code == 403


def test_other_methods_are_told_what_there_is(archive: Zip, api: httpx.Client) -> None:
    answer = api.delete(archive.url)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_it_ends_in_time(api: httpx.Client, nobody: httpx.Client) -> None:
    api.put("/b/media/short/a", content=b"a").raise_for_status()
    url = packed(api, prefix="short/", expires_in=1)["url"]
    deadline = time.monotonic() + 10
    while (answer := nobody.get(url)).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_reader_who_leaves_breaks_nothing(archive: Zip, nobody: httpx.Client) -> None:
    target = archive.url.removeprefix(str(nobody.base_url).rstrip("/"))
    for _ in range(5):
        with wire.connect(str(nobody.base_url)) as connection:
            connection.sendall(wire.head("GET", target, {}))
            connection.recv(1000)
    assert nobody.get(archive.url).content == archive.body
