"""One speaker's stream from samples to events; the VAD and the decoder are scripted at their seams."""

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pytest

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE, Samples
from mediaserver.audio.vad import Verdict
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Replaced, Window
from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.events import (
    Event,
    Failed,
    Final,
    Finalized,
    Interim,
    Metadata,
    Pong,
    Ready,
    Revision,
    UtteranceBegan,
    UtteranceSettled,
    Warned,
)
from mediaserver.ingest.bytestream import AudioFormat, Encoding
from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from mediaserver.session import Session, Sink
from mediaserver.session.channels import Channels
from mediaserver.session.interims import FIRST_SPEECH_MS, OFFER_MS
from mediaserver.session.messages import handle_message
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

    def open(self, deliver: Callable[[Verdict], None], *, denoiser: object = None) -> "ScriptedVad":
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


async def test_an_utterance_gives_started_interims_stopped_final_and_end() -> None:
    stream = Stream()
    await stream.speak(2.0)
    await stream.pause(1.0)
    await stream.session.close("client")
    types = stream.sink.types
    order = ["ready", "speech_started", "interim", "speech_stopped", "final", "utterance_end", "metadata", "closed"]
    assert list(dict.fromkeys(types)) == order
    assert stream.sink.seqs == list(range(len(types)))


async def test_silence_is_never_decoded() -> None:
    stream = Stream()
    await stream.pause(30.0)
    await stream.session.close("client")
    assert stream.decoder.windows == []
    assert stream.sink.types == ["ready", "metadata", "closed"]


async def test_stable_text_only_grows_and_the_final_has_all_words() -> None:
    stream = Stream()
    await stream.speak(4.0)
    await stream.pause(1.0)
    await stream.session.close("client")
    stable = [event.stable for event in stream.sink.of(Interim)]
    assert all(after.startswith(before) for before, after in itertools.pairwise(stable))
    assert stable[-1] != ""
    assert stream.sink.of(Final)[0].transcript.split()[:8] == [f"w{n}" for n in range(8)]


async def test_a_pause_is_not_decoded_again_and_again() -> None:
    stream = Stream(endpointing_ms=5000)
    await stream.speak(2.0)
    await stream.pause(0.5)
    asked = len(stream.decoder.windows)
    await stream.pause(3.0)
    assert len(stream.decoder.windows) == asked


async def test_events_carry_stream_time() -> None:
    stream = Stream()
    await stream.pause(10.0)
    await stream.speak(2.0)
    await stream.pause(1.0)
    final = stream.sink.of(Final)[0]
    assert final.start == pytest.approx(10.0, abs=0.05)
    assert final.duration == pytest.approx(2.0, abs=0.1)
    assert final.timestamp == pytest.approx(12.5, abs=0.1)
    assert stream.session.stream_time_s == pytest.approx(13.0)


async def test_finalize_ends_the_utterance_at_once() -> None:
    stream = Stream()
    await stream.speak(2.0)
    stream.session.finalize()
    await stream.pause(0.02)
    assert stream.sink.of(Final)


async def test_finalize_waits_for_the_vad_to_hear_what_was_pushed_before_it() -> None:
    vad = ScriptedVad(held=True)
    stream = Stream(vad=vad)
    await stream.speak(2.0)
    stream.session.finalize()
    await asyncio.sleep(0)
    assert not stream.sink.of(Final)
    vad.judge()
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(stream.sink.of(Final)[0].words) >= 4


async def test_finalize_is_done_once_its_final_has_been_told() -> None:
    stream = Stream()
    stream.session.on_finalized = lambda: done.append(len(stream.sink.of(Final)))
    done: list[int] = []
    stream.session.finalize()
    assert done == [0]  # nothing had been said
    await stream.speak(2.0)
    stream.decoder.gate = asyncio.Event()
    stream.session.finalize()
    await stream.pause(0.02)
    assert done == [0]
    stream.decoder.gate.set()
    await stream.pause(0.02)
    assert done == [0, 1]
    stream.decoder.outcome = lambda _window: raising(VoiceForgeError("ENGINE_DOWN", "It is down.", "Wait."))
    await stream.speak(2.0)
    stream.session.finalize()
    await stream.pause(0.02)
    assert done == [0, 1, 1]  # a final that does not come is waited for by nobody


async def test_whoever_asks_hears_where_utterances_begin_and_that_nothing_more_is_told_of_them() -> None:
    stream = Stream()
    inner: list[Event] = []
    stream.session.on_inner = inner.append
    stream.vad.held = True
    await stream.speak(1.0)
    stream.session.finalize()
    await stream.speak(1.0)
    stream.session.finalize()
    stream.session.finalize()  # nothing has come since: it is the same one
    stream.vad.judge()
    await stream.pause(0.02)
    # Each ends what came before it, though both were judged at once.
    assert [event.type for event in inner if not isinstance(event, UtteranceSettled)] == [
        "utterance_began",
        "finalized",
        "utterance_began",
        "finalized",
    ]
    assert [event.at for event in inner if isinstance(event, Finalized)] == [1.0, 2.0]
    assert [final.start for final in stream.sink.of(Final)] == pytest.approx([0.0, 1.0], abs=FRAME_S)
    assert [event.utterance_id for event in inner if isinstance(event, UtteranceSettled)] == [1, 2]
    stream.vad.held = False
    stream.decoder.outcome = lambda _window: Hypothesis()
    await stream.speak(1.0)
    stream.decoder.outcome = lambda _window: raising(VoiceForgeError("ENGINE_DOWN", "It is down.", "Wait."))
    stream.session.finalize()
    await stream.pause(0.02)
    settled = inner[-1]
    assert isinstance(settled, UtteranceSettled)
    assert settled.error is not None
    assert settled.error["code"] == "ENGINE_DOWN"


async def test_cut_speech_is_two_utterances_for_whoever_asks() -> None:
    stream = Stream(max_utterance_s=5.0)
    inner: list[Event] = []
    stream.session.on_inner = inner.append
    await stream.speak(8.0)
    await stream.session.close("client")
    began = [event.utterance_id for event in inner if isinstance(event, UtteranceBegan)]
    assert began == [1, 2]
    assert [event.utterance_id for event in inner if isinstance(event, UtteranceSettled)] == began


def raising(error: Exception) -> Hypothesis:
    raise error


async def test_the_last_word_is_not_lost_at_close() -> None:
    stream = Stream()
    await stream.speak(2.0)
    await stream.session.close("client")
    assert stream.sink.of(Final)[0].words[-1].end == pytest.approx(2.0, abs=0.05)
    assert stream.vad.closed


async def test_a_long_utterance_is_cut_between_words_and_goes_on() -> None:
    stream = Stream(max_utterance_s=5.0)
    await stream.speak(14.0)
    await stream.pause(1.0)
    await stream.session.close("client")
    finals = stream.sink.of(Final)
    assert len(finals) >= 3
    assert [final.utterance_id for final in finals] == sorted(final.utterance_id for final in finals)
    assert [word.word for final in finals for word in final.words] == [f"w{n}" for n in range(28)]
    windows = [w for w in stream.decoder.windows if w.kind is Kind.FINAL]
    ends = [w.start_sample + len(w.samples) for w in windows]
    assert [w.start_sample for w in windows[1:]] == ends[:-1]


async def test_interims_of_long_speech_keep_a_bounded_window() -> None:
    stream = Stream(max_utterance_s=28.0)
    await stream.speak(27.0)
    longest = max(w.duration_s for w in stream.decoder.windows if w.kind is not Kind.FINAL)
    assert longest <= 10.5
    texts = [event.transcript.split() for event in stream.sink.of(Interim)]
    assert texts[-1][:10] == [f"w{n}" for n in range(10)]
    assert len(texts[-1]) >= 50


async def test_the_newest_audio_is_offered_while_somebody_speaks() -> None:
    stream = Stream()
    await stream.speak(4.0)
    ends = [w.start_sample + len(w.samples) for w in stream.decoder.of(Kind.INTERIM)]
    steps = np.diff(ends) / SAMPLE_RATE
    assert len(ends) >= 30
    assert steps.min() >= OFFER_MS / 1000
    assert steps.max() <= OFFER_MS / 1000 + 0.04


async def test_nothing_is_decoded_before_a_word_can_have_been_said() -> None:
    stream = Stream()
    await stream.speak(FIRST_SPEECH_MS / 1000 - 0.04)
    assert not stream.decoder.windows
    await stream.speak(0.2)
    assert stream.decoder.of(Kind.FIRST_INTERIM)


async def test_a_pause_is_decoded_as_the_final_that_it_may_become() -> None:
    stream = Stream()
    await stream.speak(2.0)
    await stream.pause(1.0)
    assert len(stream.decoder.of(Kind.SPECULATIVE)) == 1
    assert not stream.decoder.of(Kind.FINAL)
    assert stream.decoder.withdrawn == 1
    assert stream.sink.of(Final)[0].transcript == "w0 w1 w2 w3"


@pytest.mark.parametrize("said", [" stella. Stella.", " old-" + "s-" * 30, ""])
async def test_a_speculation_that_ran_on_is_decoded_again_with_the_whole_pause(said: str) -> None:
    decoder = ScriptedDecoder()

    def outcome(window: Window) -> Hypothesis:
        if window.kind is not Kind.SPECULATIVE:
            return half_second_words(window)
        words = [HypothesisWord(f" {word}", 0.5 * n, 0.5 * n + 0.4, 0.9) for n, word in enumerate(said.split())]
        return Hypothesis(words=words, rejected=None if said else "no_speech")

    decoder.outcome = outcome
    stream = Stream(decoder=decoder)
    await stream.speak(2.0)
    await stream.pause(1.0)
    assert len(stream.decoder.of(Kind.FINAL)) == 1
    assert stream.sink.of(Final)[0].transcript == "w0 w1 w2 w3"


async def test_who_goes_on_after_a_pause_gets_a_final_of_everything() -> None:
    stream = Stream()
    await stream.speak(2.0)
    await stream.pause(0.4)
    await stream.speak(1.0)
    await stream.pause(1.0)
    first, second = stream.decoder.of(Kind.SPECULATIVE)
    assert len(first.samples) < len(second.samples)
    assert [final.transcript for final in stream.sink.of(Final)] == ["w0 w1 w2 w3 w4 w5 w6"]


async def test_what_is_pushed_ahead_of_the_vad_belongs_to_no_utterance_yet() -> None:
    vad = ScriptedVad(held=True)
    stream = Stream(vad=vad, endpointing_ms=300)
    for _ in range(3):  # faster than it was spoken: all of it is there before the first frame is judged
        await stream.speak(1.5)
        await stream.pause(0.5)
    frames = vad.waiting
    for frame in frames:
        vad.waiting = [frame]
        vad.judge()
        for _ in range(20):
            await asyncio.sleep(0)
    finals = [final.transcript.split() for final in stream.sink.of(Final)]
    assert len(finals) == 3
    words = [word for final in finals for word in final]
    assert len(words) == len(set(words)), finals  # none is told with the utterance before its own
    assert len(stream.decoder.of(Kind.SPECULATIVE)) == 3
    for window, end_s in zip(stream.decoder.of(Kind.SPECULATIVE), (2.0, 4.0, 6.0), strict=True):
        assert (window.start_sample + len(window.samples)) / SAMPLE_RATE <= end_s


async def test_a_cut_in_the_middle_of_speech_uses_no_older_pause() -> None:
    stream = Stream(max_utterance_s=5.0)
    await stream.speak(2.0)
    await stream.pause(0.4)
    await stream.speak(3.5)
    assert len(stream.decoder.of(Kind.SPECULATIVE)) == 1
    assert len(stream.decoder.of(Kind.FINAL)) == 1


@pytest.mark.parametrize("fault", [Replaced(), VoiceForgeError("DECODE_FAILED", "It failed.", "Go on.")])
async def test_a_speculation_that_comes_to_nothing_costs_no_final(fault: Exception) -> None:
    decoder = ScriptedDecoder()

    def outcome(window: Window) -> Hypothesis:
        if window.kind is Kind.SPECULATIVE:
            raise fault
        return half_second_words(window)

    decoder.outcome = outcome
    stream = Stream(decoder=decoder)
    await stream.speak(2.0)
    await stream.pause(1.0)
    assert not stream.sink.of(Failed)
    assert len(stream.decoder.of(Kind.FINAL)) == 1
    assert stream.sink.of(Final)[0].transcript == "w0 w1 w2 w3"


async def test_interims_can_be_switched_off() -> None:
    stream = Stream(config=SessionConfig(interim_results=False))
    await stream.speak(2.0)
    await stream.pause(1.0)
    assert not stream.sink.of(Interim)
    assert stream.sink.of(Final)


async def test_a_client_may_choose_how_much_is_kept_from_before_speech() -> None:
    for asked, kept_s in ((None, 0.3), (0, 0.0), (600, 0.6)):
        stream = Stream(config=SessionConfig(pre_roll_ms=asked))
        stream.session.start()
        assert stream.sink.of(Ready)[0].config["pre_roll_ms"] == round(kept_s * 1000)
        await stream.pause(1.0)
        await stream.speak(1.0)
        await stream.session.close("client")
        begins_s = stream.decoder.of(Kind.FINAL, Kind.SPECULATIVE)[-1].start_sample / SAMPLE_RATE
        assert begins_s == pytest.approx(1.0 - kept_s, abs=2 * FRAME_S)


async def test_without_vad_everything_is_speech_until_finalize() -> None:
    stream = Stream(config=SessionConfig(vad_enabled=False))
    await stream.pause(1.0)
    await stream.speak(0.1)
    await stream.pause(1.9)
    assert stream.sink.of(Interim)
    stream.session.finalize()
    await stream.pause(0.1)
    assert stream.sink.of(Final)[0].duration == pytest.approx(3.0, abs=0.1)


async def test_without_vad_nothing_is_decoded_until_something_is_like_speech() -> None:
    stream = Stream(config=SessionConfig(vad_enabled=False))
    stream.vad.quiet = 0.08
    await stream.pause(25.0)
    stream.session.finalize()
    await stream.pause(2.0)
    assert not stream.decoder.windows
    assert "warning" not in stream.sink.types
    stream.vad.quiet = 0.12
    await stream.pause(1.0)
    assert stream.sink.of(Interim)
    await stream.session.close("client")
    [final] = stream.sink.of(Final)
    assert final.duration == pytest.approx(3.0, abs=0.1)


async def test_a_word_before_the_utterance_was_noticed_is_decoded_without_vad() -> None:
    stream = Stream(config=SessionConfig(vad_enabled=False))
    await stream.speak(0.1)
    await stream.pause(1.0)
    stream.session.finalize()
    await stream.pause(0.1)
    assert stream.sink.of(Final)


async def test_a_threshold_below_what_is_like_speech_is_the_clients_choice() -> None:
    stream = Stream(config=SessionConfig(vad_threshold=0.04))
    stream.vad.quiet = 0.05
    await stream.pause(2.0)
    assert stream.sink.of(Interim)


async def test_a_noise_that_has_no_words_is_never_told() -> None:
    decoder = ScriptedDecoder()
    decoder.outcome = lambda window: Hypothesis(rejected="no_speech")
    stream = Stream(decoder=decoder)
    await stream.speak(1.0)
    await stream.pause(1.0)
    assert not stream.sink.of(Interim)
    assert not stream.sink.of(Final)


async def test_words_that_a_final_does_not_find_are_taken_back() -> None:
    decoder = ScriptedDecoder()
    decoder.outcome = lambda w: half_second_words(w) if w.kind.is_interim else Hypothesis()
    stream = Stream(decoder=decoder)
    await stream.speak(2.0)
    await stream.pause(1.0)
    assert stream.sink.of(Interim)
    assert stream.sink.of(Final)[0].transcript == ""


async def test_an_interim_that_gave_way_is_no_fault() -> None:
    decoder = ScriptedDecoder()

    def outcome(window: Window) -> Hypothesis:
        if window.kind is not Kind.FINAL:
            raise Replaced
        return half_second_words(window)

    decoder.outcome = outcome
    stream = Stream(decoder=decoder)
    await stream.speak(2.0)
    await stream.pause(1.0)
    assert not stream.sink.of(Failed)
    assert stream.sink.of(Final)


async def test_a_final_that_fails_is_told_and_the_session_goes_on() -> None:
    decoder = ScriptedDecoder()
    failed = []

    def outcome(window: Window) -> Hypothesis:
        if window.kind in (Kind.SPECULATIVE, Kind.FINAL) and len(failed) < 2:
            failed.append(window)
            raise VoiceForgeError("DECODE_FAILED", "It failed.", "Go on.")
        return half_second_words(window)

    decoder.outcome = outcome
    stream = Stream(decoder=decoder)
    for _ in range(2):
        await stream.speak(2.0)
        await stream.pause(1.0)
    assert [event.error["code"] for event in stream.sink.of(Failed)] == ["DECODE_FAILED"]
    assert len(stream.sink.of(Final)) == 1


async def test_finals_that_do_not_come_are_given_up_at_the_deadline_and_told() -> None:
    decoder = ScriptedDecoder()
    decoder.gate = asyncio.Event()
    stream = Stream(decoder=decoder)
    await stream.speak(2.0)
    await stream.session.close("shutdown", deadline_s=0.05)
    assert [event.error["code"] for event in stream.sink.of(Warned)] == ["FINAL_LOST"]
    assert stream.sink.types[-1] == "closed"


async def test_close_leaves_no_task_and_may_be_called_again(no_leaked_tasks: None) -> None:
    decoder = ScriptedDecoder()
    stream = Stream(decoder=decoder)
    await stream.speak(2.0)
    await asyncio.gather(stream.session.close("client"), stream.session.close("timeout"))
    stream.session.push(np.zeros(320, dtype=np.float32))
    assert stream.sink.types.count("closed") == 1
    assert stream.session.stream_time_s == pytest.approx(2.0)


async def test_nothing_keeps_a_closed_session_in_memory() -> None:
    stream = Stream()
    await say_two_utterances(stream)
    await stream.session.close("client")
    held = weakref.ref(stream.session)
    stream.vad.deliver = None  # the real pool forgets a closed stream
    del stream.session
    gc.collect()
    assert held() is None


async def test_what_is_pushed_is_what_is_decoded() -> None:
    decoder = ScriptedDecoder()
    stream = Stream(decoder=decoder)
    await stream.speak(1.0)
    await stream.pause(1.0)
    (final,) = decoder.of(Kind.SPECULATIVE)
    loud = np.abs(final.samples) > 0
    assert final.start_sample == 0
    assert loud[:16_000].all()
    assert not loud[16_000:].any()


def misheard(window: Window) -> Hypothesis:
    """Says `x2` for `w2` unless it hears everything at once."""
    hypothesis = half_second_words(window)
    if window.kind is Kind.REVISION:
        return hypothesis
    words = [replace(word, text=" x2", probability=0.5) if word.text == " w2" else word for word in hypothesis.words]
    return replace(hypothesis, words=words)


async def say_two_utterances(stream: Stream) -> None:
    for _ in range(2):
        await stream.speak(2.0)
        await stream.pause(1.0)


async def test_a_longer_silence_settles_what_was_said_and_tells_what_changed() -> None:
    decoder = ScriptedDecoder()
    decoder.outcome = misheard
    stream = Stream(decoder=decoder)
    await say_two_utterances(stream)
    assert not stream.sink.of(Revision)
    await stream.pause(2.0)
    revised = stream.sink.of(Revision)
    assert revised[0].utterance_id == 1
    assert revised[0].transcript.startswith("w0 w1 w2 w3")
    final = next(event for event in stream.sink.of(Final) if event.utterance_id == 1)
    assert (revised[0].start, revised[0].duration) == (final.start, final.duration)
    window = next(w for w in decoder.windows if w.kind is Kind.REVISION)
    assert window.start_sample == 0
    assert window.duration_s == pytest.approx(5.2, abs=0.2)


async def test_a_final_on_its_way_still_joins_its_passage() -> None:
    decoder = ScriptedDecoder()
    stream = Stream(decoder=decoder)
    await stream.speak(2.0)
    await stream.pause(1.0)
    await stream.speak(4.0)
    decoder.gate = asyncio.Event()
    await stream.pause(1.0)  # the second utterance is over, its final not there
    decoder.gate.set()
    await stream.pause(3.0)
    assert [w.start_sample for w in decoder.windows if w.kind is Kind.REVISION] == [0]


async def test_long_speech_is_settled_before_its_audio_is_forgotten() -> None:
    decoder = ScriptedDecoder()
    decoder.outcome = misheard
    stream = Stream(decoder=decoder)
    for _ in range(12):
        await stream.speak(3.0)
        await stream.pause(0.7)
    passages = [w for w in decoder.windows if w.kind is Kind.REVISION]
    assert len(passages) >= 2
    assert all(w.duration_s <= 20.5 for w in passages)


async def test_what_was_said_is_settled_at_the_close() -> None:
    decoder = ScriptedDecoder()
    decoder.outcome = misheard
    stream = Stream(decoder=decoder)
    await say_two_utterances(stream)
    await stream.session.close("client")
    assert stream.sink.of(Revision)
    assert stream.sink.types[-2:] == ["metadata", "closed"]


async def test_one_utterance_alone_is_not_decoded_again() -> None:
    stream = Stream()
    await stream.speak(2.0)
    await stream.pause(4.0)
    assert not [w for w in stream.decoder.windows if w.kind is Kind.REVISION]


async def test_revisions_can_be_switched_off() -> None:
    decoder = ScriptedDecoder()
    decoder.outcome = misheard
    stream = Stream(decoder=decoder, config=SessionConfig(revisions=False))
    await say_two_utterances(stream)
    await stream.pause(3.0)
    assert not stream.sink.of(Revision)


async def test_a_revision_that_waits_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaserver.session.settling.REVISION_WAIT_S", 0.01)
    decoder = ScriptedDecoder()
    stream = Stream(decoder=decoder)
    await say_two_utterances(stream)
    decoder.gate = asyncio.Event()
    await stream.pause(3.0)
    await asyncio.sleep(0.05)
    assert not stream.sink.of(Failed)
    await stream.session.close("client", deadline_s=0.5)
    assert not stream.sink.of(Warned)


async def test_a_revision_that_does_not_come_at_the_close_is_no_lost_final() -> None:
    decoder = ScriptedDecoder()
    stream = Stream(decoder=decoder)
    await say_two_utterances(stream)
    decoder.gate = asyncio.Event()
    await stream.session.close("shutdown", deadline_s=0.05)
    assert not stream.sink.of(Warned)
    assert stream.sink.types[-2:] == ["metadata", "closed"]


async def test_a_vad_that_is_far_behind_costs_words_and_not_the_session() -> None:
    vad = ScriptedVad(held=True)
    stream = Stream(vad=vad, max_utterance_s=5.0)
    await stream.speak(2.0)
    await stream.pause(60.0)  # the speech is overwritten before it is judged
    vad.judge()
    await stream.session.close("client")
    assert [event.error["code"] for event in stream.sink.of(Warned)] == ["FINAL_LOST"]
    assert stream.sink.types[-1] == "closed"


async def test_short_utterances_settle_with_all_their_audio() -> None:
    decoder = ScriptedDecoder()
    stream = Stream(decoder=decoder, max_utterance_s=5.0)
    for _ in range(8):
        await stream.speak(2.5)
        await stream.pause(0.7)
    passages = [w for w in decoder.windows if w.kind is Kind.REVISION]
    assert passages
    assert passages[0].start_sample == 0
    assert passages[0].duration_s > 15


async def test_a_suppressor_that_is_not_installed_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(kind: object) -> None:
        raise VoiceForgeError("DENOISER_NOT_INSTALLED", "It is not installed.", "Install it.")

    stream = Stream()
    before = stream.session.config
    monkeypatch.setattr("mediaserver.session.session.make_denoiser", missing)
    handle_message(stream.session, '{"type":"configure","config":{"denoise":"speex","endpointing_ms":200}}')
    assert stream.sink.of(Failed)[-1].error["code"] == "DENOISER_NOT_INSTALLED"
    assert stream.session.config == before
    assert len(stream.sink.of(Ready)) == 1


async def test_a_session_refuses_a_model_or_language_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="does not know 'fr'"):
        Stream(config=SessionConfig(language="fr"))
    with pytest.raises(ConfigError, match="has 'scripted' loaded"):
        Stream(config=SessionConfig(model="large-v3"))


# --- what a client may say


async def test_configure_takes_effect_and_is_confirmed() -> None:
    stream = Stream()
    handle_message(stream.session, '{"type":"configure","config":{"endpointing_ms":200,"interim_results":false}}')
    ready = stream.sink.of(Ready)[-1]
    assert ready.config["endpointing_ms"] == 200
    await stream.speak(1.0)
    await stream.pause(0.4)
    assert stream.sink.of(Final)
    assert not stream.sink.of(Interim)


async def test_the_threshold_of_marks_can_be_moved_while_somebody_speaks() -> None:
    stream = Stream(min_confidence=0.95)
    await stream.speak(1.0)
    handle_message(stream.session, '{"type":"configure","config":{"min_confidence":0.85}}')
    assert stream.sink.of(Ready)[-1].config["min_confidence"] == 0.85
    await stream.pause(1.0)
    assert all(word.low_confidence for word in stream.sink.of(Interim)[0].words)
    final = stream.sink.of(Final)[0]
    assert final.words
    assert not any(word.low_confidence for word in final.words)


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        ("not json", "MALFORMED_MESSAGE", "not JSON"),
        (b"\xff\xfe", "MALFORMED_MESSAGE", "not JSON"),
        ("[1]", "MALFORMED_MESSAGE", "not a JSON object"),
        ("[" * 100_000, "MALFORMED_MESSAGE", "not JSON"),
        ('{"type":"dance"}', "UNKNOWN_MESSAGE", "'dance'"),
        ("{}", "UNKNOWN_MESSAGE", "None"),
        ('{"type":"audio","data":""}', "AUDIO_BY_RTP", "RTP"),
        ('{"type":"configure"}', "INVALID_CONFIG", "not an object"),
        ('{"type":"configure","config":{"langage":"en"}}', "INVALID_CONFIG", "`langage`"),
        (
            '{"type":"configure","config":{"endpointing_ms":"soon","vad_enabled":"yes"}}',
            "INVALID_CONFIG",
            "`vad_enabled`",
        ),
        ('{"type":"configure","config":{"language":"xx"}}', "UNKNOWN_LANGUAGE", "'xx'"),
        ('{"type":"configure","config":{"min_confidence":1.5}}', "INVALID_CONFIG", "`min_confidence`"),
        ('{"type":"configure","config":{"min_confidence":NaN}}', "INVALID_CONFIG", "`min_confidence`"),
        ('{"type":"configure","config":{"min_confidence":"high"}}', "INVALID_CONFIG", "`min_confidence`"),
        ('{"type":"configure","config":{"min_confidence":true}}', "INVALID_CONFIG", "`min_confidence`"),
    ],
)
async def test_a_message_that_is_wrong_is_answered_by_an_error_that_names_it(
    message: str | bytes, code: str, says: str
) -> None:
    stream = Stream()
    before = stream.session.config
    handle_message(stream.session, message)
    error = stream.sink.of(Failed)[-1].error
    assert error["code"] == code
    assert says in str(error["message"])
    assert error["hint"]
    assert stream.session.config == before


async def test_keep_alive_is_answered_and_close_stream_is_passed_on() -> None:
    stream = Stream()
    asked = []
    stream.session.on_close_stream = lambda: asked.append(True)
    handle_message(stream.session, '{"type":"keep_alive"}')
    handle_message(stream.session, '{"type":"close_stream"}')
    assert stream.sink.of(Pong)
    assert asked == [True]


async def test_totals_are_told_at_the_end() -> None:
    stream = Stream()
    await stream.speak(2.0)
    stream.session.push(np.zeros(1600, dtype=np.float32), concealed=1600)
    await stream.pause(1.0)
    await stream.session.close("client")
    totals = stream.sink.of(Metadata)[0]
    assert totals.duration == pytest.approx(3.1, abs=0.05)
    assert totals.concealed_duration == pytest.approx(0.1)
    assert totals.utterances == 1


class Ear:
    """The outlet of a connection."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def send(self, event: Event, seq: int, channel: int) -> None:
        self.events.append(event)


def feed_of(decoder: ScriptedDecoder, ear: Ear, **config: object) -> Feed:
    """A connection whose audio comes as bytes."""

    def make_session(sink: Sink) -> Session:
        return Session(
            session_id="s1",
            config=SessionConfig(**config),
            settings=Settings(),
            decoder=decoder,
            vad=ScriptedVad(),  # type: ignore[arg-type]
            metrics=Metrics(),
            sink=sink,
        )

    return Feed(
        session_id="s1",
        audio_format=AudioFormat(Encoding.LINEAR16, SAMPLE_RATE),
        open_channels=lambda: Channels(make_session, outlet=ear),
        settings=Settings(),
        metrics=Metrics(),
    )


async def test_short_words_that_come_faster_than_they_are_decoded_are_all_told() -> None:
    """Seconds of audio alone would let more utterances wait than a session keeps."""
    decoder, ear = ScriptedDecoder(), Ear()
    decoder.gate = asyncio.Event()
    decoder.outcome = lambda _window: Hypothesis(words=[HypothesisWord(" yes", 0.0, 0.5, 0.9)], language="en")

    feed = feed_of(decoder, ear, endpointing_ms=100)
    word = np.concatenate((np.full(FRAME_SAMPLES * 16, 16_000), np.zeros(FRAME_SAMPLES * 5))).astype("<i2").tobytes()

    async def send() -> None:
        for _ in range(50):
            await feed.push(word)
        await feed.finish()

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.1)
    decoder.gate.set()
    await asyncio.wait_for(sending, 10.0)
    assert sum(isinstance(event, Final) for event in ear.events) == 50
    assert [event.error["code"] for event in ear.events if isinstance(event, Warned)] == ["AUDIO_AHEAD"]


async def test_a_server_that_stops_does_not_wait_for_the_end_of_a_stream() -> None:
    """A connection that is hearing its last finals is closed in order, with what has been decoded by then."""
    decoder, ear = ScriptedDecoder(), Ear()
    decoder.gate = asyncio.Event()
    feed = feed_of(decoder, ear)
    feed.channels.start()
    await feed.push(np.full(SAMPLE_RATE * 2, 16_000, "<i2").tobytes())
    finishing = asyncio.create_task(feed.finish())
    await asyncio.sleep(0.05)
    assert not feed.ended.is_set()
    await asyncio.wait_for(feed.close("shutdown", deadline_s=0.05), 2.0)
    await finishing
    assert [event.type for event in ear.events][-3:] == ["warning", "metadata", "closed"]


async def test_while_nobody_speaks_a_session_keeps_no_audio_that_no_utterance_will_take_in() -> None:
    stream = Stream()
    await stream.pause(35.0)
    held_s = stream.session._hearing._received.held_samples / SAMPLE_RATE
    assert held_s < 4.0
    await stream.speak(2.0)
    await stream.pause(1.0)
    await stream.session.close("client")
    (final,) = stream.decoder.of(Kind.FINAL, Kind.SPECULATIVE)[-1:]
    spoken = 35 * SAMPLE_RATE // FRAME_SAMPLES * FRAME_SAMPLES
    assert final.start_sample == spoken - Settings().pre_roll_ms * SAMPLE_RATE // 1000


async def test_what_may_be_decoded_once_more_is_kept_until_it_has_been() -> None:
    stream = Stream()
    for _ in range(2):
        await stream.speak(2.0)
        await stream.pause(1.0)
    assert stream.session._hearing._received.start_position == 0
    await stream.pause(8.0)
    assert stream.decoder.of(Kind.REVISION)
    assert stream.session._hearing._received.held_samples / SAMPLE_RATE < 4.0
    await stream.session.close("client")


async def test_broken_speech_that_counts_together_for_long_is_heard_from_its_beginning() -> None:
    stream = Stream(min_speech_ms=2000)
    await stream.pause(35.2)  # whole frames, so that each of what follows is one
    for _ in range(63):
        for loud in (True, False, False):
            stream.session.push(np.full(FRAME_SAMPLES, 0.5 if loud else 0.0, dtype=np.float32))
    await stream.session.close("client")
    (final,) = stream.decoder.of(Kind.FINAL)
    assert final.start_sample == 35.2 * SAMPLE_RATE - Settings().pre_roll_ms * SAMPLE_RATE // 1000
