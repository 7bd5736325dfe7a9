"""The application: FastAPI for the API, raw ASGI around it and, for downloads, in front of it."""

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from mediasvc.bootstrap import House
from mediasvc.web import errors
from mediasvc.web.caller import caller_resolver
from mediasvc.web.cors import Cors
from mediasvc.web.deps import Desk
from mediasvc.web.docs import add_docs
from mediasvc.web.download import Downloads
from mediasvc.web.middleware import Admitted, Drained, HeadAsGet, Problems
from mediasvc.web.observe import Observed
from mediasvc.web.openapi import describe
from mediasvc.web.proxy import Proxied
from mediasvc.web.routes import assets, buckets, documented, forms, keys, named, operations

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
    routers = [module.router for module in (named, forms, assets, buckets, keys, operations, documented)]
    for router in routers:
        app.include_router(router)
    routers.append(add_docs(app))
    app.state.every_route = [route for router in routers for route in router.routes] + app.routes

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = describe(app, DESCRIPTION)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def make_app(desk: Desk) -> ASGIApp:
    """The whole stack; a request passes it from the last line up."""
    house: House = desk.house
    caller_of = caller_resolver(house.catalogue, house.admin_secret)
    app: ASGIApp = make_api(desk)
    app = HeadAsGet(app)
    app = Admitted(app, caller_of, max_upload_size=house.settings.max_upload_size)
    app = Downloads(app, house.catalogue, house.store, caller_of, house.records.clock)
    app = Proxied(app, house.settings.proxy_networks)
    app = Problems(app)
    app = Cors(app, house.settings.allowed_origins)
    app = Drained(app)
    return Observed(app)
