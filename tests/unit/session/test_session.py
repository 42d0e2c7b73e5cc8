"""One speaker's stream from samples to events; the VAD and the decoder are scripted at their seams."""

from __future__ import annotations

import asyncio
import gc
import weakref

import numpy as np
import pytest

from mediaserver.decoder.window import Hypothesis
from mediaserver.events import Final, Interim, Metadata
from tests.unit.session.scripted import ScriptedDecoder, Stream, say_two_utterances


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


async def test_a_noise_that_has_no_words_is_never_told() -> None:
    decoder = ScriptedDecoder()
    decoder.outcome = lambda window: Hypothesis(rejected="no_speech")
    stream = Stream(decoder=decoder)
    await stream.speak(1.0)
    await stream.pause(1.0)
    assert not stream.sink.of(Interim)
    assert not stream.sink.of(Final)


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
    stream.vad.deliver = None  # a real stream lets go of a closed session
    gc.disable()  # nor does it take a search
    try:
        del stream.session
        assert held() is None
    finally:
        gc.enable()


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
