"""What a client is told, one pydantic model an event."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mediaserver.session.dialect import Telling
from signaling.routes.openai_errors import RefusalDetail
from signaling.routes.openai_realtime.session_models import LegacyTranscriptionSession, TranscriptionSession


class ServerEvent(BaseModel):
    """What all have."""

    model_config = ConfigDict(frozen=True)

    type: str
    event_id: str = ""

    def telling(self, event_id: str) -> Telling:
        """The event as a message. Nothing is droppable: text that is added to text must not be missing."""
        body = self.model_dump(mode="json")
        body["event_id"] = event_id
        if "logprobs" in body and body["logprobs"] is None:
            del body["logprobs"]
        # What a client wrote may hold lone surrogates, which UTF-8 has no bytes for.
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace").decode()
        return Telling(text, is_precious=not isinstance(self, TranscriptionDelta))


class SessionTold(ServerEvent):
    """The session is there, or has been changed."""

    type: Literal["session.created", "session.updated"]
    session: dict[str, Any] | TranscriptionSession


class LegacySessionTold(ServerEvent):
    """The session has been changed in its legacy shape."""

    type: Literal["transcription_session.updated"] = "transcription_session.updated"
    session: dict[str, Any] | LegacyTranscriptionSession


class SpeechStartedTold(ServerEvent):
    """Somebody speaks: the item that this will be."""

    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    item_id: str
    audio_start_ms: int = Field(description="Where its audio begins, padding included, of all audio received.")


class SpeechStoppedTold(ServerEvent):
    """Nobody speaks any more, for long enough."""

    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    item_id: str
    audio_end_ms: int = Field(description="Where the silence began, of all audio received.")


class Committed(ServerEvent):
    """What was received is an item."""

    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    item_id: str
    previous_item_id: str | None = None


class Cleared(ServerEvent):
    """What was received, and was in no item, is forgotten."""

    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


class InputAudio(BaseModel):
    """Audio that was received; it is not kept."""

    type: Literal["input_audio"] = "input_audio"
    transcript: str | None = Field(description="Null until it is complete.")


class UserItem(BaseModel):
    """What somebody said."""

    id: str
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["message"] = "message"
    status: Literal["completed"] = "completed"
    role: Literal["user"] = "user"
    content: list[InputAudio]


class ItemTold(ServerEvent):
    """An item is there. `conversation.item.created` is the legacy name of `added` and `done`."""

    type: Literal["conversation.item.added", "conversation.item.done", "conversation.item.created"]
    previous_item_id: str | None = None
    item: UserItem


class ItemRetrieved(ServerEvent):
    """An item, told again."""

    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: UserItem


class ItemDeleted(ServerEvent):
    """An item is forgotten."""

    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class LogProb(BaseModel):
    """A word with what stands before and after it. Joined, the tokens are the text."""

    token: str
    logprob: float = Field(le=0, description="Natural logarithm of the decoder's mean probability of its tokens.")
    bytes: list[int] = Field(description="The token in UTF-8.")


class TranscriptionDelta(ServerEvent):
    """Text that is added to the item's. It is never taken back; `completed` may correct it."""

    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta"
    )
    item_id: str
    content_index: int = 0
    delta: str
    logprobs: list[LogProb] | None = None


class DurationUsage(BaseModel):
    """How much audio it was."""

    type: Literal["duration"] = "duration"
    seconds: float


class TranscriptionCompleted(ServerEvent):
    """The whole text of an item, from one decode over all of it."""

    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed"
    )
    item_id: str
    content_index: int = 0
    transcript: str
    logprobs: list[LogProb] | None = None
    usage: DurationUsage


class TranscriptionFailed(ServerEvent):
    """The text of an item could not be had."""

    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed"
    )
    item_id: str
    content_index: int = 0
    error: RefusalDetail


class ErrorDetail(RefusalDetail):
    """What went wrong, and with which event of the client."""

    event_id: str | None = None


class ErrorTold(ServerEvent):
    """Something went wrong. The session goes on, unless it is closed after this."""

    type: Literal["error"] = "error"
    error: ErrorDetail


SERVER_EVENTS: tuple[type[ServerEvent], ...] = (
    SessionTold,
    LegacySessionTold,
    SpeechStartedTold,
    SpeechStoppedTold,
    Committed,
    Cleared,
    ItemTold,
    ItemRetrieved,
    ItemDeleted,
    TranscriptionDelta,
    TranscriptionCompleted,
    TranscriptionFailed,
    ErrorTold,
)
"""For the description of the protocol."""
