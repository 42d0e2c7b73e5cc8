"""Who waits for which window."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress

import numpy as np
import pytest

from mediaserver.audio.clock import Samples
from mediaserver.decoder.remote.answers import Answers
from mediaserver.decoder.remote.outbox import Entry
from mediaserver.decoder.window import Kind, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics


@pytest.mark.parametrize("fails", [False, True])
async def test_audio_of_a_window_that_came_to_nothing_is_freed_without_a_search(*, fails: bool) -> None:
    async def come_to(answers: Answers, entry: Entry) -> None:
        with suppress(Replaced, VoiceForgeError):
            await answers.to(entry)
            raise AssertionError("it was answered")

    async def come_to_nothing() -> weakref.ref[Samples]:
        answers = Answers(Metrics())
        samples = np.zeros(16_000, dtype=np.float32)
        entry = Entry(1, Window(session_id="a", kind=Kind.INTERIM, samples=samples, start_sample=0), queued_at_s=0.0)
        waiting = asyncio.create_task(come_to(answers, entry))
        await asyncio.sleep(0)
        if fails:
            answers.fail(entry, VoiceForgeError("DECODE_FAILED", "It failed.", "Try again."))
        else:
            answers.replace(entry)
        await waiting
        return weakref.ref(samples)

    gc.disable()
    try:
        freed = await come_to_nothing()
        await asyncio.sleep(0)
        assert freed() is None
    finally:
        gc.enable()
