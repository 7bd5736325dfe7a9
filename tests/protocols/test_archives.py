"""Asking for an archive: who may, of what, and what is refused."""

import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.servers import Server

Client = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def each_server(server: Server) -> Server:
    """Where the bytes rest makes no difference here."""
    return server


@pytest.fixture(scope="module")
def assets(api: httpx.Client) -> dict[str, dict[str, Any]]:
    places = ("media/one/a.txt", "media/one/b.txt", "media/two/c.txt", "public/d.txt")
    return {place[-5]: api.put(f"/b/{place}", content=place.encode()).json() for place in places}


def ask(client: httpx.Client, **wanted: object) -> httpx.Response:
    return client.post("/v1/archives", json={"expires_in": 3600, **wanted})


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 201, answer.text
    got = httpx.get(answer.json()["url"])
    assert got.status_code == 200, got.text
    return zipfile.ZipFile(io.BytesIO(got.content)).namelist()


def seconds_left(answer: httpx.Response) -> float:
    assert answer.status_code == 201, answer.text
    return (datetime.fromisoformat(answer.json()["expires_at"]) - datetime.now(UTC)).total_seconds()


def test_assets_are_chosen_by_id_or_by_prefix(api: httpx.Client, assets: dict[str, dict[str, Any]]) -> None:
    ids = [assets[letter]["id"] for letter in "dba"]
    assert names(ask(api, assets=[*ids, ids[0]])) == ["d.txt", "b.txt", "a.txt"]
    assert names(ask(api, bucket="media", prefix="one/")) == ["a.txt", "b.txt"]
    assert names(ask(api, prefix="one/")) == ["a.txt", "b.txt"]
    assert names(ask(api, bucket="public")) == ["d.txt"]
    assert names(ask(api, bucket="media", prefix="t")) == ["two/c.txt"]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({"prefix": "one/"}, "one.zip"),
        ({"bucket": "public"}, "public.zip"),
        ({"prefix": "one/", "name": "My: pictures.zip"}, "My%3A%20pictures.zip"),
        ({"prefix": "one/", "name": "../../zoë"}, "zo%C3%AB.zip"),
    ],
    ids=["the folder's", "the bucket's", "the one asked for", "made safe"],
)
def test_the_url_ends_in_a_name(
    api: httpx.Client, assets: dict[str, Any], wanted: dict[str, str], name: str
) -> None:
    url = ask(api, **wanted).json()["url"]
    assert url.split("?")[0].rpartition("/")[2] == name
    assert httpx.head(url).status_code == 200


def test_nobody_makes_one_without_a_key(nobody: httpx.Client) -> None:
    assert ask(nobody, bucket="public").status_code == 401


def test_reading_is_needed_and_is_enough(client_with: Client, assets: dict[str, dict[str, Any]]) -> None:
    wanted = {"assets": [assets["a"]["id"]]}
    assert names(ask(client_with("assets:read"), **wanted)) == ["a.txt"]
    assert ask(client_with("assets:write"), **wanted).status_code == 403


def test_a_narrow_key_packs_only_what_it_sees(client_with: Client, assets: dict[str, dict[str, Any]]) -> None:
    narrow = client_with("assets:read", bucket="media", prefix="one/")
    assert names(ask(narrow, bucket="media")) == ["one/a.txt", "one/b.txt"]
    assert names(ask(narrow, assets=[assets["a"]["id"], assets["d"]["id"]])) == ["a.txt", "d.txt"]
    assert ask(narrow, bucket="public").status_code == 404
    assert ask(narrow, prefix="two/").status_code == 400
    hidden = ask(narrow, assets=[assets["a"]["id"], assets["c"]["id"]])
    assert (hidden.status_code, hidden.json()["code"]) == (404, "not_found")
    assert assets["c"]["id"] in hidden.json()["detail"]
    assert assets["a"]["id"] not in hidden.json()["detail"]


def test_it_does_not_outlive_the_key_that_made_it(client_with: Client, assets: dict[str, Any]) -> None:
    reader = client_with("assets:read", expires_in="5m")
    assert 0 < seconds_left(ask(reader, prefix="one/", expires_in="30d")) <= 300
    assert 3590 < seconds_left(ask(client_with("assets:read"), prefix="one/", expires_in="1h")) <= 3601


def test_it_does_not_outlive_what_is_in_it(api: httpx.Client) -> None:
    api.put("/b/media/mayfly/a", content=b"a", headers={"X-Expires-In": "2m"}).raise_for_status()
    assert 0 < seconds_left(ask(api, prefix="mayfly/")) <= 120


REFUSED = {
    "no lifetime": ({"prefix": "one/", "expires_in": None}, 422),
    "a lifetime of nothing": ({"prefix": "one/", "expires_in": 0}, 422),
    "too long a lifetime": ({"prefix": "one/", "expires_in": "367d"}, 422),
    "nothing": ({}, 400),
    "no assets": ({"assets": []}, 400),
    "an empty folder": ({"prefix": "empty/"}, 400),
    "two ways at once": ({"assets": ["ast_x"], "prefix": "one/"}, 422),
    "ids that are none": ({"assets": ["../etc/passwd"]}, 404),
    "numbers for ids": ({"assets": [1]}, 422),
    "a bucket that is none": ({"bucket": "nowhere"}, 404),
    "a bucket with an odd name": ({"bucket": "../\u0000"}, 404),
    "a prefix that cannot be": ({"prefix": "a/../b"}, 400),
    "an empty name": ({"prefix": "one/", "name": ""}, 422),
    "a misspelled field": ({"prefix": "one/", "file_name": "x"}, 422),
}


@pytest.mark.parametrize(("wanted", "status"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(
    api: httpx.Client, assets: dict[str, Any], wanted: dict[str, object], status: int
) -> None:
    answer = ask(api, **wanted)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_body_too_large_is_refused(api: httpx.Client) -> None:
    answer = ask(api, assets=["ast_" + "0" * 36] * 30_000)
    assert (answer.status_code, answer.json()["limit"]) == (413, 1 << 20)


def test_no_signature_is_logged(server: Server, api: httpx.Client, assets: dict[str, Any]) -> None:
    url = ask(api, prefix="one/").json()["url"]
    httpx.get(url)
    httpx.get(url + "x")
    with server.client() as client:  # the log is written a little later
        client.get("/healthz")
    assert url.rpartition("sig=")[2] not in server.logged()
