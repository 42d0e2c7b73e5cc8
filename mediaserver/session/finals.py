"""What is said of an utterance once it is over."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from mediaserver.audio.clock import seconds
from mediaserver.decoder.guards import normalised
from mediaserver.decoder.language import Heard
from mediaserver.decoder.revising import revised, within
from mediaserver.decoder.window import Decoder, Hypothesis, Kind, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.session.hearing import Hearing
from mediaserver.session.passage import Said
from mediaserver.session.reporter import Reporter
from mediaserver.session.settling import Settling
from mediaserver.session.utterance import Utterance

MAX_WAITING = 32
"""Utterances of one session that may wait for their final. Beyond it the oldest is given up, and the client told."""

FINAL_GAIN = 0.1
"""By how much a final's words must be surer than the stable words they replace, on which two decodes agreed. Without it
a thirtieth of the stable words change, with it a hundredth, and fewer of them are wrong."""


STUTTER = re.compile(r"(.)\1{3}")
"""One letter four times: no word has it, and "old-s-s-y-y-y-y…" is one word to the tokenizer."""


class Finals:
    """Finals of one session in the order of its utterances.

    Args:
        hearing: the session's audio.
        decoder: shared by all sessions.
        reporter: where faults go.
        settling: where finals go.
        metrics: where the final latency goes.
        on_settled: called with each utterance once it has had its final, with what that was made of or with why it will
            have none.
    """

    def __init__(
        self,
        *,
        hearing: Hearing,
        decoder: Decoder,
        reporter: Reporter,
        settling: Settling,
        metrics: Metrics,
        on_settled: Callable[[Utterance, Hypothesis | VoiceForgeError], None],
    ) -> None:
        self._on_settled = on_settled
        self._hearing = hearing
        self._decoder = decoder
        self._reporter = reporter
        self._settling = settling
        self._metrics = metrics
        # Bound: MAX_WAITING; the oldest is given up first, for its audio is the next to be overwritten.
        self._waiting: deque[_Pending] = deque()
        self._decoding: list[_Pending] = []  # one, or none
        self._finalizer: asyncio.Task[None] | None = None
        self.speech_samples = 0
        """Audio of all utterances that were over, with their pre-roll and pauses."""

    @property
    def waiting_samples(self) -> int:
        """Audio of the utterances that are over and whose finals are still to come."""
        return sum(len(pending.window.samples) for pending in (*self._waiting, *self._decoding))

    @property
    def waiting_utterances(self) -> int:
        """How many utterances are over whose finals are still to come."""
        return len(self._waiting) + len(self._decoding)

    @property
    def earliest(self) -> Utterance | None:
        """The first of the utterances whose finals are still to come."""
        waiting = [*self._decoding, *self._waiting]
        return waiting[0].utterance if waiting else None

    @property
    def is_busy(self) -> bool:
        """Whether a final is still to come."""
        return self._finalizer is not None and not self._finalizer.done()

    def add(self, utterance: Utterance, *, end_sample: int, speech_end_sample: int, has_stopped: bool) -> None:
        """Have an utterance that is over decoded as a whole, unless that has been done in the pause before its end.

        Args:
            utterance: it gets no more interims.
            end_sample: where its audio ends.
            speech_end_sample: where somebody was last heard.
            has_stopped: whether it ended with a silence, not with a cut.
        """
        end = min(end_sample, self._hearing.end_sample)
        window = self._hearing.window(Kind.FINAL, utterance.start_sample, end)
        if window is None:
            self._give_up(utterance)
            return
        self._decoder.withdraw(window.session_id)  # interims and speculation that nobody needs any more
        self.speech_samples += len(window.samples)
        if len(self._waiting) >= MAX_WAITING:
            given_up = self._waiting.popleft()
            self._give_up(given_up.utterance)
            given_up.finish()
        self._waiting.append(_Pending(utterance, window, speech_end_sample, has_stopped))
        if not self.is_busy:
            self._finalizer = asyncio.create_task(self._decode_all(), name=f"finals-{window.session_id}")

    def after(self, callback: Callable[[], None]) -> None:
        """Call back once the finals of all utterances that are over now have been handed on: at once if they have."""
        if self._waiting or self._decoding:
            (self._waiting or self._decoding)[-1].callbacks.append(callback)
        else:
            callback()

    async def flush(self) -> None:
        """Wait for the finals of all utterances that are over."""
        if self._finalizer is not None:
            await self._finalizer

    def give_up(self) -> None:
        """Tell the client that finals did not come."""
        self._reporter.warn(_final_lost())

    async def close(self) -> None:
        """Give up what is being decoded."""
        if self._finalizer is not None:
            self._finalizer.cancel()
            await asyncio.gather(self._finalizer, return_exceptions=True)
        self._on_settled = _nobody

    async def _decode_all(self) -> None:
        """Decode the waiting utterances in order."""
        while self._waiting:
            pending = self._waiting.popleft()
            self._decoding = [pending]
            try:
                hypothesis = await pending.speculated() or await self._decoder.decode(pending.window)
            except asyncio.CancelledError:
                self._waiting.appendleft(pending)  # so it is among those that are counted when they are given up
                raise
            except VoiceForgeError as error:
                self._reporter.fail(error)
                self._on_settled(pending.utterance, error)
            else:
                self._tell(pending, hypothesis)
                self._on_settled(pending.utterance, hypothesis)
            finally:
                self._decoding = []
            pending.finish()

    def _give_up(self, utterance: Utterance) -> None:
        error = _final_lost()
        self._reporter.warn(error)
        self._on_settled(utterance, error)

    def _tell(self, pending: _Pending, hypothesis: Hypothesis) -> None:
        utterance = pending.utterance
        if hypothesis.words:
            self._hearing.languages.hear_final(
                Heard(hypothesis.heard_languages, hypothesis.heard_probabilities, pending.window.duration_s)
            )
        is_understood = utterance.language in (None, hypothesis.language)
        end_sample = pending.window.start_sample + len(pending.window.samples)
        words = within(
            revised(utterance.view.stable if is_understood else [], hypothesis.words, gain=FINAL_GAIN),
            floor_s=seconds(utterance.start_sample),
            ceiling_s=seconds(end_sample),  # an interim may have heard more: what the next utterance begins with
        )
        if not words and not utterance.shown:
            return  # a noise: nobody has seen anything of it
        late_samples = self._hearing.received_samples - pending.speech_end_sample
        if self._hearing.is_real_time:
            self._metrics.final_seconds.observe(max(0.0, seconds(late_samples)))
            now_s = seconds(self._hearing.received_samples)
            for word in words[len(utterance.view.stable) :]:  # those before were told as stable
                self._metrics.word_seconds.observe(max(0.0, now_s - word.end))
        said = Said(
            number=utterance.number,
            start_sample=utterance.start_sample,
            speech_sample=utterance.speech_sample,
            speech_end_sample=pending.speech_end_sample,
            end_sample=end_sample,
            words=tuple(words),
            language=hypothesis.language,
        )
        self._settling.final(said, hypothesis, has_stopped=pending.has_stopped)


@dataclass(frozen=True, slots=True)
class _Pending:
    """An utterance that waits for its final."""

    utterance: Utterance
    window: Window
    speech_end_sample: int
    has_stopped: bool
    callbacks: list[Callable[[], None]] = field(default_factory=list)  # bound: one for each `finalize` of the client

    def finish(self) -> None:
        """It is done with."""
        for callback in self.callbacks:
            callback()

    async def speculated(self) -> Hypothesis | None:
        """What was decoded in the pause that became the utterance's end, if that came to anything to be relied on."""
        speculation = self.utterance.speculation
        hypothesis = None if speculation is None else await speculation.decode
        return hypothesis if hypothesis is not None and not _ran_on(hypothesis) else None


def _ran_on(hypothesis: Hypothesis) -> bool:
    """Whether it may have gone on after the last word: it heard less of the pause than a final does, and then Whisper
    says a word twice or never ends one.
    """
    said = [normalised(word.text) for word in hypothesis.words]
    return (
        hypothesis.rejected is not None
        or any(before == after for before, after in pairwise(said))
        or any(STUTTER.search(word) for word in said)
    )


def _final_lost() -> VoiceForgeError:
    return VoiceForgeError(
        "FINAL_LOST",
        "The decoder did not keep up: the text of an utterance was given up.",
        "Open fewer sessions on this node, or use a smaller model.",
        retryable=True,
    )


def _nobody(_utterance: Utterance, _outcome: Hypothesis | VoiceForgeError | None) -> None:
    """Told after the end."""
