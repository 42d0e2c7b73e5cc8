"""Refusals as clients of OpenAI's HTTP interface read them: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from mediaserver.errors import CapacityError, ConfigError, VoiceForgeError
from signaling.problems import HttpError, status_of

CODES = {"missing": "MISSING_REQUIRED_PARAMETER", "extra_forbidden": "UNKNOWN_PARAMETER"}
"""OpenAI's codes for pydantic's; all others are `invalid_value`."""


class RefusalDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people: what happened, and what to do about it.")
    type: str = Field(description="`invalid_request_error` or `server_error`.")
    param: str | None = Field(None, description="Which parameter it was.")
    code: str = Field(description="Stable; clients may branch on it.")


class RestRefusal(BaseModel):
    """A refusal."""

    error: RefusalDetail


class ParameterError(ConfigError):
    """A refusal that names the parameter.

    Args:
        code: SCREAMING_SNAKE; told in small letters.
        message: one sentence.
        hint: one sentence.
        param: which parameter it was; None where it was none.
    """

    def __init__(self, code: str, message: str, hint: str, *, param: str | None) -> None:
        super().__init__(code, message, hint)
        self.param = param


def refusal_of(error: VoiceForgeError) -> RestRefusal:
    """An error in OpenAI's words."""
    is_clients = status_of(error) < HTTPStatus.INTERNAL_SERVER_ERROR
    return RestRefusal(
        error=RefusalDetail(
            message=f"{error.message} {error.hint}",
            type="invalid_request_error" if is_clients else "server_error",
            param=error.param if isinstance(error, ParameterError) else None,
            code=error.code.lower(),
        )
    )


def refusal_response(error: VoiceForgeError) -> web.Response:
    """An error as a response, with `Retry-After` where it says when."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, HttpError):
        headers.update(error.headers)
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(error.retry_after_s)
    text = refusal_of(error).model_dump_json()  # `param` is there even if null: OpenAI's clients look for it
    return web.Response(text=text, content_type="application/json", status=status_of(error), headers=headers)


def invalid(exc: ValidationError) -> ParameterError:
    """What is wrong with a form: the first problem, as OpenAI does, and where others are."""
    problems = exc.errors(include_url=False, include_input=False)
    # Of what a value might have been, the one that it comes nearest to tells most: it was looked into deepest.
    first = max(
        (item for item in problems if item["loc"][:1] == problems[0]["loc"][:1]), key=lambda item: len(item["loc"])
    )
    param, inner = (str(first["loc"][at])[:80].removesuffix("[]") for at in (0, -1))
    place = param if inner in (param, "0") else f"{param}.{inner}"
    what = "is not a known parameter" if first["type"] == "extra_forbidden" else _sentence(first["msg"])
    others = {str(item["loc"][0])[:80] for item in problems if item["loc"]} - {str(first["loc"][0])[:80]}
    also = f" Also wrong: {', '.join(f'`{name}`' for name in sorted(others)[:8])}." if others else ""
    return ParameterError(
        CODES.get(first["type"], "INVALID_VALUE"),
        f"`{place}`: {what}.{also}",
        "The server's own description is at /docs.",
        param=param,
    )


def _sentence(message: str) -> str:
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:].rstrip(".")
