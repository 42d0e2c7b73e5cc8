"""The description of OpenAI's `/v1/audio` (`signaling.routes.openai_rest`)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from pydantic import Field

from signaling.openapi.operation import JSON, Access, Answer, Body, ErrorShape, Operation, Refusal, RetryAfter, Tag
from signaling.routes.openai_errors import RestRefusal
from signaling.routes.openai_rest_answers import TextDelta, TextDone, Transcription, VerboseTranscription
from signaling.routes.openai_rest_form import TranscriptionForm, TranslationForm

OPENAI_ERRORS = ErrorShape(RestRefusal, ("error", "code"), in_small_letters=True)

FORM = "multipart/form-data"

PlainText = Annotated[str, Field(description="`text` or `srt`.")]
Vtt = Annotated[str, Field(description="`vtt`.")]
Events = Annotated[
    TextDelta | TextDone, Field(description="With `stream`: one JSON object after each `data: `, `done` at the end.")
]


def _refusals(bad: Sequence[str]) -> list[Refusal]:
    return [
        Refusal(HTTPStatus.BAD_REQUEST, bad),
        Refusal(HTTPStatus.NOT_FOUND, ("model_not_found",)),
        Refusal(HTTPStatus.REQUEST_TIMEOUT, ("body_timeout",)),
        Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ("too_large",)),
        Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, ("unsupported_media_type",)),
        Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            ("model_loading", "engine_down", "shutting_down", "recordings_full", "engine_overloaded", "engine_closed"),
            headers={"Retry-After": RetryAfter},
        ),
        Refusal(HTTPStatus.INSUFFICIENT_STORAGE, ("disk_full",)),
    ]


FORM_CODES = (
    "missing_required_parameter",
    "unknown_parameter",
    "invalid_value",
    "invalid_form",
    "body_broken",
    "not_audio",
    "file_unreadable",
)


def _answer(*, streams: bool) -> Answer:
    content: dict[str, object] = {JSON: Transcription | VerboseTranscription, "text/plain": PlainText, "text/vtt": Vtt}
    if streams:
        content["text/event-stream"] = Events
    return Answer("The text, in the form that was asked for.", content)


TRANSCRIBE = Operation(
    summary="Transcribe a recording",
    tag=Tag.OPENAI,
    access=Access.JOBS,
    audited="recording.transcribe",
    description="As OpenAI's. The recording is decoded in pieces cut at pauses, several at once, and gives way to live "
    "sessions. A client that hangs up stops it.",
    body=Body("The recording and parameters.", {FORM: TranscriptionForm}),
    answers={HTTPStatus.OK: _answer(streams=True)},
    refusals=_refusals((*FORM_CODES, "unknown_language")),
    errors=OPENAI_ERRORS,
)

TRANSLATE = Operation(
    summary="Translate a recording into English",
    tag=Tag.OPENAI,
    access=Access.JOBS,
    audited="recording.transcribe",
    description="As OpenAI's. Needs a multilingual model.",
    body=Body("The recording and parameters.", {FORM: TranslationForm}),
    answers={HTTPStatus.OK: _answer(streams=False)},
    refusals=_refusals((*FORM_CODES, "translation_unsupported")),
    errors=OPENAI_ERRORS,
)
