"""`voiceforge transcribe`."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mediaserver.errors import MediaError, VoiceForgeError
from mediaserver.ingest.container import AudioInfo, probe
from mediaserver.text.subtitles import Format, render
from signaling.caller import Call, RecordingTrack
from signaling.cli.captions import Captions
from signaling.own_server import own_server
from signaling.transcript import Transcript

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells have it: the second Ctrl-C, after which nothing is waited for."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--url", help="Server to use, for example http://127.0.0.1:8080.  [default: one for this file alone]")
@click.option("--model", help="Model of the server that is started for this file.  [default: the setting]")
@click.option("--language", help="Language code such as en.  [default: the server decides]")
@click.option(
    "--format",
    "form",
    type=click.Choice([str(form) for form in Format]),
    help="What to write.  [default: by the name of --output, else txt]",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: standard output]")
@click.option("--no-progress", is_flag=True, help="Show no captions and no progress on the terminal.")
def transcribe(
    *,
    file: Path,
    url: str | None,
    model: str | None,
    language: str | None,
    form: str | None,
    output: Path | None,
    no_progress: bool,
) -> None:
    """Send FILE to a server through a real WebRTC call, and write what was said.

    The call takes as long as the recording: what is measured and seen is what a live speaker would get. Ctrl-C ends
    it early and writes what is final by then; a second one ends it at once.
    """
    if url is not None and model is not None:
        raise click.UsageError("--model chooses the model of a server that is started here; with --url there is none.")
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.UsageError("--url begins with http:// or https://.")
    form_ = _form(form, output)
    info = probe(file)
    console = Console(stderr=True, quiet=no_progress or not sys.stderr.isatty())
    transcript = Transcript()
    job = _Job(file, info, url=url, model=model, language=language, transcript=transcript, console=console)
    status = asyncio.run(job.run())
    text = render(transcript.ordered(), form_)
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as exc:
            raise MediaError("OUTPUT_NOT_WRITTEN", f"{output} cannot be written: {exc.strerror}.", text) from exc
    sys.exit(status)


def _form(form: str | None, output: Path | None) -> Format:
    if form is not None:
        return Format(form)
    if output is not None and output.suffix.lower().lstrip(".") in set(Format):
        return Format(output.suffix.lower().lstrip("."))
    return Format.TXT


class _Job:
    """One recording from the file to its transcript."""

    def __init__(
        self,
        file: Path,
        info: AudioInfo,
        *,
        url: str | None,
        model: str | None,
        language: str | None,
        transcript: Transcript,
        console: Console,
    ) -> None:
        self._file = file
        self._url = url
        self._model = model
        self._language = language
        self._transcript = transcript
        self._captions = Captions(console, duration_s=info.duration_s)

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
        for problem in self._transcript.problems:
            click.echo(f"Warning: {problem}", err=True)
        return 0 if self._transcript.complete else EXIT_FAILED

    async def _work(self, stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            url = self._url
            if url is None:
                arguments = () if self._model is None else ("--model", self._model)
                url = await _unless(stop, stack.enter_async_context(own_server(arguments, on_line=self._captions.say)))
            if url is None:
                return  # stopped before there was anything to say
            track = RecordingTrack(
                self._file, on_position=self._captions.position, on_warning=self._transcript.problems.append
            )
            call = Call(url=url, track=track, language=self._language, on_event=self._hear)
            await call.run(stop)

    def _hear(self, event: Mapping[str, Any]) -> None:
        with suppress(KeyError, TypeError, ValueError):  # an event of another version: what is understood is used
            self._transcript.apply(event)
        self._captions.show(event, self._transcript)


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
