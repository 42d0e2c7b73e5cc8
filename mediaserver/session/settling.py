"""What becomes of finals: told at once and corrected later, or held until they have settled."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace

from mediaserver.decoder.window import Decoder, Hypothesis, Kind, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.session.hearing import Hearing
from mediaserver.session.passage import Passage, Said, revisions
from mediaserver.session.reporter import Reporter
from mediaserver.session.utterance_end import UtteranceEnds

REVISION_WAIT_S = 10.0
"""A revision that comes later helps nobody: under load revisions are what is left out first."""

DECODE_ALLOWANCE_S = 1.0
"""So long before a held final is due, what has been heard by then is decoded together: the time that 20 s take on one
core with the smallest model."""


class Settling:
    """Passages of one session.

    Args:
        hearing: the session's audio.
        decoder: shared by all sessions.
        reporter: where finals and revisions go.
        ends: hears of each final.
    """

    def __init__(self, *, hearing: Hearing, decoder: Decoder, reporter: Reporter, ends: UtteranceEnds) -> None:
        self._hearing = hearing
        self._decoder = decoder
        self._reporter = reporter
        self._ends = ends
        self._passage = Passage()
        # Bound: a passage and what is said while it is decoded; `hold_ms` releases the oldest first.
        self._held: deque[_Held] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._settled_number = 0  # of the last utterance whose passage is over
        self.with_revisions = True
        """Whether finals are corrected once more has been heard."""
        self.hold_ms: int | None = None
        """How long a final may be held until it has settled; None: it is told at once."""

    @property
    def is_holding(self) -> bool:
        """Whether finals are still to be told."""
        return bool(self._held)

    @property
    def earliest(self) -> Said | None:
        """What was said first of what is still to be told."""
        return self._held[0].said if self._held else None

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was said is still to be decoded once more."""
        return not self._passage.said and not self._held

    def final(self, said: Said, hypothesis: Hypothesis, *, has_stopped: bool) -> None:
        """Take an utterance's final, in order.

        Args:
            said: its words.
            hypothesis: whose language is told.
            has_stopped: whether it ended with a silence, not with a cut.
        """
        if said.words and self._passage.language not in (None, said.language):
            self._settle()  # one window is decoded in one language
        held = _Held(said, hypothesis, has_stopped, asyncio.get_running_loop().time())
        if self.hold_ms is None and not self._held:
            self._tell(held)
        else:
            self._held.append(held)
            self._arm()
        if said.words:
            self._passage.add(said)

    def settle_if_due(self, position_sample: int, *, is_speaking: bool) -> None:
        """Have what belongs together decoded together once nothing more will join it."""
        if self._passage.is_settled(position_sample, speaking=is_speaking):
            self._settle()

    async def settle(self, *, timeout_s: float) -> None:
        """Settle what was said last; what does not come in time is left out, and what was held told as it was."""
        self._settle()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)
        await self.close()
        while self._held:
            self._tell(self._held.popleft())

    async def close(self) -> None:
        """Give up what is being decoded."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _arm(self) -> None:
        """See to it that what is held longest is told in time."""
        if self._timer is None and self._held:
            wait_s = max(0.0, (self.hold_ms or 0) / 1000 - DECODE_ALLOWANCE_S)
            self._timer = asyncio.get_running_loop().call_at(self._held[0].since_s + wait_s, self._settle)

    def _settle(self) -> None:
        """Have the passage decoded as one and release what is held until now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        passage, self._passage = self._passage, Passage()
        self._settled_number = self._held[-1].said.number if self._held else 0
        if self._task is not None and not self._task.done():
            return  # one at a time: what is held goes when that is done
        window = None
        if passage.is_joined and (self.with_revisions or self._held):
            window = self._hearing.window(Kind.REVISION, *passage.span, language=passage.language)
        if window is not None:
            self._task = asyncio.create_task(self._decode(passage, window), name=f"settle-{window.session_id}")
        else:
            self._release({})

    async def _decode(self, passage: Passage, window: Window) -> None:
        until_s = asyncio.get_running_loop().time() + REVISION_WAIT_S
        if self._held:
            until_s = min(until_s, self._held[0].since_s + (self.hold_ms or 0) / 1000)
        try:
            async with asyncio.timeout_at(until_s):
                hypothesis = await self._decoder.decode(window)
        except (TimeoutError, VoiceForgeError):
            self._release({})  # what was final stays
            return
        self._release({said.number: said for said in revisions(passage.said, hypothesis.words)})

    def _release(self, changed: dict[int, Said]) -> None:
        """Tell what has settled of what is held, as changed; revise what was told at once."""
        while self._held and self._held[0].said.number <= self._settled_number:
            held = self._held.popleft()
            self._tell(replace(held, said=changed.pop(held.said.number, held.said)))
        if self.hold_ms is None:
            for said in changed.values():
                self._reporter.revision(said)
        self._arm()

    def _tell(self, held: _Held) -> None:
        self._reporter.final(held.said, held.hypothesis)
        self._ends.final(held.said, has_stopped=held.has_stopped)


@dataclass(frozen=True, slots=True)
class _Held:
    """A final, and since when (loop time) it has been there."""

    said: Said
    hypothesis: Hypothesis
    has_stopped: bool
    since_s: float
