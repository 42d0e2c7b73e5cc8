"""What of one channel is final and what is not, cut as the vendor cuts it (sans-IO).

Finals follow one another without gap or overlap: each begins where the one before it ended. An interim tells all that
is not final yet, from there on, of however many utterances.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mediaserver.events import Final, Interim, Word

SAME_S = 0.002
"""Two times this near are one: a sample is 0.06 ms, and nothing else happens within 2 ms."""

FINALIZES_MAX = 64
"""Finalizes that are being carried out; of more the first is answered by the next."""

STOPS_MAX = 64
"""Ends of utterances whose finals are still to come; a session keeps half as many waiting."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a channel: seconds of the stream, and what was heard there."""

    start: float
    end: float
    transcript: str = ""
    confidence: float = 0.0
    words: tuple[Word, ...] = ()
    language: str | None = None
    is_final: bool = True
    speech_final: bool = False
    from_finalize: bool = False


class Span:
    """One channel."""

    def __init__(self) -> None:
        self._told_s = 0.0  # up to here everything is final
        self._last_final = 0
        self._open: dict[int, Interim] = {}  # bound: utterances whose finals are to come, `STOPS_MAX`
        self._stops: deque[float] = deque(maxlen=STOPS_MAX)
        self._finalizes: deque[float] = deque(maxlen=FINALIZES_MAX)
        self._held: Piece | None = None

    def stopped(self, at_s: float) -> None:
        """Speech ended, with a silence or by a finalize; its final will end there."""
        self._stops.append(at_s)

    def interim(self, event: Interim) -> Piece | None:
        """All that is not final, with what is new; None where its utterance is final already, or while a final before
        it waits to be told: it would begin where nothing ends yet.
        """
        if event.utterance_id <= self._last_final:
            return None
        self._open[event.utterance_id] = event
        if self._held is not None:
            return None
        if len(self._open) > STOPS_MAX:
            del self._open[next(iter(self._open))]
        shown = [self._open[number] for number in sorted(self._open)]
        return Piece(
            start=self._told_s,
            end=max(self._told_s, *(item.start + item.duration for item in shown)),
            transcript=" ".join(item.transcript for item in shown if item.transcript),
            confidence=event.confidence
            if len(shown) == 1
            else _mean(word.confidence for i in shown for word in i.words),
            words=self._within(word for item in shown for word in item.words),
            is_final=False,
        )

    def final(self, event: Final) -> list[Piece]:
        """What a final comes to. While a finalize is carried out the newest waits: it may be its answer."""
        self._last_final = event.utterance_id
        self._open = {number: item for number, item in self._open.items() if number > event.utterance_id}
        end = event.start + event.duration
        has_stopped = any(abs(stop - end) < SAME_S for stop in self._stops)
        self._stops = deque((stop for stop in self._stops if stop > end + SAME_S), maxlen=STOPS_MAX)
        words = self._within(event.words)
        piece = Piece(
            start=self._told_s,
            end=max(self._told_s, end, words[-1].end if words else 0.0),
            transcript=event.transcript,
            confidence=event.confidence,
            words=words,
            language=event.language,
            speech_final=has_stopped,
        )
        self._told_s = piece.end
        if not self._finalizes:
            return [piece]
        before, self._held = self._held, piece
        return [before] if before is not None else []

    def finalize(self, at_s: float) -> None:
        """The client wants everything up to here to be final; asked again at once, it is answered once."""
        if not self._finalizes or self._finalizes[-1] < at_s:
            self._finalizes.append(at_s)

    def finalized(self) -> Piece | None:
        """That has been done: what answers the finalize, without words where there were none; None if none asked."""
        if not self._finalizes:
            return None
        until_s = self._finalizes.popleft()
        piece, self._held = self._held, None
        if piece is None:
            piece = Piece(self._told_s, max(self._told_s, until_s), from_finalize=True)
        else:
            piece = replace(piece, end=max(piece.end, until_s), from_finalize=True)
        self._told_s = piece.end
        return piece

    def rest(self, end_s: float) -> list[Piece]:
        """The audio is over: what is still to be told, up to its end."""
        pieces = [] if self._held is None else [self._held]
        self._held = None
        if end_s - self._told_s > SAME_S:
            pieces.append(Piece(self._told_s, end_s))
            self._told_s = end_s
        return pieces

    def _within(self, words: Iterable[Word]) -> tuple[Word, ...]:
        """No word begins before what is final ends: utterances share the audio between them."""
        return tuple(
            word if word.start >= self._told_s else replace(word, start=self._told_s, end=max(word.end, self._told_s))
            for word in words
        )


def _mean(values: Iterable[float]) -> float:
    kept: Sequence[float] = list(values)
    return sum(kept) / len(kept) if kept else 0.0
