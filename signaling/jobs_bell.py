"""Recordings of one worker that another one runs: whoever takes one in rings, and nobody has to look all the time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from mediaserver.errors import VoiceForgeError
from mediaserver.jobs.service import Jobs
from signaling.cluster.state import State

TOPIC = "jobs"

LOOK_S = 5.0
"""How often it is looked all the same, for a ring may be missed while what carries it is away."""


class JobsBell:
    """Rings where a job is taken in here, and hears where one is elsewhere.

    Args:
        jobs: of this process.
        state: what processes share.
    """

    def __init__(self, jobs: Jobs, state: State) -> None:
        self._jobs = jobs
        self._state = state
        self._rings = asyncio.Event()
        jobs.on_submitted.append(self._rings.set)

    async def run(self) -> None:
        """Ring and hear, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ring(), name="jobs-bell-ring")
            group.create_task(self._hear(), name="jobs-bell-hear")
            group.create_task(self._look(), name="jobs-bell-look")

    async def _ring(self) -> None:
        while True:
            await self._rings.wait()
            self._rings.clear()
            with suppress(VoiceForgeError):  # whoever runs it looks by itself, a little later
                await self._state.publish(TOPIC, b"")

    async def _hear(self) -> None:
        while True:
            with suppress(VoiceForgeError):
                async with self._state.listen(TOPIC) as rings:
                    async for _ in rings:
                        self._jobs.wake()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._jobs.wake()
