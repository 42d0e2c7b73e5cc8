"""Ways in which the decoder's policy could be chosen otherwise, each as what would change in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from unittest.mock import patch

from benchmarks.stack import CountingDecoder
from mediaserver.decoder import scheduler, stabilizer, whisper
from mediaserver.decoder.revising import in_order
from mediaserver.decoder.stabilizer import Stabilizer, View
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Replaced, Window
from mediaserver.session import utterance


@dataclass(frozen=True, slots=True)
class Change:
    """`name` of a module or class is to be `value`."""

    owner: Any
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class Variant:
    """What is otherwise than as shipped.

    Args:
        changes: constants, classes and methods.
        settings: of the server.
        session: what clients ask for.
    """

    changes: Sequence[Change] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def applied(changes: Sequence[Change]) -> Iterator[None]:
    """Make the changes, and undo them at the end, whatever happens.

    Raises:
        AttributeError: there is nothing of that name to change; nothing is then left changed.
    """
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(patch.object(change.owner, change.name, change.value))
        yield


class StableOnly(Stabilizer):
    """LocalAgreement-2 alone: nothing is shown before two hypotheses agree on it."""

    def update(self, words: Sequence[HypothesisWord], *, window_start_s: float, audio_end_s: float) -> View:
        """As the shipped one, without what is unstable."""
        view = super().update(words, window_start_s=window_start_s, audio_end_s=audio_end_s)
        return View(view.stable, [])


class AlignAtt(Stabilizer):
    """Words are stable at once if the alignment puts them far enough from the audio's end (after Papi et al. 2023)."""

    EDGE_S = 0.3

    def update(self, words: Sequence[HypothesisWord], *, window_start_s: float, audio_end_s: float) -> View:
        """As the shipped one, which agrees on words; what ends before the edge needs no second hypothesis."""
        view = super().update(words, window_start_s=window_start_s, audio_end_s=audio_end_s)
        clear = list(takewhile(lambda word: word.end <= audio_end_s - self.EDGE_S, self._previous))
        self._stable.extend(in_order(clear, floor_s=self._end_s))
        self._previous = self._previous[len(clear) :]
        return View(list(self._stable), in_order(view.unstable[len(clear) :], floor_s=self._end_s))


class FarAlignAtt(AlignAtt):
    """The same with an edge that fewer words change beyond."""

    EDGE_S = 0.5


def _stabilized_by(kind: type[Stabilizer]) -> Variant:
    return Variant([Change(utterance, "Stabilizer", kind)])


def _context(**constants: float) -> Variant:
    return Variant([Change(whisper, name, value) for name, value in constants.items()])


def _window(longest_s: float, kept_s: float) -> Variant:
    return Variant([Change(utterance, "INTERIM_WINDOW_S", longest_s), Change(utterance, "INTERIM_KEEP_S", kept_s)])


_decode = CountingDecoder.decode


async def _decode_no_speculation(decoder: CountingDecoder, window: Window) -> Hypothesis:
    """As an engine that never comes to decode a pause before its end."""
    if window.kind is Kind.SPECULATIVE:
        raise Replaced
    return await _decode(decoder, window)


AS_SHIPPED = "as shipped"

VARIANTS: dict[str, Variant] = {
    AS_SHIPPED: Variant(),
    "context floor 3 s": _context(CONTEXT_FLOOR_S=3.0),
    "context floor 6 s": _context(CONTEXT_FLOOR_S=6.0),
    "interim margin 0.5 s": _context(INTERIM_MARGIN_S=0.5),
    "interim margin 2 s": _context(INTERIM_MARGIN_S=2.0),
    "interim window 5/2 s": _window(5.0, 2.0),
    "interim window 8/3 s": _window(8.0, 3.0),
    "interim period 400 ms": Variant(settings={"interim_period_ms": 400}),
    "interim period 800 ms": Variant(settings={"interim_period_ms": 800}),
    "interim period 1200 ms": Variant(settings={"interim_period_ms": 1200}),
    "no speculative finals": Variant([Change(CountingDecoder, "decode", _decode_no_speculation)]),
    "stable words only": _stabilized_by(StableOnly),
    "everything at once": Variant([Change(stabilizer, name, 0.0) for name in ("HOLD_S", "DOUBTFUL", "UNHEARD")]),
    "AlignAtt 0.3 s": _stabilized_by(AlignAtt),
    "AlignAtt 0.5 s": _stabilized_by(FarAlignAtt),
    "no gathering ahead": Variant([Change(scheduler, "AHEAD_S", 0.0)]),
    "length ratio 1.5": Variant([Change(scheduler, "LENGTH_RATIO", 1.5)]),
    "no revisions": Variant(session={"revisions": False}),
}
"""By what a table calls them."""
