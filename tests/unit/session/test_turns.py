"""What ends an utterance, live: thresholds, waits, and a model whose answers come, fail or come late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from mediaserver.audio.clock import FRAME_SAMPLES, Samples, samples_in
from mediaserver.audio.turn import HEARD_SAMPLES, TurnModel, TurnPool
from mediaserver.audio.vad import VadPool, Verdict
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Window
from mediaserver.errors import ConfigError
from mediaserver.events import Event, Final, Ready, SpeechStarted, SpeechStopped, UtteranceEnd
from mediaserver.metrics import Metrics
from mediaserver.session.session import Session
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from tests.conftest import Speech

E = TypeVar("E", bound=Event)

LOUD, MIDDLING, QUIET = 0.9, 0.45, 0.0


class LoudnessVad:
    """Takes a frame's level for its speech probability, at once."""

    def open(self, deliver: Callable[[Verdict], None], *, denoiser: object = None) -> LoudnessVad:
        self.deliver = deliver
        return self

    def push(self, samples: Samples) -> None:
        levels = np.abs(samples.reshape(-1, FRAME_SAMPLES)).max(axis=1)
        self.deliver(Verdict(levels.astype(np.float32)))

    def reset(self, denoiser: object) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class OneWord:
    """Hears one word in each window, from its first to its last loud sample."""

    model_name = "scripted"
    languages = ("en",)

    async def decode(self, window: Window) -> Hypothesis:
        loud = np.flatnonzero(np.abs(window.samples) > 0.1) + window.start_sample
        if not len(loud):
            return Hypothesis(words=[], language="en")
        word = HypothesisWord(" word", loud[0] / 16_000, loud[-1] / 16_000, 0.9)
        return Hypothesis(words=[word], language="en")

    def withdraw(self, session_id: str) -> None: ...


class ScriptedTurns:
    """Answers each question with the next of its answers, when let."""

    def __init__(self, *answers: float | None) -> None:
        self.answers = list(answers)
        self.heard: list[Samples] = []
        self.cancelled = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self, samples: Samples) -> float | None:
        self.heard.append(samples)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answers.pop(0)


class Stream:
    def __init__(
        self, turns: ScriptedTurns | TurnPool | None = None, vad: VadPool | None = None, **settings: Any
    ) -> None:
        self.events: list[Event] = []
        self.session = Session(
            session_id="s1",
            config=SessionConfig.model_validate({"interim_results": False}),
            settings=Settings(**settings),
            decoder=OneWord(),
            vad=vad or LoudnessVad(),  # type: ignore[arg-type]
            metrics=Metrics(),
            sink=self,
            turns=turns,  # type: ignore[arg-type]
        )
        self.session.start()

    def send(self, event: Event, seq: int) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def frames(self, level: float, count: int) -> None:
        for _ in range(count):
            self.session.push(np.full(FRAME_SAMPLES, level, dtype=np.float32))
            for _ in range(5):
                await asyncio.sleep(0)

    async def silent_frames_until_stopped(self, most: int = 100) -> int:
        before = len(self.of(SpeechStopped))
        for count in range(1, most + 1):
            await self.frames(QUIET, 1)
            if len(self.of(SpeechStopped)) > before:
                return count
        raise AssertionError("it never stopped")


SEMANTIC: dict[str, Any] = {
    "turn_detection": "semantic",
    "endpointing_ms": 480,
    "turn_complete_ms": 320,
    "turn_incomplete_ms": 960,
}


@pytest.mark.parametrize(("answer", "frames"), [(0.9, 10), (0.1, 30), (None, 15)])
async def test_the_models_answer_moves_the_end_and_its_silence_leaves_it(answer: float | None, frames: int) -> None:
    stream = Stream(ScriptedTurns(answer), **SEMANTIC)
    await stream.frames(LOUD, 30)
    assert await stream.silent_frames_until_stopped() == frames
    await stream.session.close("client")
    assert len(stream.of(Final)) == 1


async def test_the_model_hears_the_utterance_with_its_pause_and_no_more() -> None:
    turns = ScriptedTurns(0.9, 0.9)
    stream = Stream(turns, pre_roll_ms=320, **SEMANTIC)
    await stream.frames(QUIET, 50)
    await stream.frames(LOUD, 30)
    await stream.frames(QUIET, 30)
    await stream.frames(LOUD, 400)
    await stream.frames(QUIET, 30)
    await stream.session.close("client")
    assert [len(samples) for samples in turns.heard] == [(10 + 30 + 7) * FRAME_SAMPLES, HEARD_SAMPLES]
    assert np.abs(turns.heard[0][: 10 * FRAME_SAMPLES]).max() == 0


async def test_a_speaker_who_goes_on_is_asked_about_again_and_the_old_answer_is_dropped(no_leaked_tasks: None) -> None:
    turns = ScriptedTurns(0.9, 0.1)
    turns.may_answer.clear()
    stream = Stream(turns, **SEMANTIC)
    await stream.frames(LOUD, 30)
    await stream.frames(QUIET, 8)
    await stream.frames(LOUD, 10)
    await stream.frames(QUIET, 7)
    assert (len(turns.heard), turns.cancelled) == (2, 1)
    assert await stream.silent_frames_until_stopped() == 8, "no answer: plain silence"
    assert turns.cancelled == 2, "the utterance is over: nobody waits for the answer"
    await stream.session.close("client")
    assert len(stream.of(SpeechStarted)) == len(stream.of(SpeechStopped)) == 1


async def test_a_session_that_closes_asks_no_more(no_leaked_tasks: None) -> None:
    turns = ScriptedTurns(0.9)
    turns.may_answer.clear()
    stream = Stream(turns, **SEMANTIC)
    await stream.frames(LOUD, 30)
    await stream.frames(QUIET, 8)
    await stream.session.close("client")
    assert turns.cancelled == 1
    assert len(stream.of(Final)) == 1


async def test_silence_alone_never_asks() -> None:
    turns = ScriptedTurns()
    stream = Stream(turns, turn_model=True, endpointing_ms=480)
    await stream.frames(LOUD, 30)
    assert await stream.silent_frames_until_stopped() == 15
    assert turns.heard == []
    await stream.session.close("client")


async def test_without_the_model_semantic_is_refused_with_a_sentence_and_nothing_changes() -> None:
    stream = Stream()
    with pytest.raises(ConfigError, match="no end-of-turn model") as caught:
        stream.session.configure({"turn_detection": "semantic", "endpointing_ms": 100})
    assert caught.value.code == "TURN_MODEL_NOT_LOADED"
    assert len(stream.of(Ready)) == 1
    await stream.session.close("client")


# Live: in the middle of an utterance, and in the middle of its pause.


async def test_the_silence_that_ends_an_utterance_is_changed_within_its_pause() -> None:
    stream = Stream(endpointing_ms=3000)
    await stream.frames(LOUD, 30)
    await stream.frames(QUIET, 20)
    stream.session.configure({"endpointing_ms": 300})
    assert await stream.silent_frames_until_stopped() == 1
    await stream.session.close("client")


async def test_the_speech_threshold_is_changed_within_an_utterance() -> None:
    stream = Stream(endpointing_ms=480)
    await stream.frames(LOUD, 30)
    await stream.frames(MIDDLING, 40)
    assert stream.of(SpeechStopped) == []
    stream.session.configure({"vad_threshold": 0.8})
    await stream.frames(MIDDLING, 15)
    (stopped,) = stream.of(SpeechStopped)
    assert stopped.at == pytest.approx(70 * 0.032)
    await stream.session.close("client")


async def test_turn_detection_and_its_waits_are_changed_within_a_pause() -> None:
    turns = ScriptedTurns(0.1, 0.9)
    stream = Stream(turns, turn_model=True, endpointing_ms=480)
    await stream.frames(LOUD, 30)
    await stream.frames(QUIET, 10)
    stream.session.configure({"turn_detection": "semantic"})
    assert stream.of(Ready)[-1].config["turn_detection"] == "semantic"
    await stream.frames(QUIET, 20)
    assert stream.of(SpeechStopped) == [], "unfinished: 960 of 1500 ms"
    stream.session.configure({"turn_incomplete_ms": 980})
    assert await stream.silent_frames_until_stopped() == 1
    await stream.frames(LOUD, 30)
    stream.session.configure({"turn_complete_ms": 400})
    assert await stream.silent_frames_until_stopped() == 13
    await stream.session.close("client")


async def test_utterance_end_is_told_with_the_final_or_a_gap_after_the_last_word_as_the_client_wants() -> None:
    stream = Stream(endpointing_ms=160)
    await stream.frames(LOUD, 30)
    await stream.frames(QUIET, 6)
    assert len(stream.of(UtteranceEnd)) == 1
    stream.session.configure({"utterance_end_ms": 1000})
    for _ in range(2):  # a pause that is shorter than the gap is no end
        await stream.frames(LOUD, 30)
        await stream.frames(QUIET, 10)
    assert len(stream.of(Final)) == 3
    assert len(stream.of(UtteranceEnd)) == 1
    await stream.frames(QUIET, 22)
    told = stream.of(UtteranceEnd)
    assert [event.utterance_id for event in told] == [1, 3]
    assert told[1].last_word_end == pytest.approx((36 + 40 + 30) * 0.032, abs=0.001)
    assert stream.session.stream_time_s - told[1].last_word_end == pytest.approx(1.0, abs=0.033)
    await stream.session.close("client")
    assert len(stream.of(UtteranceEnd)) == 2


async def test_utterance_end_is_told_before_the_session_closes() -> None:
    stream = Stream(endpointing_ms=160, utterance_end_ms=1000)
    await stream.frames(LOUD, 30)
    await stream.session.close("client")
    assert [event.type for event in stream.events[-4:]] == ["final", "utterance_end", "metadata", "closed"]


def test_a_frame_is_what_these_tests_count_in() -> None:
    assert samples_in(ms=480) == 15 * FRAME_SAMPLES


async def test_the_real_models_answer_ends_a_real_utterance_when_it_says(
    speech: Speech, vad_model_path: Path, turn_model_path: Path, no_leaked_threads: None
) -> None:
    """In lockstep: no frame is pushed before the VAD and the model have said what they think of the one before."""
    model = TurnModel(turn_model_path)
    asked: list[float] = []

    class Followed(TurnPool):
        async def ask(self, samples: Samples) -> float | None:
            probability = await super().ask(samples)
            asked.append(probability if probability is not None else -1.0)
            return probability

    vad, turns = VadPool(vad_model_path), Followed(model)
    stream = Stream(turns, vad, turn_complete_ms=320, turn_incomplete_ms=960, turn_detection="semantic")
    samples = np.concatenate((speech.samples(), np.zeros(2 * 16_000, dtype=np.float32)))
    for start in range(0, len(samples) - FRAME_SAMPLES, FRAME_SAMPLES):
        stream.session.push(samples[start : start + FRAME_SAMPLES])
        async with asyncio.timeout(30):
            while stream.session._endpointer.position_samples < start + FRAME_SAMPLES:
                await asyncio.sleep(0.001)
            while stream.session._turns._tasks:
                await asyncio.sleep(0.001)
        if stream.of(SpeechStopped):
            break
    waited_s = stream.session.stream_time_s - stream.of(SpeechStopped)[0].at
    assert waited_s == pytest.approx(0.320 if asked[-1] >= 0.5 else 0.960, abs=0.001)
    await stream.session.close("client")
    await turns.close()
    await vad.close()
