"""What is asked of a recording, and what comes of it: plain data."""

from __future__ import annotations

from dataclasses import dataclass

from mediaserver.decoder.window import Task, Token
from mediaserver.events import Final


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """How a recording is to be transcribed; what is left out is the node's setting, or detected.

    Args:
        language: code of what is spoken, or None to have it detected (by pieces: a change of language is followed).
        languages: codes that detection chooses from; none is the node's setting.
        prompt: text before what is heard, in the spelling to go on with; told to every piece.
        hotwords: words to expect, as they are to be written.
        multichannel: each channel its own transcript; else they are mixed to one.
        task: translations are into English, and need a multilingual model.
        with_tokens: whether segments come with the tokens that they were written with.
        vad_threshold: speech probability that counts as speech.
        pre_roll_ms: audio kept before speech was noticed.
        pause_ms: silence between two utterances; a piece is cut at one.
    """

    language: str | None = None
    languages: tuple[str, ...] = ()
    prompt: str | None = None
    hotwords: tuple[str, ...] = ()
    multichannel: bool = False
    task: Task = Task.TRANSCRIBE
    with_tokens: bool = False
    vad_threshold: float | None = None
    pre_roll_ms: int | None = None
    pause_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence or an utterance.

    Args:
        final: its text and words, times on the recording's clock; `utterance_id` counts the channel's segments.
        mean_log_probability: per token, of the window it was decoded in.
        no_speech_probability: the model's own opinion, of that window, that nobody speaks.
        compression_ratio: bytes of its text ÷ bytes that zlib makes of them; above 2.4 a text repeats itself.
        tokens: in order, where they were asked for.
    """

    final: Final
    mean_log_probability: float
    no_speech_probability: float
    compression_ratio: float
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelTranscript:
    """What was said in one channel.

    Args:
        segments: in order of time.
        language: code of the language most was said in; None where nothing was.
        language_probability: how sure that is, None where the language was given.
    """

    segments: tuple[Segment, ...]
    language: str | None
    language_probability: float | None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a recording.

    Args:
        channels: one, or with `multichannel` as many as the file has.
        duration_s: of the audio that could be decoded.
        model: what decoded it.
        warnings: what of the file could not be read, a sentence each.
        speech_s: of the utterances in it, all channels together.
    """

    channels: tuple[ChannelTranscript, ...]
    duration_s: float
    model: str
    warnings: tuple[str, ...] = ()
    speech_s: float = 0.0
