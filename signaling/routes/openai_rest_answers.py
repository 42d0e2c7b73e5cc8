"""What clients of OpenAI's `/v1/audio` get: a transcript in each of its forms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from mediaserver.audio.clock import samples_in
from mediaserver.audio.features import HOP_SAMPLES
from mediaserver.decoder.spelling import piece_bytes
from mediaserver.decoder.window import Task, Token
from mediaserver.jobs.recording import Segment, Transcript
from mediaserver.text.languages import NAMES, UNSPACED

DIGITS = 3
"""Of times; 1 ms is finer than a word boundary is known."""


class Usage(BaseModel):
    """What was used."""

    type: Literal["duration"] = "duration"
    seconds: int = Field(description="Seconds of audio, begun ones counted.")


class LogProb(BaseModel):
    """A token and how sure the model was of it."""

    token: str = Field(description="Its text; `bytes` says more where it is a part of a character.")
    bytes: list[int] = Field(description="Its UTF-8 bytes.")
    logprob: float = Field(description="Its log-probability in nats, after the tokens before it and without a prompt.")


class Transcription(BaseModel):
    """`json`."""

    text: str
    logprobs: list[LogProb] | None = Field(None, description="With `include[]=logprobs`.")
    usage: Usage


class VerboseSegment(BaseModel):
    """A sentence, or what stands between two pauses."""

    id: int
    seek: int = Field(description="Where it begins, in frames of 10 ms.")
    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    text: str
    tokens: list[int] = Field(description="In the loaded model's vocabulary.")
    temperature: float = Field(description="Always 0: nothing is sampled.")
    avg_logprob: float = Field(description="Per token, of the piece of the recording that it was decoded in.")
    compression_ratio: float
    no_speech_prob: float = Field(description="Of that piece.")


class VerboseWord(BaseModel):
    """A word with its place."""

    word: str
    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")


class VerboseTranscription(BaseModel):
    """`verbose_json`."""

    task: Literal["transcribe", "translate"]
    language: str = Field(description="English name in small letters; of a translation `english`.")
    duration: float = Field(description="Seconds.")
    text: str
    segments: list[VerboseSegment] | None = None
    words: list[VerboseWord] | None = None
    usage: Usage


class TextDelta(BaseModel):
    """More text; what has been sent never changes."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    logprobs: list[LogProb] | None = None


class TextDone(BaseModel):
    """All of the text: the deltas joined."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    logprobs: list[LogProb] | None = None
    usage: Usage


def text_of(segments: Sequence[Segment]) -> str:
    """The segments as one text."""
    return "".join(delta_of(segment, is_first=not number) for number, segment in enumerate(segments))


def delta_of(segment: Segment, *, is_first: bool) -> str:
    """What a segment adds to the text."""
    space = "" if is_first or segment.final.language in UNSPACED else " "
    return space + segment.final.transcript


def usage_of(transcript: Transcript) -> Usage:
    """What a transcript took."""
    return Usage(seconds=math.ceil(transcript.duration_s))


def logprobs_of(segments: Iterable[Segment]) -> list[LogProb]:
    """The tokens of segments."""
    return [_logprob(token) for segment in segments for token in segment.tokens]


def verbose(transcript: Transcript, task: Task, granularities: Sequence[str]) -> VerboseTranscription:
    """`verbose_json`.

    Args:
        transcript: of one channel.
        task: what was asked for.
        granularities: what has times, of `word` and `segment`.
    """
    channel = transcript.channels[0]
    spoken = "en" if task is Task.TRANSLATE else channel.language
    return VerboseTranscription(
        task=task.value,
        language=NAMES.get(spoken, spoken) if spoken else "",
        duration=round(transcript.duration_s, DIGITS),
        text=text_of(channel.segments),
        segments=[_segment(segment) for segment in channel.segments] if "segment" in granularities else None,
        words=[word for segment in channel.segments for word in _words(segment)] if "word" in granularities else None,
        usage=usage_of(transcript),
    )


def _segment(segment: Segment) -> VerboseSegment:
    final = segment.final
    return VerboseSegment(
        id=final.utterance_id,
        seek=samples_in(s=final.start) // HOP_SAMPLES,
        start=round(final.start, DIGITS),
        end=round(final.start + final.duration, DIGITS),
        text=f" {final.transcript}",
        tokens=[token.number for token in segment.tokens],
        temperature=0.0,
        avg_logprob=segment.mean_log_probability,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_probability,
    )


def _words(segment: Segment) -> Iterable[VerboseWord]:
    for word in segment.final.words:
        yield VerboseWord(word=word.word, start=round(word.start, DIGITS), end=round(word.end, DIGITS))


def _logprob(token: Token) -> LogProb:
    spelt = piece_bytes(token.piece)
    return LogProb(token=spelt.decode(errors="replace"), bytes=list(spelt), logprob=round(token.log_probability, 6))
