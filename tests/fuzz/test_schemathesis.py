"""The running server against its own OpenAPI document: what it promises is what it does, whatever it is sent.

Schemathesis makes requests of the document, right ones and wrong ones, and checks every answer: its status, headers,
type and body are documented, what is wrong is refused, what is right is not, and nothing fails the server.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.fuzz.server import IS_DEEP, under_fire

pytestmark = pytest.mark.timeout(900)

HERE = Path(__file__).parent
EXAMPLES = 40 if IS_DEEP else 5
"""Requests of each kind, right and wrong, for each route."""

PHASES = "examples,coverage,fuzzing" if IS_DEEP else "examples,fuzzing"
"""The coverage phase tries the limits of every field, 4000 requests of them: for deep runs."""
RUN_S = 850.0


SOCKETS = ("/ws/v1/transcribe", "/v1/realtime")
"""Asked without a handshake they say one thing only; `GET /v1/listen` is the third."""


async def run_schemathesis(url: str, folder: Path) -> tuple[int, str]:
    """Its exit status and what it has to say; it keeps notes in `folder`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", url, "--checks", "all", "--phases", PHASES, "--max-examples", str(EXAMPLES)),
        *("--request-timeout", "10", "--continue-on-failure", "--no-shrink", "--no-color"),
        *(item for path in SOCKETS for item in ("--exclude-path", path)),
        *(() if IS_DEEP else ("--seed", "1", "--generation-deterministic")),
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.fuzz.schemathesis_hooks", "PYTHONPATH": str(HERE.parents[1])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_S):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, told.decode(errors="replace")


def test_the_server_keeps_what_its_document_promises(tmp_path: Path) -> None:
    with under_fire(tmp_path, max_sessions=64) as server:
        url = str(server.server.make_url("/openapi.json"))
        status, told = server.loop.run_until_complete(run_schemathesis(url, tmp_path))
        assert status == 0, told
        print("".join(line for line in told.splitlines() if "generated, " in line))  # noqa: T201 - how many requests
