"""A conversation of OpenAI's Realtime API with nobody behind it, and everything that it tells."""

from __future__ import annotations

import json
from typing import Any

from mediaserver.errors import VoiceForgeError
from mediaserver.events import (
    Event,
    Final,
    Interim,
    Ready,
    SpeechStarted,
    UtteranceBegan,
    UtteranceSettled,
    Word,
)
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.routes.openai_realtime.conversation import Conversation
from signaling.routes.openai_realtime.session_state import SessionState, parse_session

Json = dict[str, Any]

COMMITTED = [
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
FAILED = "conversation.item.input_audio_transcription.failed"


class FakeChannels:
    """Channels that judge what they are told to."""

    count = 1

    def __init__(self) -> None:
        self.tells_inner = False
        self.stream_time_s = 0.0
        self.config = SessionConfig()
        self.finalized: list[float] = []
        self.refuses: VoiceForgeError | None = None

    def configure(self, changes: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.config = self.config.merged(changes)

    def finalize(self) -> None:
        self.finalized.append(self.stream_time_s)


class Talk:
    """A conversation, and what it has told."""

    def __init__(self, session: Json | None = None, **settings: Any) -> None:
        state = SessionState()
        if session is not None:
            state = state.updated(parse_session(session, within="session."))
        self.conversation = Conversation("s_abc", state=state, settings=Settings(**settings), expires_at=1)
        self.channels = FakeChannels()
        self.told: list[Json] = []
        self.conversation.begin(self.channels)  # type: ignore[arg-type]
        self.tell(Ready(config={}, model="tiny.en"))
        self.created = self.told.pop()

    def tell(self, *events: Event) -> list[Json]:
        told = [
            json.loads(telling.text.encode()) for event in events for telling in self.conversation.tell(event, 0, 0)
        ]
        self.told += told
        return told

    def say(self, kind: str, **fields: Any) -> list[Json]:
        return self.send(json.dumps({"type": kind, **fields}))

    def send(self, message: str | bytes) -> list[Json]:
        told = [json.loads(telling.text.encode()) for telling in self.conversation.hear(message, self.channels)]  # type: ignore[arg-type]
        self.told += told
        return told

    def update(self, **audio_input: Any) -> Json:
        (told,) = self.say("session.update", session={"type": "transcription", "audio": {"input": audio_input}})
        return told

    def begin(self, number: int, at_s: float) -> list[Json]:
        return self.tell(SpeechStarted(at_s), UtteranceBegan(number))

    def finish(self, number: int, text: str) -> list[Json]:
        return self.tell(final(number, text), UtteranceSettled(number))

    def commit(self, at_s: float) -> list[Json]:
        self.channels.stream_time_s = at_s
        return self.say("input_audio_buffer.commit")

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.told]

    def deltas(self, item_id: str) -> str:
        return "".join(event["delta"] for event in self.told if event["type"] == DELTA and event["item_id"] == item_id)


def words_of(text: str, *, probability: float = 0.5) -> list[Word]:
    return [Word(word, 0.0, 1.0, 0.9, probability=probability) for word in text.split()]


def interim(number: int, stable: str, rest: str = "") -> Interim:
    text = f"{stable} {rest}".strip()
    return Interim(number, text, stable, 0.9, 0.0, 1.0, 1.0, words_of(text))


def final(number: int, text: str) -> Final:
    return Final(number, text, 0.9, 0.0, 1.0, 1.0, "en", 0.9, words_of(text))
