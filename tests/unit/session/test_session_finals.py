"""Finals: when they come, what they hold, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from structlog.testing import capture_logs

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.events import Event, Failed, Final, Finalized, Interim, UtteranceBegan, UtteranceSettled, Warned
from mediaserver.session.resumption import MOVED
from tests.unit.session.scripted import FRAME_S, ScriptedDecoder, ScriptedVad, Stream, half_second_words, raising

GIVEN_UP = "finals given up"


def given_up(lines: Sequence[Mapping[str, object]]) -> list[object]:
    """How many finals the log says that were given up, each time."""
    return [line["waiting"] for line in lines if line["event"] == GIVEN_UP]


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


async def test_words_that_a_final_does_not_find_are_taken_back() -> None:
    decoder = ScriptedDecoder()
    decoder.outcome = lambda w: half_second_words(w) if w.kind.is_interim else Hypothesis()
    stream = Stream(decoder=decoder)
    await stream.speak(2.0)
    await stream.pause(1.0)
    assert stream.sink.of(Interim)
    assert stream.sink.of(Final)[0].transcript == ""


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


async def spoken_to_a_decoder_that_hangs() -> tuple[Stream, asyncio.Event]:
    """Two seconds of speech, and what lets their decodes go on."""
    decoder = ScriptedDecoder()
    decoder.gate = asyncio.Event()
    stream = Stream(decoder=decoder)
    await stream.speak(2.0)
    return stream, decoder.gate


async def test_finals_that_do_not_come_are_given_up_at_the_deadline_and_told() -> None:
    stream, _ = await spoken_to_a_decoder_that_hangs()
    stream.session.finalize()
    await stream.speak(2.0)
    with capture_logs() as lines:
        await stream.session.close("shutdown", deadline_s=0.05)
    assert [event.error["code"] for event in stream.sink.of(Warned)] == ["FINAL_LOST"]
    assert given_up(lines) == [2]
    assert stream.sink.types[-1] == "closed"


async def test_what_a_late_vad_has_not_heard_is_given_up_as_well() -> None:
    vad = ScriptedVad(held=True)
    stream = Stream(vad=vad)
    await stream.speak(2.0)
    with capture_logs() as lines:
        await stream.session.close("shutdown", deadline_s=0.05)
    assert [event.error["code"] for event in stream.sink.of(Warned)] == ["FINAL_LOST"]
    assert [(line["waiting"], line["unjudged_s"]) for line in lines if line["event"] == GIVEN_UP] == [(0, 2.0)]


async def test_nothing_is_given_up_where_the_last_final_comes_with_the_deadline() -> None:
    stream, gate = await spoken_to_a_decoder_that_hangs()
    with capture_logs() as lines:
        closing = asyncio.create_task(stream.session.close("client"))
        await stream.pause(0.02)
        hurrying = asyncio.create_task(stream.session.close("shutdown", deadline_s=0.0))  # its turn comes first
        gate.set()
        await asyncio.gather(closing, hurrying)
    assert len(stream.sink.of(Final)) == 1
    assert stream.sink.of(Warned) == []
    assert given_up(lines) == []


async def test_nothing_is_given_up_of_a_session_that_goes_on_elsewhere() -> None:
    stream, _ = await spoken_to_a_decoder_that_hangs()
    with capture_logs() as lines:
        await stream.session.close(MOVED, deadline_s=0.05)
    assert stream.sink.of(Warned) == []
    assert given_up(lines) == []
    assert stream.sink.types[-1] == "closed"
