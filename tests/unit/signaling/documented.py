"""The application with all its routes, for tests of what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web
from front_door import FakeEngine, FakePeer

from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import make_app
from signaling.openapi.async_document import asyncapi_document
from signaling.openapi.document import openapi_document


def whole_app(data_dir: Path) -> web.Application:
    """An application that is not started."""
    return make_app(Settings(data_dir=data_dir), metrics=Metrics(), engine=FakeEngine(), make_peer=FakePeer)


def openapi_of(app: web.Application) -> dict[str, Any]:
    """Its OpenAPI document."""
    document: dict[str, Any] = json.loads(openapi_document(app))
    return document


def asyncapi_of(app: web.Application) -> dict[str, Any]:
    """Its AsyncAPI document."""
    document: dict[str, Any] = json.loads(asyncapi_document(app, host="localhost:8080"))
    return document


def references(value: object) -> Iterator[str]:
    """All `$ref` in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def followed(document: dict[str, Any], reference: str) -> object:
    """What a reference leads to; KeyError if nothing."""
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found
