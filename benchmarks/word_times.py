"""Where words lie on the stream's clock: against an alignment of the whole recording, in order, inside the audio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.screen import kept, tokens
from mediaserver.events import Event, Final, Interim, Revision, Word

ROUNDING_S = 1e-6
"""Sums of floats; a millisecond, the wire's resolution, is a thousand times this."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """How far a word's ends lie from those of the same word in another alignment: ours − theirs, in seconds."""

    start_s: float
    end_s: float


def boundaries(ours: Sequence[Word], theirs: Sequence[Word]) -> list[Boundary]:
    """The differences of all words that both have; the others have no place to be compared."""
    ours, theirs = ([word for word in words if tokens(word.word)] for words in (ours, theirs))
    # A word by its first token: one that a hyphen ties ("post-mortem") is two for `tokens`, and has one place.
    pairs = kept([tokens(word.word)[0] for word in ours], [tokens(word.word)[0] for word in theirs])
    return [Boundary(ours[i].start - theirs[j].start, ours[i].end - theirs[j].end) for i, j in pairs]


def misplaced(events: Iterable[Event]) -> list[str]:
    """Words that lie before the one before them, or outside of the audio that had come when they were sent; none must.

    Each event's words are looked at, and at the end those that remain of all utterances together.
    """
    found: list[str] = []
    last: dict[int, Sequence[Word]] = {}
    for event in events:
        if not isinstance(event, Interim | Final | Revision):
            continue
        found += _out_of_order(event.words)
        found += [
            f"{word.word} ends at {word.end:.3f} s of {event.timestamp:.3f} s"
            for word in event.words
            if word.end > event.timestamp + ROUNDING_S
        ]
        if not isinstance(event, Interim):
            last[event.utterance_id] = event.words
    inner = sum(len(_out_of_order(words)) for words in last.values())
    whole = _out_of_order([word for number in sorted(last) for word in last[number]])
    return found + (whole if len(whole) > inner else [])


def _out_of_order(words: Sequence[Word]) -> list[str]:
    before_s = 0.0
    found = []
    for word in words:
        if word.start < before_s - ROUNDING_S or word.end < word.start - ROUNDING_S:
            found.append(f"{word.word} from {word.start:.3f} to {word.end:.3f} s after {before_s:.3f} s")
        before_s = word.end
    return found
