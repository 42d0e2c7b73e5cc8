"""Recordings of minutes with the real models: the words, channels, containers, and live speech beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import pytest_asyncio

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles, resolve
from mediaserver.decoder.engine import Engine, open_engine
from mediaserver.decoder.window import Hypothesis, Kind, Task, Window
from mediaserver.errors import ModelError
from mediaserver.jobs.recording import ChannelTranscript, Recorder, RecordingOptions
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from tests.conftest import Speech, SpeechData
from tests.recordings import joined, write_wav
from tests.scoring import word_errors

pytestmark = pytest.mark.timeout(170)


@dataclass
class Listening:
    """A decoder that remembers what it said of recordings."""

    inner: Engine
    recorded: list[Hypothesis] = field(default_factory=list)

    @property
    def model_name(self) -> str:
        return self.inner.model_name

    @property
    def languages(self) -> tuple[str, ...]:
        return self.inner.languages

    async def decode(self, window: Window) -> Hypothesis:
        hypothesis = await self.inner.decode(window)
        self.recorded.append(hypothesis)
        return hypothesis

    def withdraw(self, session_id: str) -> None:
        self.inner.withdraw(session_id)


@pytest_asyncio.fixture
async def decoder(model_files: ModelFiles) -> AsyncIterator[Listening]:
    engine = open_engine(Settings(slots=2), model_files, Metrics())
    await engine.start()
    yield Listening(engine)
    await engine.close()


@pytest_asyncio.fixture
async def vad(vad_model_path: Path) -> AsyncIterator[VadPool]:
    pool = VadPool(vad_model_path)
    yield pool
    await pool.close()


def recorder(decoder: Any, vad: VadPool) -> Recorder:
    return Recorder(decoder=decoder, vad=vad, settings=Settings(), metrics=Metrics())


def text_of(channel: ChannelTranscript) -> str:
    return " ".join(segment.final.transcript for segment in channel.segments)


def encoded(path: Path, samples: Samples, codec: str) -> Path:
    """Samples as a file of its suffix's container."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=SAMPLE_RATE if codec != "libopus" else 48_000)
        stream.layout = "mono"  # type: ignore[union-attr]
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=stream.rate)  # type: ignore[union-attr]
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frames = [*resampler.resample(frame), *resampler.resample(None)]
        for packet in [*(packet for each in frames for packet in stream.encode(each)), *stream.encode(None)]:  # type: ignore[attr-defined]
            container.mux(packet)
    return path


async def test_minutes_of_speech_in_two_channels(
    decoder: Listening, vad: VadPool, speeches: dict[str, Speech], tmp_path: Path
) -> None:
    order = list(speeches.values())
    left, left_said = joined(order * 3, pause_s=1.2)
    right, right_said = joined(order[::-1] * 2, pause_s=4.0)
    assert len(left) + len(right) > 120 * SAMPLE_RATE
    path = write_wav(tmp_path / "call.wav", [left, right])
    shares: list[float] = []
    transcript = await recorder(decoder, vad).transcribe(
        path, RecordingOptions(multichannel=True, with_tokens=True), on_progress=shares.append
    )
    for channel, said in zip(transcript.channels, (left_said, right_said), strict=True):
        assert word_errors(said, text_of(channel)) <= 0.08, text_of(channel)
        words = [word for segment in channel.segments for word in segment.final.words]
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert all(0 < word.confidence <= 1 for word in words)
        assert all(segment.tokens for segment in channel.segments)
    assert transcript.duration_s == pytest.approx(len(left) / SAMPLE_RATE, abs=0.01)
    assert transcript.channels[0].language == "en"
    assert shares[-1] == 1.0
    # Where the recordings lie in the file is known: "Alice" begins the third of them, again and again.
    step_s = sum(speech.duration_s + 1.2 for speech in order)
    first_s = sum(speech.duration_s + 1.2 for speech in order[:2])
    names = [
        word.start
        for segment in transcript.channels[0].segments
        for word in segment.final.words
        if word.word.lower().startswith("alice")
    ]
    assert names == pytest.approx([first_s + n * step_s for n in range(3)], abs=0.5)


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.webm", "libopus")])
async def test_containers_of_every_day(
    decoder: Listening, vad: VadPool, speech: Speech, tmp_path: Path, name: str, codec: str
) -> None:
    path = encoded(tmp_path / name, speech.samples(), codec)
    transcript = await recorder(decoder, vad).transcribe(path, RecordingOptions())
    assert word_errors(speech.text, text_of(transcript.channels[0])) <= 0.1
    assert transcript.duration_s == pytest.approx(speech.duration_s, abs=0.2)


async def test_a_live_final_waits_for_no_more_than_the_piece_of_a_recording_that_runs(
    decoder: Listening, vad: VadPool, speeches: dict[str, Speech], tmp_path: Path
) -> None:
    samples, said = joined(list(speeches.values()) * 3, pause_s=0.5)
    path = write_wav(tmp_path / "long.wav", [samples])
    begun = asyncio.Event()
    work = asyncio.create_task(
        recorder(decoder, vad).transcribe(path, RecordingOptions(), on_progress=lambda _: begun.set())
    )
    await begun.wait()
    speech = speeches["alice-awb"]
    live = []
    while not work.done() and len(live) < 4:
        window = Window("live", Kind.FINAL, speech.samples(), 0, "en")
        live.append(await decoder.inner.decode(window))
    transcript = await work
    longest_s = max(hypothesis.compute_s for hypothesis in decoder.recorded)
    assert live
    assert all(hypothesis.queued_s <= longest_s for hypothesis in live)
    # Once somebody speaks, one of the two slots is theirs.
    assert all(hypothesis.queued_s <= longest_s / 4 for hypothesis in live[1:])
    for hypothesis in live:
        assert word_errors(speech.text, "".join(word.text for word in hypothesis.words)) <= 0.1
    assert word_errors(said, text_of(transcript.channels[0])) <= 0.08


async def test_another_language_is_heard_and_translated(vad: VadPool, speech_data: SpeechData, model_dir: Path) -> None:
    try:
        files = resolve("base", model_dir=model_dir, fetch=False)
    except ModelError:
        pytest.skip("needs the model `base`")
    speech = next(item for item in speech_data.select(language="de-DE") if item.duration_s > 5)
    engine = open_engine(Settings(model="base"), files, Metrics())
    await engine.start()
    try:
        subject = recorder(engine, vad)
        heard = (await subject.transcribe(speech.path, RecordingOptions())).channels[0]
        english = (await subject.transcribe(speech.path, RecordingOptions(task=Task.TRANSLATE))).channels[0]
    finally:
        await engine.close()
    assert heard.language == english.language == "de"
    assert heard.language_probability is not None
    assert heard.language_probability > 0.9
    german = set(text_of(heard).lower().split())
    translated = text_of(english).lower().split()
    assert {"the", "of", "and", "to", "in", "a", "is", "was"} & set(translated), translated
    assert np.mean([word in german for word in translated]) < 0.4
