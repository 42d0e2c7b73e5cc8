"""Uploads that can be gone on with after a break: the tus protocol 1.0.0 with creation, expiration and termination.

`POST /api/v1/uploads` with `Upload-Length` makes one, `HEAD` says how much of it is there (`Upload-Offset`), `PATCH`
brings bytes from there on, `DELETE` forgets it; a complete one becomes a job by `POST /api/v1/transcriptions` with its
`upload_id`. Clients that do not send `Tus-Resumable` are served all the same: nothing else is served here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus

from aiohttp import web

from mediaserver.jobs.models import Upload
from mediaserver.jobs.service import Jobs
from mediaserver.settings import Settings
from signaling.auth.principal import principal_of
from signaling.body import pieces
from signaling.forms import recording_too_large
from signaling.limits import PREFLIGHT_MAX_AGE_S, Admission, shutting_down
from signaling.openapi.operation import described
from signaling.problems import HttpError
from signaling.routes import jobs_described as api
from signaling.routes.jobs_bodies import is_id
from signaling.routes.jobs_reading import shown_name
from signaling.routes.jobs_submit import empty_recording, upload_not_found
from signaling.seeing.audit_door import concerning

PATH = "/api/v1/uploads"
TUS_VERSION = "1.0.0"
OFFSET_TYPE = "application/offset+octet-stream"
METADATA_MAX_LETTERS = 4096
COUNT_MAX_DIGITS = 15


class Uploads:
    """Uploads in pieces.

    Args:
        jobs: of this server.
        admission: whether the server is on its way out.
        settings: of the node.
    """

    def __init__(self, *, jobs: Jobs, admission: Admission, settings: Settings) -> None:
        self._jobs = jobs
        self._admission = admission
        self._max_bytes = settings.upload_max_bytes
        self._busy: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        one = f"{PATH}/{{id}}"
        return [
            web.post(PATH, self.create),
            web.options(PATH, self.options),
            web.head(one, self.head),
            web.patch(one, self.append),
            web.delete(one, self.delete),
            web.options(one, self.upload_options),
        ]

    @described(api.UPLOAD_OPTIONS)
    async def options(self, _request: web.Request) -> web.Response:
        """OPTIONS: what of tus is there, and what a page of another origin may do."""
        return self._response(
            HTTPStatus.NO_CONTENT,
            {
                "Tus-Version": TUS_VERSION,
                "Tus-Extension": "creation,expiration,termination",
                "Tus-Max-Size": str(self._max_bytes),
                "Access-Control-Allow-Methods": "POST, HEAD, PATCH, DELETE, OPTIONS",
                "Access-Control-Allow-Headers": "Content-Type, Authorization, Tus-Resumable, Upload-Length, "
                "Upload-Metadata, Upload-Offset",
                "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
            },
        )

    @described(api.ONE_UPLOAD_OPTIONS)
    async def upload_options(self, request: web.Request) -> web.Response:
        """OPTIONS of an upload: the same, whether or not there is one."""
        return await self.options(request)

    @described(api.UPLOAD_CREATE)
    async def create(self, request: web.Request) -> web.Response:
        """POST: 201 with the place of a new upload."""
        self._require_serving(request)
        size_bytes = _count(request, "Upload-Length")
        if size_bytes > self._max_bytes:
            raise recording_too_large(self._max_bytes)
        if size_bytes == 0:
            raise empty_recording()
        upload = await self._jobs.add_upload(
            size_bytes=size_bytes, file_name=_file_name(request), tenant=principal_of(request).tenant
        )
        concerning(request, upload=upload.id)
        headers = {"Location": f"{PATH}/{upload.id}", "Upload-Offset": "0", "Upload-Expires": _expires(upload)}
        return self._response(HTTPStatus.CREATED, headers)

    @described(api.UPLOAD_HEAD)
    async def head(self, request: web.Request) -> web.Response:
        """HEAD: how much of an upload is there."""
        _require_version(request)
        upload, size_bytes = await self._find(request)
        return self._response(
            HTTPStatus.OK,
            {
                "Upload-Offset": str(size_bytes),
                "Upload-Length": str(upload.size_bytes),
                "Upload-Expires": _expires(upload),
            },
        )

    @described(api.UPLOAD_APPEND)
    async def append(self, request: web.Request) -> web.Response:
        """PATCH bytes to the end of an upload: 204 with how much is there then. A broken connection loses little."""
        self._require_serving(request)
        if request.content_type != OFFSET_TYPE:
            raise HttpError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                f"The body is not {OFFSET_TYPE}.",
                f"Send `Content-Type: {OFFSET_TYPE}`.",
                headers={"Accept-Patch": OFFSET_TYPE},
            )
        offset = _count(request, "Upload-Offset")
        upload_id = request.match_info["id"]
        if upload_id in self._busy:
            raise HttpError(
                HTTPStatus.LOCKED,
                "UPLOAD_BUSY",
                "Another request brings bytes to this upload.",
                "Wait for it, or until it is broken off; then ask by HEAD where to go on.",
                retryable=True,
            )
        self._busy.add(upload_id)
        try:
            upload, size_bytes = await self._find(request)
            if offset != size_bytes:
                raise HttpError(
                    HTTPStatus.CONFLICT,
                    "UPLOAD_OFFSET_WRONG",
                    f"{size_bytes} bytes of the upload are there, not {offset}.",
                    "Go on where `Upload-Offset` of HEAD says.",
                    headers={"Upload-Offset": str(size_bytes)},
                )
            coming = request.content_length or 0
            if offset + coming > upload.size_bytes:
                raise _beyond(upload)
            await self._jobs.files.require_room(coming)
            size_bytes = await self._jobs.files.append(
                upload_id, _bounded(request, upload, offset), at=offset, max_bytes=upload.size_bytes
            )
        finally:
            self._busy.discard(upload_id)
        concerning(request, from_byte=offset, to_byte=size_bytes)
        return self._response(
            HTTPStatus.NO_CONTENT, {"Upload-Offset": str(size_bytes), "Upload-Expires": _expires(upload)}
        )

    @described(api.UPLOAD_DELETE)
    async def delete(self, request: web.Request) -> web.Response:
        """DELETE an upload: 204."""
        _require_version(request)
        upload_id = request.match_info["id"]
        await self._find(request)
        if not await self._jobs.delete_upload(upload_id):
            raise upload_not_found()
        return self._response(HTTPStatus.NO_CONTENT, {})

    async def _find(self, request: web.Request) -> tuple[Upload, int]:
        upload_id = request.match_info["id"]
        found = await self._jobs.get_upload(upload_id) if is_id(upload_id) else None
        if found is None or not principal_of(request).may_see(found[0].tenant):
            raise upload_not_found()
        return found

    def _require_serving(self, request: web.Request) -> None:
        if self._admission.stopping:
            raise shutting_down()
        _require_version(request)

    @staticmethod
    def _response(status: HTTPStatus, headers: dict[str, str]) -> web.Response:
        return web.Response(
            status=status, headers={"Tus-Resumable": TUS_VERSION, "Cache-Control": "no-store", **headers}
        )


def _require_version(request: web.Request) -> None:
    version = request.headers.get("Tus-Resumable", TUS_VERSION)
    if version != TUS_VERSION:
        raise HttpError(
            HTTPStatus.PRECONDITION_FAILED,
            "TUS_VERSION_UNSUPPORTED",
            "This version of tus is not spoken here.",
            f"Send `Tus-Resumable: {TUS_VERSION}`.",
            headers={"Tus-Version": TUS_VERSION},
        )


def _count(request: web.Request, name: str) -> int:
    """A header that counts bytes.

    Raises:
        HttpError: INVALID_HEADER.
    """
    text = request.headers.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= COUNT_MAX_DIGITS):
        raise HttpError(
            HTTPStatus.BAD_REQUEST, "INVALID_HEADER", f"`{name}` is missing or no number of bytes.", f"Send `{name}`."
        )
    return int(text)


def _file_name(request: web.Request) -> str | None:
    """`filename` of `Upload-Metadata`: pairs of a name and a value in base64, separated by commas.

    Raises:
        HttpError: INVALID_HEADER.
    """
    text = request.headers.get("Upload-Metadata", "")
    try:
        if len(text) > METADATA_MAX_LETTERS:
            raise ValueError("it is too long")
        pairs = (pair.strip().partition(" ") for pair in text.split(","))
        values = {name: base64.b64decode(value, validate=True).decode() for name, _, value in pairs if name}
    except (binascii.Error, ValueError) as exc:
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            "INVALID_HEADER",
            "`Upload-Metadata` cannot be read.",
            "Send `filename` and the name in base64, or leave it out.",
        ) from exc
    return shown_name(values.get("filename"))


async def _bounded(request: web.Request, upload: Upload, offset: int) -> AsyncIterator[bytes]:
    """The body, up to the end of the upload."""
    async for piece in pieces(request):
        offset += len(piece)
        if offset > upload.size_bytes:
            raise _beyond(upload)
        yield piece


def _beyond(upload: Upload) -> HttpError:
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "UPLOAD_TOO_LONG",
        f"The upload was to be of {upload.size_bytes} bytes.",
        "Send no more than `Upload-Length` said.",
    )


def _expires(upload: Upload) -> str:
    return format_datetime(datetime.fromtimestamp(upload.expires_at, UTC), usegmt=True)
