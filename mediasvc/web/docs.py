"""`/docs` and `/redoc` from files of an installed package: they work without internet access."""

import importlib.util
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles


def add_docs(app: FastAPI) -> None:
    """Serve Swagger UI and ReDoc, and lead from `/` to them."""
    spec = importlib.util.find_spec("fastapi_offline")  # found, not imported: only its files are used
    assert spec is not None
    assert spec.origin is not None
    app.mount("/docs/assets", StaticFiles(directory=Path(spec.origin).parent / "static"), name="docs-assets")

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return RedirectResponse("docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="mediasvc",
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon.png",
        )

    @app.get("/redoc", include_in_schema=False)
    async def redoc() -> HTMLResponse:
        return get_redoc_html(
            openapi_url="openapi.json",
            title="mediasvc",
            redoc_js_url="docs/assets/redoc.standalone.js",
            redoc_favicon_url="docs/assets/favicon.png",
            with_google_fonts=False,
        )
