"""Presigned URLs: the same, byte for byte, as boto3 makes them, and a real gateway takes them."""

import calendar
import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from botocore.config import Config

from mediasvc.core.errors import StoreFault, StoreUnavailable
from mediasvc.store.credentials import FRESH_SECONDS, Credentials, CurrentCredentials
from mediasvc.store.presign import Presigner
from mediasvc.store.provision import CORS_ID, init
from mediasvc.store.url import parse_s3_url
from tests.ceph import Ceph

NAMES = [
    "a" * 32, "日本/語.txt", "%41/100%", "q'()*!~", "a b+c&d=e?f#g", "//x//", "a/../b", "./a", "ü\u0308", '"<>\\^`{|}'
]  # fmt: skip
ANSWER = {
    "response-content-type": "text/html; charset=utf-8",
    "response-content-disposition": "attachment; filename=\"zo_e\"; filename*=UTF-8''zo%C3%AB~'!()*",
    "response-cache-control": "private, no-cache",
}
KEYS = Credentials("AK/ID", "se+cret/key")
TEMPORARY = Credentials("AK/ID", "se+cret/key", "token/+= x")
ENDPOINTS = {
    "plain": ("http://127.0.0.1:9000", "us-east-1"),
    "default port": ("https://s3.example.org:443", "eu-1"),
    "capitals": ("http://S3.Example.org:80", "eu-1"),
    "IPv6": ("http://[::1]:9000", "eu-1"),
    "Amazon": (None, "us-east-1"),
    "Amazon elsewhere": (None, "eu-central-1"),
}


def sdk(endpoint: str | None, region: str, credentials: Credentials) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        aws_session_token=credentials.token,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@pytest.mark.parametrize("answer", [{}, ANSWER], ids=["plain", "with an answer"])
@pytest.mark.parametrize("credentials", [KEYS, TEMPORARY], ids=["keys", "temporary keys"])
@pytest.mark.parametrize(("endpoint", "region"), ENDPOINTS.values(), ids=ENDPOINTS)
def test_a_url_is_the_one_that_boto3_makes(
    endpoint: str | None, region: str, credentials: Credentials, answer: dict[str, str]
) -> None:
    client = sdk(endpoint, region, credentials)
    # As S3 calls them, ResponseContentType …
    parameters = {name.title().replace("-", ""): value for name, value in answer.items()}
    for name in NAMES:
        theirs = client.generate_presigned_url(
            "get_object", Params={"Bucket": "media-store", "Key": name, **parameters}, ExpiresIn=300
        )
        date = time.strptime(parse_qs(urlsplit(theirs).query)["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
        presigner = Presigner(
            client.meta.endpoint_url,
            "media-store",
            region,
            lambda: credentials,
            clock=lambda date=date: calendar.timegm(date) + 0.5,  # type: ignore[misc]
        )
        assert str(presigner.url(name, seconds=300, answer=answer)) == theirs
    client.close()


def test_a_url_names_the_day_the_second_and_the_credentials_of_its_making() -> None:
    now, credentials = 1_700_006_399.9, KEYS  # 23:59:59 UTC

    presigner = Presigner("http://store:9000", "s", "eu-1", lambda: credentials, clock=lambda: now)

    def made() -> str:
        return presigner.url("x", seconds=60).target

    first = made()
    assert "20231114%2Feu-1" in first
    assert "X-Amz-Date=20231114T235959Z" in first
    assert made() == first
    now += 1
    assert "X-Amz-Date=20231115T000000Z" in (second := made())
    assert "20231115%2Feu-1" in second
    credentials = TEMPORARY
    assert "X-Amz-Security-Token=token%2F%2B%3D%20x&" in made()


def test_the_parts_of_a_url_are_what_a_request_needs() -> None:
    url = Presigner("https://S3.example.org:443", "s", "eu-1", lambda: KEYS).url("a b", seconds=60)
    assert url.host == "s3.example.org"
    assert url.target.startswith("/s/a%20b?X-Amz-Algorithm=")
    assert str(url) == "https://S3.example.org:443" + url.target


@pytest.mark.parametrize("name", NAMES)
def test_the_gateway_takes_it_and_answers_as_told(ceph: Ceph, name: str) -> None:
    bucket, client = ceph.new_bucket(), ceph.client()
    client.put_object(Bucket=bucket, Key=name, Body=b"0123456789")
    client.close()
    credentials = Credentials(ceph.access_key, ceph.secret_key)
    url = Presigner(ceph.endpoint, bucket, ceph.region, lambda: credentials).url(
        name, seconds=60, answer=ANSWER
    )
    connection = http.client.HTTPConnection(url.host)  # which sends the target as it is
    connection.request("GET", url.target, headers={"Range": "bytes=2-4"})
    got = connection.getresponse()
    assert (got.status, got.read()) == (206, b"234")
    connection.close()
    told = {f"response-{name.lower()}": value for name, value in got.getheaders()}
    assert told.items() >= ANSWER.items()


def test_the_gateway_takes_nothing_else(ceph: Ceph) -> None:
    bucket, client = ceph.new_bucket(), ceph.client()
    client.put_object(Bucket=bucket, Key="x", Body=b"0123456789")
    client.close()
    credentials = Credentials(ceph.access_key, ceph.secret_key)

    def made(clock: float = 0) -> str:
        presigner = Presigner(
            ceph.endpoint, bucket, ceph.region, lambda: credentials, clock=lambda: time.time() + clock
        )
        return str(presigner.url("x", seconds=60))

    assert httpx.get(made()).content == b"0123456789"
    assert httpx.get(made(clock=-120)).status_code == 403
    assert httpx.get(made().replace("X-Amz-Expires=60", "X-Amz-Expires=600")).status_code == 403
    assert httpx.put(made(), content=b"").status_code == 403


class Provider:
    """What boto3's session finds; `get_frozen_credentials` as botocore names it."""

    def __init__(self, *given: Any) -> None:
        self.given = list(given)
        self.asked = 0

    def get_frozen_credentials(self) -> Any:
        self.asked += 1
        given = self.given.pop(0) if len(self.given) > 1 else self.given[0]
        if isinstance(given, Exception):
            raise given
        return (*given, "account")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_credentials_are_taken_again_behind_the_back_of_who_needs_them() -> None:
    provider, clock = Provider(KEYS, TEMPORARY), Clock()
    with ThreadPoolExecutor(1) as threads:
        current = CurrentCredentials(provider, threads, clock)
        assert [current(), current()] == [KEYS, KEYS]
        assert provider.asked == 1
        clock.now += FRESH_SECONDS
        taking = threading.Event()
        threads.submit(taking.wait)
        assert [current(), current()] == [KEYS, KEYS]
        taking.set()
        threads.submit(lambda: None).result()
        assert [current(), current()] == [TEMPORARY, TEMPORARY]
    assert provider.asked == 2


def test_the_old_ones_serve_on_while_there_are_no_new_ones() -> None:
    clock = Clock()
    with ThreadPoolExecutor(1) as threads:
        current = CurrentCredentials(Provider(KEYS, OSError("away"), TEMPORARY), threads, clock)
        current()
        for expected in (KEYS, TEMPORARY):
            clock.now += FRESH_SECONDS
            current()
            threads.submit(lambda: None).result()
            assert current() == expected


@pytest.mark.parametrize(
    ("found", "error"),
    [(None, StoreFault), (Provider(OSError("away")), StoreUnavailable)],
    ids=["none", "away"],
)
def test_without_credentials_there_is_no_url(found: Any, error: type[Exception]) -> None:
    with ThreadPoolExecutor(1) as threads:
        presigner = Presigner("http://store:9000", "s", "eu-1", CurrentCredentials(found, threads))
        with pytest.raises(error):
            presigner.url("x", seconds=60)


@pytest.mark.parametrize("length", [None, 0, 8 << 20], ids=["any size", "empty", "8 MiB"])
@pytest.mark.parametrize("credentials", [KEYS, TEMPORARY], ids=["keys", "temporary keys"])
@pytest.mark.parametrize(("endpoint", "region"), ENDPOINTS.values(), ids=ENDPOINTS)
def test_a_url_for_a_part_is_the_one_that_boto3_makes(
    endpoint: str | None, region: str, credentials: Credentials, length: int | None
) -> None:
    client = sdk(endpoint, region, credentials)
    size = {} if length is None else {"ContentLength": length}
    for upload_id in ("2~abc-_.DEF", "a+b/c=", "ü"):
        wanted = {"Bucket": "media-store", "Key": "a b", "UploadId": upload_id, "PartNumber": 7, **size}
        theirs = client.generate_presigned_url("upload_part", Params=wanted, ExpiresIn=300)
        date = time.strptime(parse_qs(urlsplit(theirs).query)["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
        presigner = Presigner(
            client.meta.endpoint_url,
            "media-store",
            region,
            lambda: credentials,
            clock=lambda date=date: calendar.timegm(date) + 0.5,  # type: ignore[misc]
        )
        ours = str(presigner.part("a b", upload_id, 7, seconds=300, length=length))
        assert parse_qs(urlsplit(ours).query) == parse_qs(urlsplit(theirs).query)
        assert urlsplit(ours).path == urlsplit(theirs).path
    client.close()


def test_the_gateway_takes_a_part_of_the_signed_size_and_no_other(ceph: Ceph) -> None:
    bucket, client = ceph.new_bucket(), ceph.client()
    upload_id = client.create_multipart_upload(Bucket=bucket, Key="x")["UploadId"]
    credentials = Credentials(ceph.access_key, ceph.secret_key)
    presigner = Presigner(ceph.endpoint, bucket, ceph.region, lambda: credentials)
    url = str(presigner.part("x", upload_id, 1, seconds=60, length=10))
    for body in (b"012345678", b"0123456789a", b""):
        assert httpx.put(url, content=body).status_code == 403
    assert httpx.put(url, content=iter([b"0123456789"])).status_code in (403, 411)
    assert httpx.put(url.replace("partNumber=1", "partNumber=2"), content=b"0123456789").status_code == 403
    assert "Parts" not in client.list_parts(Bucket=bucket, Key="x", UploadId=upload_id)
    sent = httpx.put(url, content=b"0123456789", headers={"Content-Type": "text/plain"})
    assert sent.status_code == 200
    assert sent.headers["ETag"]
    free = str(presigner.part("x", upload_id, 2, seconds=60))
    assert httpx.put(free, content=b"whatever").status_code == 200
    parts = client.list_parts(Bucket=bucket, Key="x", UploadId=upload_id)["Parts"]
    assert [part["Size"] for part in parts] == [10, 8]
    client.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_init_lets_browsers_send_parts_and_keeps_other_rules(
    ceph: Ceph, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    for name, value in ceph.environment("unused", tls=tls).items():
        monkeypatch.setenv(name, value)
    bucket, client = ceph.new_bucket(), ceph.client()
    other = {"ID": "other", "AllowedOrigins": ["https://other.example"], "AllowedMethods": ["DELETE"]}
    client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [other]})
    url = parse_s3_url(ceph.store_url(bucket, tls=tls))

    def preflight(origin: str, method: str = "PUT") -> httpx.Response:
        asked = {"Origin": origin, "Access-Control-Request-Method": method}
        return httpx.options(f"{ceph.endpoint}/{bucket}/x", headers=asked)

    assert "may now call" in init(url, ["https://a.example", "https://b.example"]).lines[2]
    assert "is there" in init(url, ["https://b.example", "https://a.example"]).lines[2]
    assert preflight("https://a.example").headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert preflight("https://other.example", "DELETE").status_code == 200
    assert "Access-Control-Allow-Origin" not in preflight("https://c.example").headers
    assert "may now call" in init(url).lines[2]
    rules = client.get_bucket_cors(Bucket=bucket)["CORSRules"]
    assert {rule["ID"] for rule in rules} == {"other", CORS_ID}
    upload_id = client.create_multipart_upload(Bucket=bucket, Key="x")["UploadId"]
    credentials = Credentials(ceph.access_key, ceph.secret_key)
    part = Presigner(ceph.endpoint, bucket, ceph.region, lambda: credentials).part(
        "x", upload_id, 1, seconds=60
    )
    assert preflight("https://c.example").headers["Access-Control-Allow-Origin"] in ("*", "https://c.example")
    sent = httpx.put(str(part), content=b"x", headers={"Origin": "https://c.example"})
    assert sent.headers["Access-Control-Allow-Origin"] in ("*", "https://c.example")
    assert "etag" in sent.headers["Access-Control-Expose-Headers"].lower()
    client.close()
