"""Refusals as OpenAI's clients read them: `{"error": {message, type, param, code}}`, over HTTP and as an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from mediaserver.errors import CapacityError, ConfigError, VoiceForgeError
from signaling.problems import HttpError, status_of

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
UNAUTHORIZED = "authentication_error"

UNION_TAGS = ("server_vad", "semantic_vad", "audio/pcm", "audio/pcmu", "audio/pcma")
"""What pydantic writes into the place of a problem to say which member of a union it was tried as."""

CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "union_tag_not_found": "missing_required_parameter",
}
"""OpenAI's codes for pydantic's; all others are `invalid_value`."""

CONVERSATION_FIELDS = frozenset(
    {
        "idle_timeout_ms",
        "instructions",
        "max_output_tokens",
        "max_response_output_tokens",
        "modalities",
        "model",
        "output",
        "output_audio_format",
        "output_modalities",
        "parallel_tool_calls",
        "prompt",
        "reasoning",
        "speed",
        "temperature",
        "tool_choice",
        "tools",
        "tracing",
        "truncation",
        "voice",
    }
)
"""What sessions of OpenAI that converse have, and those that transcribe have not."""

CONVERSATION = "This server transcribes; it does not converse."


FIELD_OF_CODE = {
    "UNKNOWN_LANGUAGE": "session.audio.input.transcription.language",
    "TURN_MODEL_NOT_LOADED": "session.audio.input.turn_detection.type",
    "DENOISER_NOT_INSTALLED": "session.audio.input.noise_reduction.type",
}
"""Where in OpenAI's session object the refusals of our own configuration lie."""


class OpenAIErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people: what happened, and what to do about it.")
    type: str = Field(description="`invalid_request_error`, `authentication_error` or `server_error`.")
    param: str | None = Field(default=None, description="Which parameter it was.")
    code: str | None = Field(default=None, description="Stable; clients may branch on it.")


class OpenAIError(BaseModel):
    """A refusal."""

    error: OpenAIErrorDetail


class RealtimeError(ConfigError):
    """A refusal that names the parameter.

    Args:
        code: SCREAMING_SNAKE; told in lower case.
        message: one sentence.
        hint: one sentence.
        param: which parameter it was.
        event_id: of the client's event.
    """

    def __init__(
        self, code: str, message: str, hint: str, *, param: str | None = None, event_id: str | None = None
    ) -> None:
        super().__init__(code, message, hint)
        self.param = param
        self.event_id = event_id


def detail_of(error: VoiceForgeError) -> OpenAIErrorDetail:
    """An error in OpenAI's words."""
    if status_of(error) is HTTPStatus.UNAUTHORIZED:
        kind = UNAUTHORIZED
    elif isinstance(error, ConfigError) or (isinstance(error, HttpError) and error.status < 500):
        kind = INVALID_REQUEST
    else:
        kind = SERVER_ERROR
    param = error.param if isinstance(error, RealtimeError) else None
    return OpenAIErrorDetail(message=f"{error.message} {error.hint}", type=kind, param=param, code=error.code.lower())


def told_detail(error: Mapping[str, object]) -> OpenAIErrorDetail:
    """An error as our events carry it, in OpenAI's words."""
    return OpenAIErrorDetail(
        message=f"{error.get('message', '')} {error.get('hint', '')}".strip(),
        type=SERVER_ERROR,
        code=str(error.get("code", "")).lower(),
    )


def named(error: VoiceForgeError) -> VoiceForgeError:
    """A refusal of our own configuration with the parameter that OpenAI's clients know."""
    if isinstance(error, RealtimeError) or error.code not in FIELD_OF_CODE:
        return error
    return RealtimeError(error.code, error.message, error.hint, param=FIELD_OF_CODE[error.code])


def error_response(error: VoiceForgeError) -> web.Response:
    """An error as a response, with `Retry-After` where it says when."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, HttpError):
        headers.update(error.headers)
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(error.retry_after_s)
    body = OpenAIError(error=detail_of(error)).model_dump_json()
    return web.Response(text=body, content_type="application/json", status=status_of(error), headers=headers)


def invalid(exc: ValidationError, *, within: str = "", event_id: str | None = None) -> RealtimeError:
    """What is wrong with a client's object: the first problem, as OpenAI does, and how many others there are.

    Args:
        exc: the problems.
        within: where in the message the object lies, with a dot at its end.
        event_id: of the client's event.
    """
    problems = exc.errors(include_url=False, include_input=False)
    first = problems[0]
    param = within + _path(first["loc"])
    others = f" There are {len(problems) - 1} further problems." if len(problems) > 1 else ""
    name = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == "extra_forbidden" and name in CONVERSATION_FIELDS:
        return RealtimeError(
            "UNSUPPORTED_PARAMETER",
            f"`{param}` belongs to sessions that converse. {CONVERSATION}{others}",
            "Leave it out; the model is named in `audio.input.transcription.model`.",
            param=param,
            event_id=event_id,
        )
    what = "is not known" if first["type"] == "extra_forbidden" else _sentence(first["msg"])
    return RealtimeError(
        CODES.get(first["type"], "invalid_value").upper(),
        f"`{param or 'body'}`: {what}.{others}",
        "See the server's own description at /docs.",
        param=param or None,
        event_id=event_id,
    )


def _path(loc: Sequence[int | str]) -> str:
    return ".".join(str(part)[:80] for part in loc if part not in UNION_TAGS)


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")
