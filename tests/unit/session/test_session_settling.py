"""What was said is heard once more, together, and corrected."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mediaserver.decoder.window import Hypothesis, Kind, Window
from mediaserver.events import Failed, Final, Revision, Warned
from mediaserver.session_config import SessionConfig
from tests.unit.session.scripted import ScriptedDecoder, Stream, half_second_words, say_two_utterances


def misheard(window: Window) -> Hypothesis:
    """Says `x2` for `w2` unless it hears everything at once."""
    hypothesis = half_second_words(window)
    if window.kind is Kind.REVISION:
        return hypothesis
    words = [replace(word, text=" x2", probability=0.5) if word.text == " w2" else word for word in hypothesis.words]
    return replace(hypothesis, words=words)


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
