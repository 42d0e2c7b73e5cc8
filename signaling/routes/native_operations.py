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
    Access,
    Answer,
    Conversation,
    Operation,
    Refusal,
    Tag,
)
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
