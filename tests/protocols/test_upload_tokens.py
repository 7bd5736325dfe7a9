"""Browsers without a key: tus with a token in the URL, within the token's limits, and nothing else."""

import base64
import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.protocols.conftest import MakeBucket
from tests.servers import Server

TUS = {"Tus-Resumable": "1.0.0"}
BODY = {"Content-Type": "application/offset+octet-stream"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8192)
ClientWith = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def bucket(make_bucket: MakeBucket) -> str:
    return make_bucket()


def token(client: httpx.Client, bucket: str, **wanted: Any) -> dict[str, str]:
    made = client.post("/v1/upload-tokens", json={"bucket": bucket, "expires_in": "1h", **wanted})
    assert made.status_code == 201, made.text
    return dict(made.json())


def said(**pairs: str) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs.items())


def begin(nobody: httpx.Client, url: str, body: bytes = b"hello", **names: str) -> httpx.Response:
    """An upload with its bytes."""
    headers = TUS | BODY | {"Upload-Length": str(len(body)), "Upload-Metadata": said(**names)}
    return nobody.post(url, content=body, headers=headers)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_token_uploads_and_the_answer_names_the_asset(
    api: httpx.Client, nobody: httpx.Client, bucket: str
) -> None:
    made = token(api, bucket, prefix="in/box-")
    assert re.fullmatch(r"upt_[\w-]{32}", made["token"])
    assert made["tus_url"] == f"{api.base_url}/t/{made['token']}/tus".replace("//t", "/t")
    begun = nobody.post(
        made["tus_url"], headers=TUS | {"Upload-Length": "10", "Upload-Metadata": said(filename="ä b.txt")}
    )
    assert begun.status_code == 201, begun.text
    where = begun.headers["Location"]
    assert where.startswith(made["tus_url"] + "/upl_")
    assert (
        nobody.patch(where, content=b"01234", headers=TUS | BODY | {"Upload-Offset": "0"}).status_code == 204
    )
    asked = nobody.head(where, headers=TUS)
    assert (asked.status_code, asked.headers["Upload-Offset"]) == (200, "5")
    ended = nobody.patch(where, content=b"56789", headers=TUS | BODY | {"Upload-Offset": "5"})
    assert (ended.status_code, ended.content) == (204, b"")
    asset = api.get(ended.headers["Content-Location"])
    assert asset.content == b"0123456789"
    (listed,) = api.get("/v1/assets", params={"bucket": bucket, "prefix": "in/box-"}).json()["assets"]
    assert listed["url"] == ended.headers["Content-Location"] == begun.headers["Content-Location"]
    assert re.fullmatch(r"in/box-[0-9A-Z]{26}/ä b\.txt", listed["key"])


def test_what_a_client_names_lies_under_the_prefix(
    api: httpx.Client, nobody: httpx.Client, bucket: str, make_bucket: MakeBucket
) -> None:
    url = token(api, bucket, prefix="mine/")["tus_url"]
    assert begin(nobody, url, key="mine/a.txt").status_code == 201
    assert api.get(f"/b/{bucket}/mine/a.txt").content == b"hello"
    assert code(begin(nobody, url, key="other/a.txt")) == (404, "not_found")
    assert code(begin(nobody, url, key="mine/a.txt", bucket=make_bucket())) == (404, "not_found")
    assert code(begin(nobody, url, key="mine/../a.txt")) == (400, "bad_key")


def test_no_asset_is_replaced_with_a_token(api: httpx.Client, nobody: httpx.Client, bucket: str) -> None:
    url = token(api, bucket)["tus_url"]
    api.put(f"/b/{bucket}/taken.txt", content=b"old")
    assert code(begin(nobody, url, key="taken.txt")) == (412, "precondition_failed")
    begun = nobody.post(
        url, headers=TUS | {"Upload-Length": "3", "Upload-Metadata": said(key="soon.txt")}
    ).headers["Location"]
    api.put(f"/b/{bucket}/soon.txt", content=b"old")
    late = nobody.patch(begun, content=b"new", headers=TUS | BODY | {"Upload-Offset": "0"})
    assert code(late) == (412, "precondition_failed")
    assert api.get(f"/b/{bucket}/soon.txt").content == b"old"


def test_of_many_at_once_only_as_many_begin_as_may(
    api: httpx.Client, nobody: httpx.Client, bucket: str
) -> None:
    url = token(api, bucket, max_count=3, prefix="count/")["tus_url"]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: begin(nobody, url, filename=f"{n}"), range(12)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 9
    refused = next(answer for answer in answers if answer.status_code == 403)
    assert code(refused) == (403, "forbidden")
    assert refused.headers["Tus-Resumable"] == "1.0.0"
    assert len(api.get("/v1/assets", params={"bucket": bucket, "prefix": "count/"}).json()["assets"]) == 3


def test_one_that_is_used_up_goes_on_with_what_it_began(
    api: httpx.Client, nobody: httpx.Client, bucket: str
) -> None:
    url = token(api, bucket, max_count=1)["tus_url"]
    where = nobody.post(url, headers=TUS | {"Upload-Length": "5"}).headers["Location"]
    assert code(begin(nobody, url)) == (403, "forbidden")
    ended = nobody.patch(where, content=b"01234", headers=TUS | BODY | {"Upload-Offset": "0"})
    assert ended.status_code == 204


def test_larger_than_the_token_allows_is_refused(
    api: httpx.Client, nobody: httpx.Client, bucket: str
) -> None:
    url = token(api, bucket, max_size=9)["tus_url"]
    assert nobody.options(url).headers["Tus-Max-Size"] == "9"
    assert begin(nobody, url, b"123456789").status_code == 201
    assert code(begin(nobody, url, b"1234567890")) == (413, "too_large")


@pytest.mark.parametrize("concat", [{}, {"Upload-Concat": "partial"}], ids=["whole", "partial"])
def test_nor_where_the_length_is_told_later(
    api: httpx.Client, nobody: httpx.Client, bucket: str, concat: dict[str, str]
) -> None:
    url = token(api, bucket, max_size=9)["tus_url"]
    where = nobody.post(url, headers=TUS | concat | {"Upload-Defer-Length": "1"}).headers["Location"]
    late = nobody.patch(where, content=b"1234567890", headers=TUS | BODY | {"Upload-Offset": "0"})
    assert code(late) == (413, "too_large")
    assert nobody.head(where, headers=TUS).headers["Upload-Offset"] == "0"
    nobody.delete(where, headers=TUS)


def test_a_type_it_does_not_allow_is_refused_however_it_shows(
    api: httpx.Client, nobody: httpx.Client, bucket: str
) -> None:
    url = token(api, bucket, allowed_types=["image/*"], prefix="types/")["tus_url"]
    assert begin(nobody, url, PNG, filetype="image/png").status_code == 201
    assert code(begin(nobody, url, PNG, filetype="text/plain")) == (415, "type_not_allowed")
    assert code(begin(nobody, url, b"%PDF-1.7\n" + bytes(8192), filetype="image/png")) == (
        415,
        "type_not_allowed",
    )
    assert code(begin(nobody, url, b"%PDF-1.7\n", filetype="image/png")) == (415, "type_not_allowed")
    assert len(api.get("/v1/assets", params={"bucket": bucket, "prefix": "types/"}).json()["assets"]) == 1


def test_partials_become_one_asset(api: httpx.Client, nobody: httpx.Client, bucket: str) -> None:
    url = token(api, bucket, max_size=10)["tus_url"]

    def partial(body: bytes) -> str:
        headers = TUS | BODY | {"Upload-Length": str(len(body)), "Upload-Concat": "partial"}
        return nobody.post(url, content=body, headers=headers).headers["Location"]

    ends = partial(b"01234"), partial(b"56789")
    final = nobody.post(url, headers=TUS | {"Upload-Concat": f"final;{ends[0]} {ends[1]}"})
    assert final.status_code == 201, final.text
    assert api.get(final.headers["Content-Location"]).content == b"0123456789"
    beyond = nobody.post(url, headers=TUS | {"Upload-Concat": f"final;{ends[0]} {ends[1]} {ends[1]}"})
    assert code(beyond) == (413, "too_large")
    other = token(api, bucket)["tus_url"]
    foreign = nobody.post(other, headers=TUS | {"Upload-Concat": f"final;{ends[0]}"})
    assert code(foreign) == (400, "bad_request")
    as_its_own = f"{other}/{ends[0].rpartition('/')[2]}"
    assert code(nobody.post(other, headers=TUS | {"Upload-Concat": f"final;{as_its_own}"})) == (
        404,
        "not_found",
    )


def test_unknown_expired_and_revoked_tokens_are_forbidden_and_nobody_is_asked_for_a_password(
    api: httpx.Client, nobody: httpx.Client, bucket: str
) -> None:
    made = api.post("/v1/keys", json={"scopes": ["assets:write"], "bucket": bucket}).json()
    maker = {"Authorization": f"Bearer {made['secret']}"}
    revoked = api.post("/v1/upload-tokens", headers=maker, json={"bucket": bucket, "expires_in": 3600}).json()
    expired = token(api, bucket, expires_in=1)
    assert begin(nobody, revoked["tus_url"]).status_code == 201
    assert api.delete(f"/v1/keys/{made['id']}").status_code == 204
    deadline = time.monotonic() + 20
    while begin(nobody, expired["tus_url"]).status_code == 201 and time.monotonic() < deadline:
        time.sleep(0.1)
    unknown = f"{api.base_url}/t/upt_{'x' * 32}/tus"
    nothing_like_it = f"{api.base_url}/t/%00/tus"
    for url in (revoked["tus_url"], expired["tus_url"], unknown, nothing_like_it):
        for answer in (
            begin(nobody, url),
            nobody.head(f"{url}/upl_{'0' * 26}", headers=TUS),
            nobody.options(url),
            begin(api, url),
        ):
            assert answer.status_code == 403, url
            assert "WWW-Authenticate" not in answer.headers
        assert url.split("/")[4] not in begin(nobody, url).text


def test_a_token_reads_nothing(api: httpx.Client, nobody: httpx.Client, bucket: str) -> None:
    made, other = token(api, bucket), token(api, bucket)
    begun = begin(nobody, made["tus_url"])
    where, asset = begun.headers["Location"], begun.headers["Content-Location"]
    upload_id = where.rpartition("/")[2]
    as_key = {"Authorization": f"Bearer {made['token']}"}
    assert nobody.get(asset).status_code == nobody.get(asset, headers=as_key).status_code == 401
    for path in ("/v1/assets", "/v1/uploads", f"/v1/uploads/{upload_id}", "/v1/keys"):
        assert nobody.get(path, headers=as_key, params={"bucket": bucket}).status_code == 401
    assert nobody.get(where).status_code == nobody.get(made["tus_url"]).status_code == 405
    assert nobody.head(f"{other['tus_url']}/{upload_id}", headers=TUS).status_code == 404
    draft = nobody.post(made["tus_url"], content=b"x", headers={"Upload-Complete": "?1"})
    assert code(draft) == (412, "unsupported_version")
    # Whoever has a key goes on with it all the same.
    assert api.get(f"/v1/uploads/{upload_id}").json()["state"] == "complete"


def test_a_key_gives_away_no_more_than_it_has(
    api: httpx.Client, nobody: httpx.Client, bucket: str, make_bucket: MakeBucket, client_with: ClientWith
) -> None:
    narrow = client_with("assets:write", bucket=bucket, prefix="p/", max_asset_size=5, expires_in=600)

    def ask(client: httpx.Client, **wanted: Any) -> httpx.Response:
        return client.post("/v1/upload-tokens", json={"bucket": bucket, "expires_in": "30d", **wanted})

    made = ask(narrow, max_size=100)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert made.json()["expires_at"] < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 601))
    assert code(begin(nobody, made.json()["tus_url"], b"123456")) == (413, "too_large")
    assert code(begin(nobody, made.json()["tus_url"], key="q/a")) == (404, "not_found")
    assert ask(narrow, prefix="p/deeper/").status_code == 201
    assert code(ask(narrow, prefix="q/")) == (404, "not_found")
    assert code(ask(narrow, bucket=make_bucket())) == (404, "not_found")
    assert code(ask(api, bucket="no-such-bucket")) == (404, "not_found")
    assert code(ask(client_with("assets:read"))) == (403, "forbidden")
    assert code(ask(nobody)) == (401, "unauthorised")


@pytest.mark.parametrize(
    "wanted",
    [
        {"max_count": 0},
        {"max_size": -1},
        {"allowed_types": ["image"]},
        {"allowed_types": ["*/*"]},
        {"expires_in": 0},
        {"expires_in": "1e9"},
        {"max_sise": 1},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(api: httpx.Client, bucket: str, wanted: dict[str, Any]) -> None:
    refused = api.post("/v1/upload-tokens", json={"bucket": bucket, "expires_in": 60, **wanted})
    assert code(refused) == (422, "invalid_input")


def test_a_browser_of_any_origin_may_use_it(api: httpx.Client, nobody: httpx.Client, bucket: str) -> None:
    url, origin = token(api, bucket)["tus_url"], {"Origin": "https://page.example"}
    asked = {
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "tus-resumable,upload-offset",
    }
    assert nobody.options(url, headers=origin | asked).headers["Access-Control-Allow-Origin"] == "*"
    begun = nobody.post(url, headers=TUS | origin | {"Upload-Length": "0"})
    exposed = begun.headers["Access-Control-Expose-Headers"]
    assert {"Location", "Upload-Offset", "Content-Location"} <= set(exposed.split(", "))


def test_the_log_never_shows_a_token(
    api: httpx.Client, nobody: httpx.Client, bucket: str, each_server: Server
) -> None:
    made = token(api, bucket)
    marker = hashlib.sha256(made["token"].encode()).hexdigest()
    for prefix in ("/t/", "/%74/", "//t/", "/nowhere/"):
        secret = made["token"] if prefix != "/%74/" else f"%75{made['token'][1:]}"
        nobody.get(f"{prefix}{secret}/tus/{marker}{prefix[1:-1].strip('/%')}")
    deadline = time.monotonic() + 20
    while each_server.logged().count(marker) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = [line for line in each_server.logged().splitlines() if marker in line]
    assert len(lines) == 4
    assert all("upt_***" in line for line in lines)
    assert made["token"][4:] not in each_server.logged()


def test_tokens_of_the_fixed_admin_key_end_with_it(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", MEDIASVC_ADMIN_KEY="msk_" + "x" * 32).start()
    try:
        with server.client() as api:
            made = token(api, "media")
            assert begin(api, made["tus_url"]).status_code == 201
        server.stop()
        del server.env["MEDIASVC_ADMIN_KEY"]
        server.start()
        with server.client(anonymous=True) as nobody:
            assert code(begin(nobody, made["tus_url"])) == (403, "forbidden")
    finally:
        server.stop()
