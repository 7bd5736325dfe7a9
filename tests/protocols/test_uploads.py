"""Uploads whatever their dialect: plain JSON, lists, limits, lifetime, whose they are, and what they will become."""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.protocols import wire
from tests.protocols.conftest import MakeBucket
from tests.protocols.uploading import (
    CONTENT,
    OCTETS,
    PARTIAL,
    TUS,
    UPLOADS,
    asset_of,
    b64,
    checksum,
    concatenation,
    create,
    metadata,
    offset_of,
    patch,
    target,
)
from tests.servers import Server, behind_nginx, running
from tests.waiting import until

REST = CONTENT[4:]
MIB = 1 << 20
MORE, WHOLE = {"Upload-Complete": "?0"}, {"Upload-Complete": "?1"}
Clients = Callable[..., httpx.Client]


def new_key() -> str:
    return f"keys/{secrets.token_hex(6)}.bin"


# --- plain JSON, GET and the list


def test_plain_json_says_where_the_bytes_go(each_server: Server, api: httpx.Client) -> None:
    key = new_key()
    wanted = {"bucket": "media", "key": key, "size": 10, "media_type": "application/octet-stream"}
    made = api.post(UPLOADS, json=wanted)
    told = made.json()
    assert (made.status_code, made.headers["Location"]) == (201, told["url"])
    assert (told["state"], told["offset"], told["length"], told["key"]) == ("open", 0, 10, key)
    assert told["put"] == {"method": "PUT", "url": told["url"]}
    assert told["tus"] == {"url": told["url"]}
    assert made.headers["Content-Location"] == told["asset_url"]
    done = api.put(told["put"]["url"], content=CONTENT)
    assert done.status_code in (200, 201), done.text
    assert api.get(f"/b/media/{key}").content == CONTENT
    assert api.get(told["asset_url"]).content == CONTENT
    state = api.get(told["url"]).json()
    assert (state["state"], state["asset"]["id"], state["put"]) == ("complete", told["asset_id"], None)


def test_what_was_begun_in_json_goes_on_in_every_dialect(api: httpx.Client) -> None:
    for rest, typed in (({}, OCTETS | TUS), (WHOLE, PARTIAL)):
        url = api.post(UPLOADS, json={"size": 10}).json()["url"]
        headers = typed | {"Upload-Offset": "0"} | (MORE if rest else {})
        assert api.patch(url, content=CONTENT[:4], headers=headers).status_code == 204
        done = api.patch(url, content=REST, headers=typed | {"Upload-Offset": "4"} | rest)
        assert done.status_code in (201, 204)
        assert asset_of(api, url).content == CONTENT


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({}, 422),
        ({"size": -1}, 422),
        ({"size": 1.5}, 422),
        ({"size": 2**63}, 422),
        ({"size": 1, "sha256": "ab"}, 422),
        ({"size": 1, "bucket": "nowhere"}, 404),
        ({"size": 1, "key": "../up"}, 400),
        ({"size": 1, "colour": "blue"}, 422),
        ([], 422),
    ],
    ids=str,
)
def test_json_that_makes_no_sense_begins_nothing(api: httpx.Client, wanted: object, status: int) -> None:
    assert api.post(UPLOADS, json=wanted).status_code == status


def test_a_body_of_no_dialect_begins_nothing(api: httpx.Client) -> None:
    assert api.post(UPLOADS, content=b"x").status_code == 415
    assert api.post(UPLOADS, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400


@pytest.mark.parametrize("body", [CONTENT[:9], CONTENT + b"!", b"x" * 10], ids=["short", "long", "another"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_put_that_is_not_what_was_announced_makes_no_asset(
    api: httpx.Client, body: bytes, chunked: bool
) -> None:
    key = new_key()
    wanted = {"key": key, "size": 10, "sha256": hashlib.sha256(CONTENT).hexdigest()}
    url = api.post(UPLOADS, json=wanted).json()["url"]
    answer = api.put(url, content=iter([body]) if chunked else body)
    assert answer.status_code in (400, 413, 422), answer.text
    assert api.get(f"/b/media/{key}").status_code == 404


@pytest.mark.parametrize("cut", [4, 3 * MIB])
def test_a_plain_put_that_breaks_off_is_sent_again(each_server: Server, api: httpx.Client, cut: int) -> None:
    key, content = new_key(), bytes(range(256)) * 4 * 5000
    told = api.post(UPLOADS, json={"key": key, "size": len(content)}).json()
    where = target(told["put"]["url"])
    for _ in range(2):
        said = each_server.headers | {"Content-Length": str(len(content))}
        with each_server.request_ends("PUT", where), wire.connect(each_server.url) as connection:
            connection.sendall(wire.head("PUT", where, said) + b"?" * cut)
        assert api.get(where).json()["offset"] == 0
    done = api.put(where, content=content)
    assert done.status_code == 201, done.text
    assert api.get(f"/b/media/{key}").content == content


@pytest.mark.parametrize("door", ["tus", "draft", "PUT"])
def test_who_breaks_off_before_it_is_told_where_leaves_no_upload(
    each_server: Server, api: httpx.Client, make_bucket: MakeBucket, door: str
) -> None:
    bucket = make_bucket(quota_bytes=15)
    said = {"Content-Length": "10", "Upload-Metadata": metadata(bucket=bucket, key="a")}
    said |= TUS | OCTETS | {"Upload-Length": "10"} if door == "tus" else WHOLE
    method, where = ("PUT", f"/b/{bucket}/a") if door == "PUT" else ("POST", UPLOADS)
    before = [one["id"] for one in api.get(UPLOADS).json()["uploads"]]
    with each_server.request_ends(method, where), wire.connect(each_server.url) as connection:
        connection.sendall(wire.head(method, where, each_server.headers | said) + CONTENT[:4])
    assert [one["id"] for one in api.get(UPLOADS).json()["uploads"]] == before
    again = api.request(method, where, content=CONTENT, headers=said)  # its room was given back
    assert again.status_code == 201, again.text


@pytest.mark.parametrize("door", ["tus", "draft"])
def test_a_key_that_is_no_utf_8_is_refused(api: httpx.Client, door: str) -> None:
    if door == "tus":
        said = TUS | {"Upload-Length": "1", "Upload-Metadata": f"key {b64(bytes([255, 254]))}"}
        got = api.post(UPLOADS, headers=said)
    else:
        got = api.post(f"{UPLOADS}?key=%ff", content=CONTENT, headers=WHOLE)
    assert (got.status_code, got.json()["code"]) == (400, "bad_key")


def test_a_complete_upload_is_not_worth_another_try(api: httpx.Client) -> None:
    got = patch(api, create(api, 10, CONTENT), 10, b"!")
    assert (got.status_code, got.json()["retryable"]) == (409, False)


def test_a_final_of_very_many_parts_works_through_nginx_or_not_at_all(tmp_path: Path) -> None:
    with behind_nginx(tmp_path / "data") as server, server.client() as api:
        part = create(api, 1, b"x", Upload_Concat="partial").rpartition("/")[2]
        many = TUS | {"Upload-Concat": "final;" + " ".join([part] * 700)}
        made = api.post(UPLOADS, headers=many)
        assert made.status_code == 201, made.text
        assert asset_of(api, made.headers["Location"]).content == b"x" * 700
        assert api.head(made.headers["Location"], headers=TUS).status_code == 200
    with running(tmp_path / "data") as server, server.client() as api:
        many = TUS | {"Upload-Concat": "final;" + " ".join([part] * 900)}
        assert api.post(UPLOADS, headers=many).status_code == 400


def test_looking_disturbs_nobody_and_asking_takes_over(each_server: Server, api: httpx.Client) -> None:
    url = create(api, 3 * MIB)
    said = each_server.headers | TUS | OCTETS | {"Upload-Offset": "0", "Content-Length": str(3 * MIB)}
    with wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("PATCH", target(url), said) + bytes(2 * MIB))
        for _ in range(5):
            assert api.get(url).status_code == 200
        began = time.monotonic()
        offset = offset_of(api, url)
        assert offset is not None
        assert time.monotonic() - began < 3
        answer = wire.read_answer(connection, "PATCH")
        assert (answer.status, answer.json()["code"]) == (409, "superseded")
    assert patch(api, url, offset, bytes(3 * MIB - offset)).status_code == 204
    assert asset_of(api, url).content == bytes(3 * MIB)


def test_who_began_uploads_can_list_them(client_with: Clients) -> None:
    one, other = client_with("assets:write", bucket="media"), client_with("assets:write", bucket="media")
    urls = [create(one, 10) for _ in range(5)]
    create(other, 10)
    found, cursor = [], None
    while True:
        page = one.get(UPLOADS, params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [upload["url"] for upload in page["uploads"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert sorted(found) == sorted(urls)
    assert one.get(UPLOADS, params={"limit": 0}).status_code == 422


# --- whose it is


def test_an_upload_is_nobody_elses(
    client_with: Clients, make_bucket: MakeBucket, nobody: httpx.Client
) -> None:
    owner = client_with("assets:write", bucket="media")
    elsewhere = client_with("assets:write", bucket=make_bucket())
    below = client_with("assets:write", bucket="media", prefix="below/")
    reader = client_with("assets:read", bucket="media")
    url = create(owner, 10, CONTENT[:4], Upload_Metadata=metadata(key=new_key()))
    for stranger, status in ((elsewhere, 404), (below, 404), (reader, 403), (nobody, 401)):
        assert stranger.head(url, headers=TUS).status_code == status
        assert patch(stranger, url, 4, REST).status_code == status
        assert stranger.delete(url, headers=TUS).status_code == status
        assert stranger.get(url).status_code == status
        assert stranger.put(url, content=CONTENT).status_code == status
    assert offset_of(owner, url) == 4


def test_whoever_may_write_the_key_may_go_on(client_with: Clients) -> None:
    owner = client_with("assets:write", bucket="media")
    prefix = secrets.token_hex(4) + "/"
    fellow = client_with("assets:write", bucket="media", prefix=prefix)
    url = create(owner, 10, CONTENT[:4], Upload_Metadata=metadata(bucket="media", key=prefix + "x"))
    assert offset_of(fellow, url) == 4
    assert patch(fellow, url, 4, REST).status_code == 204


def test_a_key_that_is_narrowed_writes_there_only(client_with: Clients) -> None:
    prefix = secrets.token_hex(4) + "/"
    narrow = client_with("assets:write", bucket="media", prefix=prefix)
    outside = narrow.post(
        UPLOADS, headers=TUS | {"Upload-Length": "1", "Upload-Metadata": metadata(key="outside")}
    )
    assert outside.status_code == 404
    url = create(narrow, 10, CONTENT)
    assert narrow.get(url).json()["key"].startswith(prefix)
    parts = [create(narrow, 10, CONTENT, Upload_Concat="partial")]
    said = TUS | concatenation(*parts)
    assert (
        narrow.post(UPLOADS, headers=said | {"Upload-Metadata": metadata(key="outside")}).status_code == 404
    )
    final = narrow.post(UPLOADS, headers=said)
    assert final.status_code == 201
    assert narrow.get(final.headers["Location"]).json()["key"].startswith(prefix)


def test_a_partial_of_somebody_elses_is_not_there(client_with: Clients) -> None:
    one, other = client_with("assets:write", bucket="media"), client_with("assets:write", bucket="media")
    part = create(one, 10, CONTENT, Upload_Concat="partial")
    assert other.post(UPLOADS, headers=TUS | concatenation(part)).status_code == 404


def test_a_key_that_is_revoked_ends_its_uploads_and_another_goes_on(
    api: httpx.Client, each_server: Server
) -> None:
    made = api.post("/v1/keys", json={"scopes": ["assets:write"], "bucket": "media"}).json()
    with each_server.client(made["secret"]) as client:
        url = create(client, 10, CONTENT[:4])
        assert api.delete(f"/v1/keys/{made['id']}").status_code in (200, 204)
        assert client.head(url, headers=TUS).status_code == 401
        assert patch(client, url, 4, REST).status_code == 401
    assert patch(api, url, 4, REST).status_code == 204
    assert asset_of(api, url).content == CONTENT


def test_a_key_that_is_revoked_in_the_middle_of_a_body_makes_no_asset(
    api: httpx.Client, each_server: Server
) -> None:
    made = api.post("/v1/keys", json={"scopes": ["assets:write"], "bucket": "media"}).json()
    with each_server.client(made["secret"]) as client:
        url = create(client, 100_010)
    said = {"Authorization": f"Bearer {made['secret']}", "Upload-Offset": "0", "Content-Length": "100010"}
    with wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("PATCH", target(url), said | TUS | OCTETS) + bytes(100_000))
        until(lambda: api.get(url).status_code == 200, seconds=30)
        assert api.delete(f"/v1/keys/{made['id']}").status_code in (200, 204)
        connection.sendall(CONTENT)
        answer = wire.read_answer(connection, "PATCH")
    # I16: what is decided once more before the end is what bucket and quota say; the key was good at the head.
    assert answer.status in (204, 401, 403)
    assert api.get(url).json()["state"] == ("complete" if answer.status == 204 else "open")


# --- what it will become


def test_the_asset_is_promised_from_the_first_answer_on(api: httpx.Client) -> None:
    key = new_key()
    made = api.post(
        UPLOADS, headers=TUS | {"Upload-Length": "10", "Upload-Metadata": metadata(key=key, filename="x.bin")}
    )
    url, promised = made.headers["Location"], made.headers["Content-Location"]
    early = api.get(promised)
    assert (early.status_code, early.json()["code"]) == (404, "upload_incomplete")
    assert early.json()["retryable"] is True
    assert int(early.headers["Retry-After"]) > 0
    assert early.headers["Cache-Control"] == "no-store"
    assert api.get(f"/b/media/{key}").status_code == 404
    patch(api, url, 0, CONTENT[:4])
    assert api.get(promised).status_code == 404
    last = patch(api, url, 4, REST)
    assert last.headers["Content-Location"] == promised
    assert api.get(promised).content == CONTENT
    assert api.get(f"/b/media/{key}").content == CONTENT
    assert api.delete(url, headers=TUS).status_code == 204
    assert api.get(promised).content == CONTENT, "the upload goes, the asset stays"


def test_a_promise_ends_with_its_upload(api: httpx.Client) -> None:
    made = api.post(UPLOADS, headers=TUS | {"Upload-Length": "10"})
    assert api.delete(made.headers["Location"], headers=TUS).status_code == 204
    gone = api.get(made.headers["Content-Location"])
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


def test_what_is_replaced_is_served_until_the_new_one_is_complete(api: httpx.Client) -> None:
    key = new_key()
    old = api.put(f"/b/media/{key}", content=b"old").json()
    url = create(api, 10, CONTENT[:4], Upload_Metadata=metadata(key=key))
    for place in (f"/b/media/{key}", f"/f/{old['id']}/x"):
        assert api.get(place).content == b"old"
    assert patch(api, url, 4, REST).status_code == 204
    for place in (f"/b/media/{key}", f"/f/{old['id']}/x"):
        assert api.get(place).content == CONTENT
    asset = api.get(url).json()["asset"]
    assert (asset["id"], asset["version"]) == (old["id"], 2)


def test_a_key_that_changed_hands_meanwhile_goes_to_who_was_promised(api: httpx.Client) -> None:
    key = new_key()
    first = create(api, 10, CONTENT[:4], Upload_Metadata=metadata(key=key))
    second = api.put(f"/b/media/{key}", content=b"in between").json()
    promised = api.get(first).json()["asset_id"]
    assert promised != second["id"]
    assert patch(api, first, 4, REST).status_code == 204
    assert api.get(f"/b/media/{key}").content == CONTENT
    assert api.get(f"/f/{promised}/x").content == CONTENT
    assert api.get(f"/f/{second['id']}/x").status_code == 404


def test_two_uploads_of_one_key_end_one_after_the_other(api: httpx.Client) -> None:
    key = new_key()
    one, two = (create(api, 10, CONTENT[:4], Upload_Metadata=metadata(key=key)) for _ in range(2))
    assert patch(api, one, 4, REST).status_code == 204
    assert patch(api, two, 4, b"xxxxxx").status_code == 204
    assert api.get(f"/b/media/{key}").content == CONTENT[:4] + b"xxxxxx"


def test_an_asset_that_is_deleted_meanwhile_comes_anew(api: httpx.Client) -> None:
    key = new_key()
    api.put(f"/b/media/{key}", content=b"old")
    url = create(api, 10, CONTENT[:4], Upload_Metadata=metadata(key=key))
    promised = api.get(url).json()["asset_id"]
    assert api.delete(f"/b/media/{key}").status_code == 204
    assert patch(api, url, 4, REST).status_code == 204
    assert api.get(f"/b/media/{key}").content == CONTENT
    assert api.get(url).json()["asset"]["id"] == promised


# --- limits


def test_room_is_reserved_when_an_upload_begins(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(quota_bytes=15)
    said = TUS | {"Upload-Length": "10", "Upload-Metadata": metadata(bucket=bucket, key="a")}
    first = api.post(UPLOADS, headers=said)
    assert first.status_code == 201
    other = said | {"Upload-Metadata": metadata(bucket=bucket, key="b")}
    full = api.post(UPLOADS, headers=other)
    assert (full.status_code, full.json()["code"]) == (413, "quota_exceeded")
    assert api.put(f"/b/{bucket}/c", content=CONTENT).status_code == 413
    assert (
        api.post(
            UPLOADS, content=CONTENT, headers=WHOLE | {"Upload-Metadata": metadata(bucket=bucket)}
        ).status_code
        == 413
    )
    assert api.post(UPLOADS, json={"bucket": bucket, "size": 10}).status_code == 413
    assert patch(api, first.headers["Location"], 0, CONTENT[:9]).status_code == 204
    assert api.delete(first.headers["Location"], headers=TUS).status_code == 204
    second = api.post(UPLOADS, headers=other)
    assert second.status_code == 201
    assert patch(api, second.headers["Location"], 0, CONTENT).status_code == 204
    assert api.post(UPLOADS, headers=said).status_code == 413
    replacing = api.post(UPLOADS, headers=other)
    assert replacing.status_code == 201, "what it replaces counts as free"
    assert patch(api, replacing.headers["Location"], 0, CONTENT).status_code == 204


def test_a_quota_of_assets_counts_what_is_promised(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(quota_assets=1)
    first = create(api, 10, Upload_Metadata=metadata(bucket=bucket, key="a"))
    other = TUS | {"Upload-Length": "10", "Upload-Metadata": metadata(bucket=bucket, key="b")}
    assert api.post(UPLOADS, headers=other).status_code == 413
    assert patch(api, first, 0, CONTENT).status_code == 204
    assert api.post(UPLOADS, headers=other).status_code == 413


def test_an_upload_of_no_known_length_stops_at_the_quota(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(quota_bytes=12)
    url = create(api, None, CONTENT[:4], Upload_Metadata=metadata(bucket=bucket, key="a"))
    late = patch(api, url, 4, None, Upload_Length="13")
    assert late.status_code == 413
    assert late.json()["code"] == "quota_exceeded"
    assert api.head(url, headers=TUS).headers["Upload-Defer-Length"] == "1"
    for body in (REST + b"!!!", iter([REST + b"!!!"])):
        full = api.patch(url, content=body, headers=TUS | OCTETS | {"Upload-Offset": "4"})
        assert (full.status_code, full.json()["code"]) == (413, "quota_exceeded")
        assert offset_of(api, url) == 4
    assert patch(api, url, 4, REST + b"!!", Upload_Length="12").status_code == 204
    assert asset_of(api, url).content == CONTENT + b"!!"


def test_an_upload_of_no_known_length_stops_at_the_largest_size(
    api: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket(max_asset_size=12)
    too_long = TUS | {"Upload-Length": "13", "Upload-Metadata": metadata(bucket=bucket)}
    assert api.post(UPLOADS, headers=too_long).status_code == 413
    url = create(api, None, CONTENT[:4], Upload_Metadata=metadata(bucket=bucket, key="a"))
    assert patch(api, url, 4, None, Upload_Length="13").status_code == 413
    for body in (REST + b"!!!", iter([REST + b"!!!"])):
        full = api.patch(url, content=body, headers=TUS | OCTETS | {"Upload-Offset": "4"})
        assert (full.status_code, full.json()["limit_source"]) == (413, f"bucket:{bucket}")
        assert offset_of(api, url) == 4
    assert patch(api, url, 4, REST, Upload_Length="10").status_code == 204
    more = {"Upload-Metadata": metadata(bucket=bucket)} | MORE
    made = api.post(UPLOADS, content=CONTENT, headers=more)
    assert "max-size=12" in made.headers["Upload-Limit"]
    too_long = {"Upload-Length": "13", "Upload-Metadata": metadata(bucket=bucket)}
    assert api.post(UPLOADS, headers=TUS | too_long).headers["Tus-Max-Size"] == "12"
    assert "max-size=12" in api.post(UPLOADS, headers=MORE | too_long).headers["Upload-Limit"]
    for state in (MORE, WHOLE):
        for body in (b"!!!", iter([b"!!!"])):
            said = PARTIAL | state | {"Upload-Offset": "10"}
            full = api.patch(made.headers["Location"], content=body, headers=said)
            assert full.status_code == 413, full.text
            assert "max-size=12" in full.headers["Upload-Limit"]
            assert api.head(made.headers["Location"], headers=MORE).headers["Upload-Offset"] == "10"
    parts = [create(api, 10, CONTENT, Upload_Concat="partial") for _ in range(2)]
    final = TUS | concatenation(*parts) | {"Upload-Metadata": metadata(bucket=bucket)}
    assert api.post(UPLOADS, headers=final).status_code == 413


def test_a_type_the_bucket_does_not_take_is_refused_at_the_first_bytes(
    api: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket(allowed_types=["image/*"])
    said = metadata(bucket=bucket, key="a", filename="a.png", filetype="image/png")
    plain = TUS | {"Upload-Length": "10", "Upload-Metadata": metadata(bucket=bucket, filetype="text/plain")}
    assert api.post(UPLOADS, headers=plain).status_code == 415
    for whole in (b"%PDF-1.7\n" + bytes(20_000), b"<html>" * 3000):
        url = create(api, len(whole), Upload_Metadata=said)
        answer = patch(api, url, 0, whole[:-1])
        assert (answer.status_code, answer.json()["code"]) == (415, "type_not_allowed")
        assert api.head(url, headers=TUS).status_code == 410
    url, whole = create(api, 9000, Upload_Metadata=said), b"%PDF-1.7\n" + bytes(8990)
    for start, end, status in ((0, 2000, 204), (2000, 4095, 204), (4095, 4097, 415)):
        assert patch(api, url, start, whole[start:end]).status_code == status
    assert api.head(url, headers=TUS).status_code == 410
    parts = [create(api, 10, CONTENT, Upload_Concat="partial")]
    final = api.post(UPLOADS, headers=TUS | concatenation(*parts) | {"Upload-Metadata": said})
    assert final.status_code in (201, 415)
    short = create(api, 9, Upload_Metadata=said)
    assert patch(api, short, 0, b"%PDF-1.7\n").status_code == 415
    assert api.head(short, headers=TUS).status_code == 410


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Small limits, short lives."""
    env = {
        "MEDIASVC_UPLOAD_EXPIRES": "2s",
        "MEDIASVC_SWEEP_INTERVAL": "1s",
        "MEDIASVC_MAX_UPLOAD_SIZE": "50000",
        "MEDIASVC_MAX_OPEN_UPLOADS": "3",
        "MEDIASVC_MAX_REQUEST_SIZE": "40000",
    }
    with running(tmp_path_factory.mktemp("strict") / "data", **env) as server:
        yield server
        server.check_leftovers()


@pytest.fixture
def narrow(strict: Server) -> Iterator[httpx.Client]:
    """With a key of its own: open uploads are counted for each."""
    with strict.client() as admin:
        secret = admin.post("/v1/keys", json={"scopes": ["assets:write", "assets:read"]}).json()["secret"]
    with strict.client(secret) as client:
        yield client


def test_limits_are_announced(narrow: httpx.Client) -> None:
    told = narrow.options(UPLOADS)
    assert told.headers["Tus-Max-Size"] == "50000"
    assert told.headers["Upload-Limit"] == "max-size=50000, max-append-size=40000, max-age=2"


def test_options_tell_the_limits_that_a_creation_tells(api: httpx.Client, client_with: Clients) -> None:
    for client in (api, client_with("assets:write", bucket="media", max_asset_size=1000)):
        told = client.options(UPLOADS).headers
        tus = client.post(UPLOADS, headers=TUS | {"Upload-Length": "1"}).headers
        draft = client.post(UPLOADS, headers=MORE).headers
        assert (told["Tus-Max-Size"], told["Upload-Limit"]) == (tus["Tus-Max-Size"], draft["Upload-Limit"])


def sent(chunked: bool) -> bytes | Iterator[bytes]:
    return iter([bytes(60_000)]) if chunked else bytes(60_000)


def test_an_announced_length_that_is_too_large_is_told_the_limits(narrow: httpx.Client) -> None:
    tus = narrow.post(UPLOADS, headers=TUS | {"Upload-Length": "50001"})
    assert (tus.status_code, tus.headers["Tus-Max-Size"]) == (413, "50000")
    draft = narrow.post(UPLOADS, headers=MORE | {"Upload-Length": "50001"})
    assert draft.status_code == 413
    assert "max-size=50000" in draft.headers["Upload-Limit"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_leaves_no_upload(narrow: httpx.Client, chunked: bool) -> None:
    tus = TUS | OCTETS | {"Upload-Defer-Length": "1"}
    for headers in (tus, WHOLE, MORE):
        answer = narrow.post(UPLOADS, content=sent(chunked), headers=headers)
        assert (answer.status_code, answer.json()["limit"]) == (413, 50_000)
    assert narrow.put(f"/b/media/{new_key()}", content=sent(chunked), headers=WHOLE).status_code == 413
    left = narrow.get(UPLOADS).json()["uploads"]
    assert [one for one in left if one["state"] == "open"] == []


def of_any_door(door: str) -> tuple[str, str, dict[str, str]]:
    """How each dialect begins an upload of a length that only its body tells."""
    match door:
        case "tus":
            return "POST", UPLOADS, TUS | OCTETS | {"Upload-Defer-Length": "1"}
        case "draft, some":
            return "POST", UPLOADS, MORE
        case "draft, all":
            return "POST", UPLOADS, WHOLE
        case "draft, some at a key":
            return "PUT", f"/b/media/{new_key()}", MORE
        case _:
            return "PUT", f"/b/media/{new_key()}", WHOLE | {"Upload-Draft-Interop-Version": "8"}


DOORS = ["tus", "draft, some", "draft, all", "draft, some at a key", "draft, all at a key"]


def tells_the_limits(door: str, answer: httpx.Response | wire.Answer) -> bool:
    if door == "tus":
        return answer.headers["Tus-Max-Size"] == "50000"
    return "max-size=50000" in answer.headers["Upload-Limit"] and answer.headers["Upload-Complete"] == "?0"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("door", DOORS)
def test_every_413_carries_the_limits(narrow: httpx.Client, door: str, chunked: bool) -> None:
    method, where, headers = of_any_door(door)
    refused = narrow.request(method, where, content=sent(chunked), headers=headers)
    assert refused.status_code == 413
    assert tells_the_limits(door, refused)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("dialect", ["tus", "draft"])
def test_every_413_of_an_append_carries_the_limits(narrow: httpx.Client, dialect: str, chunked: bool) -> None:
    url = create(narrow, None, CONTENT[:4])
    headers = (TUS | OCTETS if dialect == "tus" else PARTIAL | MORE) | {"Upload-Offset": "4"}
    refused = narrow.patch(url, content=sent(chunked), headers=headers)
    assert refused.status_code == 413
    assert tells_the_limits(dialect, refused)
    assert offset_of(narrow, url) == 4


def test_a_quota_is_told_with_the_limits(strict: Server, narrow: httpx.Client) -> None:
    bucket = f"small-{secrets.token_hex(4)}"
    with strict.client() as admin:
        admin.post("/v1/buckets", json={"name": bucket, "quota_bytes": 9})
    for state in (MORE, WHOLE):
        refused = narrow.put(f"/b/{bucket}/a", content=CONTENT, headers=state)
        assert (refused.status_code, refused.json()["code"]) == (413, "quota_exceeded")
        assert tells_the_limits("draft", refused)


@pytest.mark.parametrize("door", DOORS)
def test_a_body_that_is_announced_too_large_is_not_asked_for(
    strict: Server, narrow: httpx.Client, door: str
) -> None:
    method, where, headers = of_any_door(door)
    said = {"Content-Length": "50001", "Expect": "100-continue", **headers}
    said["Authorization"] = narrow.headers["Authorization"]
    with wire.connect(strict.url) as connection:
        connection.sendall(wire.head(method, where, said))
        answer = wire.read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]


def test_what_goes_over_the_largest_size_changes_nothing(narrow: httpx.Client) -> None:
    def slowly() -> Iterator[bytes]:
        yield bytes(30_000)
        time.sleep(0.3)
        yield bytes(30_000)

    url = create(narrow, None, CONTENT[:4])
    for body in (bytes(60_000), iter([bytes(30_000)] * 2), slowly()):
        answer = narrow.patch(url, content=body, headers=TUS | OCTETS | {"Upload-Offset": "4"})
        assert answer.status_code == 413
        assert offset_of(narrow, url) == 4


def test_too_many_open_uploads_are_too_many(narrow: httpx.Client) -> None:
    urls = [create(narrow, 10) for _ in range(3)]
    for headers in (TUS | {"Upload-Length": "1"}, MORE, WHOLE):
        full = narrow.post(UPLOADS, headers=headers)
        assert (full.status_code, full.json()["code"]) == (429, "rate_limited")
        assert int(full.headers["Retry-After"]) > 0
    assert narrow.post(UPLOADS, json={"size": 1}).status_code == 429
    assert narrow.delete(urls[0], headers=TUS).status_code == 204
    url = create(narrow, 10)
    assert narrow.post(UPLOADS, headers=TUS | {"Upload-Length": "1"}).status_code == 429
    assert patch(narrow, url, 0, CONTENT).status_code == 204
    assert narrow.post(UPLOADS, headers=TUS | {"Upload-Length": "1"}).status_code == 201


def test_an_upload_that_nobody_goes_on_with_ends(strict: Server, narrow: httpx.Client) -> None:
    with strict.client() as admin:
        bucket = f"lives-{secrets.token_hex(4)}"
        admin.post("/v1/buckets", json={"name": bucket, "quota_bytes": 15})
    said = {"Upload_Metadata": metadata(bucket=bucket, key="a")}
    url = create(narrow, 10, CONTENT[:4], **said)
    promised = narrow.get(url).json()["asset_url"]
    until(lambda: narrow.head(url, headers=TUS).status_code == 410, seconds=30)
    assert "Upload-Offset" not in narrow.head(url, headers=TUS).headers
    assert patch(narrow, url, 4, REST).status_code == 410
    assert narrow.get(url).status_code == 410
    assert narrow.get(promised).status_code == 404
    until(lambda: list((strict.data_dir / "blobs" / "incoming").iterdir()) == [], seconds=30)
    until(
        lambda: (
            narrow.post(
                UPLOADS, headers=TUS | {"Upload-Length": "10"} | {"Upload-Metadata": said["Upload_Metadata"]}
            ).status_code
            == 201
        ),
        seconds=30,
    )


def test_an_append_keeps_an_upload_alive(narrow: httpx.Client) -> None:
    url = create(narrow, 10)
    for at in range(9):
        time.sleep(0.5)
        assert patch(narrow, url, at, CONTENT[at : at + 1]).status_code == 204
    assert patch(narrow, url, 9, CONTENT[9:]).status_code == 204


def test_an_upload_does_not_end_in_the_middle_of_an_append(strict: Server, narrow: httpx.Client) -> None:
    """One endless PATCH may take longer than an upload that nobody goes on with may live."""
    url = create(narrow, 20)
    said = {"Authorization": narrow.headers["Authorization"], "Upload-Offset": "0", "Content-Length": "20"}
    with wire.connect(strict.url) as connection:
        connection.sendall(wire.head("PATCH", target(url), said | TUS | OCTETS))
        for at in range(10):
            connection.sendall(CONTENT[at : at + 1])
            time.sleep(0.5)
        connection.sendall(CONTENT)
        answer = wire.read_answer(connection, "PATCH")
    assert answer.status == 204, answer.content
    assert asset_of(narrow, url).content == CONTENT * 2


# --- take-over over the wire


def hanging(server: Server, url: str, offset: int, length: int, body: bytes, **more: str):  # type: ignore[no-untyped-def]
    """A PATCH that announces more than it sends; the open connection."""
    named = {name.replace("_", "-"): value for name, value in more.items()}
    said = TUS | OCTETS | {"Upload-Offset": str(offset), "Content-Length": str(length)} | named
    connection = wire.connect(server.url)
    connection.sendall(wire.head("PATCH", target(url), server.headers | said) + body)
    return connection


@pytest.mark.parametrize("sent", [0, 1000, 5 * MIB + 3])
def test_a_patch_that_hangs_is_taken_over_at_once(each_server: Server, api: httpx.Client, sent: int) -> None:
    content = secrets.token_bytes(sent + 1000)
    url = create(api, len(content))
    with hanging(each_server, url, 0, len(content), content[:sent]) as connection:
        time.sleep(0.5)
        began = time.monotonic()
        offset = offset_of(api, url)
        waited = time.monotonic() - began
        assert waited < 3, waited
        assert offset == sent
        assert wire.read_answer(connection, "PATCH").status == 409
        assert patch(api, url, offset, content[offset:]).status_code == 204
    assert asset_of(api, url).content == content


def test_a_patch_that_hangs_with_a_checksum_leaves_nothing(each_server: Server, api: httpx.Client) -> None:
    url = create(api, 10)
    with hanging(each_server, url, 0, 10, b"xxx", Upload_Checksum=checksum("sha1", CONTENT)) as connection:
        time.sleep(0.3)
        assert offset_of(api, url) == 0
        assert wire.read_answer(connection, "PATCH").status == 409
    assert patch(api, url, 0, CONTENT).status_code == 204
    assert asset_of(api, url).content == CONTENT


def test_an_upload_is_discarded_under_the_hands_of_its_writer(each_server: Server, api: httpx.Client) -> None:
    url = create(api, 3 * MIB)
    with hanging(each_server, url, 0, 3 * MIB, bytes(2 * MIB)) as connection:
        time.sleep(0.3)
        assert api.delete(url, headers=TUS).status_code == 204
        assert wire.read_answer(connection, "PATCH").status in (404, 409, 410)
    assert api.head(url, headers=TUS).status_code == 404


def test_of_many_who_write_at_once_none_waits_for_a_client(each_server: Server, api: httpx.Client) -> None:
    """All of them hang, each with bytes of its own: the newest has it, and the content is nobody's mix."""
    url, size = create(api, 3 * MIB), 3 * MIB
    connections = [hanging(each_server, url, 0, size, bytes([65 + n]) * MIB) for n in range(6)]
    try:
        time.sleep(0.5)  # all of them are there before we are
        began = time.monotonic()
        offset = offset_of(api, url)
        assert time.monotonic() - began < 3
        answers = [wire.read_answer(connection, "PATCH").status for connection in connections]
        assert set(answers) == {409}
    finally:
        for connection in connections:
            connection.close()
    assert offset is not None
    done = patch(api, url, offset, b"z" * (size - offset))
    assert done.status_code == 204
    content = asset_of(api, url).content
    assert len(set(content[:offset])) <= 1
    assert content[offset:] == b"z" * (size - offset)


def test_of_two_who_write_the_same_range_one_counts(each_server: Server, api: httpx.Client) -> None:
    size = 2 * MIB
    for _ in range(5):
        url = create(api, size)
        statuses: dict[bytes, int] = {}

        def write(letter: bytes, url: str = url, statuses: dict[bytes, int] = statuses) -> None:
            with each_server.client() as client:
                statuses[letter] = patch(client, url, 0, letter * size).status_code

        threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        offset = offset_of(api, url)
        assert offset is not None
        assert sorted(statuses.values()) in ([204, 409], [409, 409]), statuses
        if offset < size:
            assert patch(api, url, offset, b"z" * (size - offset)).status_code == 204
        content = asset_of(api, url).content
        assert len(set(content[:offset])) <= 1, "never a mix"
        if 204 in statuses.values():
            (winner,) = [letter for letter, status in statuses.items() if status == 204]
            assert content == winner * size


# --- large finals


def test_a_large_final_is_joined_in_the_background(each_server: Server, api: httpx.Client) -> None:
    piece = secrets.token_bytes(MIB) * 22
    parts = [create(api, len(piece), piece, Upload_Concat="partial") for _ in range(2)]
    made = api.post(UPLOADS, headers=TUS | concatenation(*parts, parts[0]))
    assert (made.status_code, made.headers["Tus-Resumable"]) == (201, "1.0.0")
    assert "Upload-Offset" not in made.headers
    url = made.headers["Location"]
    states: list[tuple[str, bool]] = []

    def joined() -> bool:
        began = time.monotonic()
        told, draft = api.head(url, headers=TUS), api.head(url, headers=MORE)
        assert (told.status_code, draft.status_code) == (200, 204)
        assert time.monotonic() - began < 3, "HEAD waits for nobody"
        state = api.get(url).json()["state"]
        states.append((state, "Upload-Offset" in told.headers or "Upload-Offset" in draft.headers))
        return state == "complete"

    until(joined, 60)
    assert all(not offset for state, offset in states if state == "completing")
    assert offset_of(api, url) == 3 * len(piece)
    assert hashlib.sha256(asset_of(api, url).content).digest() == hashlib.sha256(piece * 3).digest()
