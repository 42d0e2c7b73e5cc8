"""The document against a running server where schemathesis does not look: foreign pages, and the doors of sockets."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest
from aiohttp import hdrs
from documented import followed
from front_door import Node, StartNode

FOREIGN = {"Origin": "https://elsewhere.example"}


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def response_of(document: dict[str, Any], operation: dict[str, Any], status: int) -> dict[str, Any]:
    response = operation["responses"][str(status)]
    found: Any = followed(document, response["$ref"]) if "$ref" in response else response
    return {"content": {}, "headers": {}, **found}


def problems(document: dict[str, Any], response: dict[str, Any], body: object) -> list[str]:
    schema = {**response["content"]["application/json"]["schema"], "components": document["components"]}
    return [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(body)]


async def test_every_route_refuses_foreign_pages_as_it_says(node: Node) -> None:
    document = await (await node.client.get("/openapi.json")).json()
    for method, path, operation in operations(document):
        name = f"{method} {path}"
        response = await node.client.request(method, re.sub(r"\{[^}]+\}", "x", path), headers=FOREIGN)
        assert response.status == 403, name
        assert response.content_type == "application/json", name
        told = response_of(document, operation, 403)
        missing = [
            header for header, about in told["headers"].items() if about["required"] and header not in response.headers
        ]
        assert missing == [], name
        if method != "head":
            assert problems(document, told, await response.json()) == [], name


@pytest.mark.parametrize("path", ["/ws/v1/transcribe", "/v1/listen", "/v1/realtime"])
async def test_a_socket_that_is_refused_says_so_as_documented(start_node: StartNode, path: str) -> None:
    node = await start_node(loaded=False)
    document = await (await node.client.get("/openapi.json")).json()
    operation = document["paths"][path]["get"]
    handshake = {
        hdrs.CONNECTION: "Upgrade",
        hdrs.UPGRADE: "websocket",
        hdrs.SEC_WEBSOCKET_VERSION: "13",
        hdrs.SEC_WEBSOCKET_KEY: "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for headers, query in (
        ({}, {}),
        (handshake, {}),
        (handshake, {"surprise": "1"}),
        (handshake, {"model": "x" * 500}),
    ):
        response = await node.client.get(path, headers=headers, params=query)
        told = response_of(document, operation, response.status)
        assert problems(document, told, await response.json()) == [], (query, await response.text())
        assert {name for name, about in told["headers"].items() if about["required"]} <= set(response.headers)
