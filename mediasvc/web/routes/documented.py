"""OpenAPI entries of the URLs that web/download.py answers before FastAPI is asked."""

from fastapi import APIRouter, Response

from mediasvc.core.errors import NotFound
from mediasvc.web.openapi import OPEN_IN_PUBLIC
from mediasvc.web.paths import BY_ID, NAMED, RENDITION
from mediasvc.web.problems import problems

router = APIRouter(tags=["bytes"])
_BYTES = {
    200: {"description": "The bytes", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The ranges asked for"},
    304: {"description": "Not modified"},
    **problems(400, 401, 403, 404, 412, 416),
}


async def _answered_before() -> Response:
    raise NotFound("there is nothing here")


for path, summary in {
    NAMED: "Download an asset by its key",
    BY_ID: "Download an asset by its id (the name is cosmetic)",
    RENDITION: "Download a rendition: preset thumb, grid or preview",
}.items():
    router.add_api_route(
        path,
        _answered_before,
        methods=["GET"],
        summary=summary,
        response_class=Response,
        responses=_BYTES,  # type: ignore[arg-type]
        operation_id="get_" + path[1],
        openapi_extra=OPEN_IN_PUBLIC,
    )
