"""The problem responses of a route, so that OpenAPI tells the truth."""

from http import HTTPStatus
from typing import Any

from mediasvc.web.errors import MEDIA_TYPE
from mediasvc.web.schemas import Problem


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for these statuses; 503 is always possible."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in (*statuses, 503)
    }
