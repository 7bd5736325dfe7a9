"""The documentation tells the truth, and works without the internet."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers import Server

METHODS = {"get", "put", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def nobody(server: Server) -> Iterator[httpx.Client]:
    with server.client(anonymous=True) as client:
        yield client


@pytest.fixture(scope="module")
def document(nobody: httpx.Client) -> dict[str, Any]:
    return nobody.get("/openapi.json").json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_route_is_there(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert {(method.upper(), path) for method, path, _ in operations(document)} == {
        ("GET", "/b/{bucket}/{key}"), ("PUT", "/b/{bucket}/{key}"), ("DELETE", "/b/{bucket}/{key}"),
        ("GET", "/f/{asset_id}/{name}"), ("GET", "/i/{preset}/{asset_id}.{ext}"), ("PUT", "/u/{name}"),
        ("GET", "/v1/assets"), ("POST", "/v1/assets"), ("POST", "/v1/assets/check"),
        ("GET", "/v1/assets/{asset_id}"), ("PATCH", "/v1/assets/{asset_id}"), ("DELETE", "/v1/assets/{asset_id}"),
        ("GET", "/v1/assets/{asset_id}/links"), ("POST", "/v1/assets/{asset_id}/links"),
        ("DELETE", "/v1/assets/{asset_id}/links"), ("DELETE", "/v1/links/{link_id}"),
        ("GET", "/v1/assets/{asset_id}/tasks"), ("GET", "/v1/buckets"), ("POST", "/v1/buckets"),
        ("GET", "/v1/buckets/{name}"), ("PATCH", "/v1/buckets/{name}"), ("DELETE", "/v1/buckets/{name}"),
        ("GET", "/v1/keys"), ("POST", "/v1/keys"), ("GET", "/v1/keys/{key_id}"), ("DELETE", "/v1/keys/{key_id}"),
        ("GET", "/v1/uploads"), ("POST", "/v1/uploads"), ("GET", "/v1/uploads/{upload_id}"),
        ("PUT", "/v1/uploads/{upload_id}"), ("PATCH", "/v1/uploads/{upload_id}"),
        ("DELETE", "/v1/uploads/{upload_id}"), ("POST", "/v1/uploads/{upload_id}/complete"),
        ("GET", "/v1/uploads/{upload_id}/parts"), ("POST", "/v1/uploads/{upload_id}/parts"),
        ("POST", "/v1/upload-tokens"), ("GET", "/v1/events"),
        ("GET", "/v1/session"), ("POST", "/v1/session"), ("DELETE", "/v1/session"),
        ("POST", "/v1/archives"), ("GET", "/z/{archive_id}/{name}"),
        ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"),
    }  # fmt: skip


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for method, path, operation in operations(document):
        assert method in METHODS
        assert operation["tags"], path
        assert operation["summary"], path
        named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), (method, path)
        for response in operation["responses"].values():
            assert response["description"]


def test_errors_are_problems_everywhere(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        statuses = set(operation["responses"])
        if operation.get("security") != []:
            assert "401" in statuses, (method, path)
            assert "403" in statuses, (method, path)
        if "{" in path and not path.startswith("/u/"):
            assert "404" in statuses, (method, path)
        for status, response in operation["responses"].items():
            if status >= "400":
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (method, path, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]
    problem = document["components"]["schemas"]["Problem"]
    assert {"title", "status", "code", "detail", "request_id", "retryable"} <= set(problem["required"])


def test_uploads_are_binary(document: dict[str, Any]) -> None:
    form = document["paths"]["/v1/assets"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["items"] == {"type": "string", "format": "binary"}
    for path in ("/b/{bucket}/{key}", "/u/{name}"):
        (body,) = document["paths"][path]["put"]["requestBody"]["content"].values()
        assert body["schema"]["format"] == "binary"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(document))
    assert found
    for reference in found:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_come_whole_from_here(nobody: httpx.Client, page: str) -> None:
    html = nobody.get(page).text
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", html)
    assert "cdn" not in html.lower()
    parts = re.findall(r"(?:src|href)=[\"']([^\"'#]+)[\"']", html)
    assert any(part.endswith(".js") for part in parts)
    assert any("favicon" in part for part in parts)
    for part in parts:
        answer = nobody.get(httpx.URL(page).join(part))
        assert answer.status_code == 200, part
        assert answer.content


def test_the_front_door_leads_to_the_docs(nobody: httpx.Client) -> None:
    answer = nobody.get("/")
    assert answer.is_redirect
    assert nobody.get(httpx.URL("/").join(answer.headers["Location"])).status_code == 200
