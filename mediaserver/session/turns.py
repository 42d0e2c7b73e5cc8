"""One session's questions to the end-of-turn model."""

from __future__ import annotations

import asyncio

from mediaserver.audio.endpoint import Endpointer, Paused
from mediaserver.audio.turn import HEARD_SAMPLES, TurnPool, is_complete
from mediaserver.session.hearing import Hearing


class Turns:
    """Asks, pause by pause, whether the speaker of one session has finished.

    Args:
        session_id: names the tasks.
        hearing: the session's audio.
        pool: shared by all sessions; None where the node has no such model: silence alone decides.
        endpointer: gets the answers; one that comes too late changes nothing there.
    """

    def __init__(self, session_id: str, *, hearing: Hearing, pool: TurnPool | None, endpointer: Endpointer) -> None:
        self._session_id = session_id
        self._hearing = hearing
        self._pool = pool
        self._endpointer = endpointer
        self._tasks: set[asyncio.Task[None]] = set()  # one that asks, and cancelled ones on their way out

    def ask(self, paused: Paused) -> None:
        """Ask about a pause; the answer reaches the endpointer when it is there."""
        self.drop()
        if self._pool is None:
            return
        task = asyncio.create_task(self._ask(self._pool, paused), name=f"turn-{self._session_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drop(self) -> None:
        """The utterance is over, or there is a newer pause: an answer still to come would be of no use."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Give up what is being asked."""
        self.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, pool: TurnPool, paused: Paused) -> None:
        start = max(paused.start_sample, paused.position_sample - HEARD_SAMPLES)
        probability = await pool.ask(self._hearing.received(start, paused.position_sample))
        if probability is not None:
            self._endpointer.turned(paused.speech_end_sample, is_complete=is_complete(probability))
