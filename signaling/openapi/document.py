"""The OpenAPI 3.1 document of an application, made of the descriptions beside its handlers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web
from openapi_pydantic import OpenAPI
from pydantic import BaseModel

from mediaserver.version import VERSION
from signaling.openapi.operation import (
    FOREIGN,
    JSON,
    NATIVE_ERRORS,
    NOT_PERMITTED,
    TOO_MANY,
    UNKNOWN,
    UNKNOWN_TO_DEEPGRAM,
    UNRECORDED,
    Access,
    Answer,
    ErrorShape,
    Operation,
    Refusal,
    Tag,
)
from signaling.openapi.schemas import JsonSchema, Mode, Schemas, without_null
from signaling.openapi.walk import DescribedRoute, described_routes

OPENAPI_VERSION = "3.1.1"

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")

FOREIGN_NAME = "Foreign"
"""Of the refusal that every route has, where it is kept once for all."""

DESCRIPTION = """\
Live and recorded speech to text, on your own machine.

Refusals of the native interfaces are `{"error": {code, message, hint, retryable}}`; clients may branch on `code`.
What is said over WebSockets and data channels is in `/asyncapi.json`.
"""

SECURITY: Mapping[str, Mapping[str, str]] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key (`vf_…`), or a token that was given out for one. Until the first key is made, this "
        "machine's programs need none.",
    },
    "keyOfDeepgram": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`Token <key>`, as Deepgram's SDKs send it.",
    },
    "keyInQuery": {"type": "apiKey", "in": "query", "name": "api_key", "description": "A key, in the URL."},
    "tokenInQuery": {"type": "apiKey", "in": "query", "name": "token", "description": "A join token, in the URL."},
}

TAGS: Mapping[Tag, str] = {
    Tag.NATIVE: "VoiceForge's own protocol.",
    Tag.WHIP: "WebRTC in by one POST (RFC 9725): an offer, and a session is a URL.",
    Tag.RECORDINGS: "Files to transcripts, in the background.",
    Tag.DEEPGRAM: "For Deepgram's SDKs: change the URL.",
    Tag.OPENAI: "For OpenAI's SDKs: change the URL.",
    Tag.SERVER: "What runs here, and how it is.",
}


def openapi_document(app: web.Application) -> bytes:
    """The document as JSON. Takes tens of milliseconds: not for the event loop.

    Raises:
        ValueError: two descriptions contradict each other, or the outcome is no OpenAPI document.
    """
    routes = described_routes(app)
    schemas = Schemas()
    for route in routes:
        _want(schemas, route.operation)
    schemas.make()
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = _operation(route, schemas)
    used = {route.operation.tag for route in routes}
    document = {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "VoiceForge", "version": VERSION, "description": DESCRIPTION},
        "servers": [{"url": "/", "description": "This server."}],
        "tags": [{"name": tag.value, "description": text} for tag, text in TAGS.items() if tag in used],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": SECURITY,
            "responses": {FOREIGN_NAME: _refused(FOREIGN, NATIVE_ERRORS, schemas)},
        },
    }
    checked = OpenAPI.model_validate(document)
    return json.dumps(
        checked.model_dump(mode="json", by_alias=True, exclude_unset=True), ensure_ascii=False, separators=(",", ":")
    ).encode()


def _is_guarded(operation: Operation) -> bool:
    return operation.access not in (Access.OPEN, Access.URL)


def _schemes(operation: Operation) -> list[str]:
    own = {Tag.NATIVE: ["key", "keyInQuery", "tokenInQuery"], Tag.DEEPGRAM: ["key", "keyOfDeepgram"]}
    return own.get(operation.tag, ["key"])


def _want(schemas: Schemas, operation: Operation) -> None:
    for read in (operation.query, operation.headers, *operation.path.values()):
        if read is not None:
            schemas.want(read, "validation")
    for content in operation.body.content.values() if operation.body else ():
        schemas.want(content, "validation")
    for answer in operation.answers.values():
        for written in (*answer.content.values(), *answer.headers.values()):
            schemas.want(written, "serialization")
    schemas.want(operation.errors.model, "serialization")
    for refusal in (*operation.refusals, UNKNOWN):
        for written in refusal.headers.values():
            schemas.want(written, "serialization")


def _operation(route: DescribedRoute, schemas: Schemas) -> dict[str, Any]:
    operation = route.operation
    described: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": operation.summary,
        "tags": [operation.tag.value],
    }
    if operation.description:
        described["description"] = operation.description
    parameters = [
        *_path_parameters(route, schemas),
        *_parameters(operation.query, "query", operation, schemas),
        *_parameters(operation.headers, "header", operation, schemas),
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "description": operation.body.description,
            "required": operation.body.is_required,
            "content": _content(operation.body.content, schemas, is_request=True),
        }
    described["responses"] = _responses(operation, schemas)
    if _is_guarded(operation):
        # The last one is nothing: until there are keys, and where `keyless_access` says so.
        described["security"] = [*({name: []} for name in _schemes(operation)), {}]
    return described


def _operation_id(route: DescribedRoute) -> str:
    """Unique, as method and path are: `post_whip`, `get_whip_secret`."""
    return "_".join([route.method, *re.findall(r"[A-Za-z0-9]+", route.path)])


def _path_parameters(route: DescribedRoute, schemas: Schemas) -> Iterator[dict[str, Any]]:
    named = re.findall(r"\{([^}]+)\}", route.path)
    for name in named:
        if name not in route.operation.path:
            raise ValueError(f"{route.method} {route.path} does not say what {name!r} is")
        schema = schemas.schema(route.operation.path[name], "validation")
        yield _with_description({"name": name, "in": "path", "required": True}, schema)


def _parameters(
    model: type[BaseModel] | None, where: str, operation: Operation, schemas: Schemas
) -> Iterator[dict[str, Any]]:
    for name, schema, is_required in [] if model is None else _properties(model, schemas):
        parameter = _with_description({"name": name, "in": where, "required": is_required}, without_null(schema))
        kind = schemas.resolved(parameter["schema"]).get("type")
        if kind == "array" and where == "query":
            parameter |= {"style": "form", "explode": operation.lists == "repeated"}
        elif kind == "object":  # neither a URL nor a header has objects: JSON in a string is one
            parameter["content"] = {JSON: {"schema": parameter.pop("schema")}}
        yield parameter


def _properties(model: type[BaseModel], schemas: Schemas) -> list[tuple[str, JsonSchema, bool]]:
    """Name, schema and whether it is required, of each field."""
    schema = schemas.resolved(schemas.schema(model, "validation"))
    required = schema.get("required", [])
    return [(name, item, name in required) for name, item in schema.get("properties", {}).items()]


def _with_description(parameter: dict[str, Any], schema: JsonSchema) -> dict[str, Any]:
    """A parameter or header whose description stands where readers look for it."""
    rest = {key: value for key, value in schema.items() if key != "description"}
    described = {"description": schema["description"]} if "description" in schema else {}
    return {**parameter, **described, "schema": rest}


def _content(content: Mapping[str, object], schemas: Schemas, *, is_request: bool) -> dict[str, Any]:
    mode: Mode = "validation" if is_request else "serialization"
    return {
        kind: {"schema": _form(schemas.schema(item, mode), schemas) if kind in FORMS else schemas.schema(item, mode)}
        for kind, item in content.items()
    }


def _form(schema: JsonSchema, schemas: Schemas) -> JsonSchema:
    """A form's schema: its fields are texts, and no text is null."""
    form = schemas.resolved(schema)
    return {**form, "properties": {name: without_null(item) for name, item in form.get("properties", {}).items()}}


def _headers(headers: Mapping[str, object], schemas: Schemas) -> dict[str, Any]:
    return {
        name: _with_description({"required": True}, schemas.schema(item, "serialization"))
        for name, item in headers.items()
    }


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        responses[str(status.value)] = _response(answer, schemas)
    for refusal in operation.refusals:
        key = str(refusal.status.value)
        if key in responses:
            raise ValueError(f"{operation.summary!r} describes the status {key} twice")
        responses[key] = _refused(refusal, operation.errors, schemas)
    key, foreign = str(FOREIGN.status.value), _refused(_foreign(operation), operation.errors, schemas)
    if _is_guarded(operation):
        unknown = str(UNKNOWN.status.value)
        refused = _refused(_unknown(operation), operation.errors, schemas)
        responses[unknown] = _either(responses[unknown], refused) if unknown in responses else refused
    if operation.access is Access.ADMIN and operation.audited is not None:
        unrecorded = str(UNRECORDED.status.value)
        refused = _refused(UNRECORDED, operation.errors, schemas)
        responses[unrecorded] = _either(responses[unrecorded], refused) if unrecorded in responses else refused
    if operation.opens_session:
        many = str(TOO_MANY.status.value)
        refused = _refused(
            Refusal(TOO_MANY.status, _written(TOO_MANY.codes, operation.errors), TOO_MANY.headers),
            operation.errors,
            schemas,
        )
        responses[many] = _either(responses[many], refused) if many in responses else refused
    if key in responses:
        responses[key] = _either(responses[key], foreign)
    elif operation.errors is NATIVE_ERRORS and not _is_guarded(operation):
        responses[key] = {"$ref": f"#/components/responses/{FOREIGN_NAME}"}
    else:
        responses[key] = foreign
    return dict(sorted(responses.items()))


def _foreign(operation: Operation) -> Refusal:
    codes = [*FOREIGN.codes, *([NOT_PERMITTED] if _is_guarded(operation) else [])]
    return Refusal(FOREIGN.status, _written(codes, operation.errors))


def _unknown(operation: Operation) -> Refusal:
    refusal = UNKNOWN_TO_DEEPGRAM if operation.tag is Tag.DEEPGRAM else UNKNOWN
    return Refusal(refusal.status, _written(refusal.codes, operation.errors), refusal.headers)


def _written(codes: Sequence[str], shape: ErrorShape) -> Sequence[str]:
    return [code.lower() for code in codes] if shape.in_small_letters else codes


def _response(answer: Answer, schemas: Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        response["headers"] = _headers(answer.headers, schemas)
    if answer.content:
        response["content"] = _content(answer.content, schemas, is_request=False)
    return response


def _refused(refusal: Refusal, shape: ErrorShape, schemas: Schemas) -> dict[str, Any]:
    codes = ", ".join(f"`{code}`" for code in refusal.codes)
    response: dict[str, Any] = {"description": f"{refusal.status.phrase}: {codes}."}
    if refusal.headers:
        response["headers"] = _headers(refusal.headers, schemas)
    schema = schemas.schema(shape.model, "serialization")
    if shape.code_at:
        schema = {"allOf": [schema, _with_codes(refusal.codes, shape.code_at)]}
    response["content"] = {JSON: {"schema": schema}}
    return response


def _with_codes(codes: Sequence[str], code_at: Sequence[str]) -> JsonSchema:
    schema: JsonSchema = {"enum": sorted(set(codes))}
    for name in reversed(code_at):
        schema = {"properties": {name: schema}}
    return schema


def _either(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A status for two reasons: the route's own, and that of the gate before it."""
    merged: dict[str, Any] = {"description": f"{one['description']} Or {other['description']}"}
    if "headers" in one:  # the gate's refusal has none of them
        merged["headers"] = {name: {**header, "required": False} for name, header in one["headers"].items()}
    content = dict(one.get("content", {}))
    for kind, media in other["content"].items():
        choices = [content[kind]["schema"], media["schema"]] if kind in content else [media["schema"]]
        content[kind] = {"schema": {"anyOf": choices} if len(choices) > 1 else choices[0]}
    return {**merged, "content": content}
