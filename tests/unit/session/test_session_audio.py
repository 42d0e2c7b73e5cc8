"""What a session keeps of what it hears, and what it does when more comes than can be decoded."""

from __future__ import annotations

import asyncio

import numpy as np

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind
from mediaserver.events import Event, Final, Warned
from mediaserver.ingest.bytestream import AudioFormat, Encoding
from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from mediaserver.session import Session, Sink
from mediaserver.session.channels import Channels
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from tests.unit.session.scripted import ScriptedDecoder, ScriptedVad, Stream


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


async def test_a_vad_that_is_far_behind_costs_words_and_not_the_session() -> None:
    vad = ScriptedVad(held=True)
    stream = Stream(vad=vad, max_utterance_s=5.0)
    await stream.speak(2.0)
    await stream.pause(60.0)  # the speech is overwritten before it is judged
    vad.judge()
    await stream.session.close("client")
    assert [event.error["code"] for event in stream.sink.of(Warned)] == ["FINAL_LOST"]
    assert stream.sink.types[-1] == "closed"


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
