"""What is wrong with what a client of the Realtime API says, and the names that its parameters have there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from mediaserver.errors import VoiceForgeError
from signaling.routes.openai_errors import CODES, ParameterError, RefusalDetail

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"

UNION_TAGS = ("server_vad", "semantic_vad", "audio/pcm", "audio/pcmu", "audio/pcma")
"""What pydantic writes into the place of a problem to say which member of a union it was tried as."""

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


class RealtimeError(ParameterError):
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
        super().__init__(code, message, hint, param=param)
        self.event_id = event_id


def told_detail(error: Mapping[str, object]) -> RefusalDetail:
    """An error as our events carry it, in OpenAI's words."""
    return RefusalDetail(
        message=f"{error.get('message', '')} {error.get('hint', '')}".strip(),
        type=SERVER_ERROR,
        param=None,
        code=str(error.get("code", "")).lower(),
    )


def named(error: VoiceForgeError) -> VoiceForgeError:
    """A refusal of our own configuration with the parameter that OpenAI's clients know."""
    if isinstance(error, RealtimeError) or error.code not in FIELD_OF_CODE:
        return error
    return RealtimeError(error.code, error.message, error.hint, param=FIELD_OF_CODE[error.code])


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
        "MISSING_REQUIRED_PARAMETER"
        if first["type"] == "union_tag_not_found"
        else CODES.get(first["type"], "INVALID_VALUE"),
        f"`{param or 'body'}`: {what}.{others}",
        "See the server's own description at /docs.",
        param=param or None,
        event_id=event_id,
    )


def _path(loc: Sequence[int | str]) -> str:
    return ".".join(str(part)[:80] for part in loc if part not in UNION_TAGS)


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")
