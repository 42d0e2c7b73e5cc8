"""The descriptions of these routes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from signaling.openapi.operation import (
    JSON,
    Access,
    Answer,
    Body,
    BytesOfFile,
    Conversation,
    ErrorShape,
    Message,
    Operation,
    RetryAfter,
    Tag,
)
from signaling.openapi.operation import Refusal as Refused
from signaling.routes.deepgram import messages
from signaling.routes.deepgram.body import UrlBody
from signaling.routes.deepgram.credentials import GrantBody, Granted
from signaling.routes.deepgram.query import LiveQuery, RecordedQuery
from signaling.routes.deepgram.recorded import Accepted, Recorded
from signaling.routes.deepgram.refusals import ERROR, REQUEST_ID, Refusal
from signaling.routes.deepgram.served import ModelList, ModelRefusal, ServedModel

DEEPGRAM_ERRORS = ErrorShape(Refusal, ("category",))
MODEL_ERRORS = ErrorShape(ModelRefusal, ("category",))

RequestId = Annotated[str, Field(description="A UUID; also in messages, answers and the server's log.")]
TOLD: dict[str, object] = {REQUEST_ID: RequestId}
REFUSED: dict[str, object] = {**TOLD, ERROR: Annotated[str, Field(description="What is wrong, in one sentence.")]}

ASKED_WRONGLY = ("INVALID_PARAMETER", "INVALID_SUBPROTOCOL", "MODEL_NOT_LOADED", "UNKNOWN_LANGUAGE")
URLS = ("INVALID_URL", "ADDRESS_NOT_ALLOWED")


class Authorized(BaseModel):
    """Credentials."""

    authorization: str | None = Field(
        None,
        validation_alias="Authorization",
        description="`Token <key>` or `Bearer <temporary token>`; browsers send them as the subprotocol `token, <key>` "
        "or `bearer, <token>`. Any key is taken; a temporary token is checked.",
    )


def _refused(status: HTTPStatus, *codes: str, headers: dict[str, object] | None = None) -> Refused:
    return Refused(status, codes, headers={**REFUSED, **(headers or {})})


def _later(status: HTTPStatus, *codes: str) -> Refused:
    return _refused(status, *codes, headers={"Retry-After": RetryAfter})


def _message(model: type[BaseModel]) -> Message:
    return Message(model.__name__, (model.__doc__ or model.__name__).splitlines()[0], model)


FROM_CLIENT = (
    Message("audio", "Audio, of any length.", BytesOfFile, "application/octet-stream"),
    *(_message(model) for model in (messages.KeepAlive, messages.Finalize, messages.CloseStream, messages.Configure)),
)
FROM_SERVER = tuple(
    _message(model)
    for model in (
        messages.Results,
        messages.SpeechStarted,
        messages.UtteranceEnd,
        messages.StreamMetadata,
        messages.Fault,
        messages.ConfigureSuccess,
        messages.ConfigureFailure,
    )
)

LIVE = Operation(
    summary="Transcribe live speech",
    tag=Tag.DEEPGRAM,
    access=Access.STREAM,
    opens_session=True,
    description="As Deepgram's. Every parameter works or is refused by its name. What is said over it is in "
    "`/asyncapi.json`.",
    query=LiveQuery,
    lists="repeated",
    headers=Authorized,
    answers={HTTPStatus.SWITCHING_PROTOCOLS: Answer("The WebSocket.", headers=TOLD)},
    refusals=[
        _refused(HTTPStatus.BAD_REQUEST, *ASKED_WRONGLY, *URLS, "INVALID_AUDIO_FORMAT"),
        _refused(HTTPStatus.UNAUTHORIZED, "INVALID_AUTH"),
        _refused(HTTPStatus.UPGRADE_REQUIRED, "UPGRADE_REQUIRED", headers={"Upgrade": Literal["websocket"]}),
        _later(HTTPStatus.TOO_MANY_REQUESTS, "SERVER_FULL", "OVERLOADED"),
        _later(
            HTTPStatus.SERVICE_UNAVAILABLE, "MODEL_LOADING", "ENGINE_DOWN", "SHUTTING_DOWN", "STATE_AWAY", "STATE_FULL"
        ),
    ],
    errors=DEEPGRAM_ERRORS,
    conversations=[
        Conversation(
            name="deepgram",
            title="Deepgram's live protocol",
            description="Audio comes in binary messages; an empty one ends the stream, as `CloseStream` does. Finals "
            "follow one another without gap, each told once. After `CloseStream` come the last of them and `Metadata`; "
            "then the server closes: 1000, or 1008 with DATA-0000 for audio that cannot be decoded, 1011 with NET-0001 "
            "after 10 s without audio or a `KeepAlive`.",
            carrier="ws",
            from_client=FROM_CLIENT,
            from_server=FROM_SERVER,
        )
    ],
)

RECORDED = Operation(
    summary="Transcribe a recording",
    tag=Tag.DEEPGRAM,
    access=Access.JOBS,
    audited="recording.transcribe",
    description="As Deepgram's. The body is the recording, or JSON with its URL. With `callback` the answer is only "
    "the request's id, and the transcript is posted there.",
    query=RecordedQuery,
    lists="repeated",
    headers=Authorized,
    body=Body("The recording, or where it lies.", {JSON: UrlBody, "application/octet-stream": BytesOfFile}),
    answers={HTTPStatus.OK: Answer("The transcript.", {JSON: Recorded | Accepted}, TOLD)},
    refusals=[
        _refused(
            HTTPStatus.BAD_REQUEST,
            *ASKED_WRONGLY,
            *URLS,
            "INVALID_JSON",
            "INVALID_CONFIG",
            "EMPTY_BODY",
            "BODY_BROKEN",
            "NOT_AUDIO",
            "FILE_UNREADABLE",
            "TOO_MANY_CHANNELS",
            "FETCH_FAILED",
            "FETCH_REFUSED",
            "FETCH_TIMEOUT",
        ),
        _refused(HTTPStatus.UNAUTHORIZED, "INVALID_AUTH"),
        _refused(HTTPStatus.REQUEST_TIMEOUT, "BODY_TIMEOUT"),
        _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "TOO_LARGE", "FETCH_TOO_LARGE", "BODY_TOO_LARGE"),
        _later(HTTPStatus.TOO_MANY_REQUESTS, "RECORDINGS_FULL"),
        _later(HTTPStatus.SERVICE_UNAVAILABLE, "MODEL_LOADING", "ENGINE_DOWN", "SHUTTING_DOWN"),
        _refused(HTTPStatus.INSUFFICIENT_STORAGE, "DISK_FULL"),
    ],
    errors=DEEPGRAM_ERRORS,
)

GRANT = Operation(
    summary="Get a temporary token",
    tag=Tag.DEEPGRAM,
    access=Access.STREAM,
    audited="token.issue",
    description="A JWT for a browser or a phone that should not have the key; good for opening connections.",
    headers=Authorized,
    body=Body("How long it is to live.", {JSON: GrantBody}, is_required=False),
    answers={HTTPStatus.OK: Answer("The token.", {JSON: Granted}, TOLD)},
    refusals=[
        _refused(HTTPStatus.BAD_REQUEST, "INVALID_JSON", "INVALID_CONFIG", "BODY_BROKEN", "INVALID_SUBPROTOCOL"),
        _refused(HTTPStatus.UNAUTHORIZED, "INVALID_AUTH"),
        Refused(HTTPStatus.FORBIDDEN, ("INSUFFICIENT_PERMISSIONS",), headers=REFUSED),
        _refused(HTTPStatus.REQUEST_TIMEOUT, "BODY_TIMEOUT"),
        _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BODY_TOO_LARGE"),
        _refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE"),
    ],
    errors=DEEPGRAM_ERRORS,
)

MODELS = Operation(
    summary="The models",
    tag=Tag.SERVER,
    access=Access.ANY,
    description="The one that is loaded, for clients of OpenAI in `data` and for those of Deepgram in `stt`.",
    answers={HTTPStatus.OK: Answer("The list.", {JSON: ModelList})},
    refusals=[_later(HTTPStatus.SERVICE_UNAVAILABLE, "MODEL_LOADING")],
    errors=MODEL_ERRORS,
)

MODEL = Operation(
    summary="One model",
    tag=Tag.SERVER,
    access=Access.ANY,
    description="By its name, its UUID, or a name that the setting `model_aliases` lets stand for it.",
    path={"model": Annotated[str, Field(description="Its name, its UUID, or a name that stands for it.")]},
    answers={HTTPStatus.OK: Answer("The loaded model, under its real name.", {JSON: ServedModel})},
    refusals=[
        _refused(HTTPStatus.NOT_FOUND, "MODEL_NOT_FOUND"),
        _later(HTTPStatus.SERVICE_UNAVAILABLE, "MODEL_LOADING"),
    ],
    errors=MODEL_ERRORS,
)

PREFLIGHT = Operation(
    summary="What pages of other origins may send",
    tag=Tag.DEEPGRAM,
    access=Access.OPEN,
    description="The preflight of a browser (CORS), for pages that the setting `cors_origins` lets in.",
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.")},
    errors=DEEPGRAM_ERRORS,
)
