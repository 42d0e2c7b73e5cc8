"""What becomes of finals: told at once and corrected later, or held until they have settled."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.decoder.confidence import RAW
from mediaserver.decoder.language import LanguageTracker
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.events import Event, Final, Revision, UtteranceEnd
from mediaserver.session.hearing import Hearing
from mediaserver.session.passage import Said
from mediaserver.session.reporter import Reporter
from mediaserver.session.settling import Settling
from mediaserver.session.utterance_end import UtteranceEnds

HOLD_MS = 1200


@dataclass
class JoinedDecoder:
    """Hears every word as it was said, but `x` as `y`; fails or waits where told to."""

    model_name: str = "scripted"
    languages: tuple[str, ...] = ("en",)
    said: list[HypothesisWord] = field(default_factory=list)
    fault: Exception | None = None
    gate: asyncio.Event | None = None
    windows: list[Window] = field(default_factory=list)

    async def decode(self, window: Window) -> Hypothesis:
        self.windows.append(window)
        heard = list(self.said)
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return Hypothesis(words=[HypothesisWord(w.text.replace("x", "y"), w.start, w.end, 0.99) for w in heard])

    def withdraw(self, session_id: str) -> None:
        """Nothing waits here."""


class Scene:
    """A settling with what it told."""

    def __init__(self, *, hold_ms: int | None = HOLD_MS) -> None:
        self.events: list[Event] = []
        self.decoder = JoinedDecoder()
        reporter = Reporter(self, stream_time_s=lambda: 0.0, calibration=RAW, min_confidence=0.0)
        hearing = Hearing("s", capacity_samples=SAMPLE_RATE * 60, languages=LanguageTracker(("en",)))
        hearing.receive(np.zeros(SAMPLE_RATE * 40, dtype=np.float32))
        self.settling = Settling(
            hearing=hearing, decoder=self.decoder, reporter=reporter, ends=UtteranceEnds(reporter.utterance_end)
        )
        self.settling.hold_ms = hold_ms

    def send(self, event: Event, seq: int) -> None:
        self.events.append(event)

    def say(self, number: int, text: str) -> None:
        """An utterance of one word that lasts its own second."""
        word = HypothesisWord(f" {text}", number + 0.1, number + 0.8, 0.3)
        self.decoder.said.append(word)
        first, last = number * SAMPLE_RATE, (number + 1) * SAMPLE_RATE
        said = Said(number, first, first, last, last, (word,), "en")
        self.settling.final(said, Hypothesis(words=[word]), has_stopped=True)

    @property
    def finals(self) -> list[tuple[int, str]]:
        return [(e.utterance_id, e.transcript) for e in self.events if isinstance(e, Final)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


async def test_finals_are_told_at_once_and_revised_where_revisions_are_known() -> None:
    scene = Scene(hold_ms=None)
    scene.say(1, "a")
    scene.say(2, "x")
    assert scene.finals == [(1, "a"), (2, "x")]
    await scene.settling.settle(timeout_s=5)
    assert [(e.utterance_id, e.transcript) for e in scene.events if isinstance(e, Revision)] == [(2, "y")]


async def test_held_finals_come_settled_in_order_and_are_never_revised(no_leaked_tasks: None) -> None:
    scene = Scene()
    scene.say(1, "a")
    scene.say(2, "x")
    assert not scene.events
    assert scene.settling.is_holding
    scene.settling.settle_if_due(30 * SAMPLE_RATE, is_speaking=False)
    await scene.until(lambda: not scene.settling.is_holding)
    assert scene.finals == [(1, "a"), (2, "y")]
    assert [type(event) for event in scene.events] == [Final, UtteranceEnd] * 2
    await scene.settling.settle(timeout_s=5)
    assert len(scene.events) == 4


async def test_what_is_held_is_told_in_time_however_long_somebody_speaks() -> None:
    scene = Scene()
    scene.say(1, "a")
    scene.say(2, "x")
    started_s = asyncio.get_running_loop().time()
    await scene.until(lambda: bool(scene.events))
    assert asyncio.get_running_loop().time() - started_s <= HOLD_MS / 1000
    assert scene.finals == [(1, "a"), (2, "y")]


@pytest.mark.parametrize("fault", ["slow", "failed"])
async def test_a_decode_that_does_not_come_leaves_what_was_final(fault: str) -> None:
    scene = Scene()
    scene.decoder.gate = asyncio.Event() if fault == "slow" else None
    scene.decoder.fault = VoiceForgeError("DECODE_FAILED", "It failed.", "Go on.") if fault == "failed" else None
    scene.say(1, "a")
    scene.say(2, "x")
    await scene.until(lambda: bool(scene.events))
    assert scene.finals == [(1, "a"), (2, "x")]


async def test_what_is_said_while_the_passage_before_it_is_decoded_settles_on_its_own() -> None:
    scene = Scene()
    scene.decoder.gate = asyncio.Event()
    scene.say(1, "a")
    scene.say(2, "x")
    scene.settling.settle_if_due(30 * SAMPLE_RATE, is_speaking=False)
    await scene.until(lambda: bool(scene.decoder.windows))
    scene.say(5, "b")
    scene.decoder.gate.set()
    await scene.until(lambda: bool(scene.events))
    assert scene.finals == [(1, "a"), (2, "y")]
    await scene.until(lambda: not scene.settling.is_holding)
    assert scene.finals[-1] == (5, "b")


async def test_the_end_tells_what_is_held(no_leaked_tasks: None) -> None:
    scene = Scene()
    scene.decoder.gate = asyncio.Event()
    scene.say(1, "a")
    scene.say(2, "x")
    await scene.settling.settle(timeout_s=0.01)
    assert scene.finals == [(1, "a"), (2, "x")]


async def test_who_stops_asking_for_settled_finals_still_gets_those_that_are_held_first() -> None:
    scene = Scene()
    scene.say(1, "a")
    scene.settling.hold_ms = None
    scene.say(2, "b")
    await scene.settling.settle(timeout_s=5)
    assert scene.finals == [(1, "a"), (2, "b")]
