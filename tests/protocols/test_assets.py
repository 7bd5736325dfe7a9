"""The JSON API: list, look, change, delete, check; buckets."""

import hashlib
import itertools
import secrets
import time
from collections.abc import Callable
from datetime import datetime

import httpx
import pytest

from tests.servers import Server

MakeBucket = Callable[..., str]
ClientWith = Callable[..., httpx.Client]

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001"
    "a5f645400000000049454e44ae426082"
)


def put(api: httpx.Client, bucket: str, key: str, content: bytes = b"x", **headers: str) -> dict[str, object]:
    made = api.put(
        f"/b/{bucket}/{key}", content=content, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    assert made.status_code in (200, 201), made.text
    return made.json()


def keys(api: httpx.Client, **query: object) -> list[str]:
    """Every key of a listing, page by page."""
    found: list[str] = []
    for _ in range(100):
        page = api.get("/v1/assets", params=query)
        assert page.status_code == 200, page.text
        found += [asset["key"] for asset in page.json()["assets"]]
        if (cursor := page.json()["next_cursor"]) is None:
            return found
        query["cursor"] = cursor
    raise AssertionError("the listing does not end")


def test_a_listing_is_sorted_and_narrowed_by_prefix(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    names = ["b", "a/2", "a/1", "a", "ab", "%5F", "_", "é", "😀", "A"]
    for one in names:
        put(api, bucket, one)
    stored = [one.replace("%5F", "_") for one in names]
    assert keys(api, bucket=bucket) == sorted(set(stored), key=str.encode)
    assert keys(api, bucket=bucket, prefix="a") == ["a", "a/1", "a/2", "ab"]
    assert keys(api, bucket=bucket, prefix="_") == ["_"]
    assert keys(api, bucket=bucket, prefix="%") == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_pages_of_any_size_show_everything_once(
    api: httpx.Client, make_bucket: MakeBucket, limit: int
) -> None:
    bucket = make_bucket()
    names = [f"{n:02}" for n in range(7)]
    for one in names:
        put(api, bucket, one)
    assert keys(api, bucket=bucket, limit=limit) == names


def test_a_delimiter_folds_keys(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    for one in ("top", "a/1", "a/2", "a/deep/3", "b/1", "c//x"):
        put(api, bucket, one)
    page = api.get("/v1/assets", params={"bucket": bucket, "delimiter": "/"}).json()
    assert ([asset["key"] for asset in page["assets"]], page["prefixes"]) == (["top"], ["a/", "b/", "c/"])
    page = api.get("/v1/assets", params={"bucket": bucket, "delimiter": "/", "prefix": "a/"}).json()
    assert ([asset["key"] for asset in page["assets"]], page["prefixes"]) == (["a/1", "a/2"], ["a/deep/"])


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_folded_pages_show_every_folder_once(api: httpx.Client, make_bucket: MakeBucket, limit: int) -> None:
    bucket = make_bucket()
    for folder, number in itertools.product("abc", range(4)):
        put(api, bucket, f"{folder}/{number}")
    put(api, bucket, "file")
    seen: list[str] = []
    query: dict[str, object] = {"bucket": bucket, "delimiter": "/", "limit": limit}
    while True:
        page = api.get("/v1/assets", params=query).json()
        assert len(page["assets"]) + len(page["prefixes"]) <= limit
        seen += [*page["prefixes"], *(asset["key"] for asset in page["assets"])]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert sorted(seen) == ["a/", "b/", "c/", "file"]


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("foo/.", ["foo/..y", "foo/.x"]),
        ("foo/..", ["foo/..y"]),
        (".", [".hidden"]),
        ("..", []),
        ("foo/.x", ["foo/.x"]),
    ],
)
def test_a_prefix_may_end_within_a_name(
    api: httpx.Client, make_bucket: MakeBucket, prefix: str, found: list[str]
) -> None:
    bucket = make_bucket()
    for key in (".hidden", "foo/.x", "foo/..y", "foo/z"):
        put(api, bucket, key)
    assert keys(api, bucket=bucket, prefix=prefix) == found


def test_tags_and_types_narrow_a_listing(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    put(api, bucket, "a.png", PNG, X_Tags="red,blue")
    put(api, bucket, "b.txt", b"text", X_Tags="red")
    put(api, bucket, "c.pdf", b"%PDF-1.4\n1 0 obj")
    assert keys(api, bucket=bucket, tag="red") == ["a.png", "b.txt"]
    assert keys(api, bucket=bucket, tag="blue") == ["a.png"]
    assert keys(api, bucket=bucket, tag="re") == []
    assert keys(api, bucket=bucket, media_type="image/*") == ["a.png"]
    assert keys(api, bucket=bucket, media_type="text/plain") == ["b.txt"]
    assert keys(api, bucket=bucket, media_type="*/*") == ["a.png", "b.txt", "c.pdf"]
    assert keys(api, bucket=bucket, media_type="APPLICATION/PDF", tag="red") == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"limit": 0}, 422),
        ({"limit": 1001}, 422),
        ({"limit": "many"}, 422),
        ({"cursor": "!!!"}, 400),
        ({"cursor": "////"}, 400),
        ({"bucket": "absent"}, 404),
        ({"bucket": "../x"}, 404),
        ({"prefix": "a/../b"}, 400),
        ({"prefix": "a/./"}, 400),
        ({"prefix": "x" * 1025}, 400),
        ({"delimiter": ""}, 422),
    ],
    ids=str,
)
def test_a_query_without_sense_is_told(api: httpx.Client, query: dict[str, str], status: int) -> None:
    answer = api.get("/v1/assets", params=query)
    assert answer.status_code in ({status, 400} if status == 422 else {status})
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_key_without_the_bucket_learns_nothing_from_a_listing(
    client_with: ClientWith, make_bucket: MakeBucket
) -> None:
    client = client_with("assets:read", bucket=make_bucket())
    foreign, absent = (client.get("/v1/assets", params={"bucket": name}) for name in ("public", "absent"))
    assert foreign.status_code == absent.status_code == 404
    assert foreign.json()["detail"].replace("public", "absent") == absent.json()["detail"]


def test_an_asset_tells_all_about_itself(api: httpx.Client) -> None:
    content = secrets.token_bytes(1000)
    made = put(
        api,
        "media",
        "whole/story.bin",
        content,
        X_Tags="a",
        X_Meta_By="me",
        Content_Type="application/x-story",
    )
    asset = api.get(f"/v1/assets/{made['id']}").json()
    assert set(asset) == {
        "id", "bucket", "key", "name", "size", "media_type", "sha256", "etag", "version", "state", "created_at",
        "expires_at", "tags", "metadata", "facts", "placeholder", "url", "renditions", "tasks",
        "downloads",
    }  # fmt: skip
    assert asset["id"].startswith("ast_")
    assert (asset["name"], asset["media_type"], asset["state"]) == (
        "story.bin",
        "application/x-story",
        "ready",
    )
    assert asset["sha256"] == hashlib.sha256(content).hexdigest()
    assert asset["tasks"] == {"pending": 0, "failed": 0}
    assert datetime.fromisoformat(asset["created_at"].replace("Z", "+00:00")).utcoffset().total_seconds() == 0
    assert abs(datetime.fromisoformat(asset["created_at"]).timestamp() - time.time()) < 60
    tasks = api.get(f"/v1/assets/{made['id']}/tasks").json()["tasks"]
    assert tasks
    assert tasks[0]["detail"]


def test_a_patch_changes_what_it_names_and_no_more(api: httpx.Client) -> None:
    made = put(api, "media", "patched.txt", b"1", X_Tags="a", X_Meta_Old="1")
    url = f"/v1/assets/{made['id']}"
    assert api.patch(url, json={"name": "../../neu\r\n.txt"}).json()["name"] == "neu.txt"
    assert api.patch(url, json={"tags": ["x", "y", "x"]}).json()["tags"] == ["x", "y"]
    assert api.patch(url, json={"metadata": {"new": "2"}}).json()["metadata"] == {"new": "2"}
    assert api.patch(url, json={}).json()["tags"] == ["x", "y"]
    assert "neu.txt" in api.get("/b/media/patched.txt").headers["Content-Disposition"]
    after = api.get(url).json()
    assert (after["version"], after["etag"], after["key"]) == (1, made["etag"], "patched.txt")


@pytest.mark.parametrize(
    "patch",
    [{"size": 1}, {"key": "x"}, {"bucket": "public"}, {"id": "x"}, {"sha256": "0" * 64}, {"version": 9}, {"name": ""},
     {"name": 1}, {"tags": "a"}, {"tags": [""]}, {"tags": ["a,b"]}, {"tags": [str(n) for n in range(65)]},
     {"metadata": {"a": 1}}, {"metadata": []}, {"expires_in": "soon"}, {"expires_in": -1}, [], "x", None],
    ids=str,
)  # fmt: skip
def test_a_patch_without_sense_is_told(api: httpx.Client, patch: object) -> None:
    made = put(api, "media", secrets.token_hex(6))
    answer = api.patch(f"/v1/assets/{made['id']}", json=patch)
    assert answer.status_code in (400, 422), answer.text
    assert api.get(f"/v1/assets/{made['id']}").json() == made


def test_deleted_is_gone_from_every_answer(api: httpx.Client) -> None:
    made = put(api, "media", "doomed", b"doomed")
    assert api.delete(f"/v1/assets/{made['id']}").status_code == 204
    for target in (
        "/b/media/doomed",
        f"/f/{made['id']}/x",
        f"/v1/assets/{made['id']}",
        f"/v1/assets/{made['id']}/tasks",
    ):
        assert api.get(target).status_code == 404
    assert api.delete(f"/v1/assets/{made['id']}").status_code == 404
    assert "doomed" not in keys(api)
    item = {"sha256": made["sha256"], "size": 6}
    assert api.post("/v1/assets/check", json={"items": [item]}).json()["items"][0]["present"] is False
    assert put(api, "media", "doomed")["id"] != made["id"]


@pytest.mark.parametrize(
    "wrong", ["ast_", "ast_x", "key_" + "0" * 39, "0" * 40, "ast_" + "0" * 39, "AST_" + "0" * 39, "%00", "a%0Ab", "%ff",
              "ast_" + "%E2%80%AE" * 9, "x" * 3000]
)  # fmt: skip
def test_an_id_of_the_wrong_form_is_not_found(api: httpx.Client, wrong: str) -> None:
    for method, target in (
        ("GET", "/v1/assets/{}"), ("PATCH", "/v1/assets/{}"), ("DELETE", "/v1/assets/{}"),
        ("GET", "/v1/assets/{}/tasks"), ("GET", "/f/{}/x"), ("GET", "/i/thumb/{}.webp"), ("GET", "/v1/keys/{}"),
        ("DELETE", "/v1/keys/{}"), ("GET", "/v1/buckets/{}"),
    ):  # fmt: skip
        answer = api.request(method, target.format(wrong), json={} if method == "PATCH" else None)
        assert answer.status_code == 404, (method, target)
        assert answer.json()["code"] == "not_found"


# ---- check


def test_check_answers_in_order(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    there = [put(api, bucket, f"{n}", b"%d" % n) for n in range(3)]
    absent = {"sha256": "0" * 64, "size": 1}
    items = [
        {"sha256": there[2]["sha256"], "size": 1},
        absent,
        {"sha256": str(there[0]["sha256"]).upper(), "size": 1, "bucket": bucket, "key": "0"},
        {"sha256": there[0]["sha256"], "size": 1, "bucket": bucket, "key": "1"},
        {"sha256": there[0]["sha256"], "size": 2},
        {"sha256": there[1]["sha256"], "size": 1, "bucket": bucket},
        {"sha256": there[1]["sha256"], "size": 1, "bucket": "public"},
    ]
    answers = api.post("/v1/assets/check", json={"items": items}).json()["items"]
    assert [answer["present"] for answer in answers] == [True, False, True, False, False, True, False]
    assert answers[2]["id"] == there[0]["id"]
    assert answers[5]["id"] == there[1]["id"]


def test_check_takes_a_thousand_and_no_more(api: httpx.Client) -> None:
    item = {"sha256": "0" * 64, "size": 1}
    answer = api.post("/v1/assets/check", json={"items": [item] * 1000})
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 1000
    assert api.post("/v1/assets/check", json={"items": [item] * 1001}).status_code == 422
    assert api.post("/v1/assets/check", json={"items": []}).json() == {"items": []}


def test_check_knows_only_what_the_key_may_read(
    api: httpx.Client, client_with: ClientWith, make_bucket: MakeBucket
) -> None:
    bucket, content = make_bucket(), secrets.token_bytes(9)
    made = put(api, bucket, "hidden/a", content)
    item = {"sha256": made["sha256"], "size": 9}
    for key, sees in (
        (client_with("assets:read", bucket=bucket), True),
        (client_with("assets:read", bucket=bucket, prefix="hidden/"), True),
        (client_with("assets:read", bucket=bucket, prefix="other/"), False),
        (client_with("assets:read", bucket="media"), False),
    ):
        for more in ({}, {"bucket": bucket}, {"bucket": bucket, "key": "hidden/a"}):
            answer = key.post("/v1/assets/check", json={"items": [item | more]}).json()["items"][0]
            assert answer["present"] is sees


@pytest.mark.parametrize(
    "item",
    [{}, {"sha256": "x", "size": 1}, {"sha256": "0" * 64}, {"sha256": "0" * 64, "size": -1},
     {"sha256": "0" * 64, "size": "big"}, {"sha256": "0" * 64, "size": 1, "more": 1}, 1, None, []],
    ids=str,
)  # fmt: skip
def test_a_check_without_sense_is_told(api: httpx.Client, item: object) -> None:
    assert api.post("/v1/assets/check", json={"items": [item]}).status_code == 422


@pytest.mark.parametrize("key", ["a/../b", "x\0", "", "k" * 1025])
def test_a_check_of_a_key_that_cannot_be(api: httpx.Client, key: str) -> None:
    item = {"sha256": "0" * 64, "size": 1, "bucket": "media", "key": key}
    answer = api.post("/v1/assets/check", json={"items": [item]})
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert answer.json()["items"] == [{"present": False, "id": None}]


# ---- buckets


def test_two_buckets_are_there_from_the_start(api: httpx.Client) -> None:
    assert api.get("/v1/buckets/media").json()["public"] is False
    assert api.get("/v1/buckets/public").json()["public"] is True


def test_a_bucket_lives(api: httpx.Client) -> None:
    policy = {
        "name": "a-life", "public": True, "max_asset_size": 1000, "allowed_types": ["image/*", "Text/Plain"],
        "default_ttl": "30d", "quota_bytes": 5000, "quota_assets": 7, "metadata_policy": "keep",
    }  # fmt: skip
    made = api.post("/v1/buckets", json=policy)
    assert made.status_code == 201
    expected = policy | {"allowed_types": ["image/*", "text/plain"], "default_ttl": 30 * 86400}
    assert made.json().items() >= expected.items()
    assert api.get("/v1/buckets/a-life").json() == made.json()
    patched = api.patch("/v1/buckets/a-life", json={"public": False, "quota_assets": None}).json()
    assert patched == made.json() | {"public": False, "quota_assets": None}
    assert api.patch("/v1/buckets/a-life", json={}).json() == patched
    again = api.post("/v1/buckets", json={"name": "a-life"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert api.delete("/v1/buckets/a-life").status_code == 204
    assert api.get("/v1/buckets/a-life").status_code == 404
    assert api.patch("/v1/buckets/a-life", json={}).status_code == 404
    assert api.delete("/v1/buckets/a-life").status_code == 404
    assert api.put("/b/a-life/x", content=b"").status_code == 404


def test_a_bucket_that_holds_assets_stays(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    made = put(api, bucket, "a")
    assert api.delete(f"/v1/buckets/{bucket}").status_code == 409
    assert api.get(f"/b/{bucket}/a").status_code == 200
    assert api.delete(f"/v1/assets/{made['id']}").status_code == 204
    assert api.delete(f"/v1/buckets/{bucket}").status_code == 204


def test_opening_and_closing_a_bucket_counts_at_once(
    api: httpx.Client, nobody: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    put(api, bucket, "a")
    for public, status in ((False, 401), (True, 200), (False, 401)):
        api.patch(f"/v1/buckets/{bucket}", json={"public": public})
        assert nobody.get(f"/b/{bucket}/a").status_code == status


@pytest.mark.parametrize(
    "name", ["", "ab", "a" * 64, "UPPER", "a_b", "a.b", "a b", "ü-ü", "../x", "a\0b", "a\nb", "abc\n"]
)
def test_a_bad_bucket_name_is_told(api: httpx.Client, name: str) -> None:
    answer = api.post("/v1/buckets", json={"name": name})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_bucket")


@pytest.mark.parametrize(
    "policy",
    [{"metadata_policy": "strip-gps"}, {"metadata_policy": "strip-all"}, {"presets": {"x": {}}}],
    ids=str,
)  # fmt: skip
def test_what_is_not_built_is_refused(
    api: httpx.Client, make_bucket: MakeBucket, policy: dict[str, object]
) -> None:
    assert api.post("/v1/buckets", json={"name": "unbuilt", **policy}).status_code == 400
    assert api.patch(f"/v1/buckets/{make_bucket()}", json=policy).status_code == 400
    assert api.get("/v1/buckets/unbuilt").status_code == 404


@pytest.mark.parametrize(
    "policy",
    [{"max_asset_size": -1}, {"max_asset_size": "1k"}, {"max_asset_size": 2**70}, {"allowed_types": "image/*"},
     {"allowed_types": ["image"]}, {"allowed_types": ["*/*"]}, {"default_ttl": "soon"}, {"quota_assets": 1.5},
     {"colour": "red"}, {"public": "maybe"}, {"allowed_types": [5]}, {"cors_origins": "https://app.example"},
     {"cors_origins": [5]}, {"cors_origins": ["null"]}, {"cors_origins": ["https://app.example/path"]},
     {"cors_origins": ["https://a.example"] * 101}, {"download_rate": 0}, {"download_rate": -5},
     {"download_rate": "5k"}, {"download_rate": True}, {"download_rate": 2**62}],
    ids=str,
)  # fmt: skip
def test_a_policy_without_sense_is_told(
    api: httpx.Client, make_bucket: MakeBucket, policy: dict[str, object]
) -> None:
    assert api.post("/v1/buckets", json={"name": "senseless", **policy}).status_code == 422
    assert api.patch(f"/v1/buckets/{make_bucket()}", json=policy).status_code == 422


def test_buckets_are_listed_in_pages(
    api: httpx.Client, make_bucket: MakeBucket, client_with: ClientWith
) -> None:
    mine = [make_bucket() for _ in range(3)]
    seen: list[str] = []
    query: dict[str, object] = {"limit": 2}
    while True:
        page = api.get("/v1/buckets", params=query).json()
        seen += [bucket["name"] for bucket in page["buckets"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == sorted(set(seen))
    assert {"media", "public", *mine} <= set(seen)
    narrowed = client_with("buckets:admin", bucket=mine[0]).get("/v1/buckets?limit=1000").json()
    assert [bucket["name"] for bucket in narrowed["buckets"]] == [mine[0]]


def test_a_narrow_buckets_admin_makes_no_other_bucket(
    client_with: ClientWith, make_bucket: MakeBucket
) -> None:
    mine = make_bucket()
    client = client_with("buckets:admin", bucket=mine)
    assert client.post("/v1/buckets", json={"name": "stranger"}).status_code == 404
    assert client.patch(f"/v1/buckets/{mine}", json={"public": True}).status_code == 200
    assert client.patch("/v1/buckets/media", json={"public": True}).status_code == 404
    assert client.delete("/v1/buckets/public").status_code == 404


def test_the_server_says_where_assets_are(each_server: Server, api: httpx.Client) -> None:
    assert str(put(api, "media", "a b/ü.txt")["url"]).startswith(each_server.url + "/f/ast_")
    assert str(put(api, "media", "a b/ü.txt")["url"]).endswith("/%C3%BC.txt")
