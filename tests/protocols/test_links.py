"""Links: a URL that opens one private asset to whoever has it, for a while."""

import re
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server, running

BODY = bytes(range(256)) * 40
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001"
    "a5f645400000000049454e44ae426082"
)
Client = Callable[..., httpx.Client]


def link_to(client: httpx.Client, asset: dict[str, Any], **wanted: object) -> dict[str, Any]:
    made = client.post(f"/v1/assets/{asset['id']}/links", json={"expires_in": "1h", **wanted})
    assert made.status_code == 201, made.text
    answer: dict[str, Any] = made.json()
    return answer


def seconds_left(link: dict[str, Any]) -> float:
    return datetime.fromisoformat(link["expires_at"]).timestamp() - time.time()


@pytest.fixture(scope="module")
def asset(api: httpx.Client) -> dict[str, Any]:
    return api.put("/b/media/links/data.bin", content=BODY).json()


@pytest.fixture(scope="module")
def picture(api: httpx.Client) -> dict[str, Any]:
    made = api.put("/b/media/links/dot.png", content=PNG).json()
    deadline = time.monotonic() + 30
    while (now := api.get(f"/v1/assets/{made['id']}").json())["state"] == "processing":
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    return now


@pytest.fixture
def own(api: httpx.Client) -> dict[str, Any]:
    """An asset for one test alone."""
    return api.put(f"/b/media/links/own-{time.monotonic_ns()}.bin", content=BODY).json()


def refused(answer: httpx.Response) -> None:
    assert answer.status_code == 403, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["code"] == "forbidden"


# --- what it opens


def test_a_link_opens_a_private_asset_to_anybody(
    each_server: Server, api: httpx.Client, nobody: httpx.Client, asset: dict[str, Any]
) -> None:
    assert nobody.get(asset["url"]).status_code == 401
    link = link_to(api, asset)
    assert set(link) == {"url", "expires_at"}
    assert re.fullmatch(
        re.escape(f"{each_server.url}/f/{asset['id']}/data.bin")
        + r"\?exp=\d{10}&kid=[0-9a-f]{8}&sig=[\w-]{43}",
        link["url"],
    )
    got = nobody.get(link["url"])
    assert (got.status_code, got.content) == (200, BODY)
    assert got.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert got.headers["Cache-Control"] == "public, max-age=300"
    head = nobody.head(link["url"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(BODY))


def test_a_link_is_a_download_like_any_other(
    api: httpx.Client, nobody: httpx.Client, asset: dict[str, Any]
) -> None:
    url = link_to(api, asset)["url"]
    part = nobody.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, BODY[100:200])
    same = nobody.get(url, headers={"If-None-Match": asset["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["Cache-Control"] == "public, max-age=300"
    assert nobody.get(url, headers={"If-Match": '"other"'}).status_code == 412
    assert nobody.get(url, headers={"Range": "bytes=99999999-"}).status_code == 416
    assert nobody.put(url, content=b"x").status_code in (401, 405)


def test_equal_requests_give_equal_urls(api: httpx.Client, asset: dict[str, Any]) -> None:
    first, second, third = (link_to(api, asset)["url"] for _ in range(3))
    assert first == second or second == third  # a window may end in between
    assert link_to(api, asset, disposition="attachment")["url"] != third


@pytest.mark.parametrize(
    ("asked", "seconds", "window"), [("1h", 3600, 360), (5, 5, 60), ("30d", 2592000, 259200)]
)
def test_a_plain_link_lasts_at_least_as_long_as_asked(
    api: httpx.Client, asset: dict[str, Any], asked: object, seconds: int, window: int
) -> None:
    left = seconds_left(link_to(api, asset, expires_in=asked))
    assert seconds - 2 <= left <= seconds + window


def test_the_name_is_cosmetic(api: httpx.Client, nobody: httpx.Client, asset: dict[str, Any]) -> None:
    url = link_to(api, asset)["url"]
    assert nobody.get(url.replace("/data.bin?", "/anything%20else?")).content == BODY


def test_a_link_follows_its_asset_to_the_next_version(
    api: httpx.Client, nobody: httpx.Client, own: dict[str, Any]
) -> None:
    url = link_to(api, own)["url"]
    assert api.put(f"/b/media/{own['key']}", content=b"second").status_code == 200
    assert nobody.get(url).content == b"second"


@pytest.mark.parametrize(
    ("wanted", "more", "kind"),
    [
        ({}, "", "inline"),
        ({"disposition": "inline"}, "", "inline"),
        ({"disposition": "attachment"}, "", "attachment"),
        ({}, "&download", "attachment"),
        ({"disposition": "inline"}, "&download", "attachment"),
    ],
)
def test_a_link_says_how_it_is_shown(
    api: httpx.Client,
    nobody: httpx.Client,
    picture: dict[str, Any],
    wanted: dict[str, str],
    more: str,
    kind: str,
) -> None:
    got = nobody.get(link_to(api, picture, **wanted)["url"] + more)
    assert got.status_code == 200
    assert got.headers["Content-Disposition"].startswith(kind + ";")


def test_no_link_shows_what_could_carry_script(api: httpx.Client, nobody: httpx.Client) -> None:
    page = api.put("/b/media/links/page.html", content=b"<script>alert(1)</script>").json()
    got = nobody.get(link_to(api, page, disposition="inline")["url"])
    assert got.headers["Content-Disposition"].startswith("attachment;")
    assert "sandbox" in got.headers["Content-Security-Policy"]


def test_a_link_to_a_rendition_opens_that_alone(
    api: httpx.Client, nobody: httpx.Client, picture: dict[str, Any]
) -> None:
    url = link_to(api, picture, recipe="thumb")["url"]
    assert f"/i/thumb/{picture['id']}.webp?" in url
    got = nobody.get(url)
    assert got.headers["Content-Type"] == "image/webp"
    assert got.headers["Cache-Control"] == "public, max-age=300"
    assert got.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    query = url.partition("?")[2]
    for other in (
        f"/i/grid/{picture['id']}.webp",
        f"/i/thumb/{picture['id']}.png",
        f"/f/{picture['id']}/dot.png",
    ):
        refused(nobody.get(f"{other}?{query}"))


def test_a_rendition_that_never_will_be_has_no_link(api: httpx.Client, asset: dict[str, Any]) -> None:
    answer = api.post(f"/v1/assets/{asset['id']}/links", json={"expires_in": 60, "recipe": "thumb"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_what_a_link_opens_depends_on_the_url_alone(
    api: httpx.Client, nobody: httpx.Client, asset: dict[str, Any]
) -> None:
    url = link_to(api, asset)["url"]
    assert api.get(url).headers["Cache-Control"] == "public, max-age=300"
    assert api.get(url, headers={"Authorization": "Bearer msk_nonsense"}).status_code == 200
    refused(api.get(url.replace("sig=", "sig=A")))


def test_a_link_to_a_public_asset_ends_like_any_other(api: httpx.Client, nobody: httpx.Client) -> None:
    shown = api.put("/b/public/links/shown.bin", content=BODY).json()
    url = link_to(api, shown)["url"]
    assert nobody.get(url).headers["Cache-Control"] == "public, max-age=300"
    assert api.delete(f"/v1/assets/{shown['id']}/links").status_code == 204
    refused(nobody.get(url))
    assert nobody.get(shown["url"]).status_code == 200


# --- what does not hold

ALTERATIONS: dict[str, Callable[[str], str]] = {
    "another end": lambda query: re.sub(r"exp=(\d)", lambda m: f"exp={int(m[1]) % 9 + 1}", query),
    "a huge end": lambda query: re.sub(r"exp=\d+", "exp=" + "9" * 4000, query),
    "a negative end": lambda query: query.replace("exp=", "exp=-"),
    "an end of long ago": lambda query: re.sub(r"exp=\d+", "exp=1700000000", query),
    "an end in other digits": lambda query: re.sub(r"exp=\d+", "exp=%EF%BC%91%EF%BC%97", query),
    "another key id": lambda query: re.sub(r"kid=\w+", "kid=00000000", query),
    "no key id": lambda query: re.sub(r"&kid=\w+", "", query),
    "no signature": lambda query: re.sub(r"&sig=[\w-]+", "", query),
    "an empty signature": lambda query: re.sub(r"sig=[\w-]+", "sig=", query),
    "another signature": lambda query: re.sub(r"sig=[\w-]+", "sig=" + "A" * 43, query),
    "a signature in UTF-8": lambda query: re.sub(r"sig=[\w-]+", "sig=" + "é" * 43, query),
    "a signature percent-encoded": lambda query: re.sub(r"sig=[\w-]+", "sig=" + "%C3%A9" * 43, query),
    "capitals": lambda query: query.upper(),
    "doubled": lambda query: f"{query}&{query}",
    "the end doubled": lambda query: query + "&exp=9999999999",
    "the signature doubled, empty": lambda query: query + "&sig=",
    "a disposition": lambda query: query + "&disposition=inline",
    "another disposition": lambda query: query + "&disposition=attachment",
    "a link id": lambda query: query + "&link=lnk_" + "0" * 36,
    "a name more": lambda query: query + "&x=1",
    "an empty name": lambda query: query + "&",
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_a_link_that_was_changed_is_refused(
    each_server: Server, api: httpx.Client, asset: dict[str, Any], alter: Callable[[str], str]
) -> None:
    query = alter(link_to(api, asset)["url"].partition("?")[2])
    target = f"/f/{asset['id']}/data.bin?{query}"
    raw = f"GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()
    answer = wire.exchange(each_server.url, raw)
    assert answer.status == (403 if target.isascii() else 400)  # what is not ASCII is no HTTP
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_link_is_refused_alike_whether_or_not_there_is_an_asset(
    api: httpx.Client, nobody: httpx.Client, asset: dict[str, Any], own: dict[str, Any]
) -> None:
    query = link_to(api, asset)["url"].partition("?")[2]
    absent = asset["id"][:-4] + ("0000" if asset["id"][-4:] != "0000" else "1111")
    told = []
    for url in (
        f"/f/{own['id']}/x", f"/f/{absent}/x", "/f/ast_1/x", "/f/%00/x", f"/i/thumb/{own['id']}.webp",
        f"/i/thumb/{absent}.webp", f"/i/huge/{asset['id']}.webp", f"/i//{asset['id']}.",
        f"/b/media/{asset['key']}", "/b/absent/x", "/b/media/a/../b",
    ):  # fmt: skip
        for method in ("GET", "HEAD"):
            answer = nobody.request(method, f"{url}?{query}")
            assert answer.status_code == 403, url
        refused(nobody.get(f"{url}?{query}"))
        told.append({k: v for k, v in nobody.get(f"{url}?{query}").json().items() if k != "request_id"})
    assert all(one == told[0] for one in told)


def test_a_link_dies_with_its_asset(api: httpx.Client, nobody: httpx.Client, own: dict[str, Any]) -> None:
    plain, counted = link_to(api, own)["url"], link_to(api, own, max_downloads=9)
    assert api.delete(f"/v1/assets/{own['id']}").status_code == 204
    refused(nobody.get(plain))
    refused(nobody.get(counted["url"]))
    assert api.delete(f"/v1/links/{counted['id']}").status_code == 404


def test_a_link_ends(api: httpx.Client, nobody: httpx.Client, asset: dict[str, Any]) -> None:
    link = link_to(api, asset, expires_in=2, max_downloads=100)
    assert nobody.get(link["url"]).status_code == 200
    time.sleep(max(0, seconds_left(link)) + 0.05)
    refused(nobody.get(link["url"]))
    assert nobody.head(link["url"]).status_code == 403
    assert api.get(f"/v1/assets/{asset['id']}/links").json()["links"] == []


def test_every_link_to_an_asset_can_be_ended(
    api: httpx.Client, nobody: httpx.Client, own: dict[str, Any], asset: dict[str, Any]
) -> None:
    other = link_to(api, asset)["url"]
    ended = [link_to(api, own)["url"], link_to(api, own, max_downloads=9)["url"]]
    assert all(nobody.get(url).status_code == 200 for url in ended)
    assert api.delete(f"/v1/assets/{own['id']}/links").status_code == 204
    for url in ended:
        refused(nobody.get(url))
    assert api.get(f"/v1/assets/{own['id']}/links").json()["links"] == []
    assert nobody.get(link_to(api, own)["url"]).status_code == 200
    assert nobody.get(other).status_code == 200


# --- links that are counted


def test_a_counted_link_is_used_up(api: httpx.Client, nobody: httpx.Client, own: dict[str, Any]) -> None:
    link = link_to(api, own, max_downloads=2)
    assert link["id"].startswith("lnk_")
    assert link["id"] in link["url"]
    for _ in range(5):
        assert nobody.head(link["url"]).status_code == 200
        assert nobody.get(link["url"], headers={"If-None-Match": own["etag"]}).status_code == 304
        assert nobody.get(link["url"], headers={"Range": "bytes=5-9"}).content == BODY[5:10]
        assert nobody.get(link["url"], headers={"Range": "bytes=99999999-"}).status_code == 416
    first = nobody.get(link["url"], headers={"Range": "bytes=0-"})
    assert (first.status_code, first.content) == (206, BODY)
    # No cache may hand out what nobody counts then.
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert nobody.get(link["url"], headers={"Range": "bytes=8-9,0-1"}).status_code == 206
    refused(nobody.get(link["url"]))
    refused(nobody.get(link["url"], headers={"Range": "bytes=0-0"}))
    assert nobody.head(link["url"]).status_code == 403
    # What was begun may be brought to its end.
    assert nobody.get(link["url"], headers={"Range": "bytes=500-"}).content == BODY[500:]
    (listed,) = api.get(f"/v1/assets/{own['id']}/links").json()["links"]
    assert (listed["id"], listed["url"], listed["max_downloads"], listed["begun"]) == (
        link["id"],
        link["url"],
        2,
        2,
    )


def test_of_many_at_once_as_many_as_allowed_get_it(
    each_server: Server, api: httpx.Client, own: dict[str, Any]
) -> None:
    url = link_to(api, own, max_downloads=3)["url"]
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: httpx.get(url, timeout=60).status_code, range(24)))
    assert sorted(statuses) == [200] * 3 + [403] * 21


def test_counted_links_are_listed_in_pages_and_revoked_one_by_one(
    api: httpx.Client, nobody: httpx.Client, own: dict[str, Any]
) -> None:
    made = [link_to(api, own, max_downloads=5) for _ in range(3)]
    link_to(api, own)  # has no row
    listed, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.get(f"/v1/assets/{own['id']}/links", params=query).json()
        listed += [link["id"] for link in page["links"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert sorted(listed) == sorted(link["id"] for link in made)
    gone, *kept = made
    assert api.delete(f"/v1/links/{gone['id']}").status_code == 204
    assert api.delete(f"/v1/links/{gone['id']}").status_code == 404
    refused(nobody.get(gone["url"]))
    assert all(nobody.get(link["url"]).status_code == 200 for link in kept)


@pytest.mark.parametrize("link_id", ["lnk_" + "0" * 36, "lnk_1", "ast_" + "0" * 36, "%00", "lnk_é"])
def test_no_such_link(api: httpx.Client, link_id: str) -> None:
    assert api.delete(f"/v1/links/{link_id}").status_code == 404


# --- who may make one


def test_who_may_read_an_asset_may_show_it(
    api: httpx.Client, nobody: httpx.Client, client_with: Client, own: dict[str, Any]
) -> None:
    path, wanted = f"/v1/assets/{own['id']}/links", {"expires_in": 60, "max_downloads": 1}
    reader, writer = client_with("assets:read", bucket="media"), client_with("assets:write", bucket="media")
    link = link_to(reader, own, max_downloads=1)
    assert reader.get(path).status_code == 200
    # Others' links are not a reader's to end; one it could use up as well.
    assert reader.delete(path).status_code == 403
    assert writer.post(path, json=wanted).status_code == 403
    assert writer.get(path).status_code == 403
    assert writer.delete(f"/v1/links/{link['id']}").status_code == 403
    assert reader.delete(f"/v1/links/{link['id']}").status_code == 204
    assert writer.delete(path).status_code == 204
    for method in ("POST", "GET", "DELETE"):
        assert nobody.request(method, path, json=wanted).status_code == 401
    assert nobody.delete(f"/v1/links/{link['id']}").status_code == 401


def test_another_buckets_links_are_not_there(
    api: httpx.Client, client_with: Client, own: dict[str, Any]
) -> None:
    link = link_to(api, own, max_downloads=1)
    for narrowed in ({"bucket": "public"}, {"bucket": "media", "prefix": "elsewhere/"}):
        foreign = client_with("assets:read", "assets:write", **narrowed)
        path = f"/v1/assets/{own['id']}/links"
        for answer in (
            foreign.post(path, json={"expires_in": 60}), foreign.get(path), foreign.delete(path),
            foreign.delete(f"/v1/links/{link['id']}"),
        ):  # fmt: skip
            assert answer.status_code == 404
    assert api.get(f"/v1/assets/{own['id']}/links").json()["links"]


def test_a_link_does_not_outlive_the_key_that_made_it(client_with: Client, asset: dict[str, Any]) -> None:
    reader = client_with("assets:read", expires_in="5m")
    assert 0 < seconds_left(link_to(reader, asset, expires_in="30d")) <= 300


SENSELESS = {
    "no lifetime": {},
    "a lifetime of nothing": {"expires_in": 0},
    "a negative lifetime": {"expires_in": -1},
    "a lifetime in words": {"expires_in": "soon"},
    "a lifetime without end": {"expires_in": "Infinity"},
    "too long a lifetime": {"expires_in": "367d"},
    "no preset": {"expires_in": 60, "recipe": "huge"},
    "an empty recipe": {"expires_in": 60, "recipe": ""},
    "no disposition": {"expires_in": 60, "disposition": "form-data"},
    "no downloads": {"expires_in": 60, "max_downloads": 0},
    "too many downloads": {"expires_in": 60, "max_downloads": 2**63},
    "a misspelled field": {"expires_in": 60, "max_download": 1},
}


@pytest.mark.parametrize("wanted", SENSELESS.values(), ids=SENSELESS)
def test_what_makes_no_sense_is_refused(
    api: httpx.Client, asset: dict[str, Any], wanted: dict[str, object]
) -> None:
    answer = api.post(f"/v1/assets/{asset['id']}/links", json=wanted)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_no_signature_is_logged(
    each_server: Server, api: httpx.Client, nobody: httpx.Client, asset: dict[str, Any]
) -> None:
    links = [link_to(api, asset)["url"], link_to(api, asset, max_downloads=1)["url"]]
    for url in links:
        assert nobody.get(url).status_code == 200
        assert nobody.get(url + "&x=1").status_code == 403
    time.sleep(0.3)
    logged = each_server.logged()
    assert f"/f/{asset['id']}/data.bin" in logged
    for url in links:
        assert re.search(r"sig=([\w-]+)", url)[1] not in logged  # type: ignore[index]


# --- the secret


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with running(data_dir) as server, server.client() as api:
        url = link_to(api, api.put("/b/media/x", content=BODY).json())["url"]
        file = data_dir / "secret.key"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        secret = file.read_text()
        assert len(secret.strip()) >= 32
        assert secret.strip() not in server.logged()
    with running(data_dir) as server:
        assert file.read_text() == secret
        assert httpx.get(server.url + httpx.URL(url).raw_path.decode()).content == BODY
    file.write_text("cut")
    refused_start = Server(data_dir)
    done = refused_start.run("serve", "--port", "0")
    assert done.returncode != 0
    assert "secret.key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_secret_is_changed_without_ending_links(tmp_path: Path) -> None:
    old, new = "the secret of last year", "the secret of this year"

    def opens(server: Server, url: str) -> bool:
        return httpx.get(server.url + httpx.URL(url).raw_path.decode()).status_code == 200

    data_dir = tmp_path / "data"
    with running(data_dir, MEDIASVC_SECRET_KEY=old) as server, server.client() as api:
        assert not (data_dir / "secret.key").exists()
        asset = api.put("/b/media/x", content=BODY).json()
        first = link_to(api, asset)["url"]
    with running(data_dir, MEDIASVC_SECRET_KEY=f"{new}, {old}") as server, server.client() as api:
        second = link_to(api, asset)["url"]
        assert opens(server, first)
        assert opens(server, second)
        assert re.findall("kid=([^&]+)", first) != re.findall("kid=([^&]+)", second)
    with running(data_dir, MEDIASVC_SECRET_KEY=new) as server:
        assert not opens(server, first)
        assert opens(server, second)
        assert not any(secret in server.logged() for secret in (old, new))
