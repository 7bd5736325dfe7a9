"""What unmodified `@uppy/aws-s3` calls, with a token in the path and nothing else that says who it is."""

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.ceph import Ceph
from tests.protocols.direct import MIB, OverS3, assert_all_is_swept, code, over_s3, send
from tests.servers import Server

BODY = os.urandom(12 * MIB + 77)
CUT = 6 * MIB  # Uppy's parts are of a size of its own
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8192)


@pytest.fixture(scope="module")
def s3(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OverS3]:
    yield from over_s3(ceph, tmp_path_factory.mktemp("companion") / "data")


def companion(s3: OverS3, **wanted: Any) -> str:
    """Where Uppy begins all its paths."""
    made = s3.api.post("/v1/upload-tokens", json={"bucket": "media", "expires_in": "1h", **wanted})
    assert made.status_code == 201, made.text
    return f"{made.json()['companion_url']}/s3"


def begin(s3: OverS3, url: str, filename: str = "film.mp4", **metadata: Any) -> dict[str, str]:
    wanted = {"filename": filename, "type": "video/mp4", "metadata": {"name": filename, **metadata}}
    begun = s3.nobody.post(f"{url}/multipart", json=wanted)
    assert begun.status_code == 200, begun.text
    assert set(begun.json()) == {"key", "uploadId", "bucket"}
    return dict(begun.json())


def sign(s3: OverS3, url: str, upload: dict[str, str], number: int) -> httpx.Response:
    return s3.nobody.get(f"{url}/multipart/{upload['uploadId']}/{number}", params={"key": upload["key"]})


def send_part(s3: OverS3, url: str, upload: dict[str, str], number: int, body: bytes) -> dict[str, Any]:
    sent = send(sign(s3, url, upload, number).json()["url"], body)
    assert sent.status_code == 200
    return {"PartNumber": number, "ETag": sent.headers["ETag"].strip('"')}


def complete(s3: OverS3, url: str, upload: dict[str, str], parts: list[dict[str, Any]]) -> httpx.Response:
    return s3.nobody.post(
        f"{url}/multipart/{upload['uploadId']}/complete",
        params={"key": upload["key"]},
        json={"parts": parts},
    )


def post_form(s3: OverS3, told: dict[str, Any], body: bytes, name: str = "a") -> httpx.Response:
    """As Uppy does it: the fields, then the file."""
    return s3.nobody.post(told["url"], data=told["fields"], files={"file": (name, body, "text/plain")})


def params(
    s3: OverS3, url: str, filename: str = "ä.txt", type: str = "text/plain", **metadata: str
) -> httpx.Response:
    asked = {f"metadata[{name}]": value for name, value in metadata.items()}
    return s3.nobody.get(f"{url}/params", params={"filename": filename, "type": type, **asked})


def test_a_large_file_goes_in_parts_to_the_store(s3: OverS3) -> None:
    url = companion(s3, prefix="films/")
    upload = begin(s3, url, license="CC0", frames=7)
    assert upload["key"].startswith("films/")
    parts = [
        send_part(s3, url, upload, number, BODY[at : at + CUT])
        for number, at in enumerate(range(0, len(BODY), CUT), 1)
    ]
    listed = s3.nobody.get(f"{url}/multipart/{upload['uploadId']}", params={"key": upload["key"]}).json()
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, CUT), (2, CUT), (3, 77)]
    done = complete(s3, url, upload, parts)
    assert done.status_code == 200, done.text
    assert done.json() == {
        "location": done.headers["Content-Location"],
        "key": upload["key"],
        "bucket": "media",
    }
    assert s3.api.get(done.json()["location"]).content == BODY
    again = complete(s3, url, upload, parts)
    assert again.json() == done.json()
    (asset,) = s3.api.get("/v1/assets", params={"bucket": "media", "prefix": "films/"}).json()["assets"]
    assert (asset["name"], asset["metadata"]) == ("film.mp4", {"license": "CC0", "frames": "7"})


def test_a_file_of_many_parts_is_an_asset_with_the_answer(s3: OverS3) -> None:
    url = companion(s3, prefix="many/")
    upload = begin(s3, url)
    parts = [send_part(s3, url, upload, number, bytes(CUT)) for number in range(1, 13)]
    done = complete(s3, url, upload, parts)
    assert done.status_code == 200, done.text
    assert s3.api.head(done.json()["location"]).headers["Content-Length"] == str(12 * CUT)
    assert complete(s3, url, upload, parts).json() == done.json()
    (asset,) = s3.api.get("/v1/assets", params={"bucket": "media", "prefix": "many/"}).json()["assets"]
    assert s3.api.delete(f"/v1/assets/{asset['id']}").status_code == 204
    assert code(complete(s3, url, upload, parts)) == (404, "not_found")


def test_a_part_may_be_sent_again_and_an_upload_given_up(s3: OverS3) -> None:
    url = companion(s3, prefix="again/")
    upload = begin(s3, url)
    first = send_part(s3, url, upload, 1, BODY[:CUT])
    second = send_part(s3, url, upload, 1, BODY[1 : CUT + 1])
    assert code(complete(s3, url, upload, [first])) == (409, "conflict")
    assert complete(s3, url, upload, [second]).status_code == 200
    given_up = begin(s3, url)
    send_part(s3, url, given_up, 1, b"x")
    aborted = s3.nobody.delete(f"{url}/multipart/{given_up['uploadId']}", params={"key": given_up["key"]})
    assert (aborted.status_code, aborted.json()) == (200, {})
    assert s3.unfinished() == []
    assert sign(s3, url, given_up, 2).status_code == 404


def test_older_uppys_ask_for_several_urls_at_once(s3: OverS3) -> None:
    url = companion(s3)
    upload = begin(s3, url)
    where = f"{url}/multipart/{upload['uploadId']}/batch"
    signed = s3.nobody.get(where, params={"key": upload["key"], "partNumbers": "1,2"}).json()["presignedUrls"]
    assert set(signed) == {"1", "2"}
    ends = [send(signed["1"], BODY[:CUT]), send(signed["2"], BODY[CUT:])]
    parts = [{"PartNumber": number, "ETag": end.headers["ETag"]} for number, end in enumerate(ends, 1)]
    assert complete(s3, url, upload, parts).status_code == 200
    refused = s3.nobody.get(where, params={"partNumbers": "1,x"})
    assert code(refused) == (400, "bad_request")


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [{"PartNumber": 2, "ETag": "x"}],
        [{"PartNumber": 1, "ETag": "x"}, {"PartNumber": 1, "ETag": "x"}],
        [{"PartNumber": 0, "ETag": "x"}],
        [{"ETag": "x"}],
    ],
    ids=["none", "not from 1", "one twice", "zero", "no number"],
)
def test_parts_that_make_no_whole_are_refused(s3: OverS3, parts: list[dict[str, Any]]) -> None:
    url = companion(s3)
    upload = begin(s3, url)
    right = send_part(s3, url, upload, 1, b"0123456789")
    assert complete(s3, url, upload, parts).status_code in (400, 422)
    assert complete(s3, url, upload, [right]).status_code == 200


def test_parts_too_small_for_any_store_are_named(s3: OverS3) -> None:
    url = companion(s3)
    upload = begin(s3, url)
    parts = [send_part(s3, url, upload, number, b"small") for number in (1, 2)]
    assert code(complete(s3, url, upload, parts)) == (400, "bad_request")
    s3.nobody.delete(f"{url}/multipart/{upload['uploadId']}")


def test_a_small_file_is_posted_as_a_form_and_is_an_asset_with_the_answer(s3: OverS3) -> None:
    url = companion(s3, prefix="small/")
    told = params(s3, url, license="CC0").json()
    assert (told["method"], set(told)) == ("POST", {"method", "url", "fields", "expires"})
    assert told["fields"]["key"].startswith("small/")
    sent = post_form(s3, told, BODY)
    assert sent.status_code == 201, sent.text
    assert sent.headers["ETag"]
    assert s3.api.get(sent.json()["location"]).content == BODY
    asset = s3.api.get(f"/b/media/{told['fields']['key']}")
    assert asset.headers["Content-Disposition"].endswith("filename*=UTF-8''%C3%A4.txt")
    # What Uppy makes of the form's URL and the key, and calls the file's URL.
    led = s3.nobody.get(f"{told['url']}/{quote(told['fields']['key'])}")
    assert (led.status_code, led.headers["Location"]) == (303, sent.json()["location"])
    # The answer was lost, and it is sent once more.
    again = post_form(s3, told, BODY)
    assert (again.status_code, again.json()) == (201, sent.json())
    assert len(s3.api.get("/v1/assets", params={"bucket": "media", "prefix": "small/"}).json()["assets"]) == 1


def test_a_form_that_breaks_leaves_nothing_and_is_sent_again(s3: OverS3) -> None:
    before = sorted(s3.objects())
    url = companion(s3)
    told = params(s3, url).json()
    request = s3.nobody.build_request("POST", told["url"], data=told["fields"], files={"file": ("a", BODY)})
    whole = request.read()
    kind = {"Content-Type": request.headers["Content-Type"]}
    broken = s3.nobody.post(told["url"], content=whole[: len(whole) // 2], headers=kind)
    assert code(broken) == (400, "bad_body")
    assert (sorted(s3.objects()), s3.unfinished()) == (before, [])
    assert code(s3.nobody.post(told["url"], data={"key": "x"})) == (400, "bad_request")
    sent = post_form(s3, told, BODY)
    assert sent.status_code == 201, sent.text
    assert s3.api.get(sent.json()["location"]).content == BODY


def test_a_form_that_hangs_makes_way_for_the_next(s3: OverS3) -> None:
    told = params(s3, companion(s3)).json()
    request = s3.nobody.build_request("POST", told["url"], data=told["fields"], files={"file": ("a", BODY)})
    whole = request.read()
    where = urlsplit(told["url"])
    assert where.hostname
    with socket.create_connection((where.hostname, where.port or 80)) as hanging:
        head = [f"POST {where.path} HTTP/1.1", f"Host: {where.netloc}", f"Content-Length: {len(whole)}"]
        head.append(f"Content-Type: {request.headers['Content-Type']}")
        hanging.sendall("\r\n".join([*head, "", ""]).encode() + whole[: 9 * MIB])
        sent = post_form(s3, told, BODY)
        assert sent.status_code == 201, sent.text
        assert b" 409 " in hanging.recv(64)
    assert s3.api.get(sent.json()["location"]).content == BODY


@pytest.mark.parametrize("size", [0, 10])
def test_exactly_as_much_as_the_token_allows_is_taken(s3: OverS3, size: int) -> None:
    url = companion(s3, max_size=10)
    assert post_form(s3, params(s3, url).json(), bytes(size)).status_code == 201


def test_more_than_the_token_allows_leaves_nothing(s3: OverS3) -> None:
    before = sorted(s3.objects())
    url = companion(s3, max_size=CUT)
    for body in (BODY[: CUT + 1], BODY):
        assert code(post_form(s3, params(s3, url).json(), body)) == (413, "too_large")
    in_parts = begin(s3, url)
    part = send_part(s3, url, in_parts, 1, BODY[: CUT + 1])
    assert code(complete(s3, url, in_parts, [part])) == (413, "too_large")
    going_on = begin(s3, url)
    send_part(s3, url, going_on, 1, BODY[: CUT + 1])
    assert code(sign(s3, url, going_on, 2)) == (413, "too_large")
    assert sign(s3, url, going_on, 3).status_code == 410
    far_ahead = begin(s3, url)
    assert sign(s3, url, far_ahead, 32).status_code == 200
    assert code(sign(s3, url, far_ahead, 33)) == (400, "bad_request")
    s3.nobody.delete(f"{url}/multipart/{far_ahead['uploadId']}")
    assert (sorted(s3.objects()), s3.unfinished()) == (before, [])
    assert_all_is_swept(s3.server)


def test_a_type_that_the_token_does_not_allow_leaves_nothing(s3: OverS3) -> None:
    before = sorted(s3.objects())
    url = companion(s3, allowed_types=["image/*"])
    assert code(params(s3, url, type="text/plain")) == (415, "type_not_allowed")
    refused = s3.nobody.post(f"{url}/multipart", json={"filename": "a", "type": "text/plain"})
    assert code(refused) == (415, "type_not_allowed")
    lie = params(s3, url, "a.png", "image/png").json()
    assert code(post_form(s3, lie, b"%PDF-1.7\n" + bytes(8192))) == (415, "type_not_allowed")
    assert code(post_form(s3, lie, PNG)) == (410, "upload_gone")
    in_parts = s3.nobody.post(f"{url}/multipart", json={"filename": "a.png", "type": "image/png"}).json()
    part = send_part(s3, url, in_parts, 1, b"%PDF-1.7\n" + bytes(8192))
    assert code(complete(s3, url, in_parts, [part])) == (415, "type_not_allowed")
    assert (sorted(s3.objects()), s3.unfinished()) == (before, [])
    assert post_form(s3, params(s3, url, "a.png", "image/png").json(), PNG).status_code == 201
    assert_all_is_swept(s3.server)


def test_a_quota_counts_what_was_sent(s3: OverS3) -> None:
    s3.api.post("/v1/buckets", json={"name": "small-one", "quota_bytes": CUT})
    url = companion(s3, bucket="small-one")
    upload = begin(s3, url)
    part = send_part(s3, url, upload, 1, BODY[: CUT + 1])
    assert code(complete(s3, url, upload, [part])) == (413, "quota_exceeded")
    assert code(post_form(s3, params(s3, url).json(), BODY)) == (413, "quota_exceeded")
    assert s3.unfinished() == []


def test_of_many_at_once_only_as_many_begin_as_may(s3: OverS3) -> None:
    url = companion(s3, max_count=2)
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda n: params(s3, url, f"{n}").status_code, range(8)))
    assert sorted(answers) == [200] * 2 + [403] * 6
    assert code(s3.nobody.post(f"{url}/multipart", json={"filename": "a"})) == (403, "forbidden")


def test_names_and_keys_stay_under_the_prefix(s3: OverS3) -> None:
    url = companion(s3, prefix="mine/")
    assert params(s3, url, "../../etc/passwd").json()["fields"]["key"].endswith("/passwd")
    assert params(s3, url, key="mine/x").json()["fields"] == {"key": "mine/x"}
    assert code(params(s3, url, key="other/x")) == (404, "not_found")
    assert begin(s3, url, key="mine/y")["key"] == "mine/y"
    s3.api.put("/b/media/mine/z", content=b"old")
    assert code(params(s3, url, key="mine/z")) == (412, "precondition_failed")


def test_another_token_and_another_dialect_get_nowhere(s3: OverS3) -> None:
    url, other = companion(s3), companion(s3)
    upload = begin(s3, url)
    assert sign(s3, other, upload, 1).status_code == 404
    assert complete(s3, other, upload, [{"PartNumber": 1, "ETag": "x"}]).status_code == 404
    assert s3.nobody.delete(f"{other}/multipart/{upload['uploadId']}").status_code == 404
    tus = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    append = s3.nobody.patch(f"{url.removesuffix('/s3')}/tus/{upload['uploadId']}", content=b"x", headers=tus)
    assert code(append) == (409, "conflict")
    sign(s3, url, upload, 1)
    form = {"url": f"{url.removesuffix('/s3')}/tus/{upload['uploadId']}/form", "fields": {"key": "x"}}
    assert code(post_form(s3, form, b"x")) == (409, "conflict")
    s3.nobody.delete(f"{url}/multipart/{upload['uploadId']}")
    unknown = url.replace("/t/upt_", "/t/upt_x")
    for answer in (params(s3, unknown), sign(s3, unknown, upload, 1)):
        assert code(answer) == (403, "forbidden")
        assert "WWW-Authenticate" not in answer.headers


def test_every_answer_may_be_read_by_any_page(s3: OverS3) -> None:
    url = companion(s3)
    for answer in (
        s3.nobody.get(f"{url}/params", params={"filename": "a"}, headers={"Origin": "https://page.example"}),
        s3.nobody.get(f"{url}/multipart/none/1", headers={"Origin": "https://page.example"}),
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"]


def test_what_nobody_completes_is_swept(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("expiring") / "data"
    for over in over_s3(ceph, folder):
        over.server.stop()
        over.server.env["MEDIASVC_UPLOAD_EXPIRES"] = "3"
        over.server.start()
        url = companion(over)
        upload = begin(over, url)
        send_part(over, url, upload, 1, b"x")
        told = params(over, url).json()
        assert len(over.unfinished()) == 1
        deadline = time.monotonic() + 30
        while over.unfinished() and time.monotonic() < deadline:
            time.sleep(1)
            assert_all_is_swept(over.server)
        assert (over.unfinished(), over.objects()) == ([], [])
        assert code(sign(over, url, upload, 2)) == (410, "upload_gone")
        assert code(post_form(over, told, b"x")) == (410, "upload_gone")


def test_a_store_on_disk_has_no_companion(server: Server) -> None:
    with server.client() as api, server.client(anonymous=True) as nobody:
        made = api.post("/v1/upload-tokens", json={"bucket": "media", "expires_in": 60}).json()
        assert made["companion_url"] is None
        asked = nobody.get(f"/t/{made['token']}/s3/params", params={"filename": "a"})
        assert code(asked) == (404, "not_found")
