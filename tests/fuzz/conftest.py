"""How much is tried, and a server to try it on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.fuzz.server import IS_DEEP, Fuzzed, under_fire

settings.register_profile(
    "fuzz",
    deadline=None,
    database=None,
    derandomize=not IS_DEEP,  # each run of the suite tries the same, each deep run something else
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # what hangs takes seconds to show, and shrinking it hours
    print_blob=True,
)


@pytest.fixture
def fuzzed(tmp_path: Path) -> Iterator[Fuzzed]:
    """A server that has to be as it was at the end."""
    with under_fire(tmp_path) as server:
        yield server
