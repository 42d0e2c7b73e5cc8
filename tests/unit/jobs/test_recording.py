"""The pipeline around the engine: order, progress, languages, failures, cancelling."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mediaserver.audio.clock import Samples, samples_in
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Task, Window
from mediaserver.errors import CapacityError, ConfigError, MediaError, VoiceForgeError
from mediaserver.jobs.recording import Recorder, RecordingOptions, Segment, Transcript
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from tests.recordings import write_wav


class Vad:
    """Hears somebody where a frame is loud."""

    @property
    def network(self) -> Vad:
        return self

    def encode(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        return (np.abs(frames).max(axis=1, keepdims=True) > 0.01).astype(np.float32)

    def step(
        self, encoded: NDArray[np.float32], states: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return encoded, states


class Engine:
    """Says of each window how loud it is, as a word of its beginning."""

    model_name = "model"

    def __init__(self, languages: tuple[str, ...] = ("en",)) -> None:
        self.languages = languages
        self.windows: list[Window] = []
        self.waiting = 0
        self.most_waiting = 0
        self.answer: Callable[[Window], Hypothesis] = self.loudness

    def loudness(self, window: Window) -> Hypothesis:
        loud = round(float(np.abs(window.samples).max()), 1)
        heard = window.language or "en"
        return Hypothesis(words=[HypothesisWord(f" {loud}.", 0.4, 0.9, 0.9)], language=heard)

    async def decode(self, window: Window) -> Hypothesis:
        self.windows.append(window)
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            await asyncio.sleep(0)
            return self.answer(window)
        finally:
            self.waiting -= 1

    def withdraw(self, session_id: str) -> None:
        pass


def speech(loudness: list[float], *, each_s: float = 14.0, pause_s: float = 2.0) -> Samples:
    """Tones of some loudness with silence behind each."""
    parts = [np.full(samples_in(s=each_s), loud, dtype=np.float32) for loud in loudness]
    silence = np.zeros(samples_in(s=pause_s), dtype=np.float32)
    return np.concatenate([part for loud in parts for part in (loud, silence)] or [silence])


def recorder(engine: Engine, **settings: Any) -> Recorder:
    return Recorder(decoder=engine, vad=Vad(), settings=Settings(**settings), metrics=Metrics())  # type: ignore[arg-type]


def texts(transcript: Transcript, channel: int = 0) -> list[str]:
    return [segment.final.transcript for segment in transcript.channels[channel].segments]


async def test_pieces_are_told_in_order_with_times_on_the_recordings_clock(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1, 0.2, 0.3, 0.4])])
    engine, told, shares = Engine(), list[tuple[int, Segment]](), list[float]()
    transcript = await recorder(engine).transcribe(
        path, RecordingOptions(), on_progress=shares.append, on_segment=lambda *item: told.append(item)
    )
    assert texts(transcript) == ["0.1.", "0.2.", "0.3.", "0.4."]
    assert [segment for _, segment in told] == list(transcript.channels[0].segments)
    starts = [segment.final.start for segment in transcript.channels[0].segments]
    assert starts == pytest.approx([0.4, 16.1, 32.1, 48.1], abs=0.05)
    assert transcript.duration_s == pytest.approx(64.0)
    assert transcript.model == "model"
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert {window.kind for window in engine.windows} == {Kind.RECORDING}


async def test_there_is_never_more_speech_than_audio(tmp_path: Path) -> None:
    spoken = speech([0.5], each_s=3.0, pause_s=0.0)[:-100]  # to the last, which fills no frame
    path = write_wav(tmp_path / "a.wav", [spoken, spoken])
    transcript = await recorder(Engine()).transcribe(path, RecordingOptions(multichannel=True))
    assert transcript.speech_s == pytest.approx(2 * transcript.duration_s)
    assert transcript.speech_s <= 2 * transcript.duration_s


async def test_pieces_in_hand_are_bounded(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.5] * 60)])
    engine, full = Engine(), asyncio.Event()
    answer = engine.decode

    async def when_full(window: Window) -> Hypothesis:
        if engine.waiting + 1 == 8:
            full.set()
        engine.waiting += 1
        await full.wait()
        engine.waiting -= 1
        return await answer(window)

    engine.decode = when_full  # type: ignore[method-assign]
    await recorder(engine, max_batch=2).transcribe(path, RecordingOptions())
    assert len(engine.windows) == 60
    assert engine.most_waiting <= 8


async def test_each_channel_is_heard_by_itself(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1, 0.2]), speech([0.0, 0.0]), speech([0.5])])
    apart = await recorder(Engine()).transcribe(path, RecordingOptions(multichannel=True))
    assert [texts(apart, channel) for channel in range(3)] == [["0.1.", "0.2."], [], ["0.5."]]
    assert apart.channels[1].language is None
    mixed = await recorder(Engine()).transcribe(path, RecordingOptions())
    assert len(mixed.channels) == 1


async def test_silence_is_a_transcript_without_words(tmp_path: Path) -> None:
    engine, shares = Engine(), list[float]()
    path = write_wav(tmp_path / "a.wav", [np.zeros(16_000, dtype=np.float32)])
    transcript = await recorder(engine).transcribe(path, RecordingOptions(), on_progress=shares.append)
    assert texts(transcript) == []
    assert engine.windows == []
    assert shares == [1.0]


async def test_the_first_piece_tells_the_others_of_the_language(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1, 0.2, 0.3])])
    engine = Engine(("en", "de", "fr"))

    def german(window: Window) -> Hypothesis:
        return Hypothesis(
            words=[HypothesisWord(" ja.", 0.4, 0.9, 0.9)],
            language="de",
            language_probability=0.97,
            heard_languages=("de", "en"),
            heard_probabilities=(0.9, 0.1),
        )

    engine.answer = german
    transcript = await recorder(engine).transcribe(path, RecordingOptions())
    first, second, _ = engine.windows
    assert first.language is None
    assert first.language_scores == (0.0, 0.0, 0.0)
    assert second.language_scores.index(max(second.language_scores)) == 1
    assert transcript.channels[0].language == "de"
    assert transcript.channels[0].language_probability == pytest.approx(0.97)


async def test_what_was_asked_for_is_in_every_window(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1, 0.2])])
    engine = Engine(("en", "de"))
    options = RecordingOptions(
        language="de", prompt="Zuvor.", hotwords=("Weiher",), task=Task.TRANSLATE, with_tokens=True
    )
    await recorder(engine).transcribe(path, options)
    for window in engine.windows:
        asked = (window.language, window.prompt, window.hotwords, window.task, window.with_tokens)
        assert asked == ("de", "Zuvor.", ("Weiher",), Task.TRANSLATE, True)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (RecordingOptions(language="xx"), "UNKNOWN_LANGUAGE"),
        (RecordingOptions(languages=("en", "xx")), "UNKNOWN_LANGUAGE"),
        (RecordingOptions(task=Task.TRANSLATE), "TRANSLATION_UNSUPPORTED"),
    ],
)
async def test_what_the_model_cannot_do_is_refused_before_the_file_is_looked_at(
    options: RecordingOptions, code: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        await recorder(Engine()).transcribe(Path("/nowhere"), options)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("content", "code"), [(None, "FILE_NOT_FOUND"), (b"", "NOT_AUDIO"), (b"no" * 999, "NOT_AUDIO")]
)
async def test_a_file_that_is_no_recording_is_refused(
    tmp_path: Path, content: bytes | None, code: str, no_leaked_threads: None
) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError) as refused:
        await recorder(Engine()).transcribe(path, RecordingOptions())
    assert refused.value.code == code
    assert refused.value.message.startswith("The recording is "), "its name is ours"


async def test_a_piece_that_cannot_be_decoded_is_tried_again_then_left_out_and_told(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1, 0.2, 0.3])])
    engine = Engine()

    def fail(window: Window) -> Hypothesis:
        if np.abs(window.samples).max() == pytest.approx(0.2, abs=0.01):
            raise VoiceForgeError("DECODE_FAILED", "", "", retryable=True)
        return engine.loudness(window)

    engine.answer = fail
    transcript = await recorder(engine).transcribe(path, RecordingOptions())
    assert texts(transcript) == ["0.1.", "0.3."]
    assert len(engine.windows) == 4
    (warning,) = transcript.warnings
    assert "from 15.7 s to 30.2 s" in warning


async def test_an_engine_that_closes_ends_the_recording(tmp_path: Path, no_leaked_tasks: None) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1, 0.2, 0.3])])
    engine = Engine()

    def closed(window: Window) -> Hypothesis:
        raise VoiceForgeError("ENGINE_CLOSED", "", "", retryable=True)

    engine.answer = closed
    with pytest.raises(VoiceForgeError) as failed:
        await recorder(engine).transcribe(path, RecordingOptions())
    assert failed.value.code == "ENGINE_CLOSED"


async def test_a_cancelled_recording_leaves_nothing_behind(tmp_path: Path, no_leaked_tasks: None) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1] * 10)])
    engine, begun = Engine(), asyncio.Event()

    async def hang(window: Window) -> Hypothesis:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    engine.decode = hang  # type: ignore[method-assign]
    work = asyncio.create_task(recorder(engine).transcribe(path, RecordingOptions()))
    await begun.wait()
    work.cancel()
    async with asyncio.timeout(0.5):
        with pytest.raises(asyncio.CancelledError):
            await work
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("recording")]


async def test_no_more_run_at_once_than_may_and_waiting_is_bounded(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1])])
    engine, gate = Engine(), asyncio.Event()
    answer = engine.decode

    async def gated(window: Window) -> Hypothesis:
        await gate.wait()
        return await answer(window)

    engine.decode = gated  # type: ignore[method-assign]
    subject = recorder(engine, max_recordings=1)
    works = [asyncio.create_task(subject.transcribe(path, RecordingOptions())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(CapacityError) as full:
        subject.require_room()
    assert full.value.code == "RECORDINGS_FULL"
    gate.set()
    assert [texts(transcript) for transcript in await asyncio.gather(*works)] == [["0.1."], ["0.1."]]
    subject.require_room()


async def test_what_a_decode_left_out_is_decoded_by_itself(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1, 0.2, 0.3], each_s=6.0, pause_s=0.8)])
    engine = Engine()
    transcript = await recorder(engine).transcribe(path, RecordingOptions())
    assert [round(window.duration_s) for window in engine.windows] == [20, 14, 7]
    starts = [segment.final.start for segment in transcript.channels[0].segments]
    assert starts == pytest.approx([0.4, 6.6, 13.4], abs=0.5)


async def test_a_loop_is_decoded_in_halves(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [speech([0.1, 0.2], each_s=8.0, pause_s=0.8)])
    engine = Engine()

    def loop(window: Window) -> Hypothesis:
        return Hypothesis(rejected="repetitive") if window.duration_s > 10 else engine.loudness(window)

    engine.answer = loop
    transcript = await recorder(engine).transcribe(path, RecordingOptions())
    assert texts(transcript) == ["0.1.", "0.2."]
