"""The OpenAPI document is put right where FastAPI cannot know."""

from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from mediasvc.web.openapi import OPEN, describe

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


class Thing(BaseModel):
    size: int


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = FastAPI(title="small")

    @app.get("/raw/{place}/{name:path}")
    def raw() -> None: ...

    @app.get("/counted/{number}")
    def counted(number: int) -> None: ...

    @app.post("/things")
    def make(thing: Thing) -> None: ...

    @app.get("/open", openapi_extra=OPEN)
    def opened() -> None: ...

    return describe(app, "what it is for")


def test_parts_of_the_path_are_named(document: dict[str, Any]) -> None:
    for path, names in (("/raw/{place}/{name}", ["place", "name"]), ("/counted/{number}", ["number"])):
        parameters = document["paths"][path]["get"]["parameters"]
        assert [parameter["name"] for parameter in parameters] == names
        assert all(parameter["in"] == "path" and parameter["required"] for parameter in parameters)


def test_what_does_not_validate_is_a_problem(document: dict[str, Any]) -> None:
    assert document["paths"]["/counted/{number}"]["get"]["responses"]["422"]["content"] == PROBLEM
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_json_bodies_may_be_too_large_and_every_route_may_be_away(document: dict[str, Any]) -> None:
    made = document["paths"]["/things"]["post"]["responses"]
    assert made["413"]["content"] == made["503"]["content"] == PROBLEM
    assert "413" not in document["paths"]["/open"]["get"]["responses"]


def test_a_key_is_needed_unless_a_route_says_otherwise(document: dict[str, Any]) -> None:
    assert document["security"] == [{"key": []}, {"basic": []}]
    assert document["paths"]["/open"]["get"]["security"] == []
    assert "security" not in document["paths"]["/things"]["post"]
