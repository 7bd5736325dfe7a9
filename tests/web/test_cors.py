"""A bucket's origins decide about its own URLs, whatever the answer is; those of the server about all others."""

from collections.abc import Sequence

import pytest
from starlette.types import Receive, Scope, Send

from mediasvc.catalogue.interface import Source
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import CatalogueUnavailable
from mediasvc.core.ids import new_asset_id
from mediasvc.web.cors import Cors, bucket_origins
from tests.web.test_middleware import Exchange, answering, ask

APP, OTHER = b"https://app.example", b"https://other.example"
NARROW, OPEN = new_asset_id(), new_asset_id()
BUCKETS = {"narrow": ("https://app.example",), "open": ()}


class Shelf:
    """Two buckets with an asset in each."""

    async def bucket(self, name: str) -> Bucket | None:
        return Bucket(name, 0, cors_origins=BUCKETS[name]) if name in BUCKETS else None

    async def source(self, asset_id: str, preset: str = "") -> Source | None:
        name = {NARROW: "narrow", OPEN: "open"}.get(asset_id)
        if name is None:
            return None
        origins = BUCKETS[name]
        return Source(asset_id, name, "k", "k", True, 1, 1, "b" * 32, 1, "0" * 64, "image/png", None, origins)


def call(
    path: str,
    origin: bytes | None,
    method: str = "GET",
    *,
    allowed: Sequence[str] = ("*",),
    status: int = 200,
    vary: str = "",
) -> Exchange:
    headers = {b"origin": origin} if origin else {}
    if method == "OPTIONS":
        headers[b"access-control-request-method"] = b"PUT"
    app = answering(status, vary=vary) if vary else answering(status)
    cors = Cors(app, allowed, bucket_origins(Shelf()))  # type: ignore[arg-type]
    return ask(cors, method, path, headers)


def allowed_to(exchange: Exchange) -> bytes | None:
    return exchange.headers.get(b"access-control-allow-origin")


NARROWED = {
    "by key": "/b/narrow/any/key",
    "by key, encoded": "/b/%6e%61rrow/key",
    "by id": f"/f/{NARROW}/name",
    "rendition": f"/i/thumb/{NARROW}.webp",
}
OTHERS = {
    "open bucket": "/b/open/key",
    "open asset": f"/f/{OPEN}/name",
    "no bucket": "/b/nowhere/key",
    "no asset": f"/f/{new_asset_id()}/name",
    "no id": "/f/../name",
    "the bucket's JSON": "/v1/buckets/narrow",
    "drop box": "/u/narrow",
}


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
@pytest.mark.parametrize("path", NARROWED.values(), ids=NARROWED.keys())
def test_only_the_buckets_origins_may_call_its_urls(path: str, method: str) -> None:
    assert allowed_to(call(path, APP, method)) == APP
    assert allowed_to(call(path, OTHER, method)) is None
    for origin in (APP, OTHER):
        assert b"Origin" in call(path, origin, method).headers[b"vary"]
        assert b"access-control-allow-credentials" not in call(path, origin, method).headers


@pytest.mark.parametrize("status", [304, 401, 404, 416, 429, 500])
def test_an_error_tells_no_more_than_the_bytes(status: int) -> None:
    assert allowed_to(call(NARROWED["by id"], APP, status=status)) == APP
    assert allowed_to(call(NARROWED["by id"], OTHER, status=status)) is None


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
@pytest.mark.parametrize("path", OTHERS.values(), ids=OTHERS.keys())
def test_everything_else_is_the_servers_to_say(path: str, method: str) -> None:
    assert allowed_to(call(path, OTHER, method)) == b"*"


def test_a_bucket_cannot_let_in_whom_the_server_keeps_out() -> None:
    for path in NARROWED.values():
        assert allowed_to(call(path, APP, allowed=["https://other.example"])) is None
        assert allowed_to(call(path, OTHER, allowed=["https://other.example"])) is None
        assert allowed_to(call(path, APP, allowed=["https://app.example"])) == APP


def test_an_answer_says_once_that_it_varies() -> None:
    """Downloads of the bucket say so themselves, to whoever asks: what is cached may go to anybody."""
    assert call(NARROWED["by id"], APP, vary="Origin").headers[b"vary"] == b"Origin"
    assert call(NARROWED["by id"], APP, vary="Accept").headers[b"vary"] == b"Accept, Origin"


def test_nobody_is_let_in_while_the_catalogue_is_away() -> None:
    class Away(Shelf):
        async def bucket(self, name: str) -> Bucket | None:
            raise CatalogueUnavailable("the catalogue is busy")

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("asked without knowing who may")

    exchange = ask(Cors(never, ["*"], bucket_origins(Away())), path="/b/narrow/k", headers={b"origin": OTHER})  # type: ignore[arg-type]
    assert exchange.status == 503
    assert allowed_to(exchange) is None
