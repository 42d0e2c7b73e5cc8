"""What goes into the engine and what comes out: plain data that can cross a process boundary (design decision 8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol

from mediaserver.audio.clock import SAMPLE_RATE, Samples


class Kind(IntEnum):
    """What a window is for; also its priority, the lowest first.

    SPECULATIVE is an utterance in a pause that may turn out to be its end: decoded as a final is, so that it can be it.
    RECORDING is a piece of a file, which gives way to everything live.
    """

    FINAL = 0
    FIRST_INTERIM = 1
    INTERIM = 2
    SPECULATIVE = 3
    REVISION = 4
    RECORDING = 5

    @property
    def is_interim(self) -> bool:
        """Whether its audio ends in the middle of what somebody says."""
        return self in (Kind.FIRST_INTERIM, Kind.INTERIM)

    @property
    def is_replaceable(self) -> bool:
        """Whether a newer window of the same session replaces this one."""
        return self.is_interim or self is Kind.SPECULATIVE


class Task(StrEnum):
    """What is written down: what was said, or what that is in English."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


@dataclass(frozen=True, slots=True)
class Window:
    """The audio that one decode sees.

    Args:
        session_id: whose it is.
        kind: final, first interim of an utterance, interim, revision, or a piece of a recording.
        samples: [n] float32, 16 kHz mono.
        start_sample: stream position of `samples[0]`.
        language: language code, or None to have it detected.
        language_candidates: codes to choose from where it is detected; empty is all that the model knows.
        language_scores: what speaks for each of `language_candidates` so far, in nats; empty is nothing yet.
        prompt: text that was said or written before, in the spelling to go on with.
        hotwords: words to expect, as they are to be written.
        task: translations are into English, and need a multilingual model.
        with_tokens: whether words come with their tokens.
    """

    session_id: str
    kind: Kind
    samples: Samples
    start_sample: int
    language: str | None = None
    language_candidates: tuple[str, ...] = ()
    language_scores: tuple[float, ...] = ()
    prompt: str | None = None
    hotwords: tuple[str, ...] = ()
    task: Task = Task.TRANSCRIBE
    with_tokens: bool = False

    @property
    def is_prompted(self) -> bool:
        """Whether its decode is told anything before it hears."""
        return bool(self.prompt or self.hotwords)

    @property
    def duration_s(self) -> float:
        """Length of the audio in seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a word.

    Args:
        number: its place in the model's vocabulary.
        piece: as the vocabulary spells it: its UTF-8 bytes, each as one printable letter (byte-level BPE).
        log_probability: in nats, after the tokens before it and without a prompt.
    """

    number: int
    piece: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class HypothesisWord:
    """A word as decoded; `text` has the leading space and the punctuation that the model wrote.

    `start` and `end` are seconds of stream time; `probability` is the mean over its tokens, which are there where the
    window asked for them.
    """

    text: str
    start: float
    end: float
    probability: float
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What one decode of a window said, after the guards.

    Args:
        words: in order, times monotonic and inside the window.
        language: code of the language that was decoded.
        language_probability: how probable it is against the next best, None where the language was given.
        heard_languages, heard_probabilities: what this window alone sounds like, best first; the improbable left out.
        no_speech_probability: the model's own opinion that nobody speaks.
        mean_log_probability: per token.
        rejected: why a guard threw the text away (then `words` is empty), else None.
        queued_s, compute_s: wait before and duration of the batch it was decoded in.
        batch_windows: how many windows shared that batch.
    """

    words: list[HypothesisWord] = field(default_factory=list)
    language: str = "en"
    language_probability: float | None = None
    heard_languages: tuple[str, ...] = ()
    heard_probabilities: tuple[float, ...] = ()
    no_speech_probability: float = 0.0
    mean_log_probability: float = 0.0
    rejected: str | None = None
    queued_s: float = 0.0
    compute_s: float = 0.0
    batch_windows: int = 1


class Replaced(Exception):  # noqa: N818 - an outcome, not a fault
    """A newer window of the same session took this one's place in the queue, or nobody wants it any more."""


class Decoder(Protocol):
    """The engine as a session sees it: windows in, hypotheses out."""

    @property
    def model_name(self) -> str:
        """The model as it was asked for."""
        ...

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the model knows; one alone is never detected."""
        ...

    async def decode(self, window: Window) -> Hypothesis:
        """Decode one window.

        Raises:
            Replaced: a replaceable one gave way to a newer one of its session, or was withdrawn.
            VoiceForgeError: the engine failed or is closed.
        """
        ...

    def withdraw(self, session_id: str) -> None:
        """Give up the session's replaceable window if it still waits; one that is being decoded goes on."""
        ...
