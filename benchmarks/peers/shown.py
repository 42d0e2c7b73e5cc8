"""What a client's screen showed when, brought to the events that `benchmarks.screen` scores.

The servers cut speech into segments, lines or utterances, each in its own way. So that they are compared by one
measure, a stream is one text here: all that the client has on screen. Words are timed by the yardstick
(`benchmarks.peers.spoken`), not by the servers, which say of words either nothing or each something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.screen import Seen
from mediaserver.events import Final, Interim, Word

STREAM = 1
"""The number of the one utterance that a stream is."""


@dataclass(frozen=True, slots=True)
class Text:
    """What a message made the screen say.

    Args:
        shown: all text on screen.
        settled: the part of it that the server calls final, for good.
    """

    shown: str
    settled: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A text, and since when it was there: `perf_counter` seconds."""

    at_s: float
    text: Text


def as_seen(texts: Sequence[tuple[float, str]], *, words: Sequence[Word], ended_at_s: float) -> list[Seen]:
    """The texts of one stream as events: an interim for each that differs from the one before, and the last as final.

    Args:
        texts: each with its time, seconds after the first sample was spoken, in order.
        words: what was said and when: the places of words in the stream.
        ended_at_s: when the client stopped listening.
    """
    seen: list[Seen] = []
    last = ""
    for at_s, text in texts:
        if text != last:
            seen.append(Seen(at_s, Interim(STREAM, text, "", 0.0, 0.0, 0.0, at_s, [])))
            last = text
    end_s = words[-1].end if words else 0.0
    seen.append(Seen(ended_at_s, Final(STREAM, last, 0.0, 0.0, end_s, ended_at_s, None, None, list(words))))
    return seen
