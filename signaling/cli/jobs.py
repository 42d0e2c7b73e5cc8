"""`voiceforge jobs …`: recordings on a server that runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from mediaserver.errors import VoiceForgeError
from mediaserver.text.subtitles import Format
from signaling.client_key import key_headers
from signaling.jobs_client import JobsClient

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8080"

EXIT_FAILED = 1

PIPE_COLUMNS = 160
"""The table's width where no terminal says how wide it is: wide enough that nothing is cut."""

STATES = ("queued", "running", "completed", "failed", "cancelled")

server_option = click.option(
    "--url", "server", default=DEFAULT_URL, show_default=True, help="The server, for example https://asr.example.org."
)
format_option = click.option(
    "--format", "form", type=click.Choice([str(form) for form in Format]), default="txt", show_default=True
)
output_option = click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: standard output]"
)


@click.group()
def jobs() -> None:
    """Have recordings transcribed by a server: faster than they take to play, many at once, also later.

    A server that asks for a key finds it in VOICEFORGE_API_KEY.
    """


@jobs.command()
@click.argument("source")
@server_option
@click.option("--language", help="Language code such as en.  [default: detected]")
@click.option("--task", type=click.Choice(["transcribe", "translate"]), help="`translate` writes English.")
@click.option("--prompt", help="Text before what is heard, in the spelling to go on with.")
@click.option("--hotword", "hotwords", multiple=True, help="A word to expect; may be given several times.")
@click.option("--multichannel", is_flag=True, help="Each channel its own transcript.")
@click.option("--priority", type=click.Choice(["express", "normal", "low"]), help="Whose turn is next.")
@click.option("--webhook-url", help="Who is told when the job has ended.")
@click.option("--webhook-secret", help="Signs the webhook.")
@click.option(
    "--metadata", multiple=True, metavar="NAME=VALUE", help="A field of your own; may be given several times."
)
@click.option("--expires-in", "expires_in_s", type=int, help="Seconds after its end at which the job is deleted.")
@click.option("--wait", is_flag=True, help="Wait until it has ended, and write the result.")
@format_option
@output_option
def submit(*, source: str, server: str, wait: bool, form: str, output: Path | None, **options: Any) -> None:
    """Hand SOURCE, a file or the URL of one, to a server; prints the job's id, or with --wait what was said."""
    chosen = {name: value for name, value in options.items() if value not in (None, (), False)}
    chosen["metadata"] = _fields(options["metadata"])
    chosen["hotwords"] = list(options["hotwords"])

    async def work(client: JobsClient) -> dict[str, Any]:
        with _Bars() as bars:
            if source.startswith(("http://", "https://")):
                given = {"url": source}
            else:
                bars.begin("uploading", total=_size(source))
                given = {"upload_id": await client.upload(Path(source), on_progress=bars.reach)}
            try:
                job = await client.submit(given, chosen)
            except VoiceForgeError:
                if "upload_id" in given:
                    with suppress(VoiceForgeError):  # the refusal is what matters
                        await client.delete_upload(given["upload_id"])
                raise
            if wait:
                bars.begin("waiting", total=None)
                job = await client.until_ended(job["id"], on_change=bars.show)
            return job

    job = _ask(server, work)
    if not wait:
        click.echo(job["id"])
    elif job["state"] == "completed":
        _write(_ask(server, lambda client: client.result(job["id"], Format(form))), output)
    else:
        error = job["error"] or {"message": f"The job is {job['state']}.", "hint": ""}
        click.echo(f"Error: {error['message']}\n{error['hint']}".rstrip(), err=True)
        sys.exit(EXIT_FAILED)


@jobs.command("list")
@server_option
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--batch", help="Only jobs that were submitted together.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Most jobs.")
def list_(*, server: str, state: str | None, batch: str | None, limit: int) -> None:
    """Show jobs, the newest first."""
    query = {"limit": str(limit)}
    query.update({name: value for name, value in (("state", state), ("batch_id", batch)) if value is not None})
    page = _ask(server, lambda client: client.list(query))
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_COLUMNS)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("id", "state", "done", "priority", "created", "recording"):
        table.add_column(heading, no_wrap=heading == "id")
    for job in page["jobs"]:
        created = job["created_at"][:19].replace("T", " ")
        what = job["file_name"] or job["source"] or ""
        table.add_row(job["id"], job["state"], f"{job['progress']:.0f} %", job["priority"], created, what)
    console.print(table)


@jobs.command()
@click.argument("job_id")
@server_option
def show(*, job_id: str, server: str) -> None:
    """Show one job as JSON."""
    Console().print_json(data=_ask(server, lambda client: client.show(job_id)))


@jobs.command()
@click.argument("job_id")
@server_option
@format_option
@output_option
def result(*, job_id: str, server: str, form: str, output: Path | None) -> None:
    """Write what came of a job."""
    _write(_ask(server, lambda client: client.result(job_id, Format(form))), output)


@jobs.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID…")
@server_option
def cancel(*, job_ids: Sequence[str], server: str) -> None:
    """Stop jobs, or take them out of the queue."""

    async def work(client: JobsClient) -> None:
        for job_id in job_ids:
            await client.cancel(job_id)

    _ask(server, work)


@jobs.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID…")
@server_option
def delete(*, job_ids: Sequence[str], server: str) -> None:
    """Forget jobs, with all that came of them."""

    async def work(client: JobsClient) -> None:
        for job_id in job_ids:
            await client.delete(job_id)

    _ask(server, work)


class _Bars:
    """A bar on a terminal for what is under way; nothing elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._progress.stop()

    def begin(self, what: str, *, total: int | None) -> None:
        self._progress.reset(self._task, description=what, total=total)

    def reach(self, done: int) -> None:
        self._progress.update(self._task, completed=done)

    def show(self, job: dict[str, Any]) -> None:
        what = job["stage"] or job["state"]
        self._progress.update(self._task, description=what, completed=job["progress"], total=100)


def _ask(server: str, work: Callable[[JobsClient], Awaitable[T]]) -> T:
    if not server.startswith(("http://", "https://")):
        raise click.UsageError("--url begins with http:// or https://.")

    async def ask() -> T:
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10), headers=key_headers()
        ) as http:
            return await work(JobsClient(http, server))

    return asyncio.run(ask())


def _size(source: str) -> int | None:
    try:
        return Path(source).stat().st_size
    except OSError:
        return None  # opening it says why


def _fields(pairs: Sequence[str]) -> dict[str, str]:
    fields = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError("--metadata is NAME=VALUE.")
        fields[name] = value
    return fields


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as exc:
        click.echo(text, nl=False)  # what came of it is not thrown away
        raise click.UsageError(f"{output} cannot be written: {exc.strerror}.") from exc
