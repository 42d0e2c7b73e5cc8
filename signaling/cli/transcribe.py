"""`voiceforge transcribe`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
from rich.console import Console

from mediaserver.errors import MediaError
from mediaserver.text.subtitles import Format, render


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
    it early and writes what is final by then; a second one ends it at once. A server that asks for a key finds it in
    VOICEFORGE_API_KEY.
    """
    if url is not None and model is not None:
        raise click.UsageError("--model chooses the model of a server that is started here; with --url there is none.")
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.UsageError("--url begins with http:// or https://.")
    form_ = _form(form, output)
    if output is not None and not output.absolute().parent.is_dir():
        raise _not_written(output, "its folder does not exist", "Make the folder first.")
    from signaling.cli.recording import Recording  # noqa: PLC0415 - brings WebRTC, half a second of imports

    console = Console(stderr=True, quiet=no_progress or not sys.stderr.isatty())
    recording = Recording(file, url=url, model=model, language=language, console=console)
    status = asyncio.run(recording.run())
    text = render(recording.transcript.ordered(), form_)
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as exc:
            click.echo(text, nl=False)  # the call took as long as the recording: what came of it is not thrown away
            raise _not_written(output, exc.strerror or "", "It was written to standard output instead.") from exc
    sys.exit(status)


def _not_written(output: Path, reason: str, hint: str) -> MediaError:
    return MediaError("OUTPUT_NOT_WRITTEN", f"{output} cannot be written: {reason}.", hint)


def _form(form: str | None, output: Path | None) -> Format:
    if form is not None:
        return Format(form)
    if output is not None and output.suffix.lower().lstrip(".") in set(Format):
        return Format(output.suffix.lower().lstrip("."))
    return Format.TXT
