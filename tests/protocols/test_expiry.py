"""What has expired is gone at once from every answer, and from the disk soon after."""

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import Server, running


@pytest.fixture(scope="module")
def sweeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("expiry") / "data", MEDIASVC_SWEEP_INTERVAL="1") as server:
        yield server


@pytest.fixture(scope="module")
def api(sweeping: Server) -> Iterator[httpx.Client]:
    with sweeping.client() as client:
        yield client


def soon(holds: Callable[[], bool], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def blobs(server: Server) -> list[Path]:
    return [path for path in (server.data_dir / "blobs").rglob("*") if path.is_file() and path.stat().st_size]


def test_an_asset_expires_everywhere(sweeping: Server, api: httpx.Client) -> None:
    content = secrets.token_bytes(5000)
    made = api.put("/b/media/fleeting", content=content, headers={"X-Expires-In": "1s"})
    asset = made.json()
    assert api.get("/b/media/fleeting").content == content
    item = {"sha256": asset["sha256"], "size": 5000}

    def gone() -> bool:
        return api.get("/b/media/fleeting").status_code == 404

    assert soon(gone, within=3)
    for target in (
        "/b/media/fleeting",
        f"/f/{asset['id']}/x",
        f"/v1/assets/{asset['id']}",
        f"/v1/assets/{asset['id']}/tasks",
    ):
        assert api.get(target).status_code == 404
        assert api.head(target).status_code == 404
    assert api.get("/v1/assets").json()["assets"] == []
    for more in ({}, {"bucket": "media"}, {"bucket": "media", "key": "fleeting"}):
        answer = api.post("/v1/assets/check", json={"items": [item | more]}).json()
        assert answer["items"] == [{"present": False, "id": None}]
    assert api.patch(f"/v1/assets/{asset['id']}", json={"name": "back"}).status_code == 404
    assert api.delete("/b/media/fleeting").status_code == 404
    assert soon(lambda: not blobs(sweeping))
    assert sweeping.run("fsck", "--json").returncode == 0


def test_the_key_of_an_expired_asset_is_free(api: httpx.Client) -> None:
    first = api.put("/b/media/again", content=b"1", headers={"X-Expires-In": "1"}).json()
    assert soon(lambda: api.get("/b/media/again").status_code == 404, within=3)
    second = api.put("/b/media/again", content=b"2", headers={"If-None-Match": "*"})
    assert second.status_code == 201
    assert second.json()["id"] != first["id"]


def test_a_bucket_gives_a_lifetime_that_a_header_overrides(api: httpx.Client) -> None:
    assert api.post("/v1/buckets", json={"name": "short", "default_ttl": "1s"}).status_code == 201
    api.put("/b/short/a", content=b"1")
    api.put("/b/short/b", content=b"1", headers={"X-Expires-In": "1h"})
    assert soon(lambda: api.get("/b/short/a").status_code == 404, within=3)
    assert api.get("/b/short/b").status_code == 200


def test_expiry_can_be_changed_and_taken_back(api: httpx.Client) -> None:
    asset = api.put("/b/media/kept", content=b"1", headers={"X-Expires-In": "2s"}).json()
    patched = api.patch(f"/v1/assets/{asset['id']}", json={"expires_in": None})
    assert patched.json()["expires_at"] is None
    assert api.patch(f"/v1/assets/{asset['id']}", json={"tags": ["x"]}).json()["expires_at"] is None
    assert api.patch(f"/v1/assets/{asset['id']}", json={"expires_in": "1s"}).json()["expires_at"]
    assert soon(lambda: api.get("/b/media/kept").status_code == 404, within=3)


def test_a_form_and_the_drop_box_expire_too(api: httpx.Client) -> None:
    form = api.post("/v1/assets", files={"f": ("f", b"1")}, data={"expires_in": "1s"}).json()["assets"][0][
        "url"
    ]
    box = api.put("/u/f", content=b"1", headers={"X-Expires-In": "1s"}).text.strip()
    assert soon(lambda: {api.get(url).status_code for url in (form, box)} == {404}, within=3)
