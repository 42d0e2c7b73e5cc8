"""The OpenAPI document: every route is in it, nothing else is, and it is what OpenAPI 3.1 allows."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from aiohttp import web
from documented import followed, openapi_of, references, whole_app
from pydantic import BaseModel, Field
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from signaling.openapi.operation import JSON, Access, Answer, Body, Operation, Refusal, Tag, described
from signaling.openapi.walk import described_routes, left_out_routes, undescribed_routes

SOURCES = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> web.Application:
    return whole_app(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def document(app: web.Application) -> dict[str, Any]:
    return openapi_of(app)


async def test_every_route_is_described(app: web.Application) -> None:
    assert undescribed_routes(app) == []


async def test_only_files_of_pages_are_left_out(app: web.Application) -> None:
    for route in left_out_routes(app):
        method, path = route.split(" ")
        assert method == "GET"
        assert path == "/" or path.startswith(("/static/", "/docs")), route


async def test_the_document_has_the_routes_of_the_application_and_nothing_else(
    app: web.Application, document: dict[str, Any]
) -> None:
    routes = {f"{route.method} {route.resource.canonical}" for route in app.router.routes() if route.resource}
    routes -= {route.replace("GET", "HEAD", 1) for route in routes if route.startswith("GET")}
    told = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert told == routes - set(left_out_routes(app))


async def test_a_route_without_a_description_is_found() -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/forgotten", handler)])
    assert undescribed_routes(app) == ["GET /forgotten"]


async def test_it_is_an_openapi_document(document: dict[str, Any]) -> None:
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(document)] == []


async def test_all_references_lead_somewhere(document: dict[str, Any]) -> None:
    for reference in set(references(document)):
        assert isinstance(followed(document, reference), dict), reference


async def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


async def test_every_code_that_is_promised_stands_in_the_code(app: web.Application) -> None:
    codes = {
        code
        for route in described_routes(app)
        for refusal in route.operation.refusals
        if route.operation.errors.code_at
        for code in refusal.codes
    }
    code = "\n".join(
        path.read_text()
        for folder in ("mediaserver", "signaling")
        for path in (SOURCES / folder).rglob("*.py")
        if not path.stem.endswith(("_operations", "_described"))
    )
    assert sorted(name for name in codes if f'"{name}"' not in code and f'"{name.upper()}"' not in code) == []


async def test_fields_say_what_they_are(document: dict[str, Any]) -> None:
    bare = [
        f"{method} {path}: {parameter['name']}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        for parameter in operation.get("parameters", [])
        if not parameter.get("description")
    ]
    assert bare == []


# --- how it is made


class Query(BaseModel):
    """A query."""

    words: list[str] | None = Field(None, description="Some words.")
    own: dict[str, str] = Field(default_factory=dict)
    only: Literal["a", "b"]


class Thing(BaseModel):
    """A thing."""

    title: str
    size: int = 1


def one_route(operation: Operation, path: str = "/things/{name}") -> dict[str, Any]:
    @described(operation)
    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.post(path, handler)])
    item: dict[str, Any] = openapi_of(app)["paths"][path]["post"]
    return item


THING = Operation(
    summary="Make a thing",
    tag=Tag.SERVER,
    access=Access.OPEN,
    query=Query,
    path={"name": Annotated[str, Field(description="Its name.", pattern="^[a-z]+$")]},
    body=Body("A thing.", {JSON: Thing}),
    answers={HTTPStatus.OK: Answer("It.", {JSON: Thing}, {"ETag": Annotated[str, Field(description="A tag.")]})},
    refusals=[Refusal(HTTPStatus.CONFLICT, ("THING_EXISTS", "NO_MORE_THINGS"))],
)


async def test_a_query_is_written_as_its_model_reads_it() -> None:
    parameters = {parameter["name"]: parameter for parameter in one_route(THING)["parameters"]}
    assert parameters["name"]["in"] == "path"
    assert parameters["name"]["schema"] == {"type": "string", "pattern": "^[a-z]+$"}
    assert parameters["words"] == {
        "name": "words",
        "in": "query",
        "required": False,
        "description": "Some words.",
        "schema": {"type": "array", "items": {"type": "string"}},
        "style": "form",
        "explode": False,
    }
    assert set(parameters["own"]["content"]) == {JSON}
    assert parameters["only"]["required"]
    assert parameters["only"]["schema"] == {"type": "string", "enum": ["a", "b"]}


async def test_bodies_and_answers_refer_to_their_models() -> None:
    operation = one_route(THING)
    thing = {"$ref": "#/components/schemas/Thing"}
    assert operation["requestBody"]["content"][JSON]["schema"] == thing
    assert operation["responses"]["200"]["content"][JSON]["schema"] == thing
    assert operation["responses"]["200"]["headers"]["ETag"]["description"] == "A tag."


async def test_a_refusal_names_its_codes() -> None:
    schema = one_route(THING)["responses"]["409"]["content"][JSON]["schema"]
    assert schema["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"] == ["NO_MORE_THINGS", "THING_EXISTS"]


async def test_every_route_may_be_forbidden_to_pages_of_elsewhere() -> None:
    assert one_route(THING)["responses"]["403"] == {"$ref": "#/components/responses/Foreign"}


async def test_a_field_may_be_called_title() -> None:
    @described(THING)
    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/things/{name}", handler)])
    schema = openapi_of(app)["components"]["schemas"]["Thing"]
    assert schema["properties"] == {"title": {"type": "string"}, "size": {"type": "integer", "default": 1}}


async def test_every_part_of_a_path_must_be_described() -> None:
    with pytest.raises(ValueError, match="other"):
        one_route(THING, "/things/{other}")


async def test_a_status_is_described_once() -> None:
    twice = Operation(
        summary="Twice",
        tag=Tag.SERVER,
        access=Access.OPEN,
        answers={HTTPStatus.OK: Answer("It.")},
        refusals=[Refusal(HTTPStatus.OK, ("NOT_REALLY",))],
    )
    with pytest.raises(ValueError, match="twice"):
        one_route(twice, "/twice")
