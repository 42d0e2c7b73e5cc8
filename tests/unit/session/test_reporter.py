"""What a client is told of words: how sure they are, and which are marked."""

import json
from dataclasses import dataclass, field

import pytest

from mediaserver.decoder.confidence import Calibration, Curve
from mediaserver.decoder.window import Hypothesis, HypothesisWord
from mediaserver.events import Event, Final, Interim, Revision, to_json
from mediaserver.session.passage import Said
from mediaserver.session.reporter import Reporter
from mediaserver.session.utterance import Utterance

HALVED = Curve(((0.0, 0.0), (1.0, 0.5)))
WORDS = (HypothesisWord(" sure", 0.0, 0.4, 0.9), HypothesisWord(" thing?", 0.5, 0.9, 0.3))


@dataclass
class Kept:
    events: list[Event] = field(default_factory=list)

    def send(self, event: Event, seq: int) -> None:
        self.events.append(event)


def told(min_confidence: float) -> list[Interim | Final | Revision]:
    """The same words as interim, final and revision."""
    sink = Kept()
    reporter = Reporter(
        sink,
        stream_time_s=lambda: 1.0,
        calibration=Calibration(final=HALVED, interim=Curve()),
        min_confidence=min_confidence,
    )
    utterance = Utterance(1, start_sample=0, speech_sample=0)
    for _ in range(2):  # two hypotheses on end make words stable
        utterance.heard(Hypothesis(words=list(WORDS)), window_start_sample=0, window_end_sample=32_000)
    said = Said(1, start_sample=0, speech_sample=0, speech_end_sample=16_000, end_sample=16_000, words=WORDS)
    reporter.interim(utterance, end_sample=16_000)
    reporter.final(said, Hypothesis())
    reporter.revision(said)
    return [event for event in sink.events if isinstance(event, Interim | Final | Revision)]


def test_words_leave_calibrated_by_the_curve_of_their_kind() -> None:
    interim, final, revision = told(0.5)
    assert [word.confidence for word in interim.words] == pytest.approx([0.9, 0.3])
    assert [word.confidence for word in final.words] == pytest.approx([0.45, 0.15])
    assert revision.words == final.words


def test_a_texts_confidence_is_that_of_its_words() -> None:
    for event in told(0.5):
        assert event.confidence == pytest.approx(sum(word.confidence for word in event.words) / 2)


def test_words_below_the_threshold_are_marked_and_stay_in_the_text() -> None:
    interim, final, revision = told(0.4)
    assert [word.low_confidence for word in interim.words] == [False, True]
    assert [word.low_confidence for word in final.words] == [False, True]
    assert [word.low_confidence for word in revision.words] == [False, True]
    assert {event.transcript for event in (interim, final, revision)} == {"sure thing?"}


def test_a_threshold_of_zero_marks_nothing_and_of_one_everything() -> None:
    assert not any(word.low_confidence for event in told(0.0) for word in event.words)
    assert all(word.low_confidence for event in told(1.0) for word in event.words)


def test_the_mark_is_on_the_wire() -> None:
    body = json.loads(to_json(told(0.4)[1], session_id="s", seq=0))
    assert [(word["confidence"], word["low_confidence"]) for word in body["words"]] == [(0.45, False), (0.15, True)]
