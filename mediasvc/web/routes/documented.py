"""OpenAPI entries of the URLs that web/download.py and web/archive.py answer before FastAPI is asked."""

from typing import Any

from fastapi import APIRouter, Response

from mediasvc.core.errors import NotFound
from mediasvc.web.openapi import OPEN, OPEN_IN_PUBLIC
from mediasvc.web.paths import ARCHIVE, BY_ID, NAMED, RENDITION
from mediasvc.web.problems import problems

router = APIRouter(tags=["bytes"])
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The ranges asked for"},
    304: {"description": "Not modified"},
}
_BYTES: dict[int | str, dict[str, Any]] = {**_ANSWERS, **problems(400, 401, 403, 404, 412, 416)}


async def _answered_before() -> Response:
    raise NotFound("there is nothing here")


_LINKED = "A private one needs a key, or a link: the query that `POST /v1/assets/{id}/links` made for just this URL."

for path, summary, description in (
    (NAMED, "Download an asset by its key", None),
    (BY_ID, "Download an asset by its id (the name is cosmetic)", _LINKED),
    (RENDITION, "Download a rendition: preset thumb, grid or preview", _LINKED),
):
    router.add_api_route(
        path,
        _answered_before,
        methods=["GET"],
        summary=summary,
        description=description,
        response_class=Response,
        responses=_BYTES,
        operation_id="get_" + path[1],
        openapi_extra=OPEN_IN_PUBLIC,
    )

router.add_api_route(
    ARCHIVE,
    _answered_before,
    methods=["GET"],
    summary="Download an archive, or the rest of it, by its signed URL (the name is cosmetic)",
    response_class=Response,
    responses={
        **_ANSWERS,
        **problems(403, 404, 410, 412, 416),
    },
    operation_id="get_archive",
    openapi_extra=OPEN,
)
