"""The whole path, as the people it is for walk it: photographs, a large file and a folder; on disk and on S3."""

import hashlib
import io
import os
import random
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pillow_heif
import pytest
from PIL import Image

from tests.servers import Server

LARGE = 1 << 30  # bytes
CORNERS = {"top left": (1, 1), "top right": (-2, 1), "bottom left": (1, -2), "bottom right": (-2, -2)}
COLOURS = {"top left": "red", "top right": "lime", "bottom left": "blue", "bottom right": "white"}


def upright() -> Image.Image:
    """A scene 800 wide and 600 high whose corners tell which way it lies."""
    scene = Image.new("RGB", (800, 600), "grey")
    for corner, box in {
        "top left": (0, 0, 300, 200),
        "top right": (500, 0, 800, 200),
        "bottom left": (0, 400, 300, 600),
        "bottom right": (500, 400, 800, 600),
    }.items():
        scene.paste(COLOURS[corner], box)
    return scene


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x0110] = orientation, "Example", "Phone 1"
    place = tags.get_ifd(0x8825)
    place[1], place[2], place[3], place[4] = "N", (47.0, 22.0, 0.0), "E", (8.0, 32.0, 0.0)
    return tags


def phone_jpeg(path: Path) -> Path:
    """As a phone held upright writes it: the sensor's rows, and a tag that says how to turn them."""
    upright().transpose(Image.Transpose.ROTATE_90).save(path, "JPEG", quality=92, exif=exif(6))
    return path


def phone_heic(path: Path) -> Path:
    heif = pillow_heif.from_pillow(upright())
    heif.save(path, quality=80, exif=exif(1).tobytes())
    return path


def wait_until_ready(client: httpx.Client, asset_id: str) -> dict[str, object]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        asset = client.get(f"/v1/assets/{asset_id}").json()
        if asset["state"] != "processing":
            return dict(asset)
        time.sleep(0.05)
    raise AssertionError("no thumbnail within 30 s")


def near(pixel: tuple[int, ...], colour: str) -> bool:
    wanted = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    return all(abs(a - b) < 60 for a, b in zip(pixel[:3], wanted, strict=True))


@pytest.fixture
def client(each_server: Server) -> Iterator[httpx.Client]:
    with each_server.client() as client:
        yield client


@pytest.mark.parametrize("make", [phone_jpeg, phone_heic], ids=["JPEG", "HEIC"])
def test_a_photograph_from_a_phone_gets_facts_and_upright_thumbnails(
    each_server: Server, client: httpx.Client, tmp_path: Path, make: object
) -> None:
    photo = make(tmp_path / "photo")  # type: ignore[operator]  # no extension: the bytes say what it is
    url = f"{each_server.url}/b/media/phone/{make.__name__}"  # type: ignore[attr-defined]
    curl = subprocess.run(
        ["curl", "-fsS", "-T", photo, "-u", f":{each_server.admin_key}", url], capture_output=True, check=True
    )
    asset = wait_until_ready(client, httpx.Response(200, content=curl.stdout).json()["id"])
    assert asset["state"] == "ready", client.get(f"/v1/assets/{asset['id']}/tasks").json()
    facts = asset["facts"]
    assert isinstance(facts, dict)
    assert (facts["width"], facts["height"]) == (800, 600)
    assert facts["camera"] == {"make": "Example", "model": "Phone 1"}
    assert facts["gps"]["latitude"] == pytest.approx(47 + 22 / 60, abs=1e-4)
    renditions = asset["renditions"]
    assert isinstance(renditions, dict)
    assert sorted(renditions) == ["grid", "preview", "thumb"]
    for rendition in renditions.values():
        answer = client.get(rendition["url"])
        picture = Image.open(io.BytesIO(answer.content)).convert("RGB")
        assert picture.size == (rendition["width"], rendition["height"])
        assert picture.width > picture.height
        for corner, (x, y) in CORNERS.items():
            at = (x % picture.width, y % picture.height)
            assert near(picture.getpixel(at), COLOURS[corner]), corner
        assert b"Example" not in answer.content  # neither camera nor place leave with a rendition
    assert client.get(url).content == photo.read_bytes()


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    path, sha256 = tmp_path_factory.mktemp("large") / "large.bin", hashlib.sha256()
    piece = bytearray(os.urandom(1 << 24))
    with path.open("wb") as file:
        for number in range(LARGE // len(piece)):
            piece[:4] = number.to_bytes(4, "big")
            file.write(piece)
            sha256.update(piece)
    yield path, sha256.hexdigest()
    path.unlink()


def test_a_file_of_a_gibibyte_comes_back_as_it_went(
    each_server: Server, large_file: tuple[Path, str], tmp_path: Path
) -> None:
    path, sha256 = large_file
    curl = ["curl", "-fsS", "-u", f":{each_server.admin_key}"]
    url = f"{each_server.url}/b/media/large.bin"
    made = subprocess.run([*curl, "-T", path, url], capture_output=True, check=True)
    assert httpx.Response(200, content=made.stdout).json()["sha256"] == sha256
    back = tmp_path / "back"
    subprocess.run([*curl, "-r", "0-99999999", "-o", back, url], check=True)
    subprocess.run([*curl, "-C", "-", "-o", back, url], check=True)  # goes on where the first part ended
    found = hashlib.sha256()
    with back.open("rb") as file:
        while piece := file.read(1 << 22):
            found.update(piece)
    back.unlink()
    assert found.hexdigest() == sha256
    subprocess.run([*curl, "-X", "DELETE", url], check=True)


def mixed_folder(root: Path) -> Path:
    """200 files: pictures, text, noise, empty ones, names in several scripts, nested folders."""
    chance = random.Random(7)
    names = ["plain", "with space", "100%", "a#b?c", "größe", "写真", "emoji 🌄", "dots.in.name", "'quoted'"]
    for number in range(200):
        folder = root / f"d{number % 7}" / ("deeper" if number % 3 == 0 else "")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{names[number % len(names)]} {number}"
        match number % 5:
            case 0:
                size = (chance.randrange(1, 300), chance.randrange(1, 300))
                Image.new("RGB", size, (number, 90, 120)).save(folder / f"{name}.png")
            case 1:
                (folder / f"{name}.txt").write_text(f"text {number}\n" * chance.randrange(200))
            case 2:
                (folder / f"{name}.bin").write_bytes(chance.randbytes(chance.randrange(200_000)))
            case 3:
                (folder / f"{name}.gz").write_bytes(zlib.compress(chance.randbytes(5000)))
            case _:
                (folder / name).write_bytes(b"")
    return root


def test_a_folder_of_200_mixed_files_is_pushed_once_and_comes_back(
    each_server: Server, client: httpx.Client, tmp_path: Path
) -> None:
    folder = mixed_folder(tmp_path / "mixed")
    env = {"MEDIASVC_SERVER": each_server.url, "MEDIASVC_KEY": each_server.admin_key}
    first = each_server.run("push", str(folder), "--to", "media/mixed", env=env)
    assert first.returncode == 0, first.stderr
    assert "200 of 200" in first.stdout + first.stderr
    again = each_server.run("push", str(folder), "--to", "media/mixed", "--json", env=env)
    assert again.returncode == 0, again.stderr
    assert '"pushed"' not in again.stdout.replace(" ", "")
    seen: dict[str, dict[str, object]] = {}
    cursor = None
    while True:
        params = {"prefix": "mixed/", "limit": 50} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/assets", params=params).json()
        seen |= {asset["key"]: asset for asset in page["assets"]}
        if (cursor := page["next_cursor"]) is None:
            break
    files = {f"mixed/{path.relative_to(folder)}": path for path in folder.rglob("*") if path.is_file()}
    assert sorted(seen) == sorted(files)
    for key, path in files.items():
        answer = client.get(str(seen[key]["url"]))
        assert answer.content == path.read_bytes(), key
        asset = wait_until_ready(client, str(seen[key]["id"]))
        assert asset["state"] == "ready", key
        assert len(asset["renditions"]) == (3 if key.endswith(".png") else 0)  # type: ignore[arg-type]


def test_afterwards_everything_is_in_its_place(each_server: Server) -> None:
    assert each_server.run("sweep").returncode == 0
    fsck = each_server.run("fsck", "--deep")
    assert fsck.returncode == 0, fsck.stdout
