"""Every class of URL, in every mode: what is asked for, and what must come back."""

import base64
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from functools import cached_property
from pathlib import Path

import httpx
import pytest

from tests.modes import MODES, Mode, mode
from tests.servers import Server

PHOTO = (Path(__file__).parents[2] / "data" / "photo.jpg").read_bytes()


@pytest.fixture(scope="session", params=MODES)
def each_mode(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mode]:
    """A real service for each way in which bytes leave; what HTTP promises holds in all of them.

    All modules share it: tests use keys of their own. What they left is looked through at its end.
    """
    folder = tmp_path_factory.mktemp(request.param)
    with mode(request.param, folder, lambda: request.getfixturevalue("ceph")) as started:
        yield started
        started.server.check_leftovers()


@pytest.fixture(scope="session")
def each_server(each_mode: Mode) -> Server:
    """What the fixtures around us work with is the service in its mode."""
    return each_mode.server


@pytest.fixture(scope="module")
def api(each_server: Server) -> Iterator[httpx.Client]:
    """A client that may do everything."""
    with each_server.client() as client:
        yield client


@dataclass(frozen=True)
class Place:
    """A URL, who asks, and what is there; `kind` is "private", "public" or "link", `door` the URL's first letter."""

    client: httpx.Client
    url: str
    body: bytes
    kind: str
    door: str
    media_type: str
    last_modified: str
    chill: Callable[[], None]

    def ask(
        self, method: str = "GET", headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    ) -> httpx.Response:
        self.chill()
        return self.client.request(method, self.url, headers=headers)

    @cached_property  # the body may be large
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'

    @cached_property
    def repr_digest(self) -> str:
        return f"sha-256=:{base64.b64encode(hashlib.sha256(self.body).digest()).decode()}:"

    def moved(self, seconds: float) -> str:
        """A date that lies so far from Last-Modified."""
        return formatdate(parsedate_to_datetime(self.last_modified).timestamp() + seconds, usegmt=True)


PLACES = [
    *(f"{kind} {door}" for kind in ("private", "public") for door in ("b", "f", "i")),
    "link f",
    "link i",
]


@pytest.fixture(scope="module")
def places(each_mode: Mode, api: httpx.Client, nobody: httpx.Client) -> dict[str, Place]:
    body = random.Random(each_mode.name).randbytes(each_mode.size)
    found: dict[str, tuple[httpx.Client, str]] = {}
    for kind, client in (("private", api), ("public", nobody)):
        bucket = "media" if kind == "private" else "public"
        asset = api.put(f"/b/{bucket}/data.bin", content=body).json()
        found[f"{kind} b"] = (client, f"/b/{bucket}/data.bin")
        found[f"{kind} f"] = (client, asset["url"])
        picture = finished(api, api.put(f"/b/{bucket}/photo.jpg", content=PHOTO).json()["id"])
        found[f"{kind} i"] = (client, picture["renditions"]["thumb"]["url"])
        if kind == "private":
            found["link f"] = (nobody, link(api, asset["id"]))
            found["link i"] = (nobody, link(api, picture["id"], recipe="thumb"))
    time.sleep(1.1)  # Last-Modified is sent once it lies behind
    return {name: _place(each_mode, name, *at, api, found, body) for name, at in found.items()}


def _place(
    where: Mode,
    name: str,
    client: httpx.Client,
    url: str,
    api: httpx.Client,
    found: dict[str, tuple[httpx.Client, str]],
    body: bytes,
) -> Place:
    kind, door = name.split()
    if door == "i":
        body = api.get(found["private i"][1]).content
        assert len(body) > 1000
    head = client.head(url)
    assert head.status_code == 200, (name, head.headers)
    media_type = "image/webp" if door == "i" else "application/octet-stream"
    return Place(client, url, body, kind, door, media_type, head.headers["Last-Modified"], where.chill)


def finished(api: httpx.Client, asset_id: str) -> dict[str, dict[str, dict[str, str]]]:
    """The asset's JSON once its renditions are there."""
    deadline = time.monotonic() + 30
    while (now := api.get(f"/v1/assets/{asset_id}").json())["state"] == "processing":
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    return now


def link(api: httpx.Client, asset_id: str, **more: object) -> str:
    made = api.post(f"/v1/assets/{asset_id}/links", json={"expires_in": 3600, **more})
    assert made.status_code == 201, made.text
    return str(made.json()["url"])


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    return places[request.param]
