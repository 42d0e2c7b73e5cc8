"""When a client is told that an utterance is over: with its final, or once enough time has passed since its last word.

Sans-IO: finals and stream positions go in, and the only time is the stream's.
"""

from __future__ import annotations

from collections.abc import Callable

from mediaserver.audio.clock import seconds
from mediaserver.session.passage import Said


class UtteranceEnds:
    """The `utterance_end` events of one session.

    Without a gap each utterance that ends in a silence gets one, right after its final. With one, somebody has to have
    said nothing for so long, measured from the end of the last word: a pause in which an utterance ends and the speaker
    goes on gets none, and the event names the last utterance before the gap. Each last word is told of once.

    Args:
        tell: sends the event for an utterance that has words.
    """

    def __init__(self, tell: Callable[[Said], None]) -> None:
        self._tell = tell
        self._open: Said | None = None  # said, and the gap after it has not passed yet
        self.gap_ms: int | None = None
        """Stream time after the last word; None: with the final. Holds from the next call."""

    def final(self, said: Said, *, has_stopped: bool) -> None:
        """An utterance's final has been sent.

        Args:
            said: an utterance without words neither opens a gap nor ends one.
            has_stopped: whether it ended with a silence, not with a cut.
        """
        if not said.words:
            return
        if self.gap_ms is None:
            self._open = None
            if has_stopped:
                self._tell(said)
            return
        if self._open is not None and self._is_gap_until(said.words[0].start):
            self._tell(self._open)
        self._open = said

    def passed(self, position_samples: int, *, speech_sample: int | None, is_awaited: bool) -> None:
        """The stream has been heard up to a position.

        Args:
            position_samples: stream position.
            speech_sample: where the utterance that runs began to speak; None where none runs.
            is_awaited: whether a final is still to come: its words decide.
        """
        if self._open is None or is_awaited:
            return
        until = position_samples if speech_sample is None else speech_sample
        if self._is_gap_until(seconds(until)):
            self.flush()

    def flush(self) -> None:
        """Nothing more will be said."""
        if self._open is not None:
            self._tell(self._open)
            self._open = None

    def _is_gap_until(self, end_s: float) -> bool:
        last_word_end_s = self._open.words[-1].end if self._open is not None else end_s
        return end_s - last_word_end_s >= (self.gap_ms or 0) / 1000
