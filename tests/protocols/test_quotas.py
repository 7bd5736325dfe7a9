"""Quotas of a bucket: bytes and count, whatever happens at the same time."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server

MakeBucket = Callable[..., str]


def held(api: httpx.Client, bucket: str) -> list[int]:
    return [asset["size"] for asset in api.get("/v1/assets", params={"bucket": bucket}).json()["assets"]]


def test_what_does_not_fit_is_413(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(quota_bytes=100)
    assert api.put(f"/b/{bucket}/a", content=b"x" * 60).status_code == 201
    problem = api.put(f"/b/{bucket}/b", content=b"x" * 60)
    assert problem.status_code == 413
    assert problem.json()["code"] == "quota_exceeded"
    assert problem.json()["limit"] == 100
    assert problem.json()["limit_source"] == f"bucket:{bucket}"
    assert api.put(f"/b/{bucket}/c", content=b"x" * 40).status_code == 201


def test_a_count_is_a_quota_too(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(quota_assets=2)
    assert [api.put(f"/b/{bucket}/{n}", content=b"").status_code for n in range(3)] == [201, 201, 413]
    assert (
        api.put(f"/b/{bucket}/0", content=b"again").status_code == 200
    )  # one more version, not one more asset
    api.delete(f"/b/{bucket}/1")
    assert api.put(f"/b/{bucket}/2", content=b"").status_code == 201


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_of_twenty_at_once_exactly_one_fits(
    api: httpx.Client, make_bucket: MakeBucket, chunked: bool
) -> None:
    bucket, body = make_bucket(quota_bytes=100_000), b"x" * 60_000

    def upload(number: int) -> int:
        content = iter([body[:30_000], body[30_000:]]) if chunked else body
        return api.put(f"/b/{bucket}/{number}", content=content).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(upload, range(20)))
    assert statuses == [201] + [413] * 19
    assert held(api, bucket) == [60_000]


def test_of_twenty_forms_at_once_exactly_one_fits(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(quota_bytes=100_000)

    def upload(number: int) -> int:
        files = {"f": (f"{number}.bin", b"x" * 60_000)}
        return api.post(f"/v1/assets?bucket={bucket}", files=files).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(upload, range(20)))
    assert statuses == [201] + [413] * 19
    assert held(api, bucket) == [60_000]


def test_of_twenty_at_once_the_count_is_kept(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(quota_assets=3)
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda n: api.put(f"/b/{bucket}/{n}", content=b"x").status_code, range(20)))
    assert statuses.count(201) == 3
    assert len(held(api, bucket)) == 3


def test_replaced_bytes_are_free_again(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(quota_bytes=100)
    for size in (90, 100, 10):
        assert api.put(f"/b/{bucket}/same", content=b"x" * size).status_code in (200, 201)
    assert api.put(f"/b/{bucket}/same", content=b"x" * 101).status_code == 413
    assert api.put(f"/b/{bucket}/other", content=b"x" * 90).status_code == 201


def test_deleted_bytes_are_free_again(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(quota_bytes=100)
    for _ in range(3):
        assert api.put(f"/b/{bucket}/a", content=b"x" * 100).status_code == 201
        assert api.delete(f"/b/{bucket}/a").status_code == 204


@pytest.mark.parametrize("how", ["checksum", "type", "broken"])
def test_a_failed_upload_gives_its_room_back(
    each_server: Server, api: httpx.Client, make_bucket: MakeBucket, how: str
) -> None:
    bucket = make_bucket(quota_bytes=100_000, quota_assets=1, allowed_types=["image/*", "text/plain"])
    url, text = f"/b/{bucket}/a.txt", b"x" * 100_000
    for _ in range(3):
        match how:
            case "checksum":
                assert api.put(url, content=text, headers={"X-Checksum-Sha256": "0" * 64}).status_code == 422
            case "type":
                assert api.put(url, content=b"%PDF-1.4\n" + bytes(90_000)).status_code == 415
            case "broken":
                with wire.connect(each_server.url) as connection:
                    framing = {"Content-Length": "100000"}
                    connection.sendall(wire.head("PUT", url, each_server.headers | framing) + text[:50_000])
                    time.sleep(0.05)
    deadline = time.monotonic() + 5
    while (status := api.put(url, content=text).status_code) == 413 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert status == 201


def test_what_is_on_its_way_holds_its_room(
    each_server: Server, api: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket(quota_bytes=100)
    with wire.connect(each_server.url) as connection:
        framing = {"Content-Length": "60", "Expect": "100-continue"}
        connection.sendall(wire.head("PUT", f"/b/{bucket}/slow", each_server.headers | framing))
        # Leave to send comes with the first look at the body: by then the room is reserved.
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"x" * 10)
        assert api.put(f"/b/{bucket}/fast", content=b"x" * 60).status_code == 413
        connection.sendall(b"x" * 50)
        assert wire.read_answer(connection).status == 201
    assert held(api, bucket) == [60]


def test_a_body_without_a_length_stops_at_the_quota(
    each_server: Server, api: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket(quota_bytes=1 << 20)
    answer = wire.flood(
        each_server.url, "PUT", f"/b/{bucket}/a", each_server.headers, 400 << 20, chunked=True
    )
    assert (answer.status, answer.json()["code"]) == (413, "quota_exceeded")
    assert answer.sent < 8 << 20
    assert held(api, bucket) == []


def test_a_quota_below_what_is_held_only_stops_growth(api: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    api.put(f"/b/{bucket}/a", content=b"x" * 100)
    assert api.patch(f"/v1/buckets/{bucket}", json={"quota_bytes": 50}).status_code == 200
    assert api.get(f"/b/{bucket}/a").status_code == 200
    assert api.put(f"/b/{bucket}/b", content=b"x").status_code == 413
    assert api.put(f"/b/{bucket}/a", content=b"x" * 40).status_code == 200
