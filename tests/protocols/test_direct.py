"""Plain JSON with parts: bytes go straight to the store, and are looked at before anything is to be seen."""

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.ceph import Ceph
from tests.protocols.direct import MIB, OverS3, assert_all_is_swept, code, over_s3, send
from tests.protocols.uploading import zeros
from tests.servers import Server

BODY = os.urandom(20 * MIB + 12345)
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture(scope="module")
def s3(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OverS3]:
    yield from over_s3(ceph, tmp_path_factory.mktemp("direct") / "data")


def begin(s3: OverS3, key: str, body: bytes = BODY, **more: Any) -> dict[str, Any]:
    begun = s3.api.post("/v1/uploads", json={"key": key, "size": len(body), **more})
    assert begun.status_code == 201, begun.text
    return dict(begun.json())


def urls(s3: OverS3, upload: dict[str, Any], numbers: str) -> list[dict[str, Any]]:
    answer = s3.api.post(upload["parts"]["url"], params={"numbers": numbers})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["parts"])


def send_all(s3: OverS3, upload: dict[str, Any], body: bytes = BODY) -> None:
    every = ",".join(str(number) for number in range(1, upload["parts"]["count"] + 1))
    for part in urls(s3, upload, every):
        assert send(part["url"], body[part["offset"] :][: part["size"]]).status_code == 200


def test_parts_sent_to_the_store_become_an_asset(s3: OverS3) -> None:
    sha256 = hashlib.sha256(BODY).hexdigest()
    upload = begin(s3, "whole.bin", sha256=sha256)
    assert (upload["parts"]["size"], upload["parts"]["count"]) == (8 * MIB, 3)
    assert upload["put"]["url"] == upload["tus"]["url"] == upload["url"]
    parts = urls(s3, upload, "1,2,3")
    assert [(part["number"], part["offset"]) for part in parts] == [(1, 0), (2, 8 * MIB), (3, 16 * MIB)]
    assert sum(part["size"] for part in parts) == len(BODY)
    for part in reversed(parts):
        sent = send(part["url"], BODY[part["offset"] :][: part["size"]])
        assert sent.status_code == 200
        assert sent.headers["Access-Control-Allow-Origin"] in ("*", "https://page.example")
    there = s3.api.get(upload["parts"]["url"]).json()["parts"]
    assert there == [{"number": part["number"], "size": part["size"]} for part in parts]
    unseen = s3.api.get(upload["asset_url"])
    assert code(unseen) == (404, "upload_incomplete")
    done = s3.api.post(upload["parts"]["complete"])
    assert (done.status_code, done.json()["sha256"]) == (201, sha256)
    assert done.headers["Content-Location"] == upload["asset_url"] == done.json()["url"]
    assert s3.api.get(upload["asset_url"]).content == BODY
    again = s3.api.post(upload["parts"]["complete"])
    assert (again.status_code, again.json()["id"]) == (201, done.json()["id"])
    assert s3.api.get(upload["url"]).json()["state"] == "complete"
    assert s3.unfinished() == []
    # Nobody can change what was looked at.
    assert send(parts[2]["url"], bytes(parts[2]["size"])).status_code == 404
    assert s3.api.get(upload["asset_url"]).content == BODY
    assert s3.api.delete(f"/v1/assets/{done.json()['id']}").status_code == 204
    assert code(s3.api.post(upload["parts"]["complete"])) == (404, "not_found")


def test_a_part_has_the_size_that_was_told_and_no_other(s3: OverS3) -> None:
    upload = begin(s3, "short.bin")
    (last,) = urls(s3, upload, "3")
    for lie in (BODY[: last["size"] + 1], BODY[: last["size"] - 1], b""):
        assert send(last["url"], lie).status_code == 403
    assert s3.api.get(upload["parts"]["url"]).json() == {"parts": []}
    assert send(last["url"], BODY[last["offset"] :]).status_code == 200
    missing = s3.api.post(upload["parts"]["complete"])
    assert code(missing) == (409, "conflict")
    assert "1, 2" in missing.json()["detail"]
    for part in urls(s3, upload, "1,2"):
        send(part["url"], BODY[part["offset"] :][: part["size"]])
    assert s3.api.post(upload["parts"]["complete"]).status_code == 201


def test_a_lie_about_the_content_leaves_nothing(s3: OverS3) -> None:
    before = sorted(s3.objects())
    upload = begin(s3, "lie.bin", sha256="0" * 64)
    send_all(s3, upload)
    assert code(s3.api.post(upload["parts"]["complete"])) == (422, "checksum_mismatch")
    assert s3.api.get(upload["asset_url"]).status_code == 404
    assert s3.api.get("/b/media/lie.bin").status_code == 404
    assert code(s3.api.post(upload["parts"]["complete"])) == (410, "upload_gone")
    assert code(s3.api.post(upload["parts"]["url"], params={"numbers": "1"})) == (410, "upload_gone")
    assert (sorted(s3.objects()), s3.unfinished()) == (before, [])
    assert_all_is_swept(s3.server)


def test_a_type_that_the_bucket_does_not_take_leaves_nothing(s3: OverS3) -> None:
    before = sorted(s3.objects())
    s3.api.post("/v1/buckets", json={"name": "pictures", "allowed_types": ["image/*"]})
    upload = begin(s3, "a.png", b"%PDF-1.7\n", bucket="pictures", media_type="image/png")
    send_all(s3, upload, b"%PDF-1.7\n")
    assert code(s3.api.post(upload["parts"]["complete"])) == (415, "type_not_allowed")
    assert (sorted(s3.objects()), s3.unfinished()) == (before, [])
    assert_all_is_swept(s3.server)


def test_parts_and_appends_do_not_mix(s3: OverS3) -> None:
    append = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    in_parts = begin(s3, "mixed-1.bin")
    urls(s3, in_parts, "1")
    told = s3.api.get(in_parts["url"]).json()
    assert (told["put"], told["tus"], bool(told["parts"])) == (None, None, True)
    assert code(s3.api.patch(in_parts["url"], content=b"x", headers=append)) == (409, "conflict")
    assert code(s3.api.put(in_parts["url"], content=BODY)) == (409, "conflict")
    appended = begin(s3, "mixed-2.bin")
    assert s3.api.patch(appended["url"], content=b"x", headers=append).status_code == 204
    assert s3.api.get(appended["url"]).json()["parts"] is None
    assert code(s3.api.post(appended["parts"]["url"], params={"numbers": "1"})) == (409, "conflict")
    assert code(s3.api.post(appended["parts"]["complete"])) == (409, "conflict")
    for upload in (in_parts, appended):
        assert s3.api.delete(upload["url"], headers=TUS).status_code == 204
    assert s3.unfinished() == []


@pytest.mark.parametrize("numbers", ["0", "4", "1,4", "", "x", "1,", "1-3", "99999"])
def test_parts_that_there_are_not_have_no_url(s3: OverS3, numbers: str) -> None:
    upload = begin(s3, f"numbers-{numbers}.bin")
    refused = s3.api.post(upload["parts"]["url"], params={"numbers": numbers})
    assert refused.status_code in (400, 422)
    s3.api.delete(upload["url"], headers=TUS)


def test_an_empty_upload_has_no_parts(s3: OverS3) -> None:
    upload = begin(s3, "empty.bin", b"")
    assert upload["parts"] is None


def test_parts_go_on_after_kill_9(s3: OverS3) -> None:
    upload = begin(s3, "killed.bin")
    first, second, third = urls(s3, upload, "1,2,3")
    send(first["url"], BODY[: first["size"]])
    s3.server.kill()
    send(second["url"], BODY[second["offset"] :][: second["size"]])
    s3.server.start()
    assert [part["number"] for part in s3.api.get(upload["parts"]["url"]).json()["parts"]] == [1, 2]
    (third,) = urls(s3, upload, "3")
    send(third["url"], BODY[third["offset"] :])
    assert s3.api.post(upload["parts"]["complete"]).status_code == 201
    assert s3.api.get(upload["asset_url"]).content == BODY


@pytest.mark.parametrize("restarted", [False, True], ids=["in the same server", "after kill -9"])
def test_what_was_put_together_and_not_acknowledged_is_completed(s3: OverS3, restarted: bool) -> None:
    sha256 = hashlib.sha256(BODY).hexdigest()
    upload = begin(s3, f"half-{restarted}.bin", sha256=sha256)
    send_all(s3, upload)
    s3.put_together()
    if restarted:
        s3.server.kill()
        s3.server.start()
    assert s3.api.get(upload["url"]).json()["state"] == "open"
    assert s3.api.head(upload["url"], headers=TUS).headers["Upload-Offset"] == "0"
    assert code(s3.api.get(upload["parts"]["url"])) == (409, "conflict")
    done = s3.api.post(upload["parts"]["complete"])
    assert (done.status_code, done.json()["sha256"]) == (201, sha256)
    assert s3.api.get(upload["asset_url"]).content == BODY


def test_parts_that_somebody_aborted_end_the_upload(s3: OverS3) -> None:
    upload = begin(s3, "aborted.bin")
    send_all(s3, upload)
    s3.abort_all()
    assert code(s3.api.post(upload["parts"]["complete"])) == (410, "upload_gone")
    assert s3.api.get(upload["url"]).status_code == 410


def test_another_key_sees_nothing_of_it(s3: OverS3) -> None:
    upload = begin(s3, "mine.bin")
    made = s3.api.post("/v1/keys", json={"scopes": ["assets:write"], "prefix": "yours/"}).json()["secret"]
    with s3.server.client(made) as other:
        assert other.post(upload["parts"]["url"], params={"numbers": "1"}).status_code == 404
        assert other.get(upload["parts"]["url"]).status_code == 404
        assert other.post(upload["parts"]["complete"]).status_code == 404
    assert s3.nobody.post(upload["parts"]["complete"]).status_code == 401
    s3.api.delete(upload["url"], headers=TUS)


def test_a_store_on_disk_has_no_parts(server: Server) -> None:
    with server.client() as api:
        upload = api.post("/v1/uploads", json={"key": "a", "size": 5}).json()
        assert (upload["parts"], bool(upload["put"]), bool(upload["tus"])) == (None, True, True)
        refused = api.post(f"{upload['url']}/parts", params={"numbers": "1"})
        assert code(refused) == (404, "not_found")
        assert code(api.post(f"{upload['url']}/complete")) == (404, "not_found")
        assert isinstance(api.put(upload["put"]["url"], content=b"01234"), httpx.Response)


# --- large ones are read back in the background

LARGE = 256 * MIB  # of zeros: the same part again and again


def send_large(s3: OverS3, key: str, **more: Any) -> dict[str, Any]:
    begun = s3.api.post("/v1/uploads", json={"key": key, "size": LARGE, **more})
    upload = dict(begun.json())
    every = ",".join(str(number) for number in range(1, upload["parts"]["count"] + 1))
    for part in urls(s3, upload, every):
        assert send(part["url"], bytes(part["size"])).status_code == 200
    return upload


def until(s3: OverS3, upload: dict[str, Any], state: str) -> None:
    deadline = time.monotonic() + 60
    while s3.api.get(upload["url"]).json()["state"] != state:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_large_one_is_completing_while_it_is_read_back(s3: OverS3) -> None:
    upload = send_large(s3, "large.bin", sha256=zeros(LARGE))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(s3.api.post, upload["parts"]["complete"])
        until(s3, upload, "completing")
        second = pool.submit(s3.api.post, upload["parts"]["complete"])
        asked = s3.api.head(upload["url"], headers=TUS)
        assert not first.done(), "it was asked in time"
        assert (asked.status_code, asked.headers.get("Upload-Offset")) == (423, None)
        assert code(s3.api.get(upload["asset_url"])) == (404, "upload_incomplete")
        for ask in (s3.api.get, s3.api.post):
            assert code(ask(upload["parts"]["url"], params={"numbers": "1"})) == (409, "conflict")
        assert not first.done(), "nobody waited"
        answers = [first.result(), second.result()]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert (answers[0].json()["sha256"], answers[0].json()["size"]) == (zeros(LARGE), LARGE)
    assert s3.api.head(upload["asset_url"]).headers["Content-Length"] == str(LARGE)
    assert s3.unfinished() == []


def test_whoever_waits_for_a_large_one_to_begin_its_end_hears_of_it(s3: OverS3) -> None:
    upload = send_large(s3, "large-asked.bin")
    with ThreadPoolExecutor(5) as pool:
        ending = pool.submit(s3.api.post, upload["parts"]["complete"])

        def ask() -> set[tuple[int, str | None]]:
            told = set()
            while not ending.done():
                answer = s3.api.head(upload["url"], headers=TUS)
                told.add((answer.status_code, answer.headers.get("Upload-Offset")))
            return told

        for asking in [pool.submit(ask) for _ in range(4)]:
            assert asking.result() <= {(200, "0"), (423, None), (200, str(LARGE))}
        assert ending.result().status_code == 201


def test_a_large_one_goes_on_after_kill_9_though_nobody_asks(s3: OverS3) -> None:
    upload = send_large(s3, "large-killed.bin")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(s3.api.post, upload["parts"]["complete"])
        until(s3, upload, "completing")
        s3.server.kill()
        assert isinstance(asking.exception(), httpx.TransportError)
    assert s3.server.run("sweep").returncode == 0
    s3.server.start()
    until(s3, upload, "complete")
    done = s3.api.post(upload["parts"]["complete"])
    assert (done.status_code, done.json()["sha256"]) == (201, zeros(LARGE))


def test_a_large_one_can_be_removed_meanwhile(s3: OverS3) -> None:
    before = sorted(s3.objects())
    upload = send_large(s3, "large-removed.bin")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(s3.api.post, upload["parts"]["complete"])
        until(s3, upload, "completing")
        assert s3.api.delete(upload["url"], headers=TUS).status_code == 204
        assert asking.result().status_code in (404, 409, 410)
    assert s3.api.get("/b/media/large-removed.bin").status_code == 404
    assert (sorted(s3.objects()), s3.unfinished()) == (before, [])


def test_a_large_lie_leaves_nothing(s3: OverS3) -> None:
    before = sorted(s3.objects())
    upload = send_large(s3, "large-lie.bin", sha256="0" * 64)
    assert code(s3.api.post(upload["parts"]["complete"])) == (422, "checksum_mismatch")
    assert code(s3.api.post(upload["parts"]["complete"])) == (410, "upload_gone")
    assert s3.api.get(upload["asset_url"]).status_code == 404
    assert (sorted(s3.objects()), s3.unfinished()) == (before, [])
    assert_all_is_swept(s3.server)
