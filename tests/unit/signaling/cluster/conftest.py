"""What tests of the state share: every kind of it, behind one fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.unit.signaling.cluster.state_kinds import KINDS, StateKit


@pytest_asyncio.fixture(params=list(KINDS))
async def kit(request: pytest.FixtureRequest) -> AsyncIterator[StateKit]:
    """Each kind of state in turn."""
    async with KINDS[request.param]() as kit:
        yield kit
