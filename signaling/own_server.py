"""A server of one's own for the time of one command: a child process on a free port of the loopback interface."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp

from mediaserver.errors import VoiceForgeError
from signaling.limits import ENGINE_DOWN, LOADING, STOPPING

STOP_S = 12.0
"""How long a stop may take before the child is killed: the server's own deadline (10 s) and some room."""

READY_POLL_S = 0.1
"""How often the child is asked whether its model is loaded; that takes a second or two, or a download."""

KEPT_LINES = 20
"""Of what the child says, the oldest lines go first; these many explain a failure."""

_NOT_YET = frozenset(reason.code for reason in (LOADING, ENGINE_DOWN, STOPPING))
"""What it is waited for. Of further reasons, such as a disk that is nearly full, others would be sent elsewhere; here
there is no other server, and this one takes a session all the same."""

ALONE = {
    f"VOICEFORGE_{name}": "unset"
    for name in ("TLS_CERTIFICATE", "TLS_KEY", "REDIS_URL", "NODE_ADDRESS", "AUDIT_LOG", "OTLP_ENDPOINT")
}
"""What a node of this machine has for others to find it or hear of it, and a server for one client has not."""

OnLine = Callable[[str], None]


@asynccontextmanager
async def own_server(arguments: Sequence[str], *, on_line: OnLine | None = None) -> AsyncIterator[str]:
    """Run `voiceforge serve` as a child and give its URL once it takes sessions; the child is gone afterwards.

    Args:
        arguments: further flags of `serve`.
        on_line: told what the child says while it starts.

    Raises:
        VoiceForgeError: SERVER_FAILED, with the child's own words.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "signaling.cli", "serve", "--host", "127.0.0.1", "--port", "0"),
        *("--log-level", "warning", "--keyless-access", "loopback", "--workers", "1"),
        *("--jobs-concurrency", "0", *arguments),  # it is gone before a job would be done
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **ALONE},
        start_new_session=True,  # Ctrl-C is for this process, which lets the child finish its finals first
    )
    child = _Child(process, on_line or (lambda line: None))
    reading = asyncio.create_task(child.read(), name="own-server-output")
    try:
        yield await child.ready()
    finally:
        await _end(process)
        await reading


class _Child:
    def __init__(self, process: asyncio.subprocess.Process, on_line: OnLine) -> None:
        self._process = process
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def read(self) -> None:
        """Take what the child says until it ends, so that its pipe never fills."""
        assert self._process.stdout is not None
        while raw := await self._process.stdout.readline():
            line = raw.decode(errors="replace").rstrip()
            self._lines.append(line)
            self._on_line(line)
            if (found := re.search(r"http://\S+", line)) and not self._url.done():
                self._url.set_result(found[0])
        if not self._url.done():
            self._url.set_exception(self._failure())
            self._url.exception()  # somebody may have stopped waiting

    async def ready(self) -> str:
        """The URL, once the model is loaded."""
        url = await asyncio.shield(self._url)
        async with aiohttp.ClientSession() as http:
            while True:
                if self._process.returncode is not None:
                    raise self._failure()
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{url}/readyz") as response:
                        if _NOT_YET.isdisjoint((await response.json())["codes"]):
                            return url
                await asyncio.sleep(READY_POLL_S)

    def _failure(self) -> VoiceForgeError:
        said = " ".join(line for line in list(self._lines)[-3:] if line)
        return VoiceForgeError(
            "SERVER_FAILED",
            f"The server did not start. {said}".strip(),
            "Try `voiceforge serve`, or give a server that runs by --url.",
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the child to stop; kill it when it does not. Returns when it is gone."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
