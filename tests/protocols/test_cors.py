"""Which pages may read what: the server's word, a bucket's that narrows it, and what caches are told of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import servers
from tests.servers import Server, running

APP, OTHER, THIRD = "https://app.example", "https://other.example", "https://third.example"
STARTS: dict[str, Any] = {"direct": running, "nginx": servers.behind_nginx}


class World:
    """A server, and a public bucket that only APP's pages may read, with one asset in it."""

    def __init__(self, server: Server) -> None:
        self.api = server.client()
        self.nobody = server.client(anonymous=True)
        self.api.post("/v1/buckets", json={"name": "narrow", "public": True, "cors_origins": [APP]})
        self.api.put("/b/narrow/a.txt", content=b"0123456789").raise_for_status()
        self.api.put("/b/public/a.txt", content=b"0123456789").raise_for_status()
        listed = self.api.get("/v1/assets?bucket=narrow").json()["assets"]
        self.urls = ["/b/narrow/a.txt", httpx.URL(listed[0]["url"]).path]

    def close(self) -> None:
        self.api.close()
        self.nobody.close()


def started(mode: str, folder: Path, **env: str) -> Iterator[World]:
    with STARTS[mode](folder / "data", **env) as server:
        world = World(server)
        yield world
        world.close()


@pytest.fixture(scope="module", params=STARTS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from started(request.param, tmp_path_factory.mktemp("cors"))


@pytest.fixture(scope="module", params=STARTS)
def strict(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Here the server itself names whom it lets in: OTHER and THIRD."""
    origins = f"{OTHER}, {THIRD}/"
    yield from started(request.param, tmp_path_factory.mktemp("strict"), MEDIASVC_CORS_ORIGINS=origins)


def allowed_to(answer: httpx.Response) -> str | None:
    assert "Access-Control-Allow-Credentials" not in answer.headers
    return answer.headers.get("Access-Control-Allow-Origin")


def varies(answer: httpx.Response) -> bool:
    named = [name.strip() for name in answer.headers.get("Vary", "").split(",")]
    assert named.count("Origin") <= 1
    return "Origin" in named


ASKED: dict[str, tuple[str, dict[str, str], int]] = {
    "whole": ("GET", {}, 200),
    "head": ("HEAD", {}, 200),
    "range": ("GET", {"Range": "bytes=2-4"}, 206),
    "ranges": ("GET", {"Range": "bytes=0-1,4-5"}, 206),
    "outside": ("GET", {"Range": "bytes=100-"}, 416),
    "unchanged": ("GET", {"If-None-Match": "*"}, 304),
    "changed": ("GET", {"If-Match": '"another"'}, 412),
}


@pytest.mark.parametrize(("method", "headers", "status"), ASKED.values(), ids=ASKED.keys())
def test_only_the_buckets_pages_read_its_bytes(
    world: World, method: str, headers: dict[str, str], status: int
) -> None:
    for url in world.urls:
        for origin, allowed in ((APP, APP), (OTHER, None), ("null", None)):
            answer = world.nobody.request(method, url, headers=headers | {"Origin": origin})
            assert answer.status_code == status
            assert allowed_to(answer) == allowed
            assert varies(answer)
            exposed = answer.headers.get("Access-Control-Expose-Headers", "")
            assert ("Content-Range" in exposed and "Repr-Digest" in exposed) is (allowed is not None)


@pytest.mark.parametrize("name", ["whole", "head", "range", "unchanged"])
def test_what_a_cache_keeps_for_one_page_it_gives_to_no_other(world: World, name: str) -> None:
    """A picture is fetched without Origin first, by a script later: the copy of the one must not do for the other."""
    method, headers, _ = ASKED[name]
    for url in world.urls:
        answer = world.nobody.request(method, url, headers=headers)
        assert varies(answer)
        assert allowed_to(answer) is None
    open_to_all = world.nobody.request(method, "/b/public/a.txt", headers=headers)
    assert not varies(open_to_all), "one copy does for everybody"
    asked = world.nobody.request(method, "/b/public/a.txt", headers=headers | {"Origin": OTHER})
    assert allowed_to(asked) == "*"


def test_renditions_are_narrowed_as_their_original_is(world: World) -> None:
    asset = world.api.get("/v1/assets?bucket=narrow").json()["assets"][0]
    for origin, allowed in ((APP, APP), (OTHER, None)):
        answer = world.nobody.get(f"/i/thumb/{asset['id']}.webp", headers={"Origin": origin})
        assert allowed_to(answer) == allowed


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET"])
def test_preflights_tell_the_buckets_origins(world: World, method: str) -> None:
    for url in world.urls:
        for origin, allowed in ((APP, APP), (OTHER, None)):
            headers = {
                "Origin": origin,
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization, x-tags",
            }
            answer = world.nobody.options(url, headers=headers)
            assert (answer.status_code, answer.content) == (204, b"")
            assert allowed_to(answer) == allowed
            assert varies(answer)
            assert answer.headers["Access-Control-Allow-Headers"] == "authorization, x-tags"


def test_uploads_are_answered_for_the_buckets_pages_only(world: World) -> None:
    for origin, allowed in ((APP, APP), (OTHER, None)):
        stored = world.api.put("/b/narrow/new", content=b"x", headers={"Origin": origin})
        assert stored.status_code in (200, 201)
        assert allowed_to(stored) == allowed
        refused = world.nobody.put("/b/narrow/new", content=b"x", headers={"Origin": origin})
        assert refused.status_code == 401
        assert allowed_to(refused) == allowed


def test_everything_else_is_open_as_before(world: World) -> None:
    for url in ("/b/public/a.txt", "/b/nowhere/x", "/v1/buckets/narrow", "/healthz", "/f/ast_x/y"):
        assert allowed_to(world.api.get(url, headers={"Origin": OTHER})) == "*"


def test_a_change_of_the_policy_counts_at_once(world: World) -> None:
    for origins, allowed in (([OTHER], OTHER), (["*"], "*"), ([], "*"), (None, "*"), ([APP], None)):
        changed = world.api.patch("/v1/buckets/narrow", json={"cors_origins": origins})
        assert changed.json()["cors_origins"] == (origins or [])
        for url in world.urls:
            assert allowed_to(world.nobody.get(url, headers={"Origin": OTHER})) == allowed


@pytest.mark.parametrize(
    ("by", "open_to"),
    [([], [OTHER, THIRD]), (["*"], [OTHER, THIRD]), ([APP], []), ([APP, THIRD], [THIRD])],
    ids=str,
)
def test_a_bucket_lets_in_nobody_whom_the_server_keeps_out(
    strict: World, by: list[str], open_to: list[str]
) -> None:
    strict.api.patch("/v1/buckets/narrow", json={"cors_origins": by}).raise_for_status()
    for url in strict.urls:
        for origin in (APP, OTHER, THIRD):
            answer = strict.nobody.get(url, headers={"Origin": origin})
            assert answer.status_code == 200
            assert allowed_to(answer) == (origin if origin in open_to else None)
            assert varies(answer)
        assert varies(strict.nobody.get(url))


def test_origins_are_kept_as_browsers_send_them(world: World) -> None:
    made = world.api.post(
        "/v1/buckets",
        json={
            "name": "tidy",
            "cors_origins": ["HTTPS://App.Example:443/", "http://localhost:3000"],
            "download_rate": 1_000_000,
        },
    ).json()
    assert made["cors_origins"] == ["https://app.example", "http://localhost:3000"]
    assert made["download_rate"] == 1_000_000
    assert world.api.get("/v1/buckets/tidy").json() == made
    changed = world.api.patch("/v1/buckets/tidy", json={"download_rate": None}).json()
    assert changed == made | {"download_rate": None}
    fresh = world.api.post("/v1/buckets", json={"name": "fresh"}).json()
    assert (fresh["cors_origins"], fresh["download_rate"]) == ([], None)


def test_a_bad_policy_names_what_is_wrong_with_it(world: World) -> None:
    answer = world.api.patch("/v1/buckets/narrow", json={"cors_origins": [APP, "app.example/x"]})
    assert answer.status_code == 422
    assert "cors_origins.1: 'app.example/x' is no origin; write https://" in answer.json()["detail"]
    answer = world.api.patch("/v1/buckets/narrow", json={"download_rate": 0})
    assert answer.status_code == 422
    assert "download_rate" in answer.json()["detail"]
