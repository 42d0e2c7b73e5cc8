"""Uploads in pieces (tus 1.0.0): begun, gone on with after a break, submitted, forgotten; and what is refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mediaserver.settings import Settings
from tests.unit.signaling.jobs_door import Door, FakeTranscriber, open_door

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}
LIMIT = 5_000_000


@pytest_asyncio.fixture
async def door(tmp_path: Path, no_leaked_tasks: None) -> AsyncIterator[Door]:
    async for opened in open_door(Settings(data_dir=tmp_path / "data", upload_max_bytes=LIMIT), FakeTranscriber()):
        yield opened


async def begin(door: Door, size: int, name: str | None = None) -> str:
    """A new upload; its path."""
    headers = {**TUS, "Upload-Length": str(size)}
    if name is not None:
        headers["Upload-Metadata"] = f"filename {base64.b64encode(name.encode()).decode()},kind YXVkaW8="
    async with door.client.post("/api/v1/uploads", headers=headers) as response:
        assert response.status == 201
        assert response.headers["Tus-Resumable"] == "1.0.0"
        assert response.headers["Upload-Offset"] == "0"
        assert response.headers["Upload-Expires"].endswith("GMT")
        return response.headers["Location"]


async def patch(door: Door, path: str, data: Any, *, at: int) -> tuple[int, str | None]:
    async with door.client.patch(path, data=data, headers={**PIECE, "Upload-Offset": str(at)}) as response:
        return response.status, response.headers.get("Upload-Offset")


async def there(door: Door, path: str) -> int:
    async with door.client.head(path, headers=TUS) as response:
        assert response.status == 200
        assert response.headers["Cache-Control"] == "no-store"
        return int(response.headers["Upload-Offset"])


async def submit(door: Door, path: str, **options: object) -> tuple[int, Any]:
    upload_id = path.rpartition("/")[2]
    return await door.ask("POST", "/transcriptions", json={"upload_id": upload_id, **options})


async def test_a_recording_arrives_in_pieces(door: Door, tmp_path: Path) -> None:
    path = await begin(door, 10, "c:\\calls\\täglich.wav")
    assert await patch(door, path, b"so it", at=0) == (204, "5")
    assert await there(door, path) == 5
    status, body = await submit(door, path)
    assert (status, body["error"]["code"]) == (409, "UPLOAD_INCOMPLETE")
    assert await patch(door, path, b" goes", at=5) == (204, "10")
    status, job = await submit(door, path, language="en")
    assert (status, job["file_name"], job["size_bytes"]) == (201, "täglich.wav", 10)
    assert (await door.ended(job["id"]))["state"] == "completed"
    assert (await door.ask("GET", f"/transcriptions/{job['id']}/result?format=txt"))[1] == "so it goes\n"
    status, body = await submit(door, path)
    assert (status, body["error"]["code"]) == (404, "UPLOAD_NOT_FOUND")
    assert list((tmp_path / "data" / "uploads").iterdir()) == []


async def test_a_broken_connection_loses_little(door: Door) -> None:
    path = await begin(door, 4_000_000)

    async def broken() -> AsyncIterator[bytes]:
        for _ in range(15):
            yield bytes(200_000)
        await asyncio.sleep(0.3)  # what was sent has arrived
        raise ConnectionResetError

    with pytest.raises(OSError, match="Can not write"):
        await patch(door, path, broken(), at=0)
    async with asyncio.timeout(5):
        while (offset := await there(door, path)) < 3_000_000:
            await asyncio.sleep(0.05)
    assert offset == 3_000_000
    assert await patch(door, path, bytes(1_000_000), at=offset) == (204, "4000000")


async def test_bytes_belong_where_the_last_ones_ended(door: Door) -> None:
    path = await begin(door, 10)
    assert await patch(door, path, b"12345", at=0) == (204, "5")
    for at in (0, 4, 6):
        assert await patch(door, path, b"x", at=at) == (409, "5")
    assert (await patch(door, path, b"123456", at=5))[0] == 413
    assert await there(door, path) == 5


async def test_one_request_at_a_time_brings_bytes(door: Door) -> None:
    path = await begin(door, 10)
    go = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        for letter in b"12345":  # aiohttp keeps the first ones back
            yield bytes([letter])
        await go.wait()

    first = asyncio.create_task(patch(door, path, slow(), at=0))
    async with asyncio.timeout(5):
        while not door.uploads._busy:
            await asyncio.sleep(0.01)
    assert (await patch(door, path, b"x", at=0))[0] == 423
    go.set()
    assert await first == (204, "5")


async def test_more_than_was_said_is_cut_off(door: Door) -> None:
    path = await begin(door, 5)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"123"

    assert (await patch(door, path, endless(), at=0))[0] == 413


async def test_an_upload_is_forgotten_on_request(door: Door, tmp_path: Path) -> None:
    path = await begin(door, 5)
    for expected in (204, 404):
        async with door.client.delete(path, headers=TUS) as response:
            assert response.status == expected
    async with door.client.head(path, headers=TUS) as response:
        assert response.status == 404
    assert (await patch(door, path, b"1", at=0))[0] == 404
    assert list((tmp_path / "data" / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"Upload-Length": "-1"}, 400),
        ({"Upload-Length": "१२"}, 400),
        ({"Upload-Length": "9" * 30}, 400),
        ({"Upload-Length": "0"}, 400),
        ({"Upload-Defer-Length": "1"}, 400),
        ({"Upload-Length": str(LIMIT + 1)}, 413),
        ({"Upload-Length": "5", "Upload-Metadata": "filename !!!"}, 400),
        ({"Upload-Length": "5", "Upload-Metadata": "filename /w=="}, 400),
        ({"Upload-Length": "5", "Upload-Metadata": "a " + "A" * 5000}, 400),
        ({"Upload-Length": "5", "Tus-Resumable": "0.2.2"}, 412),
    ],
)
async def test_wrong_beginnings_are_refused(door: Door, headers: dict[str, str], status: int) -> None:
    async with door.client.post("/api/v1/uploads", headers={**TUS, **headers}) as response:
        assert response.status == status
        assert (await response.json())["error"]["code"]


async def test_a_piece_says_what_it_is(door: Door) -> None:
    path = await begin(door, 5)
    for headers, expected in (
        ({**TUS, "Content-Type": "audio/wav", "Upload-Offset": "0"}, 415),
        (PIECE, 400),
        ({**PIECE, "Upload-Offset": "x"}, 400),
        ({**PIECE, "Upload-Offset": "0", "Tus-Resumable": "2.0.0"}, 412),
    ):
        async with door.client.patch(path, data=b"1", headers=headers) as response:
            assert response.status == expected, headers


async def test_a_client_can_ask_what_of_tus_is_there(door: Door) -> None:
    async with door.client.options("/api/v1/uploads", headers={"Origin": "https://page.example"}) as response:
        assert response.status == 204
        assert response.headers["Tus-Version"] == "1.0.0"
        assert response.headers["Tus-Extension"] == "creation,expiration,termination"
        assert response.headers["Tus-Max-Size"] == str(LIMIT)
        assert "Upload-Offset" in response.headers["Access-Control-Allow-Headers"]
        assert "Upload-Offset" in response.headers["Access-Control-Expose-Headers"]
