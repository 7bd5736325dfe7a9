"""The OpenAPI document: what FastAPI finds out by itself, put right where it cannot know."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from mediasvc.web.paths import WATCHED
from mediasvc.web.problems import problems
from mediasvc.web.schemas import Problem

_SCHEMES: Mapping[str, Any] = {
    "key": {"type": "http", "scheme": "bearer", "description": "an API key, msk_…"},
    "basic": {"type": "http", "scheme": "basic", "description": "an API key as the password"},
}
_KEY: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]

# `openapi_extra` of routes that need no key, or none in a public bucket.
OPEN: dict[str, Any] = {"security": []}
OPEN_IN_PUBLIC: dict[str, Any] = {"security": [{}, *_KEY]}


def describe(app: FastAPI, description: str) -> dict[str, Any]:
    """The whole document, as /openapi.json gives it."""
    schema = get_openapi(
        title=app.title, version="1", description=description, routes=app.routes, openapi_version="3.1.0"
    )
    schemas = schema["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # ours are problems
        schemas.pop(unused, None)
    schemas["Problem"] = Problem.model_json_schema()
    schema["components"]["securitySchemes"] = dict(_SCHEMES)
    schema["security"] = _KEY
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            _complete(operation, path)
    return schema


def _complete(operation: dict[str, Any], path: str) -> None:
    """Name the parts of the path that a route reads by itself; say what every route may answer."""
    parameters = operation.setdefault("parameters", [])
    known = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
    for name in re.findall(r"{(\w+)}", path):
        if name not in known:
            parameters.append({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    responses = operation["responses"]
    own = [422] if "422" in responses else []
    if path not in WATCHED:
        own.append(429)
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        own.append(413)
    for status, response in problems(*own).items():
        if str(status) not in responses or status in own:
            responses[str(status)] = response
