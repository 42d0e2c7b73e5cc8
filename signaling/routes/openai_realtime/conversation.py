"""A transcription session in OpenAI's words: our events to theirs, their clients' events to calls. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mediaserver.errors import VoiceForgeError
from mediaserver.events import (
    Closed,
    Event,
    Failed,
    Final,
    Finalized,
    Interim,
    Ready,
    SpeechStarted,
    SpeechStopped,
    UtteranceBegan,
    UtteranceSettled,
)
from mediaserver.ingest.bytestream import AudioFormat
from mediaserver.session.channels import Channels
from mediaserver.session.dialect import Telling
from mediaserver.settings import Settings
from signaling.routes.openai_errors import refusal_of
from signaling.routes.openai_realtime.client_events import (
    AnyClientEvent,
    ConversationItemDelete,
    ConversationItemRetrieve,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    SessionUpdate,
    TranscriptionSessionUpdate,
    parse_event,
)
from signaling.routes.openai_realtime.errors import (
    INVALID_REQUEST,
    SERVER_ERROR,
    RealtimeError,
    named,
    told_detail,
)
from signaling.routes.openai_realtime.server_events import (
    Cleared,
    ErrorDetail,
    ErrorTold,
    ItemDeleted,
    ItemRetrieved,
    LegacySessionTold,
    ServerEvent,
    SessionTold,
)
from signaling.routes.openai_realtime.session_state import SessionState
from signaling.routes.openai_realtime.timeline import Manner, Timeline


class Conversation:
    """One connection's dialect.

    Args:
        session_id: ours; OpenAI's is made of it.
        state: what the client asked for before it connected.
        settings: of the node, for what the client leaves open.
        expires_at: when the connection will be ended, seconds since 1970.
    """

    label = "oai-events"

    def __init__(
        self,
        session_id: str,
        *,
        state: SessionState,
        settings: Settings,
        expires_at: int | None = None,
    ) -> None:
        self.id = f"sess_{session_id.removeprefix('s_')}"
        self._names = session_id.removeprefix("s_")
        self._state = state
        self._settings = settings
        self._expires_at = expires_at
        self.on_format: Callable[[AudioFormat], None] | None = None
        """Takes another format of audio, or refuses it by a ConfigError; None where audio does not come in messages."""
        self._model = ""
        self._is_created = False
        self._events = 0
        self._timeline = Timeline(self._names)
        self._timeline.manner = self._manner()

    # --- our events

    def begin(self, channels: Channels) -> None:
        """Asks for the events that say where utterances begin and end for good.

        Raises:
            RealtimeError: TOO_MANY_TRACKS.
        """
        if channels.count > 1:
            raise RealtimeError(
                "TOO_MANY_TRACKS",
                f"The offer has {channels.count} audio tracks; a transcription session hears one.",
                "Offer one, or a call for each.",
                param="sdp",
            )
        channels.tells_inner = True

    def tell(self, event: Event, seq: int, channel: int) -> Sequence[Telling]:
        """What an event comes to in OpenAI's words. Warnings have none: what they tell of costs no text."""
        return [self._telling(item) for item in self._told(event)]

    def refuse(self, error: VoiceForgeError) -> str:
        """An error."""
        return self._telling(self._error(error)).text

    def _told(self, event: Event) -> list[ServerEvent]:
        timeline = self._timeline
        match event:
            case Ready(model=model):
                self._model = model
                return self._created()
            case SpeechStarted(at=at):
                return timeline.speech_started(at)
            case UtteranceBegan(utterance_id=number):
                timeline.utterance_began(number)
            case Interim(utterance_id=number, stable=stable, words=words):
                return timeline.heard(number, stable, words)
            case Final(utterance_id=number, transcript=transcript, words=words):
                return timeline.heard(number, transcript, words)
            case UtteranceSettled(utterance_id=number, error=error):
                return timeline.settled(number, error)
            case SpeechStopped(at=at):
                return timeline.speech_stopped(at)
            case Finalized(at=at):
                return timeline.finalized(at)
            case Failed(error=error):
                return [ErrorTold(error=ErrorDetail(**told_detail(error).model_dump()))]
            case Closed(reason=reason):
                return [*timeline.given_up(), *self._ended(reason)]
        return []

    def _created(self) -> list[ServerEvent]:
        if self._is_created:
            return []  # an update is answered where it is carried out
        self._is_created = True
        return [SessionTold(type="session.created", session=self._session())]

    def _ended(self, reason: str) -> list[ServerEvent]:
        if reason == "session_max":
            what = f"Your session hit the maximum duration of {self._settings.session_max_s / 60:g} minutes."
            return [_fault("session_expired", what, INVALID_REQUEST)]
        if reason == "shutdown":
            return [_fault("shutting_down", "The server is shutting down. Connect again.", SERVER_ERROR)]
        return []

    # --- their events

    def hear(self, message: str | bytes, channels: Channels) -> Sequence[Telling]:
        """Act on a message of a data channel."""
        try:
            event = parse_event(message)
            if isinstance(event, InputAudioBufferAppend):
                raise RealtimeError(
                    "AUDIO_BY_RTP",
                    "`input_audio_buffer.append`: over WebRTC audio comes by RTP.",
                    "Send it as a media track of the peer connection.",
                    param="type",
                    event_id=event.event_id,
                )
        except RealtimeError as error:
            return [self.fault(error)]
        return self.act(event, channels)

    def act(self, event: AnyClientEvent, channels: Channels) -> Sequence[Telling]:
        """Carry out an event, but for audio. Never raises.

        Returns:
            What is answered at once.
        """
        try:
            return [self._telling(item) for item in self._acted(event, channels)]
        except VoiceForgeError as error:
            return [self.fault(error, event_id=event.event_id)]

    def fault(self, error: VoiceForgeError, *, event_id: str | None = None) -> Telling:
        """An error, about an event of the client where one is named."""
        return self._telling(self._error(error, event_id=event_id))

    def _acted(self, event: AnyClientEvent, channels: Channels) -> list[ServerEvent]:
        match event:
            case SessionUpdate(session=session):
                return self._update(self._state.updated(session), channels)
            case TranscriptionSessionUpdate(session=flat):
                return self._update(self._state.updated_legacy(flat), channels)
            case InputAudioBufferCommit():
                return self._ask(channels, is_clear=False)
            case InputAudioBufferClear():
                return self._ask(channels, is_clear=True)
            case ConversationItemRetrieve(item_id=item_id):
                return [ItemRetrieved(item=self._timeline.find(item_id, verb="retrieve"))]
            case ConversationItemDelete(item_id=item_id):
                self._timeline.forget(item_id)
                return [ItemDeleted(item_id=item_id)]
        return []

    def _update(self, state: SessionState, channels: Channels) -> list[ServerEvent]:
        """Change the session, or nothing of it."""
        state.require_model(loaded=self._model, aliases=self._settings.model_aliases)
        has_new_format = state.audio_format != self._state.audio_format
        config = state.config().model_dump(exclude_unset=True)
        if has_new_format and self.on_format is not None:
            self.on_format(state.audio_format)
        try:
            channels.configure(config)
        except VoiceForgeError as error:
            if has_new_format and self.on_format is not None:
                self.on_format(self._state.audio_format)
            raise named(error) from error
        self._state = state
        self._timeline.manner = self._manner()
        if state.is_legacy:
            return [LegacySessionTold(session=self._session())]
        return [SessionTold(type="session.updated", session=self._session())]

    def _ask(self, channels: Channels, *, is_clear: bool) -> list[ServerEvent]:
        if not self._timeline.ask(channels.stream_time_s, is_clear=is_clear):
            return [Cleared()]
        channels.finalize()
        return []

    # --- names

    def _manner(self) -> Manner:
        state = self._state
        return Manner(
            padding_s=state.prefix_padding_ms(self._settings) / 1000,
            is_manual=state.is_manual,
            is_legacy=state.is_legacy,
            transcribes=state.transcribes,
            with_logprobs=state.with_logprobs,
        )

    def _session(self) -> dict[str, Any]:
        if self._state.is_legacy:
            return self._state.told_legacy(self.id, settings=self._settings, model=self._model)
        return self._state.told(self.id, settings=self._settings, model=self._model, expires_at=self._expires_at)

    def _telling(self, event: ServerEvent) -> Telling:
        self._events += 1
        return event.telling(f"event_{self._names}_{self._events}")

    def _error(self, error: VoiceForgeError, *, event_id: str | None = None) -> ErrorTold:
        about = error.event_id if isinstance(error, RealtimeError) and error.event_id is not None else event_id
        return ErrorTold(error=ErrorDetail(**refusal_of(error).error.model_dump(), event_id=about))


def _fault(code: str, message: str, kind: str) -> ErrorTold:
    return ErrorTold(error=ErrorDetail(message=message, type=kind, param=None, code=code))
