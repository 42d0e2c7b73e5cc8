"""A sound card of software: a microphone that hears recordings when they are spoken, and loudspeakers for nobody.

Firefox' own fake microphone knows a tone only, and without any sound card its audio graph stands still.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from mediaserver.audio.clock import SAMPLE_RATE
from tests.conftest import Speech

START_S = 20.0
"""Until the daemon listens: some milliseconds, more on a busy machine."""

STOP_S = 5.0
"""Until it is killed."""

POLL_S = 0.05

# The microphone hears what is played to `mouth`. It is mapped anew because a browser may leave out what merely monitors
# a loudspeaker.
SCRIPT = """
load-module module-native-protocol-unix socket={socket} auth-anonymous=1
load-module module-null-sink sink_name=speakers rate=48000
load-module module-null-sink sink_name=mouth rate=48000 channels=1
load-module module-remap-source source_name=microphone master=mouth.monitor source_properties=device.description=Test
set-default-sink speakers
set-default-source microphone
"""


class SoundCard:
    """What is said into the microphone.

    Args:
        directory: where the daemon's socket lies.
    """

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "native"

    @property
    def environment(self) -> dict[str, str]:
        """By which a program finds it."""
        return {"PULSE_SERVER": f"unix:{self._socket}"}

    @property
    def is_there(self) -> bool:
        """Whether it listens yet."""
        return self._socket.exists()

    async def says(self, *parts: Speech | float) -> None:
        """Speak recordings, and be silent for seconds between them; returns when all is said."""
        sounds = [
            part.samples() if isinstance(part, Speech) else np.zeros(int(part * SAMPLE_RATE), np.float32)
            for part in parts
        ]
        process = await asyncio.create_subprocess_exec(
            *("pacat", "--playback", "--raw", "--device=mouth", "--format=s16le", "--channels=1"),
            f"--rate={SAMPLE_RATE}",
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment},
        )
        try:
            await process.communicate((np.concatenate(sounds) * 32767).astype("<i2").tobytes())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0


@asynccontextmanager
async def sound_card() -> AsyncIterator[SoundCard]:
    """A sound card for as long as this lasts."""
    directory = Path(tempfile.mkdtemp(prefix="sound-"))  # a socket's path has 107 bytes at most: no test's own
    card = SoundCard(directory)
    (directory / "script").write_text(SCRIPT.format(socket=directory / "native"))
    process = await asyncio.create_subprocess_exec(
        *("pulseaudio", "-n", "-F", str(directory / "script"), "--daemonize=no", "--use-pid-file=no"),
        *("--exit-idle-time=-1", "--disable-shm=yes"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)},
    )
    try:
        async with asyncio.timeout(START_S):
            while not card.is_there:
                assert process.returncode is None, "pulseaudio does not start"
                await asyncio.sleep(POLL_S)
        yield card
    finally:
        await _end(process)
        shutil.rmtree(directory, ignore_errors=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
