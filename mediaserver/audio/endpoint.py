"""Speech probabilities to utterances: where each begins, where it ends, and where a long one may be cut.

Sans-IO: one probability a frame goes in, edges come out, and the only time is the number of frames fed. All positions
are samples on the stream's clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE, samples_in

HYSTERESIS = 0.15
"""Speech, once begun, lasts until the probability is this far below the threshold: what Silero's own iterator uses, so
that a vowel that fades does not end a word. Below a threshold of 0.3 it is half the threshold instead, for a bound at
or under zero would never be met and no utterance would end."""

CANDIDATE_GAP_MS = 128
"""A silence that is shorter than this does not break up a short burst: the closure of a stop ("six", "attic") lasts
50 to 100 ms, and the frames of both halves count together."""

POST_ROLL_MS = 200
"""Audio kept after the last speech frame, for weak final consonants lie just behind it. On read speech 0 to 200 ms gave
the same word errors and 400 ms more; what else the decoder needs in silence it adds for itself."""

ASK_MS = 200
"""Silence from which on it is asked whether somebody has finished: pauses within a phrase are shorter, and the model is
trained on longer ones."""

CUT_SEARCH_S = 5.0
"""A long utterance is cut at its quietest frame within these last seconds: about two clauses, so that there is a pause,
and late enough that the cut piece has its context."""

CUT_LEAD_FRAMES = 2
"""The model's probability goes on falling until a pause ends: the least probable frame is the last before speech. Over
700 such places in recordings, the two frames before it were as quiet, the one after it 6 dB louder."""

CUT_GRACE_S = 1.5
"""How long after `TooLong` the caller may take to `cut`. Then the utterance is ended here, so that the longest one that
can be configured (28 s) still fits the 30 s that Whisper sees."""


@dataclass(frozen=True, slots=True)
class TurnWaits:
    """How long a silence must be once it is known whether somebody has finished.

    The answer moves the end one way only: `complete_ms` never lengthens the wait, `incomplete_ms` never shortens it.
    """

    complete_ms: int = 300
    incomplete_ms: int = 1500


@dataclass(frozen=True, slots=True)
class EndpointerConfig:
    """What ends and begins an utterance.

    Args:
        threshold: probability from which a frame counts as speech.
        endpointing_ms: silence that ends an utterance, unless `turn_waits` and an answer say otherwise.
        pre_roll_ms: audio kept from before the first speech frame.
        min_speech_ms: speech that must be heard before an utterance starts; shorter bursts never become one.
        max_utterance_s: length at which `TooLong` is reported.
        turn_waits: each pause is told as `Paused` and its `turned` shortens or lengthens the wait; None: silence alone.
    """

    threshold: float = 0.5
    endpointing_ms: int = 500
    pre_roll_ms: int = 300
    min_speech_ms: int = 250
    max_utterance_s: float = 20.0
    turn_waits: TurnWaits | None = None

    @property
    def shortest_wait_ms(self) -> int:
        """The least silence that can end an utterance."""
        return min(self.endpointing_ms, self.turn_waits.complete_ms if self.turn_waits else self.endpointing_ms)


@dataclass(frozen=True, slots=True)
class Started:
    """An utterance began. `start_sample` includes the pre-roll; `speech_sample` begins the first speech frame."""

    start_sample: int
    speech_sample: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The utterance ended.

    `speech_end_sample` is the end of its last speech frame; `end_sample` is where its audio ends, a little later.
    `reason` is `silence`, `flush` (the caller asked) or `length` (`TooLong` was not answered by a cut).
    """

    end_sample: int
    speech_end_sample: int
    reason: Literal["silence", "flush", "length"]


@dataclass(frozen=True, slots=True)
class TooLong:
    """The utterance has reached `max_utterance_s`; `quietest_sample` is the best place to `cut` it. Told once each."""

    quietest_sample: int


@dataclass(frozen=True, slots=True)
class Paused:
    """Whoever speaks has paused: the time to ask whether they have finished. Told once each pause, with `turn_waits`.

    `start_sample` to `position_sample` is what has been said and the pause so far; `speech_end_sample` is where the
    pause began, and its name in `turned`.
    """

    start_sample: int
    speech_end_sample: int
    position_sample: int


Edge = Started | Ended | TooLong | Paused


class _Phase(Enum):
    SILENCE = auto()
    CANDIDATE = auto()  # speech, but not yet enough of it
    UTTERANCE = auto()


class Endpointer:
    """One stream's endpoints.

    `Started` and `Ended` alternate, positions never go back, and no utterance reaches into the one before it.

    Args:
        config: may be replaced at any time by setting `config`; it holds from the next frame.
        start_sample: where the stream begins, a whole number of frames.
    """

    def __init__(self, config: EndpointerConfig | None = None, *, start_sample: int = 0) -> None:
        self.config = config or EndpointerConfig()
        self._phase = _Phase.SILENCE
        self._frames = start_sample // FRAME_SAMPLES
        self._speech_frames = 0  # of the candidate
        self._speech_sample = 0  # where candidate or utterance began to speak
        self._start_sample = 0  # of the utterance, with pre-roll
        self._silence_sample: int | None = None  # where the silence that goes on now began
        self._asked_sample: int | None = None  # the silence that `Paused` was last told of
        self._is_complete: bool | None = None  # what `turned` said of it
        self._free_from = start_sample  # end of the last utterance: the next one's pre-roll stops here
        self._told_too_long = False
        # Bound: the search span; the oldest probability goes first.
        self._recent: deque[float] = deque(maxlen=round(CUT_SEARCH_S * SAMPLE_RATE / FRAME_SAMPLES))

    @property
    def position_samples(self) -> int:
        """Stream position up to which frames have been fed."""
        return self._frames * FRAME_SAMPLES

    @property
    def settled_sample(self) -> int:
        """Before it nobody speaks but in utterances that are over: who hears on from there misses nothing."""
        if self._phase is _Phase.UTTERANCE:
            return self._start_sample
        begin = self._speech_sample if self._phase is _Phase.CANDIDATE else self.position_samples
        return max(self._free_from, begin - samples_in(ms=self.config.pre_roll_ms))

    @property
    def in_utterance(self) -> bool:
        """Whether an utterance has started and not ended."""
        return self._phase is _Phase.UTTERANCE

    def feed(self, probability: float) -> list[Edge]:
        """Take the speech probability of the next frame; the edges that it makes certain, mostly none.

        Anything that is not a number counts as speech: words are worth more than silence.
        """
        frame_sample = self.position_samples
        self._frames += 1
        self._recent.append(probability)
        threshold = self.config.threshold
        is_silence = probability < max(threshold - HYSTERESIS, threshold / 2)
        is_speech = not probability < threshold
        if self._phase is _Phase.SILENCE:
            if not is_speech:
                return []
            self._phase = _Phase.CANDIDATE
            self._speech_frames = 0
            self._speech_sample = frame_sample
            self._silence_sample = None
        if is_speech:
            self._silence_sample = None
        elif is_silence and self._silence_sample is None:
            self._silence_sample = frame_sample
        if self._phase is _Phase.CANDIDATE:
            return self._candidate()
        return self._utterance()

    def flush(self) -> list[Edge]:
        """End what runs now. An utterance that has not started yet is given up: it is too short to be decoded."""
        edges = [self._end("flush")] if self._phase is _Phase.UTTERANCE else []
        self._phase = _Phase.SILENCE
        return list[Edge](edges)

    def turned(self, speech_end_sample: int, *, is_complete: bool) -> None:
        """Take the answer to a `Paused`; it holds from the next frame.

        An answer that comes when there is speech again, or when the utterance is over, changes nothing.
        """
        if self._phase is _Phase.UTTERANCE and speech_end_sample == self._silence_sample == self._asked_sample:
            self._is_complete = is_complete

    def cut(self, at_sample: int) -> None:
        """Let the utterance that runs end at `at_sample` and go on as a new one from there; no edges are made for this.

        `at_sample` is clipped to what the utterance has so far; without an utterance (it may have ended meanwhile)
        nothing happens.
        """
        if self._phase is _Phase.UTTERANCE:
            self._begin(min(max(at_sample, self._start_sample), self.position_samples))

    def _begin(self, start_sample: int) -> None:
        self._phase = _Phase.UTTERANCE
        self._start_sample = start_sample
        self._speech_sample = max(self._speech_sample, start_sample)
        self._told_too_long = False

    def _candidate(self) -> list[Edge]:
        if self._silence_sample is None:
            self._speech_frames += 1
        elif self.position_samples - self._silence_sample >= samples_in(ms=CANDIDATE_GAP_MS):
            self._phase = _Phase.SILENCE
            return []
        if self._speech_frames * FRAME_SAMPLES < samples_in(ms=self.config.min_speech_ms):
            return []
        self._begin(max(self._free_from, self._speech_sample - samples_in(ms=self.config.pre_roll_ms)))
        return [Started(self._start_sample, self._speech_sample)]

    def _utterance(self) -> list[Edge]:
        silent_samples = 0 if self._silence_sample is None else self.position_samples - self._silence_sample
        if silent_samples and silent_samples >= samples_in(ms=self._wait_ms()):
            return [self._end("silence")]
        length = self.position_samples - self._start_sample
        limit = samples_in(s=self.config.max_utterance_s)
        if length >= limit + samples_in(s=CUT_GRACE_S):
            return self._end_for_length()
        edges = list[Edge](self._paused(silent_samples))
        if length >= limit and not self._told_too_long:
            self._told_too_long = True
            edges.append(TooLong(self._quietest_sample()))
        return edges

    def _wait_ms(self) -> int:
        """The silence that ends the utterance now, as far as is known of this pause."""
        waits = self.config.turn_waits
        if waits is None or self._is_complete is None or self._asked_sample != self._silence_sample:
            return self.config.endpointing_ms
        if self._is_complete:
            return min(waits.complete_ms, self.config.endpointing_ms)
        return max(waits.incomplete_ms, self.config.endpointing_ms)

    def _paused(self, silent_samples: int) -> list[Paused]:
        silence = self._silence_sample
        if self.config.turn_waits is None or silence is None or silence == self._asked_sample:
            return []
        if silent_samples < samples_in(ms=ASK_MS):
            return []
        self._asked_sample, self._is_complete = silence, None
        return [Paused(self._start_sample, silence, self.position_samples)]

    def _end(self, reason: Literal["silence", "flush"]) -> Ended:
        speech_end = self.position_samples if self._silence_sample is None else self._silence_sample
        # After a cut in a pause, the silence may have begun before the utterance did.
        speech_end = max(speech_end, self._start_sample)
        end = min(speech_end + samples_in(ms=POST_ROLL_MS), self.position_samples)
        self._phase = _Phase.SILENCE
        self._free_from = end
        return Ended(end, speech_end, reason)

    def _end_for_length(self) -> list[Edge]:
        at = self._quietest_sample()
        self._begin(at)
        return [Ended(at, at, "length"), Started(at, at)]

    def _quietest_sample(self) -> int:
        """Just before the least probable recent frame; of equals the latest, which leaves the least for the next."""
        # No more than half of the utterance, so that neither piece is a mere splinter.
        half_frames = (self.position_samples - self._start_sample) // FRAME_SAMPLES // 2
        span = min(len(self._recent), max(1, half_frames))
        ages = range(1, span + 1)
        age = min(ages, key=lambda frames_back: self._recent[-frames_back])
        return max(self._start_sample, self.position_samples - (age + CUT_LEAD_FRAMES) * FRAME_SAMPLES)
