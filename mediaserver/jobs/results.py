"""What came of a recording: as types that go to clients, packed into the database, and as text or subtitles."""

from __future__ import annotations

import zlib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mediaserver.errors import ConfigError
from mediaserver.events import Final, Word
from mediaserver.jobs.transcript import ChannelTranscript, Segment, Transcript
from mediaserver.text.subtitles import Format, render

DIGITS = 3
"""Of times and probabilities: 1 ms is finer than a word boundary is known."""


class ResultPart(BaseModel):
    """What all parts of a result share."""

    model_config = ConfigDict(frozen=True)


class WordBody(ResultPart):
    """A word with its place in the recording."""

    word: str = Field(description="As it stands in the text.")
    start: float = Field(description="Seconds from the beginning.")
    end: float = Field(description="Seconds from the beginning.")
    confidence: float = Field(description="How likely the word is right, 0 to 1.")


class SegmentBody(ResultPart):
    """A sentence or an utterance."""

    id: int = Field(description="Counts the channel's segments.")
    start: float = Field(description="Seconds from the beginning.")
    end: float = Field(description="Seconds from the beginning.")
    text: str
    confidence: float = Field(description="The mean of its words' confidences.")
    language: str | None = Field(description="Code of the language it is in.")
    mean_log_probability: float = Field(description="Per token, as the model saw it.")
    no_speech_probability: float = Field(description="The model's own opinion that nobody speaks.")
    compression_ratio: float = Field(description="Above 2.4 a text repeats itself.")
    words: list[WordBody]


class ChannelBody(ResultPart):
    """What was said in one channel."""

    channel: int = Field(description="Counts from 0; without `multichannel` there is one.")
    language: str | None = Field(description="Code of the language most was said in.")
    language_probability: float | None = Field(description="How sure that is; null where it was given.")
    text: str
    segments: list[SegmentBody]


class TranscriptBody(ResultPart):
    """What was said in a recording."""

    text: str = Field(description="Of all channels, in the order it was said.")
    duration: float = Field(description="Seconds of audio that could be decoded.")
    model: str = Field(description="What decoded it.")
    language: str | None = Field(description="Code of the language most was said in, in the first channel.")
    channels: list[ChannelBody]
    warnings: list[str] = Field(description="What of the recording could not be read, a sentence each.")

    def finals(self, channel: int | None = None) -> list[Final]:
        """The segments as finals, in the order of time; with several channels each says which it is from.

        Raises:
            ConfigError: INVALID_CHANNEL.
        """
        if channel is not None and channel >= len(self.channels):
            raise ConfigError(
                "INVALID_CHANNEL",
                f"There is no channel {channel}.",
                f"The recording has {len(self.channels)}, counted from 0.",
            )
        several = len(self.channels) > 1 and channel is None
        return sorted(
            (
                _final(segment, f"Channel {one.channel}" if several else None)
                for one in self.channels
                if channel in (None, one.channel)
                for segment in one.segments
            ),
            key=lambda final: final.start,
        )


def body_of(transcript: Transcript) -> TranscriptBody:
    """A transcript as clients see it."""
    channels = [_channel(number, channel) for number, channel in enumerate(transcript.channels)]
    in_order = sorted((segment for channel in channels for segment in channel.segments), key=lambda item: item.start)
    return TranscriptBody(
        text=" ".join(segment.text for segment in in_order),
        duration=round(transcript.duration_s, DIGITS),
        model=transcript.model,
        language=channels[0].language if channels else None,
        channels=channels,
        warnings=list(transcript.warnings),
    )


def written_down(transcript: Transcript) -> tuple[bytes, dict[str, Any]]:
    """The packed result, and what of it is shown with the job."""
    body = body_of(transcript)
    summary = {
        "duration_s": body.duration,
        "speech_s": round(transcript.speech_s, DIGITS),
        "model": body.model,
        "language": body.language,
        "channels": len(body.channels),
        "words": sum(len(segment.words) for channel in body.channels for segment in channel.segments),
    }
    return pack(body), summary


def pack(body: TranscriptBody) -> bytes:
    """For the database. An hour of words takes a few hundred kB; off the event loop, for that takes time."""
    return zlib.compress(body.model_dump_json().encode())


def unpack(packed: bytes) -> TranscriptBody:
    """What `pack` packed."""
    return TranscriptBody.model_validate_json(zlib.decompress(packed))


def rendered(body: TranscriptBody, form: Format, channel: int | None = None) -> str:
    """The result in one of the formats of text; `json` is the body itself.

    Raises:
        ConfigError: INVALID_CHANNEL.
    """
    if form is Format.JSON:
        if channel is None:
            return body.model_dump_json()
        finals = body.finals(channel)
        return body.model_copy(
            update={"channels": [body.channels[channel]], "text": " ".join(final.transcript for final in finals)}
        ).model_dump_json()
    return render(body.finals(channel), form)


def _channel(number: int, channel: ChannelTranscript) -> ChannelBody:
    segments = [_segment(count, segment) for count, segment in enumerate(channel.segments)]
    return ChannelBody(
        channel=number,
        language=channel.language,
        language_probability=_rounded(channel.language_probability),
        text=" ".join(segment.text for segment in segments),
        segments=segments,
    )


def _segment(number: int, segment: Segment) -> SegmentBody:
    final = segment.final
    return SegmentBody(
        id=number,
        start=round(final.start, DIGITS),
        end=round(final.start + final.duration, DIGITS),
        text=" ".join(final.transcript.split()),
        confidence=round(final.confidence, DIGITS),
        language=final.language,
        mean_log_probability=round(segment.mean_log_probability, DIGITS),
        no_speech_probability=round(segment.no_speech_probability, DIGITS),
        compression_ratio=round(segment.compression_ratio, DIGITS),
        words=[
            WordBody(
                word=word.word.strip(),
                start=round(word.start, DIGITS),
                end=round(word.end, DIGITS),
                confidence=round(word.confidence, DIGITS),
            )
            for word in final.words
        ],
    )


def _final(segment: SegmentBody, speaker: str | None) -> Final:
    return Final(
        utterance_id=segment.id,
        transcript=segment.text,
        confidence=segment.confidence,
        start=segment.start,
        duration=segment.end - segment.start,
        timestamp=segment.end,
        language=segment.language,
        language_confidence=None,
        words=[Word(word.word, word.start, word.end, word.confidence) for word in segment.words],
        speaker=speaker,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
