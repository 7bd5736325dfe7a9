"""kill -9 and power cuts in the middle of an upload: what was acknowledged is there, and the upload goes on, or says it
is over."""

import contextlib
import hashlib
import random
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.ceph import Ceph
from tests.protocols import wire
from tests.protocols.uploading import (
    OCTETS,
    TUS,
    UPLOADS,
    asset_of,
    checksum,
    concatenation,
    create,
    metadata,
    offset_of,
    patch,
    target,
)
from tests.servers import Server
from tests.stories.conftest import need_strace
from tests.stories.disk_model import Disk, steps, tracing
from tests.stories.test_kills import attach

MIB = 1 << 20
LOST = 16 * MIB  # at most, of what was sent and had time to be saved
SIZE = 48 * MIB + 12_345


@dataclass
class Place:
    """A server that is killed and started again, and its store."""

    server: Server
    ceph: Ceph | None
    bucket: str

    def again(self) -> None:
        self.server.kill()
        self.server.start()

    def clean(self, client: httpx.Client) -> None:
        """After one sweep rows and bytes agree, and the store holds nothing else."""
        for upload in client.get(UPLOADS, params={"limit": 1000}).json()["uploads"]:
            client.delete(upload["url"], headers=TUS)
        swept = self.server.run("sweep")
        assert swept.returncode == 0, swept.stderr
        self.server.check_leftovers()
        checked = self.server.run("fsck", "--deep", "--json")
        assert checked.returncode == 0, checked.stdout
        assets = client.get("/v1/assets", params={"limit": 1000}).json()["assets"]
        if self.ceph is None:
            assert list((self.server.data_dir / "blobs" / "incoming").iterdir()) == []
        else:
            assert self.ceph.unfinished(self.bucket) == []
            assert len(self.ceph.keys_of(self.bucket)) == len(assets)


@pytest.fixture(scope="module", params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(f"killed-{request.param}")
    ceph, bucket, env = None, "", {}
    if request.param == "s3":
        ceph, bucket = request.getfixturevalue("ceph"), f"mediasvc-{secrets.token_hex(4)}"
        env = ceph.environment(bucket)
        Server(folder / "data", **env).prepare_store()
    server = Server(folder / "data", **env)
    server.start()
    try:
        yield Place(server, ceph, bucket)
    finally:
        server.stop()


def content(size: int, seed: str) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


def send(server: Server, url: str, offset: int, body: bytes, end: int, *, saved: bool) -> int:
    """One PATCH that would be the whole rest, of which so much is sent; then the server is killed: at once, or when
    all but the last of it is saved. Gives what was told to be saved."""
    said = server.headers | TUS | OCTETS | {"Upload-Offset": str(offset), "Content-Length": str(len(body))}
    sent, told = 0, offset
    with wire.connect(server.url) as connection, server.client() as client:
        connection.sendall(wire.head("PATCH", target(url), said))
        while sent < end:
            connection.sendall(body[sent : min(end, sent + 300_007)])
            sent = min(end, sent + 300_007)
        deadline = time.monotonic() + 30
        while saved and told < offset + sent - LOST:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            told = client.get(url).json()["offset"]
        server.kill()
    return told


@pytest.mark.parametrize("seed", range(2))
def test_one_endless_patch_that_is_killed_again_and_again_ends_as_it_was(place: Place, seed: int) -> None:
    draw, whole, server = random.Random(seed), content(SIZE, str(seed)), place.server
    key = f"endless-{seed}"
    with server.client() as client:
        url = create(client, SIZE, Upload_Metadata=metadata(key=key))
        offset = 0
        for number in range(3):
            end = draw.randint(1, min(30 * MIB, SIZE - offset))
            told = send(server, url, offset, whole[offset:], end, saved=number != 1)
            server.start()
            now = offset_of(client, url)
            assert now is not None
            assert told <= now <= offset + end
            offset = now
        assert patch(client, url, offset, whole[offset:]).status_code == 204
        found = client.get(f"/b/media/{key}").content
        assert hashlib.sha256(found).digest() == hashlib.sha256(whole).digest()
        place.clean(client)


def test_what_was_acknowledged_is_there_after_a_kill(place: Place) -> None:
    whole = content(9 * MIB, "acknowledged")
    with place.server.client() as client:
        url, offset = create(client, len(whole)), 0
        for size in (1, 700_001, 0, 5 * MIB + 1):
            assert patch(client, url, offset, whole[offset : offset + size]).status_code == 204
            offset += size
            place.again()
            assert offset_of(client, url) == offset
            told = client.get(url).json()
            assert (told["offset"], told["state"]) == (offset, "open")
        assert patch(client, url, offset, whole[offset:]).status_code == 204
        assert asset_of(client, url).content == whole
        place.clean(client)


@pytest.mark.parametrize("refused", ["too long", "checksum", "cut off with a checksum"])
def test_what_was_refused_is_not_found_again_after_a_kill(place: Place, refused: str) -> None:
    if place.ceph is not None and refused == "too long":
        pytest.skip("parts that were acknowledged before the byte too many came stay acknowledged")
    server, right, wrong = place.server, content(22 * MIB, "right"), b"\xff" * (3 * MIB // 2)
    with server.client() as client:
        url = create(client, len(right), right[:1000])
        headers = TUS | OCTETS | {"Upload-Offset": "1000"}
        match refused:
            case "too long":
                pieces = iter([wrong] * 20)
                assert client.patch(url, content=pieces, headers=headers).status_code == 413
            case "checksum":
                said = headers | {"Upload-Checksum": checksum("sha1", b"another")}
                assert client.patch(url, content=wrong, headers=said).status_code == 460
            case _:
                said = server.headers | headers | {"Upload-Checksum": checksum("sha1", wrong)}
                said |= {"Content-Length": str(len(wrong))}
                with wire.connect(server.url) as connection:
                    connection.sendall(wire.head("PATCH", target(url), said) + wrong[:-1])
                    time.sleep(0.5)
                    server.kill()
                    server.start()
        place.again()
        assert offset_of(client, url) == 1000
        told = send(server, url, 1000, right[1000:], len(right) - 2000, saved=True)
        server.start()
        offset = offset_of(client, url)
        assert offset is not None
        assert offset >= told > 1000, "what has no checksum counts again"
        assert patch(client, url, offset, right[offset:]).status_code == 204
        assert asset_of(client, url).content == right
        place.clean(client)


def test_an_upload_whose_bytes_vanish_is_over(place: Place) -> None:
    whole = content(6 * MIB, "vanished")
    before = set(place.ceph.keys_of(place.bucket)) if place.ceph is not None else set()
    with place.server.client() as client:
        url = create(client, len(whole), whole[:-10])
        if place.ceph is None:
            for path in (place.server.data_dir / "blobs" / "incoming").iterdir():
                path.unlink()
        else:
            store = place.ceph.client()
            for key in set(place.ceph.keys_of(place.bucket)) - before:
                store.delete_object(Bucket=place.bucket, Key=key)
            for key in store.list_multipart_uploads(Bucket=place.bucket).get("Uploads", []):
                store.abort_multipart_upload(Bucket=place.bucket, Key=key["Key"], UploadId=key["UploadId"])
            store.close()
        assert patch(client, url, len(whole) - 10, whole[-10:]).status_code == 410
        assert client.head(url, headers=TUS).status_code == 410
        place.clean(client)


def test_a_large_final_is_joined_by_who_comes_after(place: Place) -> None:
    piece = content(35 * MIB, "piece")
    with place.server.client() as client:
        parts = [create(client, len(piece), piece, Upload_Concat="partial") for _ in range(2)]
        made = client.post(
            UPLOADS, headers=TUS | concatenation(*parts) | {"Upload-Metadata": metadata(key="joined")}
        )
        assert made.status_code == 201
        url = made.headers["Location"]
        early = client.get(made.headers["Content-Location"])
        assert early.status_code in (200, 404)
        for _ in range(2):
            time.sleep(0.05)
            place.again()
            told = client.head(url, headers=TUS)
            assert told.status_code == 200
        deadline = time.monotonic() + 60
        while (state := client.get(url).json())["state"] != "complete":
            assert state["state"] == "completing"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert offset_of(client, url) == 2 * len(piece)
        found = client.get("/b/media/joined").content
        assert hashlib.sha256(found).digest() == hashlib.sha256(piece * 2).digest()
        place.clean(client)


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("pwrite64", 1),
        ("pwrite64", 3),
        ("fdatasync", 1),
        ("fdatasync", 2),
        ("rename", 1),
        ("fsync", 1),
        ("sendto,sendmsg,write", 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("partial", [False, True], ids=["whole", "partial"])
def test_a_kill_at_the_very_end_leaves_it_before_or_after(
    place: Place, call: str, number: int, partial: bool
) -> None:
    """Whoever lost the last answer asks where it is, and gets the same asset, once."""
    if place.ceph is not None and call in ("rename", "fsync"):
        pytest.skip("a store over HTTP makes no such call")
    need_strace()
    server, whole = place.server, content(200_000, f"{call}{number}{partial}")
    key = f"end/{secrets.token_hex(4)}"
    with server.client() as client:
        named = {"Upload_Concat": "partial"} if partial else {"Upload_Metadata": metadata(key=key)}
        url = create(client, len(whole), whole[:100_000], **named)
        tracer = attach(server.pid, call, number)
        with contextlib.suppress(httpx.TransportError):
            patch(client, url, 100_000, whole[100_000:])
            client.get("/healthz")
        server.kill()
        tracer.wait(10)
        server.start()
        offset = offset_of(client, url)
        assert offset is not None
        assert offset >= 100_000
        last = patch(client, url, offset, whole[offset:] or None)
        assert (last.status_code, last.headers["Upload-Offset"]) == (204, str(len(whole)))
        if partial:
            said = TUS | concatenation(url) | {"Upload-Metadata": metadata(key=key)}
            final = client.post(UPLOADS, headers=said)
            assert final.status_code == 201, final.text
        assert client.get(f"/b/media/{key}").content == whole
        listed = client.get("/v1/assets", params={"prefix": key}).json()["assets"]
        assert [asset["version"] for asset in listed] == [1]
        place.clean(client)


# --- the power fails


@dataclass(frozen=True)
class Life:
    """An upload's life under strace: the URL's path, and request id and offset of what was acknowledged."""

    folder: Path
    url: str
    acknowledged: list[tuple[str, int]]
    whole: bytes
    env: dict[str, str]


def live(folder: Path, **env: str) -> Life:
    need_strace()
    folder.mkdir()
    server, whole = Server(folder / "data", **env), content(3 * MIB + 5, "power")
    server.start(wrapper=tracing(folder / "trace"), wait=60)
    acknowledged = []
    with server.client() as client:
        url, at = create(client, len(whole)), 0
        for end in (1000, MIB, 2 * MIB + 17, 3 * MIB):
            answer = patch(client, url, at, whole[at:end])
            assert answer.status_code == 204
            acknowledged.append((answer.headers["x-request-id"], end))
            at = end
        last = patch(client, url, at, whole[at:])
        acknowledged.append((last.headers["x-request-id"], len(whole)))
    server.stop()
    return Life(folder, target(url), acknowledged, whole, env)


def cuts(life: Life, folder: Path, lay: Callable[[Disk, Path], None]) -> Iterator[tuple[int, Server]]:
    """A server on what a power cut left, right after each answer; and the offset that this had told."""
    trace = steps(life.folder / "trace", life.folder / "data")
    disk = Disk(life.folder, trace)
    for step in disk.play():
        if step.call != "answer" or not (match := re.search(rb"x-request-id: (\w+)", step.data)):
            continue
        for request_id, offset in life.acknowledged:
            if match[1].decode() == request_id:
                lay(disk, folder)
                server = Server(folder / "data", **life.env)
                server.start()
                yield offset, server
                server.stop()
                shutil.rmtree(folder)


def power_cut(disk: Disk, folder: Path) -> None:
    disk.after_a_power_cut(folder)


def torn(disk: Disk, folder: Path) -> None:
    disk.torn(folder, random.Random(3))


def goes_on(client: httpx.Client, life: Life, offset: int) -> None:
    if offset < len(life.whole):
        assert patch(client, life.url, offset, life.whole[offset:]).status_code == 204
    told = client.get(life.url).json()
    assert client.get(httpx.URL(told["asset"]["url"]).path).content == life.whole


@pytest.mark.parametrize("lay", [power_cut, torn])
def test_with_ack_every_acknowledged_offset_survives_a_power_cut(
    tmp_path: Path, lay: Callable[[Disk, Path], None]
) -> None:
    life = live(tmp_path / "life", MEDIASVC_DURABILITY="ack")
    seen = 0
    for offset, server in cuts(life, tmp_path / "cut", lay):
        seen += 1
        with server.client() as client:
            now = offset_of(client, life.url)
            assert now is not None
            assert now >= offset
            goes_on(client, life, now)
            assert server.run("sweep").returncode == 0
            server.check_leftovers()
    assert seen == len(life.acknowledged)


@pytest.mark.parametrize("lay", [power_cut, torn])
def test_without_it_an_upload_that_lost_bytes_is_over_and_never_smaller(
    tmp_path: Path, lay: Callable[[Disk, Path], None]
) -> None:
    life = live(tmp_path / "life")
    over = 0
    for offset, server in cuts(life, tmp_path / "cut", lay):
        with server.client() as client:
            told = client.head(life.url, headers=TUS)
            if offset == len(life.whole):
                assert told.status_code == 200, "complete is complete"
            if told.status_code == 410:
                over += 1
                assert client.get(life.url).status_code == 410
                assert patch(client, life.url, offset, life.whole[offset:]).status_code == 410
            else:
                now = int(told.headers["Upload-Offset"])
                assert now >= offset
                if lay is power_cut:
                    goes_on(client, life, now)
            assert server.run("sweep").returncode == 0
            server.check_leftovers()
    if lay is power_cut:
        assert over, "nothing but the end is synced by itself"
