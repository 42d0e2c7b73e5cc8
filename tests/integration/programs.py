"""Programs as they are started by hand, for tests that kill them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import numpy as np

from mediaserver.audio.clock import SAMPLE_RATE
from tests.conftest import Speech

READY_S = 60.0
STOP_S = 20.0


class Program:
    """A child process whose lines are kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def until(self, pattern: str) -> re.Match[str]:
        """The first line in which this is found."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        async with asyncio.timeout(READY_S), self._news:
            await self._news.wait_for(lambda: found() is not None or self.process.returncode is not None)
        match = found()
        assert match is not None, "\n".join(self.lines[-30:])
        return match

    async def kill(self) -> None:
        """As a power cut does."""
        self.process.send_signal(signal.SIGKILL)
        await self.gone()

    async def stop(self) -> int:
        """As an operator does; the exit status."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await self.gone()

    async def gone(self) -> int:
        try:
            async with asyncio.timeout(STOP_S):
                status = await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise
        await self._reading
        return status

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while raw := await self.process.stdout.readline():
            async with self._news:
                self.lines.append(raw.decode(errors="replace").rstrip())
                self._news.notify_all()
        await self.process.wait()
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def voiceforge(*arguments: str, settings: Mapping[str, object]) -> AsyncIterator[Program]:
    """`voiceforge …` with settings from its environment; gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "signaling.cli", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **{f"VOICEFORGE_{name.upper()}": str(value) for name, value in settings.items()}},
    )
    program = Program(process)
    try:
        yield program
    finally:
        if process.returncode is None:
            await program.stop()


async def url_of(server: Program) -> str:
    """Where a server listens."""
    return (await server.until(r"open (http://\S+)"))[1]


async def ended(http: aiohttp.ClientSession, url: str) -> dict[str, object]:
    """The job at this URL once it has ended."""
    while True:
        async with http.get(url) as response:
            body: dict[str, object] = await response.json()
        if body.get("state") not in ("queued", "running"):
            return body
        await asyncio.sleep(0.1)


def long_recording(path: Path, speech: Speech, times: int) -> str:
    """A WAV file of a speech said several times with pauses; its text."""
    import wave

    samples = np.tile(np.concatenate((speech.samples(), np.zeros(SAMPLE_RATE, np.float32))), times)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return " ".join([speech.text] * times)
