"""Programs that people download with, in every mode: on a public URL and on a private one's link."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.modes import STREAMED, Mode, need
from tests.protocols import wire
from tests.protocols.delivery.conftest import link
from tests.protocols.delivery.page import Page, browse
from tests.servers import Server


@dataclass(frozen=True)
class File:
    """What lies at `urls`: one of a public asset, one that is a link to a private one."""

    body: bytes
    urls: dict[str, str]


@pytest.fixture(scope="module")
def large(each_mode: Mode, api: httpx.Client) -> File:
    body = os.urandom(max(20 << 20, each_mode.size))
    return File(body, stored(api, "large.bin", body))


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """40 seconds at 8 and at 16 Mbit/s. The index stands at the end: no player gets far without ranges."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("films")
    source = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=40"]
    coded = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p"]
    for rate in ("8M", "16M"):
        constant = ["-b:v", rate, "-minrate", rate, "-maxrate", rate, "-bufsize", rate]
        command = ["ffmpeg", "-v", "error", *source, *coded, *constant, "-x264-params", "nal-hrd=cbr"]
        subprocess.run([*command, str(folder / f"{rate}.mp4")], check=True, timeout=120)
    return {path.stem: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def shown(each_mode: Mode, api: httpx.Client, films: dict[str, bytes]) -> File:
    film = films["16M" if each_mode.size == STREAMED else "8M"]
    assert (len(film) > STREAMED) == (each_mode.size == STREAMED)
    return File(film, stored(api, "film.mp4", film))


def stored(api: httpx.Client, name: str, body: bytes) -> dict[str, str]:
    public = api.put(f"/b/public/{name}", content=body).raise_for_status().json()
    private = api.put(f"/b/media/{name}", content=body).raise_for_status().json()
    return {"public": public["url"], "link": link(api, private["id"])}


WAYS = pytest.mark.parametrize("way", ["public", "link"])


def run(*command: str, cwd: Path) -> str:
    need(command[0])
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@WAYS
def test_curl_resumes(large: File, way: str, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(large.body[:7_000_001])
    run("curl", "-sSfL", "-C", "-", "-o", "part", large.urls[way], cwd=tmp_path)
    assert (tmp_path / "part").read_bytes() == large.body


@WAYS
def test_wget_resumes(large: File, way: str, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(large.body[:5_000_003])
    run("wget", "-q", "-c", "-O", "part", large.urls[way], cwd=tmp_path)
    assert (tmp_path / "part").read_bytes() == large.body


@WAYS
def test_aria2_fetches_sixteen_parts_at_once(large: File, way: str, tmp_path: Path) -> None:
    options = [
        "--no-conf",
        "-x16",
        "-s16",
        "-k1M",
        "--file-allocation=none",
        "--summary-interval=0",
        "--timeout=10",
        "--max-tries=1",  # a connection that hangs fails
        "-o",
        "part",
    ]
    run("aria2c", *options, large.urls[way], cwd=tmp_path)
    assert (tmp_path / "part").read_bytes() == large.body


@WAYS
def test_ffprobe_reads_the_index_at_the_end(shown: File, way: str, tmp_path: Path) -> None:
    asked = ["-v", "error", "-show_entries", "format=duration,size", "-of", "csv=p=0"]
    duration, size = run("ffprobe", *asked, shown.urls[way], cwd=tmp_path).strip().split(",")
    assert (float(duration), int(size)) == (40, len(shown.body))


FILM = """
<video id="film" muted preload="auto" src="{url}"></video>
<script>
  const film = document.getElementById("film");
  const event = name => new Promise(done => film.addEventListener(name, done, {{once: true}}));
  film.addEventListener("error", () => tell({{error: film.error.message}}));
  (async () => {{
    await event("loadeddata");
    const places = [];
    for (const time of [33, 7.5, 21]) {{
      film.currentTime = time;
      await event("seeked");
      places.push(film.currentTime);
    }}
    film.playbackRate = 4;
    await film.play();
    await event("timeupdate");
    tell({{duration: film.duration, places, width: film.videoWidth}});
  }})();
</script>
"""


@WAYS
def test_chromium_seeks_in_a_video(shown: File, way: str, tmp_path: Path) -> None:
    told = browse(Page(FILM.format(url=shown.urls[way])), tmp_path)
    assert told == {"duration": 40, "places": [33, 7.5, 21], "width": 640}


PICTURE = """
<img id="picture" src="{url}" alt="">
<script>
  const picture = document.getElementById("picture");
  const done = () => tell({{width: picture.naturalWidth, height: picture.naturalHeight}});
  picture.complete ? done() : (picture.onload = picture.onerror = done);
</script>
"""


def test_a_page_elsewhere_shows_a_private_picture_by_its_link(
    each_mode: Mode, api: httpx.Client, nobody: httpx.Client, tmp_path: Path
) -> None:
    """Even where the page insists on resources that may be embedded (COEP), and never without the link."""
    photo = (Path(__file__).parents[2] / "data" / "photo.jpg").read_bytes()
    asset = api.put("/b/media/private.jpg", content=photo).json()
    page = {"Cross-Origin-Embedder-Policy": "require-corp"}
    told = browse(Page(PICTURE.format(url=link(api, asset["id"])), page), tmp_path)
    assert told == {"width": 960, "height": 720}
    assert nobody.get(asset["url"]).status_code == 401
    assert browse(Page(PICTURE.format(url=asset["url"]), page), tmp_path) == {"width": 0, "height": 0}


def test_a_client_that_leaves_stops_nothing_else(
    each_server: Server, nobody: httpx.Client, large: File
) -> None:
    path = large.urls["public"].removeprefix(each_server.url)
    for _ in range(20):
        with wire.connect(each_server.url) as connection:
            connection.sendall(wire.head("GET", path, {}))
            assert connection.recv(1000)
    assert nobody.get(path).content == large.body


def test_a_download_under_way_survives_delete(each_mode: Mode, api: httpx.Client) -> None:
    body = os.urandom(max(20 << 20, each_mode.size))
    api.put("/b/public/doomed.bin", content=body)
    with wire.connect(each_mode.server.url) as connection:
        connection.sendall(wire.head("GET", "/b/public/doomed.bin", {"Connection": "close"}))
        received = connection.recv(1000)
        assert api.delete("/b/public/doomed.bin").status_code == 204
        assert api.get("/b/public/doomed.bin").status_code == 404
        head, _, content = (received + wire.read_to_end(connection)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body.startswith(content)  # whole, or visibly broken off
