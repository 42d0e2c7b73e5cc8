"""The interface's own documents: OpenAPI, AsyncAPI, and a page to read the first and try it out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, Field
from swagger_ui_bundle import swagger_ui_path

from signaling.openapi.async_document import asyncapi_document
from signaling.openapi.document import openapi_document
from signaling.openapi.operation import JSON, Access, Answer, Operation, Tag, Undescribed, described
from signaling.problems import Handler
from signaling.routes.page import PAGE_HEADERS

DOCUMENT_MAX_AGE_S = 300
"""A document changes with the server's version only; after this a cache asks whether it did."""

FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
"""Of Swagger UI, what the page needs: nothing else of the package can be asked for."""

PAGE_FOLDER = Path(__file__).parent.parent / "openapi" / "page"
PAGE_FILES = ("docs.css", "docs.js")

DOCS_HEADERS = {
    **PAGE_HEADERS,
    # As the playground's, but that Swagger UI has icons in its style sheet and style attributes in what it draws.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "Permissions-Policy": "microphone=(), camera=(), geolocation=()",
    "Cache-Control": "no-cache",
}

ETag = Annotated[str, Field(description="Changes when the document does.")]


class IfNoneMatch(BaseModel):
    """What a cache has already."""

    if_none_match: str | None = Field(
        None, alias="If-None-Match", description="Entity-tags of the documents that the client has."
    )


def _document_operation(summary: str, description: str) -> Operation:
    return Operation(
        summary=summary,
        tag=Tag.SERVER,
        access=Access.OPEN,
        description=description,
        headers=IfNoneMatch,
        answers={
            HTTPStatus.OK: Answer("The document.", {JSON: dict[str, object]}, {"ETag": ETag}),
            HTTPStatus.NOT_MODIFIED: Answer("The client has it already.", headers={"ETag": ETag}),
        },
    )


OPENAPI = _document_operation("The interface over HTTP", "An OpenAPI 3.1 document; `/docs` shows it to people.")
ASYNCAPI = _document_operation("What is said over WebSockets and data channels", "An AsyncAPI 3.0 document.")
PAGE = Undescribed("a page or a file of one")


class Docs:
    """`/openapi.json`, `/asyncapi.json`, and `/docs` with its files.

    Args:
        app: whose routes are described; all of them are there by the time that somebody asks.
        host: name and port that the server is reached at.
    """

    def __init__(self, app: web.Application, *, host: str) -> None:
        self._openapi = _Document(lambda: openapi_document(app))
        self._asyncapi = _Document(lambda: asyncapi_document(app, host=host))

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        files = {name: swagger_ui_path / name for name in FILES} | {name: PAGE_FOLDER / name for name in PAGE_FILES}
        return [
            web.get("/openapi.json", self.openapi),
            web.get("/asyncapi.json", self.asyncapi),
            web.get("/docs", _serve(PAGE_FOLDER / "docs.html")),
            *(web.get(f"/docs/{name}", _serve(path)) for name, path in files.items()),
        ]

    @described(OPENAPI)
    async def openapi(self, request: web.Request) -> web.Response:
        """The OpenAPI document."""
        return await self._openapi.response(request)

    @described(ASYNCAPI)
    async def asyncapi(self, request: web.Request) -> web.Response:
        """The AsyncAPI document."""
        return await self._asyncapi.response(request)


class _Document:
    """A document that is made once, when it is first asked for, in a thread."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._making = asyncio.Lock()
        self._made: tuple[bytes, str] | None = None

    async def response(self, request: web.Request) -> web.Response:
        """The document, or 304 for who has it (RFC 9110 section 13.1.2)."""
        async with self._making:
            if self._made is None:
                body = await asyncio.to_thread(self._make)
                self._made = body, hashlib.sha256(body).hexdigest()[:32]
        body, tag = self._made
        response = web.Response(body=body, content_type=JSON)
        response.headers["Cache-Control"] = f"public, max-age={DOCUMENT_MAX_AGE_S}"
        response.etag = tag
        has = request.if_none_match or ()
        if any(known.value in (tag, "*") for known in has):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": response.headers["ETag"]})
        return response


def _serve(path: Path) -> Handler:
    @described(PAGE)
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers=DOCS_HEADERS)

    return handler
