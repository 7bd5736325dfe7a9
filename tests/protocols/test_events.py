"""`GET /v1/events` and the session, over the wire."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Server, running

PHOTO = (Path(__file__).parents[1] / "data" / "photo.jpg").read_bytes()


@pytest.fixture
def api(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def key(api: httpx.Client, *scopes: str, **narrowed: str) -> Any:
    made = api.post("/v1/keys", json={"scopes": scopes or ["assets:read"], **narrowed})
    made.raise_for_status()
    return made.json()


class Feed:
    """What arrives on a feed, one event after the other."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def next(self) -> tuple[str, Any]:
        """The next event's name and data; fields like `retry` and comments are passed over."""
        name = ""
        for line in self._lines:
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                return name, json.loads(value)
        return "end", None


@contextlib.contextmanager
def following(server: Server, secret: str, query: str = "") -> Iterator[Feed]:
    with server.client(secret) as client, client.stream("GET", f"/v1/events{query}") as response:
        assert response.status_code == 200, response.read()
        feed = Feed(response)
        assert next(feed._lines).startswith("retry: ")  # from here on nothing is missed
        yield feed


def test_an_asset_is_followed_from_its_making_to_its_end(server: Server, api: httpx.Client) -> None:
    with following(server, server.admin_key, "?bucket=media&prefix=life/") as feed:
        assert feed.response.headers["content-type"].startswith("text/event-stream")
        assert feed.response.headers["cache-control"] == "no-store"
        assert feed.response.headers["x-accel-buffering"] == "no"
        api.put("/b/media/other/photo.jpg", content=PHOTO)
        made = api.put("/b/media/life/photo.jpg", content=PHOTO).json()
        name, asset = feed.next()
        assert (name, asset["id"]) == ("asset", made["id"])
        while asset["state"] == "processing":
            name, asset = feed.next()
        assert asset["renditions"]["thumb"]["url"].endswith("?v=1")
        api.patch(f"/v1/assets/{made['id']}", json={"tags": ["seen"]})
        while asset["tags"] != ["seen"]:
            name, asset = feed.next()
        api.put("/b/media/life/photo.jpg", content=b"text")
        while asset["version"] != 2:
            name, asset = feed.next()
        api.delete("/b/media/life/photo.jpg")
        while name != "deleted":
            name, asset = feed.next()
        assert asset == {"id": made["id"], "bucket": "media", "key": "life/photo.jpg"}


def test_nobody_hears_of_what_lies_outside_of_his_key(server: Server, api: httpx.Client) -> None:
    narrow = key(api, bucket="media", prefix="mine/")
    with following(server, narrow["secret"]) as feed:
        api.put("/b/media/theirs/a.txt", content=b"x")
        api.put("/b/public/mine/a.txt", content=b"x")
        api.put("/b/media/mine/a.txt", content=b"x")
        _, asset = feed.next()
        assert (asset["bucket"], asset["key"]) == ("media", "mine/a.txt")


@pytest.mark.parametrize(
    ("query", "scopes", "status"),
    [("", None, 401), ("", ["assets:write"], 403), ("?bucket=public", ["assets:read"], 404),
     ("?bucket=nothing", ["assets:read"], 404)],
)  # fmt: skip
def test_who_may_not_read_may_not_follow(
    server: Server, api: httpx.Client, query: str, scopes: list[str] | None, status: int
) -> None:
    secret = key(api, *scopes, bucket="media")["secret"] if scopes else None
    with server.client(secret, anonymous=secret is None) as client:
        assert client.get("/v1/events" + query).status_code == status


def test_the_stream_ends_with_the_key(server: Server, api: httpx.Client) -> None:
    short = key(api)
    with following(server, short["secret"]) as feed:
        api.delete(f"/v1/keys/{short['id']}")
        api.put("/b/media/after/a.txt", content=b"x")
        assert feed.next() == ("end", None)


def test_who_leaves_is_not_waited_for(server: Server) -> None:
    with following(server, server.admin_key) as feed:
        request_id = feed.response.headers["x-request-id"]
        assert request_id not in server.logged()  # a request is logged at its end
    deadline = time.monotonic() + 10
    while request_id not in server.logged():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_head_of_the_feed_ends_at_once(server: Server, api: httpx.Client) -> None:
    assert api.head("/v1/events").headers["content-type"].startswith("text/event-stream")


def test_what_is_rolled_back_is_not_told(server: Server, api: httpx.Client) -> None:
    with following(server, server.admin_key, "?prefix=back/") as feed:
        refused = api.put("/b/media/back/a.txt", content=b"x", headers={"X-Checksum-Sha256": "0" * 64})
        assert refused.status_code == 422
        api.put("/b/media/back/b.txt", content=b"x")
        assert feed.next()[1]["key"] == "back/b.txt"


def test_feeds_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server, contextlib.ExitStack() as feeds:
        opened = [feeds.enter_context(following(server, server.admin_key)) for _ in range(3)]
        ends: list[tuple[str, Any]] = []
        threads = [threading.Thread(target=lambda feed=feed: ends.append(feed.next())) for feed in opened]
        for thread in threads:
            thread.start()
        before = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - before < 15, "well before requests under way are cut off"
        for thread in threads:
            thread.join()
        assert ends == [("end", None)] * 3


@contextlib.contextmanager
def signed_in(server: Server, secret: str) -> Iterator[httpx.Client]:
    with server.client(anonymous=True) as client:
        answer = client.post("/v1/session", json={"key": secret})
        assert answer.status_code == 204, answer.text
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert secret not in cookie
        yield client


def test_a_session_reads_all_that_its_key_reads_and_writes_from_our_own_page_only(
    server: Server, api: httpx.Client
) -> None:
    asset = api.put("/b/media/session/photo.jpg", content=PHOTO).json()
    made = key(api, "assets:read", "assets:write", bucket="media")
    with signed_in(server, made["secret"]) as client:
        told = client.get("/v1/session").json()
        assert (told["key_id"], [bucket["name"] for bucket in told["buckets"]]) == (made["id"], ["media"])
        assert client.get(asset["url"]).content == PHOTO
        assert client.get("/v1/assets", params={"prefix": "session/"}).status_code == 200
        assert client.get("/v1/assets", params={"bucket": "public"}).status_code == 404
        assert client.put("/b/media/session/new", content=b"x").status_code == 401
        elsewhere = {"Origin": "http://evil.example"}
        assert client.put("/b/media/session/new", content=b"x", headers=elsewhere).status_code == 401
        own = {"Origin": server.url}
        assert client.put("/b/media/session/new", content=b"x", headers=own).status_code == 201
        api.delete(f"/v1/keys/{made['id']}")
        refused = client.get(asset["url"])
        assert refused.status_code == 401
        assert "Basic" not in refused.headers["www-authenticate"]


def test_a_session_ends_where_it_is_ended(server: Server) -> None:
    with signed_in(server, server.admin_key) as client:
        assert client.delete("/v1/session", headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.get("/v1/assets").status_code == 200
        assert client.delete("/v1/session").status_code == 204
        assert client.get("/v1/assets").status_code == 401
        assert client.get("/v1/session").json() == {
            "key_id": None, "scopes": [], "prefix": "", "buckets": [], "url": server.url
        }  # fmt: skip


def test_no_other_site_begins_a_session_and_no_wrong_key_does(server: Server) -> None:
    with server.client(anonymous=True) as client:
        body = {"key": server.admin_key}
        elsewhere = client.post("/v1/session", json=body, headers={"Origin": "http://evil.example"})
        assert (elsewhere.status_code, "set-cookie" in elsewhere.headers) == (403, False)
        wrong = client.post("/v1/session", json={"key": "msk_" + "0" * 32})
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
        assert "Basic" not in wrong.headers["www-authenticate"]
        assert client.post("/v1/session", content=json.dumps(body)).status_code in (415, 422)


def test_behind_https_the_cookie_is_sent_over_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path / "data", MEDIASVC_PUBLIC_URL="https://media.example/under") as server:
        with server.client(anonymous=True) as client:
            answer = client.post("/v1/session", json={"key": server.admin_key})
            assert {"Secure", "Path=/under/"} <= set(answer.headers["set-cookie"].split("; "))
