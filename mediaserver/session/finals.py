"""What is said of an utterance once it is over, and once more when more has been heard."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from mediaserver.audio.clock import seconds
from mediaserver.decoder.language import Heard
from mediaserver.decoder.revising import revised, within
from mediaserver.decoder.window import Decoder, Hypothesis, Kind, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.session.hearing import Hearing
from mediaserver.session.passage import Passage, Said, revisions
from mediaserver.session.reporter import Reporter
from mediaserver.session.utterance import Utterance
from mediaserver.session.utterance_end import UtteranceEnds

MAX_WAITING = 32
"""Utterances of one session that may wait for their final. Beyond it the oldest is given up, and the client told."""

FINAL_GAIN = 0.1
"""By how much a final's words must be surer than the stable words they replace, on which two decodes agreed. Without it
a thirtieth of the stable words change, with it a hundredth, and fewer of them are wrong."""

REVISION_WAIT_S = 10.0
"""A revision that comes later helps nobody: under load revisions are what is left out first."""


class Finals:
    """Finals of one session in the order of its utterances, and their revisions.

    Args:
        hearing: the session's audio.
        decoder: shared by all sessions.
        reporter: where finals and revisions go.
        ends: hears of each final.
        metrics: where the final latency goes.
    """

    def __init__(
        self, *, hearing: Hearing, decoder: Decoder, reporter: Reporter, ends: UtteranceEnds, metrics: Metrics
    ) -> None:
        self._ends = ends
        self._hearing = hearing
        self._decoder = decoder
        self._reporter = reporter
        self._metrics = metrics
        # Bound: MAX_WAITING; the oldest is given up first, for its audio is the next to be overwritten.
        self._waiting: deque[_Pending] = deque()
        self._finalizer: asyncio.Task[None] | None = None
        self._passage = Passage()
        self._reviser: asyncio.Task[None] | None = None
        self.speech_samples = 0
        """Audio of all utterances that were over, with their pre-roll and pauses."""
        self.with_revisions = True
        """Whether finals are corrected once more has been heard."""

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
            self._reporter.warn(_final_lost())
            return
        self._decoder.withdraw(window.session_id)  # interims and speculation that nobody needs any more
        self.speech_samples += len(window.samples)
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._reporter.warn(_final_lost())
        self._waiting.append(_Pending(utterance, window, speech_end_sample, has_stopped))
        if not self.is_busy:
            self._finalizer = asyncio.create_task(self._decode_all(), name=f"finals-{window.session_id}")

    def settle_if_due(self, position_sample: int, *, is_speaking: bool) -> None:
        """Have what belongs together decoded together once nothing more will join it."""
        if self._passage.is_settled(position_sample, speaking=is_speaking or self.is_busy):
            self._settle()

    async def flush(self) -> None:
        """Wait for the finals of all utterances that are over."""
        if self._finalizer is not None:
            await self._finalizer

    def give_up(self) -> int:
        """Tell the client that finals did not come; how many waited."""
        self._reporter.warn(_final_lost())
        return len(self._waiting)

    async def settle(self, *, timeout_s: float) -> None:
        """Settle what was said last; a revision that does not come in time is left out: what was final stays."""
        self._settle()
        if self._reviser is not None:
            await asyncio.wait([self._reviser], timeout=timeout_s)

    async def close(self) -> None:
        """Give up what is being decoded."""
        tasks = [task for task in (self._finalizer, self._reviser) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _decode_all(self) -> None:
        """Decode the waiting utterances in order."""
        while self._waiting:
            pending = self._waiting.popleft()
            try:
                hypothesis = await pending.speculated() or await self._decoder.decode(pending.window)
            except VoiceForgeError as error:
                self._reporter.fail(error)
                continue
            self._tell(pending, hypothesis)

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
        self._metrics.final_seconds.observe(max(0.0, seconds(late_samples)))
        said = Said(
            number=utterance.number,
            start_sample=utterance.start_sample,
            speech_sample=utterance.speech_sample,
            speech_end_sample=pending.speech_end_sample,
            end_sample=end_sample,
            words=tuple(words),
            language=hypothesis.language,
        )
        self._reporter.final(said, hypothesis)
        self._ends.final(said, has_stopped=pending.has_stopped)
        if words:
            if self._passage.language not in (None, said.language):
                self._settle()  # one window is decoded in one language
            self._passage.add(said)

    def _settle(self) -> None:
        """Have the passage decoded as one, unless it is one utterance or the last revision still waits."""
        passage, self._passage = self._passage, Passage()
        if not passage.is_joined or not self.with_revisions:
            return
        if self._reviser is not None and not self._reviser.done():
            return
        window = self._hearing.window(Kind.REVISION, *passage.span, language=passage.language)
        if window is None:
            return
        self._reviser = asyncio.create_task(self._revise(passage, window), name=f"revise-{window.session_id}")

    async def _revise(self, passage: Passage, window: Window) -> None:
        try:
            async with asyncio.timeout(REVISION_WAIT_S):
                hypothesis = await self._decoder.decode(window)
        except (TimeoutError, VoiceForgeError):
            return  # what was final stays
        for said in revisions(passage.said, hypothesis.words):
            self._reporter.revision(said)


@dataclass(frozen=True, slots=True)
class _Pending:
    """An utterance that waits for its final."""

    utterance: Utterance
    window: Window
    speech_end_sample: int
    has_stopped: bool

    async def speculated(self) -> Hypothesis | None:
        """What was decoded in the pause that became the utterance's end, if that came to anything."""
        speculation = self.utterance.speculation
        return None if speculation is None else await speculation.decode


def _final_lost() -> VoiceForgeError:
    return VoiceForgeError(
        "FINAL_LOST",
        "The decoder did not keep up: the text of an utterance was given up.",
        "Open fewer sessions on this node, or use a smaller model.",
        retryable=True,
    )
