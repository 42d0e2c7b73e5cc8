"""Bytes on the wire that are hardly HTTP and hardly WebSocket frames (RFC 6455 section 5)."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import bytes_astray
from tests.fuzz.server import IS_DEEP, MESSAGES, Fuzzed
from tests.fuzz.sockets import LOUD
from tests.fuzz.test_fuzz_native import is_heard

pytestmark = pytest.mark.timeout(3600)

SOCKETS = ["/ws/v1/transcribe?encoding=linear16&sample_rate=16000", "/v1/listen", "/v1/realtime?intent=transcription"]
HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
POST = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {}\r\nContent-Length: 5\r\n\r\nhello"
REQUESTS = [
    *(HANDSHAKE.format(path) for path in SOCKETS),
    POST.format("/whip", "application/sdp"),
    POST.format("/api/v1/transcriptions", "application/json"),
    "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
]
SOON_S = 0.1
"""An answer takes milliseconds; half a request has none."""

BLOCK_BYTES = 65_536

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack(">H", size)
    return bytes([0x80 * final | opcode]) + length + bytes(4) + payload


FRAMES = [
    frame(TEXT, b'{"type":"keep_alive"}'),
    frame(TEXT, b'{"type":"fina', final=False) + frame(0, b'lize"}'),
    frame(BINARY, LOUD),
    frame(PING, b"there?"),
    frame(CLOSE, struct.pack(">H", 1000) + b"bye"),
]


async def send(server: Fuzzed, data: list[bytes]) -> None:
    """Send it in pieces, read what comes soon, and hang up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.server.port)
    try:
        for piece in data:
            server.tally["messages"] += 1
            writer.write(piece)
            await asyncio.sleep(0)
        async with asyncio.timeout(SOON_S):
            answer = await reader.read(BLOCK_BYTES)
        server.tally[answer[9:12].decode("ascii", "replace") or "nothing"] += 1
    except (ConnectionError, TimeoutError) as exc:
        server.tally[type(exc).__name__] += 1
    finally:
        writer.close()


@pytest.mark.parametrize("path", [*SOCKETS, "/whip/none/events"])
@pytest.mark.parametrize("key", [b"\xff", b"\xed\xa0\x80", b"AAAAAAA\xc0AAAAAAAAAAAAAA==", b"short", b""])
def test_a_key_that_is_none_is_refused(fuzzed: Fuzzed, path: str, key: bytes) -> None:
    async def refused() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", fuzzed.server.port)
        writer.write(HANDSHAKE.format(path).encode().replace(b"AAAAAAAAAAAAAAAAAAAAAA==", key))
        answer = await reader.readline()
        writer.close()
        return int(answer.split(b" ")[1])

    assert fuzzed.run(refused()) in (400, 404, 426)


def test_garbled_requests_and_frames_leave_the_server_as_it_was(fuzzed: Fuzzed) -> None:
    handshakes = st.sampled_from(SOCKETS).map(lambda path: HANDSHAKE.format(path).encode())
    frames = st.lists(bytes_astray(st.sampled_from(FRAMES)), max_size=8)
    conversation = st.builds(lambda first, rest: [first, *rest], handshakes, frames)
    request = bytes_astray(st.sampled_from(REQUESTS).map(str.encode)).map(lambda data: [data])

    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // 2 if IS_DEEP else MESSAGES // 4)
    @given(st.one_of(conversation, conversation, request))
    def try_one(data: list[bytes]) -> None:
        fuzzed.run(send(fuzzed, data))
        fuzzed.after_a_message()

    try_one()
    fuzzed.run(is_heard(fuzzed))
