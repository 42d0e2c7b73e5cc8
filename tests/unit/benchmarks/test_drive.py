"""Playing scripts: pace, order, clocks and costs, with sessions that answer by script."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus import Recording
from benchmarks.drive import PUSH_SAMPLES, Sink, play, rush
from benchmarks.job import broken_promises
from benchmarks.screen import final_text, score_stream
from benchmarks.scripts import GAP_MAX_S, GAP_MIN_S, LEAD_S, TAIL_S, Script, join, room, speakers
from benchmarks.stack import CountingDecoder
from mediaserver.audio.clock import SAMPLE_RATE, Samples, samples_in, seconds
from mediaserver.decoder.window import Hypothesis, Kind, Replaced, Window
from mediaserver.errors import ConfigError
from mediaserver.events import Final, Interim, Metadata, SpeechStarted, SpeechStopped, Word

SAID = [Word("hello", 0.1, 0.3, 0.9), Word("world", 0.35, 0.5, 0.9)]


class ScriptedSession:
    """Says "hello" once it has 0.4 s, ends speech at 0.6 s, and answers with a final `think_s` later."""

    def __init__(self, sink: Sink, *, think_s: float = 0.0) -> None:
        self.pushed: list[Samples] = []
        self.at_once = 0
        self.thinking = False
        self._sink = sink
        self._think_s = think_s
        self._seq = 0
        self._final: asyncio.Task[None] | None = None

    @property
    def received(self) -> int:
        return sum(len(samples) for samples in self.pushed)

    def start(self) -> None:
        self._say(SpeechStarted(0.1))

    def push(self, samples: Samples, *, concealed: int = 0) -> None:
        before, now = self.received, self.received + len(samples)
        self.pushed.append(samples)
        if before < samples_in(s=0.4) <= now:
            self._say(Interim(1, "hello", "", 0.9, 0.1, 0.3, 0.4, SAID[:1]))
        if before < samples_in(s=0.6) <= now:
            self._say(SpeechStopped(0.5))
            self.thinking = True
            self._final = asyncio.create_task(self._finish())

    async def _finish(self) -> None:
        await asyncio.sleep(self._think_s)
        self.thinking = False
        self._say(Final(1, "hello world", 0.9, 0.1, 0.4, 0.6, "en", None, SAID))

    async def close(self, reason: str, *, deadline_s: float = 10.0) -> None:
        if self._final is not None:
            await self._final
        self._say(Metadata(seconds(self.received), 0.4, 1, 0.0, "fake"))

    def _say(self, event: object) -> None:
        self._sink.send(event, self._seq)  # type: ignore[arg-type]
        self._seq += 1


def ramp(name: str, duration_s: float) -> Script:
    return Script(name, np.arange(samples_in(s=duration_s), dtype=np.float32))


async def test_audio_is_played_whole_in_order_and_in_real_time() -> None:
    sessions: dict[str, ScriptedSession] = {}
    arrivals: list[float] = []

    class Timed(ScriptedSession):
        def push(self, samples: Samples, *, concealed: int = 0) -> None:
            arrivals.append(time.perf_counter())
            super().push(samples)

    def open_session(name: str, sink: Sink) -> ScriptedSession:
        return sessions.setdefault(name, Timed(sink))

    script = ramp("one", 0.81)
    drive = await play([script], open_session)
    session = sessions["one"]
    assert np.array_equal(np.concatenate(session.pushed), script.samples)
    assert {len(samples) for samples in session.pushed[:-1]} == {PUSH_SAMPLES}
    # 41 pushes: 0.80 s between the first and the last; nothing may come early, lateness is the machine's.
    assert arrivals[-1] - arrivals[0] >= 0.78
    assert drive.load.audio_s == pytest.approx(0.81)
    assert drive.load.wall_s >= 0.81
    assert drive.takes[0].received_s == pytest.approx(0.81)


async def test_events_are_timed_from_when_the_first_sample_was_spoken() -> None:
    drive = await play([ramp("one", 0.8)], lambda name, sink: ScriptedSession(sink, think_s=0.05))
    score = score_stream(drive.takes[0].seen)
    late_s = drive.load.push_late_max_s + 0.05
    # "hello" ends at 0.3 and is shown with the push that ends at 0.4; the final comes 0.05 s after the one at 0.6.
    assert 0.1 <= score.word_s[0] <= 0.1 + late_s
    assert 0.15 <= score.word_s[1] <= 0.15 + late_s
    assert 0.15 <= score.final_s[0] <= 0.15 + late_s
    assert 0.3 <= score.first_text_s[0] <= 0.3 + late_s
    assert broken_promises(drive, label="test") == []


async def test_speakers_run_at_once_each_on_a_clock_of_its_own() -> None:
    began_s = time.perf_counter()
    drive = await play([ramp(str(k), 0.7) for k in range(3)], lambda name, sink: ScriptedSession(sink))
    assert time.perf_counter() - began_s < 3 * 0.7 + 0.5
    assert [take.script.name for take in drive.takes] == ["0", "1", "2"]
    for take in drive.takes:
        assert final_text(take.seen) == "hello world"
        assert score_stream(take.seen).word_s[0] >= 0.1


async def test_a_late_push_does_not_delay_the_next() -> None:
    class Blocking(ScriptedSession):
        def push(self, samples: Samples, *, concealed: int = 0) -> None:
            super().push(samples)
            if len(self.pushed) == 5:
                time.sleep(0.15)

    began_s = time.perf_counter()
    drive = await play([ramp("one", 0.8)], lambda name, sink: Blocking(sink))
    assert drive.load.push_late_max_s >= 0.12
    assert time.perf_counter() - began_s < 0.8 + 0.15


async def test_lost_audio_is_a_broken_promise() -> None:
    class Deaf(ScriptedSession):
        def push(self, samples: Samples, *, concealed: int = 0) -> None:
            if len(self.pushed) < 30:
                super().push(samples)

    drive = await play([ramp("one", 0.8)], lambda name, sink: Deaf(sink))
    assert "lost audio" in broken_promises(drive, label="test")[0]


async def test_the_fast_mode_waits_for_finals_and_bounds_what_runs_at_once() -> None:
    sessions: dict[str, ScriptedSession] = {}
    received_while_thinking: list[int] = []

    class Watched(ScriptedSession):
        def push(self, samples: Samples, *, concealed: int = 0) -> None:
            if self.thinking:
                received_while_thinking.append(len(samples))
            super().push(samples)

    def open_session(name: str, sink: Sink) -> ScriptedSession:
        sessions[name] = Watched(sink, think_s=0.05)
        return sessions[name]

    done: list[str] = []
    began_s = time.perf_counter()
    drive = await rush(
        [ramp(str(k), 2.0) for k in range(4)],
        open_session,
        busy=lambda name: sessions[name].thinking,
        at_once=2,
        on_done=lambda take: done.append(take.script.name),
    )
    assert time.perf_counter() - began_s < 8.0
    assert sorted(done) == ["0", "1", "2", "3"]
    assert received_while_thinking == []
    assert [final_text(take.seen) for take in drive.takes] == ["hello world"] * 4


class SlowDecoder:
    model_name = "fake"
    languages = ("en",)

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def decode(self, window: Window) -> Hypothesis:
        await self.go.wait()
        if window.kind is Kind.INTERIM:
            raise Replaced
        return Hypothesis()


async def test_the_counting_decoder_knows_whose_final_is_outstanding() -> None:
    inner = SlowDecoder()
    decoder = CountingDecoder(inner)

    def window(session_id: str, kind: Kind) -> Window:
        return Window(session_id, kind, np.zeros(160, dtype=np.float32), 0)

    tasks = [
        asyncio.create_task(decoder.decode(window("a", Kind.FINAL))),
        asyncio.create_task(decoder.decode(window("b", Kind.INTERIM))),
    ]
    await asyncio.sleep(0)
    assert decoder.busy("a")
    assert not decoder.busy("b")
    inner.go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert not decoder.busy("a")
    assert isinstance(outcomes[1], Replaced)
    assert decoder.decoded == {"final": 1, "replaced": 1}


def recordings(speeches: dict[str, object]) -> list[Recording]:
    return [
        Recording(folder=item.path.parent, path=item.path.name, duration_s=item.duration_s, text=item.text)  # type: ignore[attr-defined]
        for item in speeches.values()
    ]


def test_a_script_knows_what_is_said_when(speeches: dict[str, object]) -> None:
    chosen = recordings(speeches)
    script = join("one", chosen, seed=1)
    assert [item.recording for item in script.said] == chosen
    assert script.said[0].start_s == pytest.approx(LEAD_S)
    assert script.duration_s - script.said[-1].end_s == pytest.approx(TAIL_S)
    for before, after in zip(script.said, script.said[1:], strict=False):
        assert GAP_MIN_S - 0.001 <= after.start_s - before.end_s <= GAP_MAX_S
    for item in script.said:
        part = script.samples[round(item.start_s * SAMPLE_RATE) : round(item.end_s * SAMPLE_RATE)]
        assert np.array_equal(part, item.recording.read())
    assert np.array_equal(join("again", chosen, seed=1).samples, script.samples)


def test_speakers_are_dealt_distinct_speech(speeches: dict[str, object]) -> None:
    scripts = speakers(recordings(speeches), 3, seconds_each=5.0)
    firsts = [script.said[0].recording.path for script in scripts]
    assert len(set(firsts)) == 3
    assert all(script.said_s >= 4.0 for script in scripts)
    with pytest.raises(ConfigError):
        speakers([], 1, seconds_each=5.0)


def test_room_noise_has_its_level() -> None:
    noise = room(SAMPLE_RATE, np.random.default_rng(0), dbfs=-40.0)
    assert noise.dtype == np.float32
    assert 20 * np.log10(np.sqrt(np.mean(noise.astype(np.float64) ** 2))) == pytest.approx(-40.0, abs=0.1)


def test_nothing_of_this_needs_a_folder(tmp_path: Path) -> None:
    assert room(0, np.random.default_rng(0)).shape == (0,)
