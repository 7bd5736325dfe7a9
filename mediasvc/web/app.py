"""The application: FastAPI for the API, raw ASGI around it and, for downloads, in front of it."""

import importlib
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from mediasvc.bootstrap import House
from mediasvc.web import errors
from mediasvc.web.archive import Archives
from mediasvc.web.caller import caller_resolver
from mediasvc.web.compress import Compressed
from mediasvc.web.cors import Cors, bucket_origins
from mediasvc.web.deps import Desk
from mediasvc.web.docs import add_docs
from mediasvc.web.download import Downloads
from mediasvc.web.express import Express
from mediasvc.web.middleware import Admitted, Drained, HeadAsGet, Problems, TusSpoken
from mediasvc.web.observe import Observed
from mediasvc.web.openapi import describe
from mediasvc.web.pages import add_pages
from mediasvc.web.preflight import Preflight
from mediasvc.web.proxy import Proxied, Proxies
from mediasvc.web.routes import (
    archives,
    assets,
    buckets,
    companion,
    documented,
    events,
    forms,
    keys,
    links,
    named,
    operations,
    session,
    upload_tokens,
    uploads,
)
from mediasvc.web.session import Remembered, Sessions

DESCRIPTION = """Durable uploads, thumbnails in the background, downloads at the speed of the disk.

Send an API key as `Authorization: Bearer msk_…` or as the password of HTTP Basic.
Errors are `application/problem+json` (RFC 9457) with a stable `code`."""


def make_api(desk: Desk) -> FastAPI:
    """The JSON API and the upload routes, documented whole."""
    app = FastAPI(
        title="mediasvc",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        exception_handlers=errors.handlers(),
        redirect_slashes=False,
    )
    app.state.desk = desk
    for module in (
        *(named, forms, uploads, upload_tokens, companion, assets),
        *(links, archives, buckets, keys, session, events, operations, documented),
    ):
        # Not include_router: it builds every route once more, with the first request, and adds a step to each.
        app.router.routes.extend(module.router.routes)
    add_pages(app)  # before the docs, which lead from `/` to themselves
    add_docs(app)

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = describe(app, DESCRIPTION)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


@dataclass(frozen=True, slots=True)
class Service:
    """What answers requests: the application, and what the connections answer themselves (None: nothing)."""

    app: ASGIApp
    express: Express | None


def make_service(desk: Desk) -> Service:
    """The whole stack; a request passes it from the last line up."""
    house: House = desk.house
    settings = house.settings
    sessions = Sessions(house.catalogue, house.signer, house.admin_secret, house.records.clock)
    caller_of = caller_resolver(house.catalogue, house.admin_secret, sessions)
    proxies = Proxies(settings.proxy_networks)
    app: ASGIApp = make_api(desk)
    app = HeadAsGet(Compressed(app))
    app = Admitted(app, caller_of, max_upload_size=settings.max_upload_size)
    app = Archives(app, house.catalogue, house.store, house.signer, house.records.clock)
    app = downloads = Downloads(
        app,
        house.catalogue,
        house.store,
        caller_of,
        house.signer,
        house.ways,
        house.receipts,
        house.records.clock,
    )
    if settings.rate_limit:
        # The library costs 35 ms and 3 MB at the start: only who uses it pays.
        limits = importlib.import_module("mediasvc.web.limits")
        app = limits.Limited(app, caller_of, limits.RateLimits(settings.rate_limit))
    app = Remembered(app, settings.public_url)
    app = Proxied(app, proxies)
    app = TusSpoken(Problems(app))
    app = cors = Cors(app, settings.allowed_origins, bucket_origins(house.catalogue))
    app = Drained(app)
    app = Preflight(Observed(app), proxies)
    # Only where none of the layers has anything to add to a plain download.
    plain = settings.delivery != "redirect" and not settings.rate_limit and cors.allows_all
    return Service(app, Express(proxies, downloads.at_once) if plain else None)
