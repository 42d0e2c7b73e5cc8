"""What a client may say, one pydantic model an event, and what it may not."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from signaling.routes.openai_realtime.errors import CONVERSATION, RealtimeError, invalid
from signaling.routes.openai_realtime.session_models import LegacySession, Session, Strict
from signaling.routes.openai_realtime.session_state import parse_session

APPEND_MAX_BYTES = 15 * 1024 * 1024
"""Audio in one message, as OpenAI takes it: five minutes of PCM at 24 kHz."""

PIECE_LETTERS = 64 * 1024
"""Of base64 that are decoded at a time, a multiple of four. Python runs nothing else meanwhile, whatever the thread:
this is half a millisecond, 15 MiB at once were a tenth of a second in which no session heard anything."""

PLAIN_LETTERS = 64 * 1024
"""Of a message without audio; a session object with the longest prompt and all keywords is 10 KB."""

LONG_COMMAS_MAX = 100
"""In a longer message: audio has none. A megabyte of values is judged for seconds, and no thread helps: it is Python's
lock that is held."""

ID_LETTERS = 512

EventId = Annotated[str | None, Field(max_length=ID_LETTERS, description="Given back in an error about this event.")]


class ClientEvent(Strict):
    """What all have."""

    event_id: EventId = None


class SessionUpdate(ClientEvent):
    """Change the session: what is left out stays, null turns off."""

    type: Literal["session.update"]
    session: Session


class TranscriptionSessionUpdate(ClientEvent):
    """The same in the legacy shape; its fields may also stand beside `type`."""

    type: Literal["transcription_session.update"]
    session: LegacySession


class InputAudioBufferAppend(ClientEvent):
    """More audio; not answered. Not over WebRTC, whose audio is RTP."""

    type: Literal["input_audio_buffer.append"]
    audio: str = Field(repr=False, description="Base64 of at most 15 MiB in the session's format.")

    def decoded(self) -> bytes:
        """The audio.

        Raises:
            RealtimeError: INVALID_BASE64 or STRING_ABOVE_MAX_LENGTH.
        """
        problem = None
        audio = b""
        try:
            audio = _decoded(self.audio)
        except (ValueError, binascii.Error):
            problem = ("INVALID_BASE64", "`audio`: is not base64.", "Encode the audio as RFC 4648 says, with padding.")
        if len(audio) > APPEND_MAX_BYTES:
            what = f"`audio`: {len(audio)} bytes are more than {APPEND_MAX_BYTES}."
            problem = ("STRING_ABOVE_MAX_LENGTH", what, "Send shorter pieces.")
        if problem is not None:
            raise RealtimeError(*problem, param="audio", event_id=self.event_id)
        return audio


def _decoded(audio: str) -> bytes:
    """Base64 to bytes, `PIECE_LETTERS` at a time.

    Raises:
        ValueError: it is not base64.
    """
    if audio.find("=", 0, len(audio) - 2) >= 0:
        raise ValueError("padding before the end")  # which a piece of its own might end with
    pieces = range(0, len(audio), PIECE_LETTERS)
    return b"".join([base64.b64decode(audio[start : start + PIECE_LETTERS], validate=True) for start in pieces])


class InputAudioBufferCommit(ClientEvent):
    """End an item with what has been received until now."""

    type: Literal["input_audio_buffer.commit"]


class InputAudioBufferClear(ClientEvent):
    """Forget what has been received and is in no item yet."""

    type: Literal["input_audio_buffer.clear"]


class ConversationItemRetrieve(ClientEvent):
    """Tell an item again; its audio is not kept."""

    type: Literal["conversation.item.retrieve"]
    item_id: str = Field(max_length=ID_LETTERS)


class ConversationItemDelete(ClientEvent):
    """Forget an item; nothing more is told of it."""

    type: Literal["conversation.item.delete"]
    item_id: str = Field(max_length=ID_LETTERS)


AnyClientEvent = (
    SessionUpdate
    | TranscriptionSessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | ConversationItemRetrieve
    | ConversationItemDelete
)

KINDS: dict[str, type[AnyClientEvent]] = {
    "session.update": SessionUpdate,
    "transcription_session.update": TranscriptionSessionUpdate,
    "input_audio_buffer.append": InputAudioBufferAppend,
    "input_audio_buffer.commit": InputAudioBufferCommit,
    "input_audio_buffer.clear": InputAudioBufferClear,
    "conversation.item.retrieve": ConversationItemRetrieve,
    "conversation.item.delete": ConversationItemDelete,
}

CONVERSING = ("response.", "output_audio_buffer.", "conversation.item.create", "conversation.item.truncate")
"""How the events begin that only a server which answers can carry out."""


def parse_event(message: str | bytes) -> AnyClientEvent:
    """A client's message.

    Raises:
        RealtimeError: what is wrong with it, with the client's `event_id` where it has one.
    """
    comma = "," if isinstance(message, str) else b","
    if len(message) > PLAIN_LETTERS and message.count(comma) > LONG_COMMAS_MAX:  # type: ignore[arg-type]
        raise RealtimeError(
            "INVALID_VALUE",
            f"The message has {len(message)} letters that are not audio.",
            f"Send at most {PLAIN_LETTERS} beside audio.",
        )
    try:
        given = json.loads(message)
    except (ValueError, RecursionError) as exc:
        raise RealtimeError("INVALID_JSON", "The message is not JSON.", "Send one JSON object a message.") from exc
    if not isinstance(given, dict):
        raise RealtimeError("INVALID_JSON", "The message is not a JSON object.", "Send one JSON object a message.")
    event_id = given.get("event_id")
    event_id = event_id[:ID_LETTERS] if isinstance(event_id, str) else None
    kind = KINDS.get(name) if isinstance(name := given.get("type"), str) else None
    if kind is None:
        raise _unknown(name, event_id)
    if kind is SessionUpdate and isinstance(given.get("session"), dict):
        given = {**given, "session": parse_session(given["session"], within="session.", event_id=event_id)}
    elif kind is TranscriptionSessionUpdate:
        given = _with_session(given)
    try:
        return kind.model_validate(given)
    except ValidationError as exc:
        raise invalid(exc, event_id=event_id) from exc


def _with_session(given: dict[str, Any]) -> dict[str, Any]:
    """The legacy update with its fields in `session`."""
    if "session" in given:
        return given
    beside = {name: value for name, value in given.items() if name not in ("type", "event_id")}
    return {**{name: given[name] for name in given if name not in beside}, "session": beside}


def _unknown(name: object, event_id: str | None) -> RealtimeError:
    if not isinstance(name, str):
        return RealtimeError(
            "MISSING_REQUIRED_PARAMETER", "`type`: is missing.", _known(), param="type", event_id=event_id
        )
    if name.startswith(CONVERSING):
        return RealtimeError(
            "UNSUPPORTED_EVENT",
            f"`{name[:80]}` asks for conversation. {CONVERSATION}",
            _known(),
            param="type",
            event_id=event_id,
        )
    return RealtimeError(
        "UNKNOWN_EVENT", f"There is no event of type {name[:80]!r}.", _known(), param="type", event_id=event_id
    )


def _known() -> str:
    return f"Known: {', '.join(KINDS)}."


CLIENT_EVENTS: tuple[type[BaseModel], ...] = tuple(KINDS.values())
"""For the description of the protocol."""
