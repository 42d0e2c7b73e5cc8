"""One recording through one call: what `voiceforge transcribe` does once its options are read."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mediaserver.errors import VoiceForgeError
from mediaserver.ingest.container import probe
from signaling.caller import Call, RecordingTrack
from signaling.cli.captions import Captions
from signaling.own_server import own_server
from signaling.transcript import Transcript

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells have it: the second Ctrl-C, after which nothing is waited for."""


class Recording:
    """One recording from the file to its transcript.

    Args:
        file: any audio file.
        url: of the server, or None to run one for this recording alone.
        model: of the server that is run here, or None for its setting.
        language: language code, or None to let the server decide.
        console: where captions and progress are shown.

    Raises:
        MediaError: NOT_AUDIO, FILE_NOT_FOUND or FILE_UNREADABLE.
    """

    def __init__(
        self,
        file: Path,
        *,
        url: str | None,
        model: str | None,
        language: str | None,
        console: Console,
    ) -> None:
        self.transcript = Transcript()
        self._captions = Captions(console, duration_s=probe(file).duration_s)
        self._file = file
        self._url = url
        self._model = model
        self._language = language

    async def run(self) -> int:
        """The exit status: 0 when everything that was said is there, 1 when not, 130 after a second Ctrl-C."""
        stop = asyncio.Event()
        work = asyncio.create_task(self._work(stop), name="transcribe")
        with _interruptible(stop, work):
            try:
                with self._captions:
                    await work
            except asyncio.CancelledError:
                return EXIT_INTERRUPTED
            except VoiceForgeError as exc:
                click.echo(f"Error: {exc.message}\n{exc.hint}", err=True)
                return EXIT_FAILED
        for problem in self.transcript.problems:
            click.echo(f"Warning: {problem}", err=True)
        return 0 if self.transcript.complete else EXIT_FAILED

    async def _work(self, stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            url = self._url
            if url is None:
                arguments = () if self._model is None else ("--model", self._model)
                url = await _unless(stop, stack.enter_async_context(own_server(arguments, on_line=self._captions.say)))
            if url is None:
                return  # stopped before there was anything to say
            track = RecordingTrack(
                self._file, on_position=self._captions.position, on_warning=self.transcript.problems.append
            )
            call = Call(url=url, track=track, language=self._language, on_event=self._hear)
            await call.run(stop)

    def _hear(self, event: Mapping[str, Any]) -> None:
        with suppress(KeyError, TypeError, ValueError):  # an event of another version: what is understood is used
            self.transcript.apply(event)
        self._captions.show(event, self.transcript)


class _interruptible:  # noqa: N801 - reads as a statement
    """The first SIGINT or SIGTERM asks to stop, the second ends the work at once."""

    def __init__(self, stop: asyncio.Event, work: asyncio.Task[None]) -> None:
        self._stop = stop
        self._work = work

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt there
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def __exit__(self, *_exc: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                asyncio.get_running_loop().remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._work.cancel()
        self._stop.set()


async def _unless(stop: asyncio.Event, starting: Any) -> str | None:
    """What `starting` gives, or None when it is asked to stop first (then it is cancelled and has cleaned up)."""
    start = asyncio.ensure_future(starting)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            return None
        return str(start.result())
    finally:
        stopped.cancel()
        if not start.done():
            start.cancel()
        await asyncio.gather(start, stopped, return_exceptions=True)
