"""The page at `/`, as people use it: in a real Chromium, against a real server."""

import contextlib
import hashlib
import json
import random
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.npm import installed
from tests.servers import Server, behind_nginx, running
from tests.stories.browser import Browser, browsing, chromium, incognito

PHOTO = (Path(__file__).parents[1] / "data" / "photo.jpg").read_bytes()
WORKPLACE = "!document.getElementById('workplace').hidden"
SUMMARY = "document.getElementById('summary').textContent"
MIB = 1 << 20


@dataclass(frozen=True)
class Place:
    """A bucket and a key to it: all that the page gets to see in one story."""

    server: Server
    bucket: str
    secret: str

    def put(self, key: str, content: bytes) -> Any:
        with self.server.client() as api:
            answer = api.put(f"/b/{self.bucket}/{key}", content=content)
        answer.raise_for_status()
        return answer.json()

    def held(self) -> dict[str, tuple[str, int]]:
        """SHA-256 and version of all that is there, by key."""
        with self.server.client() as api:
            assets = api.get("/v1/assets", params={"bucket": self.bucket, "limit": 1000}).json()["assets"]
        return {asset["key"]: (asset["sha256"], asset["version"]) for asset in assets}

    def begun(self) -> int:
        """How many uploads were begun with the key."""
        with self.server.client(self.secret) as api:
            return len(api.get("/v1/uploads", params={"limit": 1000}).json()["uploads"])


def place_on(server: Server, *, public: bool = False) -> Place:
    bucket = f"page-{secrets.token_hex(4)}"
    with server.client() as api:
        api.post("/v1/buckets", json={"name": bucket, "public": public}).raise_for_status()
        wanted = {"bucket": bucket, "scopes": ["assets:read", "assets:write"]}
        return Place(server, bucket, api.post("/v1/keys", json=wanted).json()["secret"])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium(tmp_path_factory.mktemp("chromium") / "profile") as address:
        yield address


@pytest.fixture
def place(server: Server) -> Place:
    return place_on(server)


@pytest.fixture(params=["disk", "s3", "nginx"])
def fragile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """On a server of its own, that a story may stop and kill."""
    env = {}
    if request.param == "s3":
        ceph = request.getfixturevalue("ceph")
        env = ceph.environment(ceph.new_bucket())
    start = behind_nginx if request.param == "nginx" else running
    with start(tmp_path / "data", **env) as server:
        yield place_on(server)


@contextlib.contextmanager
def shown(place: Place, address: str) -> Iterator[Browser]:
    """The page, signed in as a person does, at the size of a laptop."""
    with incognito(place.server.url + "/", address) as page:
        sized(page, 1280)
        sign_in(page, place.secret)
        yield page
        assert page.complaints == []


@pytest.fixture
def page(place: Place, address: str) -> Iterator[Browser]:
    with shown(place, address) as page:
        yield page


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, from npm."""
    return (installed() / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


def sized(page: Browser, width: int, height: int = 900) -> None:
    page.command(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 500,
    )


def slow(page: Browser, bytes_a_second: int) -> None:
    """How fast the line is from now on; -1: as it is."""
    page.command(
        "Network.emulateNetworkConditions",
        offline=False,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=bytes_a_second,
    )


def sign_in(page: Browser, key: str) -> None:
    page.see("document.activeElement.id === 'key'")
    page.type(key)
    page.press("Enter")
    page.see(WORKPLACE)


def photographs(folder: Path, *, large: int = 0) -> dict[str, bytes]:
    """A folder `trip` as on a disk, by the keys that its files are to have; with `large` a film of so many bytes."""
    files = {f"trip/day {number % 2}/IMG_{number}.jpg": PHOTO + b"%d" % number for number in range(6)}
    files["trip/Grüße.jpg"] = PHOTO + b"z"
    files["trip/nothing.txt"] = b""
    if large:
        files["trip/film.bin"] = random.Random(1).randbytes(large)
    for key, content in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "trip" / ".DS_Store").write_bytes(b"left behind")
    return files


def once(files: dict[str, bytes]) -> dict[str, tuple[str, int]]:
    """What `held` says where each file was sent exactly once."""
    return {key: (hashlib.sha256(content).hexdigest(), 1) for key, content in files.items()}


def wait_until_half_way(page: Browser) -> None:
    page.see(
        "[...document.querySelectorAll('#queue progress')].some(bar => bar.value > 0.2 && bar.value < 0.9)"
    )


def test_a_folder_dropped_again_after_a_reload_is_there_once(
    place: Place, page: Browser, tmp_path: Path
) -> None:
    files = photographs(tmp_path, large=24 * MIB)
    slow(page, 6 * MIB)
    page.drop([tmp_path / "trip"])
    wait_until_half_way(page)
    page.reload()
    assert "broke off" in page.see("document.getElementById('interrupted').innerText")
    slow(page, -1)
    page.drop([tmp_path / "trip"])
    page.see(f"{SUMMARY}.startsWith('9 of 9 files')")
    assert place.held() == once(files)
    assert page.see("document.getElementById('interrupted').hidden")
    page.drop([tmp_path / "trip"])
    page.see(f"{SUMMARY}.startsWith('18 of 18 files')")
    assert place.begun() == len(files), "each was begun once, continued or skipped after that"
    assert place.held() == once(files)


def test_uploads_go_on_by_themselves_when_the_server_comes_back(
    fragile: Place, address: str, tmp_path: Path
) -> None:
    files = photographs(tmp_path, large=24 * MIB)
    with shown(fragile, address) as page:
        slow(page, 6 * MIB)
        page.drop([tmp_path / "trip"])
        wait_until_half_way(page)
        fragile.server.kill()
        page.see("document.getElementById('queue').innerText.includes('trying again')")
        fragile.server.start()
        slow(page, -1)
        page.see(f"{SUMMARY}.startsWith('9 of 9 files')", patience=60)
    assert fragile.held() == once(files)


def test_a_stranger_pulls_the_plug_and_comes_back(fragile: Place, tmp_path: Path) -> None:
    files = photographs(tmp_path, large=40 * MIB)
    url = fragile.server.url + "/"
    with browsing(url, tmp_path / "profile") as page:
        sign_in(page, fragile.secret)
        slow(page, 6 * MIB)
        page.drop([tmp_path / "trip"])
        wait_until_half_way(page)
        fragile.server.kill()
    fragile.server.start()
    with browsing(url, tmp_path / "profile") as page:
        page.see(WORKPLACE)  # the session is still there
        page.drop([tmp_path / "trip"])
        page.see(f"{SUMMARY}.startsWith('9 of 9 files')", patience=60)
    assert fragile.held() == once(files)
    assert fragile.begun() == len(files)


def test_another_browser_skips_what_has_the_same_content(place: Place, page: Browser, tmp_path: Path) -> None:
    files = photographs(tmp_path)
    for key, content in files.items():
        place.put(key, content)
    page.drop([tmp_path / "trip"])
    page.see(f"{SUMMARY}.includes('8 already here')")
    assert place.begun() == 0


def test_nothing_is_replaced_unasked(place: Place, page: Browser, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        place.put(name, b"there before")
        (tmp_path / name).write_bytes(b"newer")
    page.choose("#files", [tmp_path / "a.txt", tmp_path / "b.txt"])
    page.see("document.querySelectorAll('#queue [data-state=taken]').length === 2")
    assert {version for _, version in place.held().values()} == {1}
    page.click("#queue li:nth-child(1) .buttons button:nth-child(1)")  # Replace
    page.see("document.querySelectorAll('#queue li').length === 1")
    page.click("#queue li:nth-child(1) .buttons button:nth-child(2)")  # Keep both
    page.see(f"{SUMMARY}.startsWith('2 of 2 files')")
    newer = hashlib.sha256(b"newer").hexdigest()
    now = place.held()
    assert now["a.txt"] == (newer, 2)
    assert now["b.txt"] == (hashlib.sha256(b"there before").hexdigest(), 1)
    (beside,) = now.keys() - {"a.txt", "b.txt"}
    assert re.fullmatch(r"b-\w{6}\.txt", beside)
    assert now[beside] == (newer, 1)


def test_paused_nothing_moves_until_it_is_resumed(place: Place, page: Browser, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(20 * MIB)
    (tmp_path / "film.bin").write_bytes(content)
    slow(page, 6 * MIB)
    page.choose("#files", [tmp_path / "film.bin"])
    wait_until_half_way(page)
    page.click("#all button")
    page.see("document.querySelector('#queue li').dataset.state === 'paused'")
    assert page.evaluate("document.querySelector('#all button').innerText").startswith("Resume all")
    slow(page, -1)
    assert place.held() == {}
    page.click("#queue li .buttons button")
    page.see(f"{SUMMARY}.startsWith('1 of 1 file')")
    assert place.held() == once({"film.bin": content})
    assert place.begun() == 1


def test_a_pasted_picture_gets_a_name(place: Place, page: Browser) -> None:
    page.evaluate(
        "const held = new DataTransfer();"
        "held.items.add(new File(['picture'], 'image.png', {type: 'image/png'}));"
        "dispatchEvent(new ClipboardEvent('paste', {clipboardData: held}));"
    )
    page.see(f"{SUMMARY}.startsWith('1 of 1 file')")
    (name,) = place.held()
    assert re.fullmatch(r"pasted-\d{4}-\d\d-\d\d-\d{6}\.png", name)


def test_names_are_text_whatever_they_hold(place: Place, page: Browser, tmp_path: Path) -> None:
    name = "<img src=x onerror='document.title=`had`'> & \"it\".txt"
    (tmp_path / name).write_bytes(b"x")
    page.choose("#files", [tmp_path / name])
    page.see(f"document.querySelector('#assets .name')?.textContent === {json.dumps(name)}")
    assert page.evaluate("document.querySelectorAll('[onerror]').length") == 0
    assert "had" not in page.evaluate("document.title")


def test_what_others_upload_appears_with_its_thumbnail_and_goes_again(place: Place, page: Browser) -> None:
    asset = place.put("from elsewhere.jpg", PHOTO)
    page.see("document.querySelector('#assets img')?.naturalWidth > 0")
    assert page.evaluate("document.querySelector('#assets .name').textContent") == "from elsewhere.jpg"
    with place.server.client() as api:
        api.put("/b/public/other.jpg", content=PHOTO)
        api.delete(f"/v1/assets/{asset['id']}")
    page.see("document.querySelectorAll('#assets li').length === 0")


def test_the_newest_come_first_and_the_rest_on_demand(place: Place, page: Browser) -> None:
    for number in range(60):
        place.put(f"{(number * 7) % 60:02}.txt", b"%d" % number)
    page.reload()
    page.see("document.querySelectorAll('#assets li').length === 48")
    page.click("#more")
    page.see("document.querySelectorAll('#assets li').length === 60")
    shown = page.evaluate("[...document.querySelectorAll('#assets .name')].map(name => name.textContent)")
    assert shown == [f"{(number * 7) % 60:02}.txt" for number in reversed(range(60))]
    assert page.evaluate("document.getElementById('more').hidden")


@pytest.mark.parametrize("public", [False, True], ids=["private", "public"])
def test_what_is_copied_works_for_everybody(
    server: Server, address: str, tmp_path: Path, public: bool
) -> None:
    place = place_on(server, public=public)
    name = "it's a $photo.jpg"
    asset = place.put(name, PHOTO)
    with shown(place, address) as page:
        page.see("!!document.querySelector('#assets img')")
        link, curl, image = (copied(page, number) for number in (1, 2, 3))
    assert httpx.get(link).content == PHOTO
    subprocess.run(["sh", "-c", curl], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / name).read_bytes() == PHOTO
    sources = re.findall(r"(http\S+) (\d+)w", image)
    assert [int(width) for _, width in sources] == [256, 512, 960]
    assert all(httpx.get(url.replace("&amp;", "&")).status_code == 200 for url, _ in sources)
    assert 'width="960" height="720"' in image
    assert asset["id"] in image


def copied(page: Browser, number: int) -> str:
    """What stands on the clipboard after a click on one of an asset's buttons."""
    page.evaluate("document.getElementById('said').textContent = ''")
    page.evaluate(
        "navigator.clipboard.write = async ([item]) => { window.onClipboard = await item.getType('text/plain') }"
    )
    page.click(f"#assets li .buttons button:nth-child({number})")
    page.see("document.getElementById('said').textContent.endsWith('copied')")
    text = page.evaluate("window.onClipboard.text()")
    assert isinstance(text, str)
    return text


def test_a_revoked_key_ends_the_session_and_another_one_goes_on(
    place: Place, page: Browser, tmp_path: Path
) -> None:
    content = random.Random(3).randbytes(20 * MIB)
    (tmp_path / "film.bin").write_bytes(content)
    slow(page, 6 * MIB)
    page.choose("#files", [tmp_path / "film.bin"])
    wait_until_half_way(page)
    with place.server.client() as api:
        (key,) = (key for key in api.get("/v1/keys").json()["keys"] if key["bucket"] == place.bucket)
        api.delete(f"/v1/keys/{key['id']}")
    slow(page, -1)
    sign_in(page, place.server.admin_key)
    page.see(f"{SUMMARY}.startsWith('1 of 1 file')")
    assert place.held() == once({"film.bin": content})


def test_a_wrong_key_is_told_on_the_page(server: Server, address: str) -> None:
    with incognito(server.url + "/", address) as page:
        page.see("document.activeElement.id === 'key'")
        page.type("msk_" + secrets.token_hex(16))
        page.press("Enter")
        assert "no such key" in page.see("document.getElementById('sign-in-error').innerText")


def test_everything_is_reached_by_keyboard(place: Place, page: Browser) -> None:
    place.put("a.txt", b"x")
    page.reload()
    page.see("document.querySelectorAll('#assets li').length === 1")
    reached = []
    for _ in range(20):
        page.press("Tab")
        here = page.evaluate(
            "(here => here.id || here.innerText.trim().split('\\n')[0])(document.activeElement)"
        )
        ringed = page.evaluate(
            "document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle"
        )
        if ringed is True:
            break
        assert ringed == "solid", here
        reached.append(here)
    assert reached[:6] == ["API", "sign-out", "choose-files", "choose-folder", "bucket", "prefix"]
    assert len(reached) == 9, reached  # and the asset, its link, its curl line


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits_every_screen_and_finger(page: Browser, place: Place, tmp_path: Path, width: int) -> None:
    sized(page, width)
    busy(page, place, tmp_path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate(
        """[...document.querySelectorAll('button, select, input, header a, #assets a')]
        .map(place => [place.outerHTML.slice(0, 80), place.getBoundingClientRect()])
        .filter(([, box]) => box.width && (box.width < 44 || box.height < 44)).map(([html]) => html)"""
    )
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Browser, place: Place, tmp_path: Path, axe: str, scheme: str) -> None:
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    busy(page, place, tmp_path)
    assert violations(page, axe) == []
    page.click("#sign-out")
    page.see("document.activeElement.id === 'key'")
    assert violations(page, axe) == []


def busy(page: Browser, place: Place, tmp_path: Path) -> None:
    """Everything there is to see at once: an upload under way, one to decide, assets with and without pictures."""
    place.put("taken.txt", b"x")
    place.put("a photo with a name that is longer than any card is wide.jpg", PHOTO)
    (tmp_path / "taken.txt").write_bytes(b"y")
    (tmp_path / "film.bin").write_bytes(bytes(8 * MIB))
    slow(page, MIB)
    page.choose("#files", [tmp_path / "taken.txt", tmp_path / "film.bin"])
    page.see(
        "document.querySelectorAll('#queue li').length === 2 && !!document.querySelector('#queue [data-state=taken]')"
    )
    page.see("document.querySelector('#assets img')?.naturalWidth > 0")
    page.see("!document.getElementById('said').classList.contains('shown')")


def violations(page: Browser, axe: str) -> list[Any]:
    page.evaluate(f"{axe}; 0")
    found = page.evaluate("axe.run().then(({violations}) => violations)")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


def test_a_server_that_stops_ends_the_feed_at_once_and_is_followed_again(
    fragile: Place, address: str
) -> None:
    with shown(fragile, address) as page:
        page.see("document.getElementById('empty').hidden === false")
        before = time.monotonic()
        assert fragile.server.stop() == 0
        assert time.monotonic() - before < 15, "well before requests under way are cut off"
        fragile.server.start()
        fragile.put("later.txt", b"x")
        page.see("document.querySelectorAll('#assets li').length === 1")
