"""The description of the native WebSocket (`signaling.routes.native`)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from pydantic import BaseModel, Field

from signaling.metadata import METADATA_HEADER
from signaling.openapi.native_events import NATIVE_EVENTS
from signaling.openapi.native_messages import SOCKET_MESSAGES
from signaling.openapi.operation import (
    NO_SESSION_NOW,
    UNKNOWN,
    Access,
    Answer,
    Conversation,
    Operation,
    Refusal,
    Tag,
)
from signaling.resume.returning import ResumeQuery
from signaling.routes.whip_operations import Secret
from signaling.stream_config import StreamQuery


class StreamHeaders(BaseModel):
    """Headers of the handshake that are read."""

    metadata: str | None = Field(
        None,
        validation_alias=METADATA_HEADER,
        description="The client's own fields as a JSON object of texts; where the URL names one too, that counts.",
    )


CONNECT = Operation(
    summary="Stream audio over a WebSocket",
    tag=Tag.NATIVE,
    access=Access.STREAM,
    opens_session=True,
    description="The query is the session's configuration. What is said over it is in `/asyncapi.json`.",
    query=StreamQuery,
    headers=StreamHeaders,
    answers={HTTPStatus.SWITCHING_PROTOCOLS: Answer("The WebSocket; `ready` is its first message.")},
    refusals=[
        Refusal(
            HTTPStatus.BAD_REQUEST,
            (
                "INVALID_CONFIG",
                "INVALID_METADATA",
                "INVALID_AUDIO_FORMAT",
                "MODEL_NOT_LOADED",
                "UNKNOWN_LANGUAGE",
                "TURN_MODEL_NOT_LOADED",
            ),
        ),
        Refusal(HTTPStatus.UPGRADE_REQUIRED, ("UPGRADE_REQUIRED",), headers={"Upgrade": Literal["websocket"]}),
        Refusal(HTTPStatus.NOT_IMPLEMENTED, ("DENOISER_NOT_INSTALLED",)),
        NO_SESSION_NOW,
    ],
    conversations=[
        Conversation(
            name="transcribe",
            title="The native WebSocket",
            description="`ready` comes first, then what is heard. After `close_stream` come the last finals, "
            "`metadata` and `closed`; then the server closes.",
            carrier="ws",
            from_client=SOCKET_MESSAGES,
            from_server=NATIVE_EVENTS,
        )
    ],
)


RESUME = Operation(
    summary="Go on with a session after its connection dropped",
    tag=Tag.NATIVE,
    access=Access.URL,
    description="The address is in `ready.resume`, and is the token. What was missed is told again, with the numbers "
    "it had; then comes `resumed`, with the byte from which on the audio is sent again. A connection that still seems "
    "to live is closed with 4001. Without a handshake the same is refused that one would be.",
    path={"secret": Secret},
    query=ResumeQuery,
    answers={HTTPStatus.SWITCHING_PROTOCOLS: Answer("The WebSocket; missed events and `resumed` come first.")},
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG", "INVALID_CURSOR", "UNKNOWN_SUBPROTOCOL")),
        UNKNOWN,
        Refusal(HTTPStatus.NOT_FOUND, ("SESSION_NOT_FOUND",)),
        Refusal(HTTPStatus.CONFLICT, ("CANNOT_RESUME",)),
        Refusal(HTTPStatus.UPGRADE_REQUIRED, ("UPGRADE_REQUIRED",), headers={"Upgrade": Literal["websocket"]}),
        NO_SESSION_NOW,
    ],
    conversations=[
        Conversation(
            name="resume",
            title="The native WebSocket, after a drop",
            description="What was missed comes first, then `resumed`; the rest is as before the drop.",
            carrier="ws",
            from_client=SOCKET_MESSAGES,
            from_server=NATIVE_EVENTS,
        )
    ],
)
