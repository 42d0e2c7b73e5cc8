"""Clients that say next to nothing for as long as they are let: they are closed, and others are served."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from tests.conftest import Speech
from tests.faults.calls import call, talk
from tests.faults.node import MIB
from tests.faults.slow_clients import CONNECTIONS, KINDS, LATE_S, Slow
from tests.scoring import word_errors


async def test_slow_clients_are_closed_and_others_are_served(
    slow_clients: tuple[Slow, threading.Thread], speech: Speech
) -> None:
    slow, thread = slow_clients
    node = slow.node
    before = node.vitals()
    (client, _), told = await asyncio.gather(call(node.url, speech), talk(node.url, speech, pace=1.0))
    for text in (client.told.text, told.text):
        assert word_errors(speech.text, text) <= 0.2, text
    await asyncio.to_thread(thread.join)
    for kind, limit_s in KINDS.items():
        closed = slow.closed_after_s[kind]
        assert len(closed) >= CONNECTIONS // len(KINDS), kind
        assert max(closed) <= limit_s + LATE_S, kind
    with suppress(TimeoutError):
        async with asyncio.timeout(LATE_S):
            while node.vitals().fds > before.fds:
                await asyncio.sleep(0.1)
    after = node.vitals()
    assert after.fds <= before.fds
    assert "RequestHandler.start" not in after.tasks
    assert after.rss_bytes < before.rss_bytes + 160 * MIB  # its first words are among it
    assert not (errors := node.new_errors()), "\n".join(errors)
