"""The descriptions of this protocol's routes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from signaling.openapi.operation import (
    JSON,
    NO_SESSION_NOW,
    Access,
    Answer,
    Body,
    Conversation,
    ErrorShape,
    Message,
    Operation,
    Refusal,
    RetryAfter,
    Tag,
)
from signaling.routes.openai_errors import RestRefusal
from signaling.routes.openai_realtime.client_events import CLIENT_EVENTS, InputAudioBufferAppend
from signaling.routes.openai_realtime.requests import FORM_TYPE, SDP_TYPE, RealtimeQuery
from signaling.routes.openai_realtime.server_events import SERVER_EVENTS
from signaling.routes.openai_realtime.session_models import (
    ClientSecretRequest,
    ClientSecretResponse,
    LegacySessionRequest,
    LegacyTranscriptionSession,
    Session,
)

ERRORS = ErrorShape(RestRefusal, ("error", "code"), in_small_letters=True)

Offer = Annotated[str, Field(description="An SDP offer (RFC 8866) with one audio track.")]
Answered = Annotated[str, Field(description="The SDP answer.")]
Location = Annotated[str, Field(description="The call's URL, a secret: `/v1/realtime/calls/rtc_…`.")]
CallId = Annotated[str, Field(description="The last part of the call's URL. Whoever knows it may end the call.")]


class CallForm(BaseModel):
    """An offer with the parameters of its session."""

    sdp: Offer
    session: Session | None = None


def _lower(codes: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(code.lower() for code in codes)


PARAMETERS = _lower(
    [
        "INVALID_VALUE",
        "MISSING_REQUIRED_PARAMETER",
        "UNKNOWN_PARAMETER",
        "UNSUPPORTED_PARAMETER",
        "UNSUPPORTED_SESSION_TYPE",
        "MODEL_NOT_LOADED",
        "DIARIZATION_UNSUPPORTED",
        "UNKNOWN_LANGUAGE",
        "TURN_MODEL_NOT_LOADED",
    ]
)
UNAUTHORIZED = Refusal(HTTPStatus.UNAUTHORIZED, ("invalid_api_key",), headers={"WWW-Authenticate": Literal["Bearer"]})
BODY = (
    Refusal(HTTPStatus.REQUEST_TIMEOUT, ("body_timeout",)),
    Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ("body_too_large",)),
    Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, ("unsupported_media_type",)),
)
NO_DENOISER = Refusal(HTTPStatus.NOT_IMPLEMENTED, ("denoiser_not_installed",))


def _messages(*, over_webrtc: bool) -> tuple[Message, ...]:
    events = [event for event in CLIENT_EVENTS if not (over_webrtc and event is InputAudioBufferAppend)]
    return tuple(Message(event.__name__, (event.__doc__ or "").splitlines()[0], event) for event in events)


TOLD = tuple(Message(event.__name__, (event.__doc__ or "").splitlines()[0], event) for event in SERVER_EVENTS)

ORDER = (
    "`session.created` comes first. Of each item: `speech_started`, deltas, `speech_stopped`, `committed`, "
    "`conversation.item.added` and `.done`, further deltas, `completed`; without turn detection no `speech_…`. "
    "Deltas are never taken back; `completed` may correct them."
)

CONNECT = Operation(
    summary="Transcribe over a WebSocket",
    tag=Tag.OPENAI,
    access=Access.STREAM,
    opens_session=True,
    description="OpenAI's Realtime API for transcription. Keys come by `Authorization: Bearer` or the subprotocol "
    "`openai-insecure-api-key.<key>` after `realtime`. What is said over it is in `/asyncapi.json`.",
    query=RealtimeQuery,
    answers={HTTPStatus.SWITCHING_PROTOCOLS: Answer("The WebSocket; `session.created` is its first message.")},
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, (*PARAMETERS, "invalid_subprotocol")),
        UNAUTHORIZED,
        Refusal(HTTPStatus.UPGRADE_REQUIRED, ("upgrade_required",), headers={"Upgrade": Literal["websocket"]}),
        NO_DENOISER,
        Refusal(NO_SESSION_NOW.status, _lower([*NO_SESSION_NOW.codes]), headers=NO_SESSION_NOW.headers),
    ],
    errors=ERRORS,
    conversations=[
        Conversation(
            name="openaiRealtime",
            title="OpenAI Realtime over a WebSocket",
            description=ORDER,
            carrier="ws",
            from_client=_messages(over_webrtc=False),
            from_server=TOLD,
        )
    ],
)

CALL = Operation(
    summary="Transcribe over WebRTC",
    tag=Tag.OPENAI,
    access=Access.STREAM,
    opens_session=True,
    description="OpenAI's Realtime calls for transcription. Events come over the data channel `oai-events`.",
    query=RealtimeQuery,
    body=Body(
        "The offer, and what its session is to be.",
        {SDP_TYPE: Offer, FORM_TYPE: CallForm, JSON: CallForm},
    ),
    answers={HTTPStatus.CREATED: Answer("The answer.", {SDP_TYPE: Answered}, {"Location": Location})},
    refusals=[
        Refusal(
            HTTPStatus.BAD_REQUEST,
            (*PARAMETERS, "invalid_sdp", "invalid_json", "invalid_form", "too_many_tracks"),
        ),
        UNAUTHORIZED,
        *BODY,
        Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            _lower(
                [
                    "NO_USABLE_AUDIO",
                    "UNSUPPORTED_CODEC",
                    "TOO_MANY_AUDIO_TRACKS",
                    "TOO_MANY_MEDIA_SECTIONS",
                    "TOO_MANY_SSRCS",
                    "PEER_CLOSED",
                ]
            ),
        ),
        NO_DENOISER,
        Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            _lower([*NO_SESSION_NOW.codes, "ANSWER_TIMEOUT", "NO_UDP_PORT"]),
            headers={"Retry-After": RetryAfter},
        ),
    ],
    errors=ERRORS,
    conversations=[
        Conversation(
            name="openaiRealtimeCall",
            title="OpenAI Realtime over a data channel",
            description=ORDER + " Audio comes by RTP.",
            carrier="webrtc",
            address="oai-events",
            from_client=_messages(over_webrtc=True),
            from_server=TOLD,
        )
    ],
)

HANG_UP = Operation(
    summary="End a call",
    tag=Tag.OPENAI,
    access=Access.STREAM,
    description="Answered once its last texts are out and it is closed.",
    path={"call_id": CallId},
    answers={HTTPStatus.OK: Answer("It has ended.")},
    refusals=[Refusal(HTTPStatus.NOT_FOUND, ("call_not_found",))],
    errors=ERRORS,
)

SECRET = Operation(
    summary="Make a client secret",
    tag=Tag.OPENAI,
    access=Access.STREAM,
    audited="token.issue",
    description="A browser opens sessions with it, as often as it likes until it expires.",
    body=Body("The session that it opens.", {JSON: ClientSecretRequest}, is_required=False),
    answers={HTTPStatus.OK: Answer("The secret, told once.", {JSON: ClientSecretResponse})},
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, (*PARAMETERS, "invalid_json")),
        UNAUTHORIZED,
        *BODY,
        NO_DENOISER,
        Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            ("too_many_secrets", "state_away", "state_full"),
            headers={"Retry-After": RetryAfter},
        ),
    ],
    errors=ERRORS,
)

LEGACY_SESSION = Operation(
    summary="Make a client secret, the legacy way",
    tag=Tag.OPENAI,
    access=Access.STREAM,
    audited="token.issue",
    description="The parameters are flat; so are those of its sessions in events.",
    body=Body("The session that it opens.", {JSON: LegacySessionRequest}, is_required=False),
    answers={HTTPStatus.OK: Answer("The session, with a secret.", {JSON: LegacyTranscriptionSession})},
    refusals=SECRET.refusals,
    errors=ERRORS,
)

PREFLIGHT = Operation(
    summary="What may be sent here",
    tag=Tag.OPENAI,
    access=Access.OPEN,
    description="The preflight of a page of another origin (CORS).",
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.")},
    errors=ERRORS,
)

CALL_PREFLIGHT = Operation(
    summary="What may be sent to a call",
    tag=Tag.OPENAI,
    access=Access.OPEN,
    description="The preflight of a page of another origin (CORS). The same whether or not there is a call.",
    path={"call_id": CallId},
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.")},
    errors=ERRORS,
)
