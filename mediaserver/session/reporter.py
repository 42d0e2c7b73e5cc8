"""What a session tells its client: events in order, and the one place where words become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mediaserver.audio.clock import seconds
from mediaserver.decoder.confidence import Calibration, Curve, text_confidence, told_words
from mediaserver.decoder.window import Hypothesis, HypothesisWord
from mediaserver.decoder.words import text_of
from mediaserver.errors import VoiceForgeError
from mediaserver.events import Event, Failed, Final, Interim, Revision, UtteranceEnd, Warned, Word
from mediaserver.session.passage import Said
from mediaserver.session.utterance import Utterance


class Sink(Protocol):
    """Where a session's events go: one for each protocol."""

    def send(self, event: Event, seq: int) -> None:
        """Take an event. Never blocks and never raises; an event that is `droppable` may be left out."""
        ...


class Reporter:
    """Numbers the events of one session and hands them to its sink.

    Args:
        sink: where events go.
        stream_time_s: the stream's clock.
        calibration: what makes a confidence of a word's probability.
        min_confidence: words below it are marked.
    """

    def __init__(
        self, sink: Sink, *, stream_time_s: Callable[[], float], calibration: Calibration, min_confidence: float
    ) -> None:
        self._sink = sink
        self._stream_time_s = stream_time_s
        self._calibration = calibration
        self.min_confidence = min_confidence
        self._seq = 0  # counts events, sent or left out: a client sees a gap

    def close(self) -> None:
        """All has been told: what comes now, nobody hears."""
        self._sink = _Nobody()

    def emit(self, event: Event) -> None:
        """Send an event."""
        self._sink.send(event, self._seq)
        self._seq += 1

    def warn(self, error: VoiceForgeError) -> None:
        """Tell the client of something that does not end the session."""
        self.emit(Warned(error=error.as_dict()))

    def fail(self, error: VoiceForgeError) -> None:
        """Tell the client of a request that failed."""
        self.emit(Failed(error=error.as_dict()))

    def interim(self, utterance: Utterance, *, end_sample: int) -> None:
        """What an utterance's view is now, heard up to `end_sample`."""
        view = utterance.view
        heard = [*view.stable, *view.unstable]
        words = self._words(heard, self._calibration.interim)
        self.emit(
            Interim(
                utterance_id=utterance.number,
                transcript=text_of(heard),
                stable=text_of(view.stable),
                confidence=text_confidence([word.confidence for word in words]),
                start=seconds(utterance.speech_sample),
                duration=seconds(end_sample - utterance.speech_sample),
                timestamp=self._stream_time_s(),
                words=words,
            )
        )

    def final(self, said: Said, hypothesis: Hypothesis) -> None:
        """An utterance's final."""
        words = self._words(said.words, self._calibration.final)
        self.emit(
            Final(
                utterance_id=said.number,
                transcript=text_of(said.words),
                confidence=text_confidence([word.confidence for word in words]),
                start=seconds(said.speech_sample),
                duration=seconds(said.speech_end_sample - said.speech_sample),
                timestamp=self._stream_time_s(),
                language=hypothesis.language,
                language_confidence=hypothesis.language_probability,
                words=words,
            )
        )

    def utterance_end(self, said: Said) -> None:
        """The speaker has stopped after an utterance; nothing where it had no words."""
        if said.words:
            self.emit(UtteranceEnd(utterance_id=said.number, last_word_end=said.words[-1].end))

    def revision(self, said: Said) -> None:
        """What an utterance's final should have been."""
        words = self._words(said.words, self._calibration.final)
        self.emit(
            Revision(
                utterance_id=said.number,
                transcript=text_of(said.words),
                confidence=text_confidence([word.confidence for word in words]),
                start=seconds(said.speech_sample),
                duration=seconds(said.speech_end_sample - said.speech_sample),
                timestamp=self._stream_time_s(),
                words=words,
            )
        )

    def _words(self, heard: Sequence[HypothesisWord], curve: Curve) -> list[Word]:
        return told_words(heard, curve, min_confidence=self.min_confidence)


class _Nobody:
    """Hears what comes after the end."""

    def send(self, event: Event, seq: int) -> None:
        """Leave it out."""
