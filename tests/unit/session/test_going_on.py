"""Sessions that go on where another process had them: numbers, times and words without a seam."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE
from mediaserver.audio.endpoint import Endpointer, EndpointerConfig, Started
from mediaserver.events import Event, Final, Metadata, Ready
from mediaserver.ingest.bytestream import AudioFormat, Encoding, byte_at, open_audio
from mediaserver.ingest.gap import Gap
from mediaserver.metrics import Metrics
from mediaserver.session import Session
from mediaserver.session.channels import Channels
from mediaserver.session.holding import Holding
from mediaserver.session.reporter import Sink
from mediaserver.session.resumption import START, GoingOn, Position
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from tests.unit.session.scripted import ScriptedDecoder, ScriptedVad

SPEECH, SILENCE = 0.9, 0.05


class Told:
    """An outlet that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int, Event]] = []

    def send(self, event: Event, seq: int, channel: int) -> None:
        self.events.append((seq, channel, event))

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for _, _, event in self.events if isinstance(event, kind)]


class Line:
    """Channels with scripted neighbours."""

    def __init__(self, count: int = 1, going_on: GoingOn | None = None, decoder: ScriptedDecoder | None = None) -> None:
        self.told = Told()
        self.metrics = Metrics()
        self.decoder = decoder or ScriptedDecoder()
        self.channels = Channels(self._session, outlet=self.told, count=count, going_on=going_on)

    def _session(self, sink: Sink, start: Position = START) -> Session:
        return Session(
            session_id="s1",
            config=SessionConfig(),
            settings=Settings(),
            decoder=self.decoder,
            vad=ScriptedVad(),  # type: ignore[arg-type]
            metrics=self.metrics,
            sink=sink,
            start=start,
        )

    async def hear(self, *runs: tuple[float, bool]) -> None:
        """Seconds, and whether somebody speaks, in all channels."""
        for length_s, loud in runs:
            for _ in range(round(length_s / 0.02)):
                self.channels.push(np.full((self.channels.count, 320), 0.5 if loud else 0.0, np.float32))
                await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)

    def audio_s(self) -> float:
        kinds = ({"kind": kind} for kind in ("speech", "silence"))
        return sum(
            self.metrics.registry.get_sample_value("voiceforge_audio_seconds_total", kind) or 0.0 for kind in kinds
        )


async def test_a_session_goes_on_with_its_numbers_and_times() -> None:
    whole, first = Line(), Line()
    whole.channels.start()
    first.channels.start()
    for line in (whole, first):
        await line.hear((1.0, False), (2.0, True), (1.0, False), (1.0, True))  # in the middle of the second utterance
    (position,) = first.channels.positions
    assert position.utterances == 1
    assert 3.0 * SAMPLE_RATE < position.sample <= 4.0 * SAMPLE_RATE
    assert position.sample % FRAME_SAMPLES == 0
    heard = first.channels.received_samples(0)

    second = Line(going_on=GoingOn(first.channels.seq, first.channels.positions))
    second.channels.go_on(after=first.channels.seq - 1)
    assert second.channels.stream_time_s == position.sample / SAMPLE_RATE
    again = np.zeros((1, heard), np.float32)  # what the client sends again: all from the settled sample on
    again[:, int(1.0 * SAMPLE_RATE) : int(3.0 * SAMPLE_RATE)] = 0.5
    again[:, int(4.0 * SAMPLE_RATE) :] = 0.5
    second.channels.push(again[:, position.sample :])
    for line in (whole, second):
        await line.hear((1.0, True), (1.0, False))
        await line.channels.close("client")
    finals = [*first.told.of(Final), *second.told.of(Final)]
    assert [final.utterance_id for final in finals] == [1, 2]
    assert [final.transcript for final in finals] == [final.transcript for final in whole.told.of(Final)]
    assert [final.start for final in finals] == [final.start for final in whole.told.of(Final)]
    assert second.told.of(Ready) == []
    assert second.told.events[0][0] == first.channels.seq
    (totals,), (expected,) = second.told.of(Metadata), whole.told.of(Metadata)
    assert (totals.duration, totals.utterances) == (expected.duration, expected.utterances)
    assert totals.speech_duration == pytest.approx(expected.speech_duration, abs=0.01)
    await first.channels.close("client")
    counted = first.audio_s() + second.audio_s()
    assert counted == pytest.approx(whole.audio_s() + (heard - position.sample) / SAMPLE_RATE, abs=0.01)


async def test_an_utterance_whose_final_is_still_to_come_is_heard_again() -> None:
    decoder = ScriptedDecoder()
    decoder.gate = asyncio.Event()
    line = Line(decoder=decoder)
    line.channels.start()
    await line.hear((1.0, False), (2.0, True), (1.0, False), (2.0, True), (1.0, False))
    assert line.channels.positions[0].utterances == 0
    assert line.channels.positions[0].sample < 1.0 * SAMPLE_RATE
    assert not line.channels.is_settled
    decoder.gate.set()
    await line.channels.settle(deadline_s=5.0)
    assert line.channels.is_settled
    assert line.channels.positions[0].utterances == 2
    assert line.channels.positions[0].sample > 6.0 * SAMPLE_RATE
    await line.channels.close("client")


async def test_a_channel_that_is_further_hears_nothing_twice() -> None:
    ahead, behind = Position(sample=FRAME_SAMPLES * 40, utterances=3), Position(sample=FRAME_SAMPLES * 10)
    line = Line(2, GoingOn(9, (behind, ahead)))
    line.channels.push(np.zeros((2, FRAME_SAMPLES * 20), np.float32))
    assert [line.channels.received_samples(channel) for channel in (0, 1)] == [FRAME_SAMPLES * 30, FRAME_SAMPLES * 40]
    line.channels.push(np.zeros((2, FRAME_SAMPLES * 20), np.float32))
    assert [line.channels.received_samples(channel) for channel in (0, 1)] == [FRAME_SAMPLES * 50] * 2
    line.channels.go_on(after=-1)
    await line.channels.close("client")


async def test_a_client_that_knows_more_than_was_written_down_is_told_no_number_twice() -> None:
    line = Line(going_on=GoingOn(5, (START,)))
    line.channels.go_on(after=11)
    line.channels.tell(Ready({}, "m"))
    assert line.told.events[0][0] == 12
    await line.channels.close("client")


async def test_numbers_that_are_left_out_are_no_utterances() -> None:
    line = Line(going_on=GoingOn(5, (Position(FRAME_SAMPLES * 100, utterances=1002, left_out=1000),)))
    line.channels.go_on(after=4)
    await line.hear((1.0, False), (2.0, True), (1.0, False))
    assert line.channels.positions[0].left_out == 1000
    await line.channels.close("client")
    assert [final.utterance_id for final in line.told.of(Final)] == [1003]
    assert [totals.utterances for totals in line.told.of(Metadata)] == [3]


async def test_who_is_sealed_tells_nobody_but_goodbye() -> None:
    line = Line()
    line.channels.start()
    line.channels.is_sealed = True
    await line.channels.close("moved")
    assert [seq for seq, _, _ in line.told.events] == [0]
    line.channels.say_goodbye(Ready({}, "m"))
    assert [seq for seq, _, _ in line.told.events] == [0, 1]


async def test_what_is_withheld_for_another_process_that_does_not_come_is_told() -> None:
    line = Line()
    line.channels.start()
    line.channels.is_sealed = True
    line.channels.tell(Final(1, "word", 1.0, 0.0, 1.0, 1.0, "en", 1.0, []))
    line.channels.tell(Metadata(1.0, 1.0, 1, 0.0, "m"))
    line.channels.is_sealed = False
    line.channels.is_sealed = False
    assert [(seq, event.type) for seq, _, event in line.told.events] == [(0, "ready"), (1, "final"), (2, "metadata")]
    await line.channels.close("shutdown")
    assert [seq for seq, _, _ in line.told.events] == [0, 1, 2, 3, 4]


def test_an_endpointer_begins_anywhere_and_says_what_is_settled() -> None:
    config = EndpointerConfig(threshold=0.5, pre_roll_ms=320, min_speech_ms=256)
    endpointer = Endpointer(config, start_sample=FRAME_SAMPLES * 100)
    assert endpointer.settled_sample == FRAME_SAMPLES * 100
    for _ in range(20):
        endpointer.feed(SILENCE)
    assert endpointer.settled_sample == FRAME_SAMPLES * 110
    for _ in range(4):  # a word perhaps
        endpointer.feed(SPEECH)
    assert endpointer.settled_sample == FRAME_SAMPLES * 110
    edges = [edge for _ in range(4) for edge in endpointer.feed(SPEECH)]
    assert edges == [Started(FRAME_SAMPLES * 110, FRAME_SAMPLES * 120)]
    assert endpointer.settled_sample == FRAME_SAMPLES * 110


@pytest.mark.parametrize(
    ("encoding", "rate", "channels", "width"),
    [
        (Encoding.LINEAR16, 16_000, 1, 2),
        (Encoding.LINEAR16, 44_100, 2, 2),
        (Encoding.LINEAR32, 48_000, 1, 4),
        (Encoding.FLOAT32, 8000, 1, 4),
        (Encoding.MULAW, None, 1, 1),
        (Encoding.ALAW, 8000, 2, 1),
    ],
)
def test_a_stream_is_taken_up_at_the_byte_of_a_sample(
    encoding: Encoding, rate: int | None, channels: int, width: int
) -> None:
    audio_format = AudioFormat(encoding, rate, channels)
    sample = FRAME_SAMPLES * 77
    byte = byte_at(audio_format, sample)
    assert byte is not None
    frame = width * channels
    assert byte % frame == 0
    assert byte / frame * SAMPLE_RATE / (rate or 8000) == pytest.approx(sample, abs=2)
    # What comes out from there is as much as what would have come out of the rest.
    audio = open_audio(audio_format)
    seconds_of = 2 * (rate or 8000) * frame
    assert audio.feed(bytes(seconds_of)[: audio.slice_bytes]).shape[0] == 1
    audio.close()


@pytest.mark.parametrize("encoding", [None, Encoding.OPUS, Encoding.OGG_OPUS, Encoding.FLAC])
def test_what_has_no_rule_is_begun_anew(encoding: Encoding | None) -> None:
    assert byte_at(AudioFormat(encoding), 16_000) is None


async def test_a_gap_is_silence_in_step_with_wall_time() -> None:
    loop = asyncio.get_running_loop()
    line = Line(2)
    line.channels.start()
    line.channels.push_to(0, np.zeros(16_000, np.float32))
    gap = Gap(longest_s=30.0)
    assert not gap.is_open
    began_s = loop.time() - 7.25
    gap.begin(began_s)
    await gap.fill(line.channels)
    assert {line.channels.received_samples(channel) for channel in (0, 1)} == {8 * 16_000}
    ended_s = loop.time()
    gap.end(line.channels, ended_s)
    assert line.channels.received_samples(0) == line.channels.received_samples(1)
    assert line.channels.stream_time_s == pytest.approx(1.0 + ended_s - began_s, abs=0.01)
    gap.end(line.channels, ended_s + 5)
    assert line.channels.stream_time_s == pytest.approx(1.0 + ended_s - began_s, abs=0.01)
    gap.begin(None)  # nothing was ever heard: the stream begins with its first packet
    assert not gap.is_open
    await line.channels.close("client")


async def test_a_gap_is_no_longer_than_it_may_be() -> None:
    line = Line()
    line.channels.start()
    gap = Gap(longest_s=3.5)
    gap.begin(asyncio.get_running_loop().time() - 100)
    await gap.fill(line.channels)
    gap.end(line.channels, asyncio.get_running_loop().time())
    assert line.channels.stream_time_s == pytest.approx(3.5, abs=0.01)
    await line.channels.close("client")


async def test_a_client_is_waited_for_once_and_only_where_there_is_a_window() -> None:
    metrics, expired = Metrics(), asyncio.Event()
    never = Holding(window_s=0, door="x", metrics=metrics, on_expired=expired.set)
    assert not never.lost()
    holding = Holding(window_s=0.05, door="x", metrics=metrics, on_expired=expired.set)
    assert holding.lost()
    assert holding.lost()  # still
    assert holding.is_held
    assert holding.back() < 0.05
    assert not holding.is_held
    await asyncio.sleep(0.1)
    assert not expired.is_set()
    assert holding.lost()
    await asyncio.wait_for(expired.wait(), 5)
    assert not holding.lost()  # it is over
    assert metrics.registry.get_sample_value("voiceforge_connections_lost_total", {"door": "x"}) == 2
