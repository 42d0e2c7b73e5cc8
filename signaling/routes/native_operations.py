"""The description of the native WebSocket (`signaling.routes.native`)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from pydantic import BaseModel, Field

from signaling.metadata import METADATA_HEADER
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
from signaling.routes.native_described import SOCKET_MESSAGES
from signaling.routes.native_events import NATIVE_EVENTS
from signaling.routes.whip_operations import NO_RESUMPTION_NOW, NOT_ENDED_NOW, NOT_FOUND, PATH
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
    path=PATH,
    query=ResumeQuery,
    answers={HTTPStatus.SWITCHING_PROTOCOLS: Answer("The WebSocket; missed events and `resumed` come first.")},
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG", "INVALID_CURSOR", "UNKNOWN_SUBPROTOCOL")),
        UNKNOWN,
        NOT_FOUND,
        Refusal(HTTPStatus.CONFLICT, ("CANNOT_RESUME",)),
        Refusal(HTTPStatus.UPGRADE_REQUIRED, ("UPGRADE_REQUIRED",), headers={"Upgrade": Literal["websocket"]}),
        NO_RESUMPTION_NOW,
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

END = Operation(
    summary="End a session, also one whose connection dropped",
    tag=Tag.NATIVE,
    access=Access.URL,
    description="For a client that will not come back: the session waits for nobody any more. Answered once its finals "
    "are out and it is closed; a client that is connected is told `closed`. Over a connection, say `close_stream`.",
    path=PATH,
    answers={HTTPStatus.OK: Answer("It has ended.")},
    refusals=[NOT_FOUND, NOT_ENDED_NOW],
)

PREFLIGHT = Operation(
    summary="Whether a page of another origin may end a session",
    tag=Tag.NATIVE,
    access=Access.OPEN,
    description="CORS. The same whether or not there is a session.",
    path=PATH,
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.")},
)
