"""The store's address."""

import pytest

from mediasvc.core.errors import StartupRefused
from mediasvc.store.url import S3Url, parse_s3_url

GOOD = {
    "s3://media-store?endpoint=http://127.0.0.1:9000&region=eu-1": S3Url(
        "media-store", "http://127.0.0.1:9000", "eu-1"
    ),
    "s3://media-store": S3Url("media-store", None, "us-east-1"),
    "s3://media-store/?endpoint=https%3A%2F%2Fs3.example.org%2F": S3Url(
        "media-store", "https://s3.example.org"
    ),
    "s3://a.b-c?endpoint=http://[::1]:9000&public_endpoint=https://cdn.example.org": S3Url(
        "a.b-c", "http://[::1]:9000", "us-east-1", "https://cdn.example.org"
    ),
}


@pytest.mark.parametrize(("text", "url"), GOOD.items(), ids=GOOD)
def test_an_address_is_read(text: str, url: S3Url) -> None:
    assert parse_s3_url(text) == url


BAD = {
    "s3://": "names no bucket",
    "s3://B?endpoint=http://x:1": "names no bucket",
    "http://bucket": "not a URL of the form",
    "s3://bucket/prefix?endpoint=http://x:1": "has a path",
    "s3://bucket?endpoint=x:9000": "needs an endpoint of the form",
    "s3://bucket?endpoint=http://x:99999": "needs an endpoint of the form",
    "s3://bucket?endpoint=http://": "needs an endpoint of the form",
    "s3://bucket?endpoint=http://x/y": "more than a host and a port",
    "s3://bucket?public_endpoint=ftp://x": "needs a public_endpoint of the form",
    "s3://bucket?endpoint=": "exactly one value for 'endpoint'",
    "s3://bucket?region=a&region=b": "exactly one value for 'region'",
    "s3://bucket?regoin=a": "none of endpoint, region, public_endpoint",
    "s3://bucket?endpoint": "not a URL of the form",
    "s3://key:secret@bucket?endpoint=http://x:1": "AWS_SECRET_ACCESS_KEY",
    "s3://bucket?endpoint=http://key:secret@x:1": "needs an endpoint of the form",
    "s3://[bucket?x": "not a URL of the form",
}


@pytest.mark.parametrize(("text", "why"), BAD.items(), ids=BAD)
def test_a_bad_address_is_refused_with_the_fix_and_without_secrets(text: str, why: str) -> None:
    with pytest.raises(StartupRefused) as refused:
        parse_s3_url(text)
    assert why in refused.value.detail
    assert refused.value.detail.startswith("MEDIASVC_STORE_URL ")
    assert "secret@" not in refused.value.detail


def test_tls_is_known_from_the_endpoint() -> None:
    assert parse_s3_url("s3://bucket").encrypted
    assert parse_s3_url("s3://bucket?endpoint=https://x").encrypted
    assert not parse_s3_url("s3://bucket?endpoint=http://x").encrypted
