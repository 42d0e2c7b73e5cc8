"""A session whose VAD and decoder do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE, Samples
from mediaserver.audio.vad import Verdict
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Window
from mediaserver.events import Event
from mediaserver.metrics import Metrics
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings

E = TypeVar("E", bound=Event)
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE


@dataclass
class ScriptedVad:
    """Judges each frame by its loudness, at once or when told to."""

    held: bool = False
    quiet: float = 0.0
    waiting: list[Samples] = field(default_factory=list)
    deliver: Callable[[Verdict], None] | None = None
    closed: bool = False
    rest: Samples = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def open(self, deliver: Callable[[Verdict], None], *, denoiser: object = None) -> ScriptedVad:
        self.deliver = deliver
        return self

    def push(self, samples: Samples) -> None:
        self.rest = np.concatenate((self.rest, samples))
        while len(self.rest) >= FRAME_SAMPLES:
            self.waiting.append(self.rest[:FRAME_SAMPLES])
            self.rest = self.rest[FRAME_SAMPLES:]
        if not self.held:
            self.judge()

    def judge(self) -> None:
        frames, self.waiting = self.waiting, []
        assert self.deliver is not None
        if frames:
            self.deliver(
                Verdict(np.array([1.0 if np.abs(f).max() > 0.01 else self.quiet for f in frames], dtype=np.float32))
            )

    def reset(self, denoiser: object) -> None:
        pass

    def finish(self) -> None:
        if len(self.rest):
            self.push(np.zeros(FRAME_SAMPLES - len(self.rest), dtype=np.float32))

    def close(self) -> None:
        self.closed = True


class ScriptedDecoder:
    """Says one word for each half second of a window: `w0 w1 …`, numbered on the stream's clock."""

    model_name = "scripted"

    def __init__(self, languages: tuple[str, ...] = ("en",)) -> None:
        self.languages = languages
        self.windows: list[Window] = []
        self.gate: asyncio.Event | None = None
        self.outcome: Callable[[Window], Hypothesis] = half_second_words
        self.withdrawn = 0

    async def decode(self, window: Window) -> Hypothesis:
        self.windows.append(window)
        if self.gate is not None:
            await self.gate.wait()
        return self.outcome(window)

    def withdraw(self, session_id: str) -> None:
        self.withdrawn += 1

    def of(self, *kinds: Kind) -> list[Window]:
        return [window for window in self.windows if window.kind in kinds]


def half_second_words(window: Window) -> Hypothesis:
    first = -(-window.start_sample * 2 // SAMPLE_RATE)
    last = (window.start_sample + len(window.samples)) * 2 // SAMPLE_RATE
    words = [HypothesisWord(f" w{n}", n / 2, n / 2 + 0.5, 0.9) for n in range(first, last)]
    return Hypothesis(words=words, language="en")


@dataclass
class Recorder:
    events: list[Event] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)

    def send(self, event: Event, seq: int) -> None:
        self.events.append(event)
        self.seqs.append(seq)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


class Stream:
    """A session with its scripted neighbours."""

    def __init__(
        self,
        *,
        config: SessionConfig | None = None,
        decoder: ScriptedDecoder | None = None,
        vad: ScriptedVad | None = None,
        **settings: object,
    ) -> None:
        self.decoder = decoder or ScriptedDecoder()
        self.vad = vad or ScriptedVad()
        self.sink = Recorder()
        self.session = Session(
            session_id="s1",
            config=config or SessionConfig(),
            settings=Settings(**settings),
            decoder=self.decoder,
            vad=self.vad,
            metrics=Metrics(),
            sink=self.sink,
        )
        self.session.start()

    async def speak(self, seconds_: float, *, loud: bool = True) -> None:
        """Push audio in steps of 20 ms and let the session work in between."""
        for _ in range(round(seconds_ / 0.02)):
            self.session.push(np.full(320, 0.5 if loud else 0.0, dtype=np.float32))
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)

    async def pause(self, seconds_: float) -> None:
        await self.speak(seconds_, loud=False)


def raising(error: Exception) -> Hypothesis:
    raise error


async def say_two_utterances(stream: Stream) -> None:
    for _ in range(2):
        await stream.speak(2.0)
        await stream.pause(1.0)
