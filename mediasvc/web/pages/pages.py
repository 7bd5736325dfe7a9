"""Serves the page and its files; under a policy that lets nothing run or load that is not from here."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request, status
from starlette.responses import RedirectResponse, Response

from mediasvc.core.errors import NotFound

FOLDER = Path(__file__).parent
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    headers: Mapping[str, str]


def add_pages(app: FastAPI) -> None:
    """Serve the page at `/` to browsers and its files under `/page/`.

    The files are read once, here. Each is asked for again every time and answered with 304 while it is the same, so
    that a new version is never mixed with an old one.
    """
    files = {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES}

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        """Programs are led to the documentation, people to the page."""
        if "text/html" not in request.headers.get("accept", ""):
            return RedirectResponse("docs", headers={"Vary": "Accept"})
        return _answer(request, files["index.html"])

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        if name not in files or name == "index.html":
            raise NotFound("there is no such file; the page is at /")
        return _answer(request, files[name])


def _read(path: Path) -> _File:
    content = path.read_bytes()
    headers = {
        "Content-Type": _TYPES[path.suffix],
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "same-origin",
    }
    if path.name == "index.html":
        headers["Vary"] = "Accept"
    return _File(content, headers)


def _answer(request: Request, file: _File) -> Response:
    # Compressed on the way the tag is a weak one, and browsers send it back as that (RFC 9110, section 13.1.2).
    held = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.headers["ETag"] in held or "*" in held:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=file.headers)
    return Response(file.content, headers=file.headers)
