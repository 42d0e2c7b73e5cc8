"""Recordings on disk: a folder for each job and a file for each upload, named by their ids, off the event loop.

What is being written and fails is removed at once; what a crash leaves is in no row of the database and is swept away.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from mediaserver.errors import MediaError
from mediaserver.storage.database import StorageFullError, is_full

T = TypeVar("T")

WRITE_BYTES = 1 << 20
"""Written at once: few trips to a thread, and hardly any memory."""

RESERVE_BYTES = 256 << 20
"""Left free on the disk for the database and for everybody else."""

DISCARD_TRIES = 5

PRIVATE_FOLDER = 0o700
"""What people said is nobody else's business on the machine."""


class Files:
    """The recordings under one folder.

    Args:
        root: made at the first need.
    """

    def __init__(self, root: Path) -> None:
        self._recordings = root / "recordings"
        self._uploads = root / "uploads"

    def recording(self, job_id: str) -> Path:
        """Where the recording of a job is."""
        return self._recordings / job_id / "audio"

    def upload(self, upload_id: str) -> Path:
        """Where an upload grows."""
        return self._uploads / upload_id

    async def require_room(self, size_bytes: int) -> None:
        """Refuse what will not fit.

        Raises:
            StorageFullError: DISK_FULL.
        """

        def free_bytes() -> int:
            self._make()
            return shutil.disk_usage(self._recordings).free

        if await _named(free_bytes) - size_bytes < RESERVE_BYTES:
            raise StorageFullError

    async def make_folder(self, job_id: str) -> Path:
        """The place of a job's recording, in a folder that is there."""

        def make() -> Path:
            self._make()
            (self._recordings / job_id).mkdir(exist_ok=True)
            return self.recording(job_id)

        return await _named(make)

    async def save(self, job_id: str, pieces: AsyncIterable[bytes], *, max_bytes: int) -> int:
        """Write a job's recording as it arrives; its size in bytes. If that fails, nothing of it is left.

        Raises:
            StorageFullError: DISK_FULL.
            MediaError: TOO_LARGE.
        """
        path = await self.make_folder(job_id)
        try:
            return await write_pieces(path, pieces, max_bytes=max_bytes, reserve_bytes=RESERVE_BYTES)
        except BaseException:
            await asyncio.shield(self.remove(job_id))  # a gigabyte takes half a second to remove
            raise

    async def make_upload(self, upload_id: str) -> None:
        """An upload of which nothing is there yet."""

        def make() -> None:
            self._make()
            self.upload(upload_id).touch()

        await _named(make)

    async def upload_size(self, upload_id: str) -> int | None:
        """How many bytes of an upload are there; None: there is no such file."""

        def size() -> int | None:
            try:
                return self.upload(upload_id).stat().st_size
            except FileNotFoundError:
                return None

        return await _named(size)

    async def append(self, upload_id: str, pieces: AsyncIterable[bytes], *, at: int, max_bytes: int) -> int:
        """Write on at the end of an upload; its new size. What arrived before something failed is kept.

        Raises:
            StorageFullError: DISK_FULL.
            MediaError: TOO_LARGE.
        """
        path = self.upload(upload_id)
        return await write_pieces(path, pieces, at=at, max_bytes=max_bytes, keeps=True, reserve_bytes=RESERVE_BYTES)

    async def adopt(self, upload_id: str, job_id: str) -> bool:
        """Make a whole upload the recording of a job. False: it is not there any more."""
        path = await self.make_folder(job_id)
        try:
            await _named(lambda: self.upload(upload_id).rename(path))
        except FileNotFoundError:
            await self.remove(job_id)
            return False
        return True

    async def give_up(self, job_id: str, upload_id: str) -> None:
        """Undo `adopt`: the job could not be taken in."""
        with suppress(FileNotFoundError):
            await _named(lambda: self.recording(job_id).rename(self.upload(upload_id)))
        await self.remove(job_id)

    async def remove(self, job_id: str) -> None:
        """Forget the recording of a job."""
        await asyncio.to_thread(shutil.rmtree, self._recordings / job_id, ignore_errors=True)

    async def remove_upload(self, upload_id: str) -> None:
        """Forget an upload."""
        await asyncio.to_thread(self.upload(upload_id).unlink, missing_ok=True)

    async def discard(self, job_id: str) -> int:
        """Delete the recording of a job; how many files there were. Not to be able to is no secret, unlike `remove`.

        Raises:
            OSError: one cannot be deleted.
        """

        def act() -> int:
            folder = self._recordings / job_id
            count = len(list(folder.iterdir())) if folder.exists() else 0
            for _ in range(DISCARD_TRIES):  # whoever fetches it may be writing just now
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    return count
            shutil.rmtree(folder)
            return count

        return await asyncio.to_thread(act)

    async def discard_upload(self, upload_id: str) -> int:
        """Delete an upload; how many files there were. Raises as `discard`."""

        def act() -> int:
            try:
                self.upload(upload_id).unlink()
            except FileNotFoundError:
                return 0
            return 1

        return await asyncio.to_thread(act)

    async def present(self, ids: Sequence[str]) -> list[str]:
        """Those of these ids of jobs and uploads of which there is a file or a folder."""

        def look() -> list[str]:
            return [one for one in ids if (self._recordings / one).exists() or self.upload(one).exists()]

        return await asyncio.to_thread(look)

    async def older_than(self, age_s: float, *, now_s: float) -> list[str]:
        """The ids of all that has lain here for so long, and was not written to."""

        def look() -> list[str]:
            found = []
            for folder in (self._recordings, self._uploads):
                with suppress(FileNotFoundError):
                    for entry in os.scandir(folder):
                        with suppress(FileNotFoundError):
                            if _written_s(Path(entry.path)) < now_s - age_s:
                                found.append(entry.name)
            return found

        return await asyncio.to_thread(look)

    def _make(self) -> None:
        for folder in (self._recordings, self._uploads):
            folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


async def write_pieces(
    path: Path,
    pieces: AsyncIterable[bytes],
    *,
    max_bytes: int,
    at: int = 0,
    keeps: bool = False,
    reserve_bytes: int = 0,
) -> int:
    """Write what comes into a file, off the event loop; its size in bytes then.

    Args:
        path: of the file, which is there where `at` is not 0.
        pieces: of any size.
        max_bytes: of the file.
        at: where to write; what is there from then on is forgotten.
        keeps: whether what came before something failed is written too.
        reserve_bytes: left free on the disk.

    Raises:
        StorageFullError: DISK_FULL.
        MediaError: TOO_LARGE.
    """
    size = at
    pending = bytearray()
    file = path.open("r+b" if at else "wb")  # not in a thread: cancelled there, nobody would close it
    try:
        file.seek(at)
        file.truncate()
        async for piece in pieces:
            size += len(piece)
            if size > max_bytes:
                raise too_large(max_bytes)
            pending += piece
            if len(pending) >= WRITE_BYTES:
                whole = bytes(pending)
                pending.clear()  # before it is written: cut in between, it would be written twice
                await _named(lambda data=whole: _write_reserving(file, data, reserve_bytes))  # type: ignore[misc]
        rest = bytes(pending)
        pending.clear()
        await _named(lambda: _finish(file, rest))
    finally:
        with suppress(OSError):
            if keeps:
                file.write(pending)  # less than `WRITE_BYTES`: what a broken connection brought is kept
            file.close()
    return size


def _written_s(path: Path) -> float:
    """When an upload, or what is in the folder of a recording, was written to; seconds since 1970."""
    times_s: list[float] = [one.stat().st_mtime for one in (path, *(path.iterdir() if path.is_dir() else ()))]
    return max(times_s)


def too_large(max_bytes: int) -> MediaError:
    """The refusal of a recording that is too large."""
    return MediaError(
        "TOO_LARGE",
        f"The recording is larger than {max_bytes / 1e6:.0f} MB.",
        "Send a compressed one, or raise `upload_max_bytes`.",
    )


def _write_reserving(file: BinaryIO, data: bytes, reserve_bytes: int) -> None:
    """Write while there is room: how much will come is not always said, and several come at once.

    Raises:
        OSError: ENOSPC.
    """
    if shutil.disk_usage(file.fileno()).free - len(data) < reserve_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file.write(data)


def _finish(file: BinaryIO, rest: bytes) -> None:
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())


async def _named(act: Callable[[], T]) -> T:
    """Do something with files in a thread; a full disk has a name."""
    try:
        return await asyncio.to_thread(act)
    except OSError as exc:
        if is_full(exc):
            raise StorageFullError from exc
        raise
