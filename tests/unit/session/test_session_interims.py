"""What is told while somebody speaks: text that only grows, windows that stay short, nothing of silence."""

from __future__ import annotations

import itertools

import numpy as np

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.decoder.window import Hypothesis, Kind, Replaced, Window
from mediaserver.events import Failed, Final, Interim
from mediaserver.session.interims import FIRST_SPEECH_MS, OFFER_MS
from mediaserver.session_config import SessionConfig
from tests.unit.session.scripted import ScriptedDecoder, Stream, half_second_words


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


async def test_interims_can_be_switched_off() -> None:
    stream = Stream(config=SessionConfig(interim_results=False))
    await stream.speak(2.0)
    await stream.pause(1.0)
    assert not stream.sink.of(Interim)
    assert stream.sink.of(Final)


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
