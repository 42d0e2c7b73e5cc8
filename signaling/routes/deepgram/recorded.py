"""A recording's transcript as the vendor's clients read it. Pure; of hours of speech it takes long, so in a thread."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, Field

from mediaserver.jobs.transcript import ChannelTranscript, Transcript
from signaling.routes.deepgram.messages import TIME_DIGITS, ModelInfo, WordBody
from signaling.routes.deepgram.paragraphs import Paragraphs, divide
from signaling.routes.deepgram.query import RecordedQuery
from signaling.routes.deepgram.served import model_info, model_uuid
from signaling.routes.deepgram.style import Style, Written, text_of, written
from signaling.routes.deepgram.wire import iso


class RecordedAlternative(BaseModel):
    """A transcript. There is one."""

    transcript: str
    confidence: float
    languages: list[str] | None = Field(default=None, description="With `language=multi`, the one of most words first.")
    words: list[WordBody]
    paragraphs: Paragraphs | None = Field(default=None, description="With `paragraphs` or `smart_format`.")


class RecordedChannel(BaseModel):
    """What was heard in a channel."""

    alternatives: list[RecordedAlternative]
    detected_language: str | None = Field(default=None, description="With `detect_language`.")
    language_confidence: float | None = Field(default=None, description="With `detect_language`, 0 to 1.")


class Utterance(BaseModel):
    """What was said between two pauses."""

    start: float
    end: float
    confidence: float
    channel: int
    transcript: str
    words: list[WordBody]
    id: str


class RecordedMetadata(BaseModel):
    """Which request and which recording."""

    transaction_key: str = "deprecated"
    request_id: str
    sha256: str = Field(description="Of the recording as it came.")
    created: str = Field(description="ISO 8601.")
    duration: float = Field(description="Seconds of audio that could be decoded.")
    channels: int
    models: list[str]
    model_info: dict[str, ModelInfo]
    warnings: list[str] | None = Field(default=None, description="What of the recording could not be read.")
    tags: list[str] | None = None
    extra: dict[str, str] | None = None


class RecordedResults(BaseModel):
    """What was heard."""

    channels: list[RecordedChannel]
    utterances: list[Utterance] | None = Field(default=None, description="With `utterances`.")


class Recorded(BaseModel):
    """The answer to a recording."""

    metadata: RecordedMetadata
    results: RecordedResults


class Accepted(BaseModel):
    """The answer where the result is posted to `callback`."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Received:
    """A recording that came in.

    Args:
        request_id: of the request.
        created: when it came.
        sha256: of its bytes, in hex.
    """

    request_id: str
    created: datetime
    sha256: str


@dataclass(frozen=True, slots=True)
class _Said:
    """A word as it is told, and the language of its segment."""

    word: Written
    language: str | None


def recorded(transcript: Transcript, received: Received, query: RecordedQuery) -> Recorded:
    """The answer to a recording."""
    channels = [_words(channel, query.style) for channel in transcript.channels]
    key = model_uuid(transcript.model)
    return Recorded(
        metadata=RecordedMetadata(
            request_id=received.request_id,
            sha256=received.sha256,
            created=iso(received.created),
            duration=round(transcript.duration_s, TIME_DIGITS),
            channels=len(channels),
            models=[key],
            model_info={key: model_info(transcript.model)},
            warnings=list(transcript.warnings) or None,
            tags=list(query.tag) or None,
            extra=query.extras or None,
        ),
        results=RecordedResults(
            channels=[
                _channel(channel, said, query) for channel, said in zip(transcript.channels, channels, strict=True)
            ],
            utterances=_utterances(channels, query) if query.utterances else None,
        ),
    )


def _words(channel: ChannelTranscript, style: Style) -> list[_Said]:
    said: list[_Said] = []
    for segment in channel.segments:
        final = segment.final
        said += [
            _Said(word, final.language)
            for word in written(" " + final.transcript, final.words, style, language=final.language)
        ]
    return said


def _channel(channel: ChannelTranscript, said: Sequence[_Said], query: RecordedQuery) -> RecordedChannel:
    words = [item.word for item in said]
    is_multi = query.language == "multi"
    spoken = Counter(item.language for item in said if item.language)
    told = channel.language if query.detects_language and not is_multi else None
    sureness = channel.language_probability if told else None
    return RecordedChannel(
        alternatives=[
            RecordedAlternative(
                transcript=text_of(words, query.style),
                confidence=_confidence(said),
                languages=[language for language, _ in spoken.most_common()] if is_multi else None,
                words=_bodies(said, query),
                paragraphs=divide(words) if query.has_paragraphs else None,
            )
        ],
        detected_language=told,
        language_confidence=None if sureness is None else round(sureness, TIME_DIGITS),
    )


def _utterances(channels: Sequence[Sequence[_Said]], query: RecordedQuery) -> list[Utterance]:
    """What was said, cut at pauses of `utt_split`, in order of time."""
    utterances = []
    for number, said in enumerate(channels):
        begin = 0
        for at in range(1, len(said) + 1):
            if at == len(said) or said[at].word.start - said[at - 1].word.end >= query.utt_split:
                utterances.append(_utterance(said[begin:at], number, query))
                begin = at
    return sorted(utterances, key=lambda utterance: (utterance.start, utterance.channel))


def _utterance(said: Sequence[_Said], channel: int, query: RecordedQuery) -> Utterance:
    return Utterance(
        start=round(said[0].word.start, TIME_DIGITS),
        end=round(said[-1].word.end, TIME_DIGITS),
        confidence=_confidence(said),
        channel=channel,
        transcript=text_of([item.word for item in said], query.style),
        words=_bodies(said, query),
        id=str(uuid.uuid4()),
    )


def _bodies(said: Sequence[_Said], query: RecordedQuery) -> list[WordBody]:
    return [
        WordBody(
            word=item.word.bare or item.word.full,
            start=round(item.word.start, TIME_DIGITS),
            end=round(item.word.end, TIME_DIGITS),
            confidence=round(item.word.confidence, TIME_DIGITS),
            punctuated_word=item.word.full if query.has_punctuation else None,
            language=item.language if query.language == "multi" else None,
        )
        for item in said
    ]


def _confidence(said: Sequence[_Said]) -> float:
    """The share of the words that may be expected to be right."""
    return round(sum(item.word.confidence for item in said) / len(said), TIME_DIGITS) if said else 0.0
