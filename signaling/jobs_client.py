"""A client of the recordings' interface: what `voiceforge jobs` does with a server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from mediaserver.errors import MediaError, VoiceForgeError
from mediaserver.text.subtitles import Format
from signaling.client_key import KEY_HINT, untrusted

PIECE_BYTES = 8 << 20
"""Of an upload: what is sent again at most when a connection breaks."""

READ_BYTES = 256 << 10

UPLOAD_TRIES = 5
"""In a row without a byte more; a server that is started again is back by then."""

ASK_AGAIN_S = 1.0
"""After a stream of events that ended before its job did."""

CONNECT_TIMEOUT_S = 10.0

OnProgress = Callable[[int], None]
Body = dict[str, Any]


class JobsClient:
    """Asks one server.

    Args:
        http: the connections.
        url: of the server.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._base = f"{url.rstrip('/')}/api/v1"

    async def submit(self, source: Mapping[str, str], options: Mapping[str, object]) -> Body:
        """A job of a `url` or an `upload_id`.

        Raises:
            VoiceForgeError: what the server says, or SERVER_UNREACHABLE. So do the others.
        """
        return await self._ask("POST", "/transcriptions", json={**options, **source})

    async def upload(self, path: Path, *, on_progress: OnProgress) -> str:
        """Bring a file to the server, going on after breaks; the upload's id.

        Raises:
            MediaError: FILE_UNREADABLE.
        """
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError as exc:
            raise MediaError("FILE_UNREADABLE", f"{path} cannot be read: {exc.strerror}.", "Check the path.") from exc
        with file:
            size = await asyncio.to_thread(file.seek, 0, os.SEEK_END)
            name = base64.b64encode(path.name.encode(errors="replace")).decode()
            headers = {"Upload-Length": str(size), "Upload-Metadata": f"filename {name}"}
            location = (await self._request("POST", "/uploads", headers=headers))["Location"]
            place = f"/uploads/{location.rpartition('/')[2]}"
            at = 0
            while at < size:
                before = at
                at = await self._piece(place, file, at, on_progress)
                if at == before:
                    raise MediaError("FILE_UNREADABLE", f"{path} became shorter.", "Submit it once it is written.")
        return location.rpartition("/")[2]

    async def delete_upload(self, upload_id: str) -> None:
        """Forget an upload that no job is to be made of."""
        await self._request("DELETE", f"/uploads/{upload_id}")

    async def list(self, query: Mapping[str, str]) -> Body:
        """A page of jobs."""
        return await self._ask("GET", "/transcriptions", params=query)

    async def show(self, job_id: str) -> Body:
        """A job."""
        return await self._ask("GET", f"/transcriptions/{job_id}")

    async def cancel(self, job_id: str) -> Body:
        """A job that is or will be cancelled."""
        return await self._ask("POST", f"/transcriptions/{job_id}/cancel")

    async def delete(self, job_id: str) -> None:
        """Forget a job."""
        await self._request("DELETE", f"/transcriptions/{job_id}")

    async def result(self, job_id: str, form: Format) -> str:
        """What came of a job."""
        return await self._text("GET", f"/transcriptions/{job_id}/result", params={"format": str(form)})

    async def until_ended(self, job_id: str, *, on_change: Callable[[Body], None]) -> Body:
        """A job once it has ended, told of each change until then."""
        while True:
            job = await self.show(job_id)
            on_change(job)
            if job["state"] not in ("queued", "running"):
                return job
            ended = False
            async for changed in self._changes(job_id):
                on_change(changed)
                ended = changed["state"] not in ("queued", "running")
            if not ended:
                await asyncio.sleep(ASK_AGAIN_S)

    async def _changes(self, job_id: str) -> AsyncIterator[Body]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=60)
        try:
            async with self._http.get(f"{self._base}/transcriptions/{job_id}/events", timeout=timeout) as response:
                if response.status != HTTPStatus.OK:
                    return
                async for line in response.content:
                    if line.startswith(b"data: "):
                        yield json.loads(line[6:])
        except (aiohttp.ClientError, TimeoutError):
            return  # it is asked again

    async def _piece(self, place: str, file: BinaryIO, at: int, on_progress: OnProgress) -> int:
        """Bring one piece, from where the server has it after a break; where the next one begins."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_UnreachableError),
            stop=stop_after_attempt(UPLOAD_TRIES),
            wait=wait_exponential_jitter(multiplier=0.5, max=10.0),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    at = int((await self._request("HEAD", place))["Upload-Offset"])

                async def pieces(start: int = at) -> AsyncIterator[bytes]:
                    file.seek(start)
                    left = PIECE_BYTES
                    while left > 0 and (piece := await asyncio.to_thread(file.read, min(READ_BYTES, left))):
                        left -= len(piece)
                        yield piece
                        on_progress(start + PIECE_BYTES - left)

                headers = {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
                at = int((await self._request("PATCH", place, data=pieces(), headers=headers))["Upload-Offset"])
        return at

    async def _ask(self, method: str, path: str, **given: Any) -> Body:
        body: Body = json.loads(await self._text(method, path, **given))
        return body

    async def _text(self, method: str, path: str, **given: Any) -> str:
        text = ""

        async def read(response: aiohttp.ClientResponse) -> None:
            nonlocal text
            text = await response.text()

        await self._request(method, path, read=read, **given)
        return text

    async def _request(
        self,
        method: str,
        path: str,
        *,
        read: Callable[[aiohttp.ClientResponse], Any] | None = None,
        **given: Any,
    ) -> Mapping[str, str]:
        """One request; the headers of an answer that is no refusal."""
        try:
            async with self._http.request(method, f"{self._base}{path}", **given) as response:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise await _refusal(response)
                if read is not None:
                    await read(response)
                return response.headers
        except aiohttp.ClientConnectorCertificateError as exc:
            raise untrusted(self._base.removesuffix("/api/v1"), exc) from exc
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as exc:
            raise _UnreachableError(
                "SERVER_UNREACHABLE",
                f"No server answers at {self._base.removesuffix('/api/v1')}.",
                "Start one with `voiceforge serve`, or name another with --url.",
                retryable=True,
            ) from exc


class _UnreachableError(VoiceForgeError):
    """The server did not answer: worth another attempt in an upload."""


async def _refusal(response: aiohttp.ClientResponse) -> VoiceForgeError:
    """What the server said, or that it said nothing that is known here."""
    try:
        error = (await response.json())["error"]
        hint = KEY_HINT if response.status == HTTPStatus.UNAUTHORIZED else error["hint"]
        return VoiceForgeError(error["code"], error["message"], hint, retryable=error["retryable"])
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        return VoiceForgeError(
            "SERVER_REFUSED", f"The server answered {response.status}.", "Check that --url is a VoiceForge server's."
        )
