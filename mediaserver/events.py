"""What a client can be told: one dataclass an event, and one place for the JSON.

Every time in an event is stream time: samples received ÷ 16 000, in seconds. No event carries wall time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

TIME_DIGITS = 3
"""Times and probabilities go out with this many decimals: 1 ms is finer than a word boundary is known."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its place on the stream's clock.

    `start` and `end` are seconds of stream time. `confidence` is how likely the word is right, 0 to 1; `low_confidence`
    says that this is below the session's `min_confidence`. `probability` is the decoder's own, for dialects that tell
    log-probabilities; the native protocol leaves it out.
    """

    word: str
    start: float
    end: float
    confidence: float
    speaker: str | None = None
    low_confidence: bool = False
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What all events share; `type` is the name on the wire.

    `droppable` says whether a sink whose client is slow may leave this one out; `of_channel` whether it is about speech
    in one channel, not about the connection.
    """

    type: ClassVar[str]
    droppable: ClassVar[bool] = False
    of_channel: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Resume:
    """How a client comes back whose connection drops: to `path`, a secret, within `window_s` seconds."""

    path: str
    window_s: float


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """The session exists; `config` is what is in force, defaults included.

    `resume` is for the session's own client: who reads along, and webhooks, are not told.
    """

    type: ClassVar[str] = "ready"
    config: dict[str, object]
    model: str
    resume: Resume | None = None


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """The client is back, and has been told again what it missed; the stream goes on at `stream_time`.

    `received_bytes` says from which byte of its stream on a client that sends bytes is to send them; null: from a new
    container on, or, over WebRTC, whatever it sends now. `is_elsewhere` says that another process took the session up:
    what was not final there is heard again. `resume` is as in `ready`, and may have another path.
    """

    type: ClassVar[str] = "resumed"
    stream_time: float
    received_bytes: int | None = None
    is_elsewhere: bool = False
    resume: Resume | None = None


@dataclass(frozen=True, slots=True)
class Reconnect(Event):
    """The connection is about to be closed, the session is not: come back, as after a drop. `reason` is one word."""

    type: ClassVar[str] = "reconnect"
    reason: str


@dataclass(frozen=True, slots=True)
class SpeechStarted(Event):
    """Somebody began to speak at stream time `at`."""

    type: ClassVar[str] = "speech_started"
    of_channel: ClassVar[bool] = True
    at: float


@dataclass(frozen=True, slots=True)
class SpeechStopped(Event):
    """Speech ended at stream time `at`; its final follows.

    One for each utterance, told when its end is certain: after `endpointing_ms` of silence, or what `turn_detection`
    makes of it. `at` is where the silence began, however long it was waited for.
    """

    type: ClassVar[str] = "speech_stopped"
    of_channel: ClassVar[bool] = True
    at: float


@dataclass(frozen=True, slots=True)
class Interim(Event):
    """What is heard so far of an utterance. `stable` is the leading part of `transcript` that only grows.

    `confidence`, here and in finals and revisions, is the share of the words that may be expected to be right.
    """

    type: ClassVar[str] = "interim"
    of_channel: ClassVar[bool] = True
    droppable: ClassVar[bool] = True
    utterance_id: int
    transcript: str
    stable: str
    confidence: float
    start: float
    duration: float
    timestamp: float
    words: list[Word]
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Final(Event):
    """The text of a whole utterance, from one decode over all of it. `timestamp` is the stream time of sending."""

    type: ClassVar[str] = "final"
    of_channel: ClassVar[bool] = True
    utterance_id: int
    transcript: str
    confidence: float
    start: float
    duration: float
    timestamp: float
    language: str | None
    language_confidence: float | None
    words: list[Word]
    speaker: str | None = None
    is_final: bool = True


@dataclass(frozen=True, slots=True)
class Revision(Event):
    """A correction of a final, once more speech has been heard; it replaces that final's text and words."""

    type: ClassVar[str] = "revision"
    of_channel: ClassVar[bool] = True
    utterance_id: int
    transcript: str
    confidence: float
    start: float
    duration: float
    timestamp: float
    words: list[Word]


@dataclass(frozen=True, slots=True)
class UtteranceEnd(Event):
    """An utterance is over; `last_word_end` is the stream time at which its last word ends.

    Told right after the final of an utterance that ended in a silence; with `utterance_end_ms`, once nobody has begun
    to speak words for so long since `last_word_end`, and only for the last utterance before that gap.
    """

    type: ClassVar[str] = "utterance_end"
    of_channel: ClassVar[bool] = True
    utterance_id: int
    last_word_end: float


@dataclass(frozen=True, slots=True)
class Metadata(Event):
    """The totals of a session, sent once, after its last final."""

    type: ClassVar[str] = "metadata"
    duration: float
    speech_duration: float
    utterances: int
    concealed_duration: float
    model: str


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """The last event of a session. `reason` is one word: `client`, `shutdown`, `timeout`, `peer_lost`, `error` …"""

    type: ClassVar[str] = "closed"
    reason: str


@dataclass(frozen=True, slots=True)
class Pong(Event):
    """The answer to `keep_alive`: the connection and the session live."""

    type: ClassVar[str] = "pong"
    droppable: ClassVar[bool] = True
    timestamp: float


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something that the client should know and that does not end the session."""

    type: ClassVar[str] = "warning"
    error: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A request that failed; the session goes on unless `closed` follows."""

    type: ClassVar[str] = "error"
    error: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UtteranceBegan(Event):
    """An utterance has begun, after a pause or where long speech was cut.

    This and the two below are for dialects that ask for them (`Channels.tells_inner`), and for no client.
    """

    type: ClassVar[str] = "utterance_began"
    of_channel: ClassVar[bool] = True
    utterance_id: int


@dataclass(frozen=True, slots=True)
class UtteranceSettled(Event):
    """Nothing more is told of an utterance but revisions: it had its final, or no words, or `error` says why not.

    `queued_s` and `decode_s` are how long its decode waited and took; None where nothing was decoded.
    """

    type: ClassVar[str] = "utterance_settled"
    of_channel: ClassVar[bool] = True
    utterance_id: int
    error: dict[str, object] | None = None
    queued_s: float | None = None
    decode_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finalized(Event):
    """What was received until stream time `at`, when `finalize` was called, has been judged, and its utterances are
    over; their finals may be still to come.
    """

    type: ClassVar[str] = "finalized"
    of_channel: ClassVar[bool] = True
    at: float


@dataclass(frozen=True, slots=True)
class Channel:
    """One of several channels of a connection: its number from 0, and what the client calls it."""

    number: int
    label: str | None = None


def to_dict(
    event: Event,
    *,
    session_id: str,
    seq: int,
    channel: Channel | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """The event as the native protocol's JSON object.

    Args:
        event: what is told.
        session_id: whose it is.
        seq: counts a connection's events up by one.
        channel: where it was heard, for connections with several; left out of what is about the connection.
        metadata: the client's own fields, given back with every event.
    """
    body: dict[str, object] = {"type": event.type, "session_id": session_id, "seq": seq}
    if channel is not None and event.of_channel:
        body["channel"] = channel.number
        if channel.label is not None:
            body["channel_label"] = channel.label
    if metadata:
        body["metadata"] = dict(metadata)
    for item in fields(event):
        body[item.name] = _plain(getattr(event, item.name))
    return body


def to_json(
    event: Event,
    *,
    session_id: str,
    seq: int,
    channel: Channel | None = None,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """`to_dict` as one line of UTF-8 JSON."""
    body = to_dict(event, session_id=session_id, seq=seq, channel=channel, metadata=metadata)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _plain(value: object) -> object:
    if isinstance(value, float):
        return round(value, TIME_DIGITS)
    if isinstance(value, Word):
        return {
            "word": value.word,
            "start": round(value.start, TIME_DIGITS),
            "end": round(value.end, TIME_DIGITS),
            "confidence": round(value.confidence, TIME_DIGITS),
            "speaker": value.speaker,
            "low_confidence": value.low_confidence,
        }
    if isinstance(value, Resume):
        return {"path": value.path, "window_s": round(value.window_s, TIME_DIGITS)}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
