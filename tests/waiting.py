"""Waiting for what will be so: bounded, and without a guess how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LIMIT_S = 60.0
"""A start takes 3 s on a free machine, more where tests share it."""


async def until(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """Return once it is so.

    Raises:
        TimeoutError: it was not within `limit_s`.
    """
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)
