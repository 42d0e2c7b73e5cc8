"""Frames arrive however their bytes come, and what is beyond their bounds is not waited for."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.local.frames import LENGTHS, FrameError, Framing
from mediaserver.local.sockets import read_frame

FRAMING = Framing(header_max_bytes=20, body_max_bytes=100)


@given(st.lists(st.integers(1, 60), max_size=20), st.lists(st.binary(max_size=100), min_size=1, max_size=4))
def test_frames_arrive_however_the_bytes_are_cut(cuts: list[int], bodies: list[bytes]) -> None:
    sent = [(b"header %d" % number, body) for number, body in enumerate(bodies)]

    async def through() -> list[tuple[bytes, bytes]]:
        reader = asyncio.StreamReader(limit=1)  # less than a frame: it is read all the same
        reading = asyncio.create_task(_in_turn(reader, len(sent)))
        data = b"".join(FRAMING.start(header, len(body)) + body for header, body in sent)
        for cut in (*cuts, len(data)):
            reader.feed_data(data[:cut])
            data = data[cut:]
            await asyncio.sleep(0)
        return await reading

    assert asyncio.run(through()) == sent


async def _in_turn(reader: asyncio.StreamReader, count: int) -> list[tuple[bytes, bytes]]:
    return [await read_frame(reader, FRAMING) for _ in range(count)]


@pytest.mark.parametrize("lengths", [(21, 0), (10, 101), (2**32 - 1, 2**32 - 1)])
async def test_a_frame_beyond_the_bounds_is_refused_before_it_is_read(lengths: tuple[int, int]) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(LENGTHS.pack(*lengths))
    with pytest.raises(FrameError, match="announced"):
        await read_frame(reader, FRAMING)


@pytest.mark.parametrize(("header", "body_bytes"), [(bytes(21), 0), (b"", 101)])
def test_a_frame_beyond_the_bounds_is_not_sent(header: bytes, body_bytes: int) -> None:
    with pytest.raises(FrameError, match="too large"):
        FRAMING.start(header, body_bytes)


@pytest.mark.parametrize("data", [b"", LENGTHS.pack(2, 2), LENGTHS.pack(2, 2) + b"abc"])
async def test_an_end_within_a_frame_is_an_end(data: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    with pytest.raises(EOFError):
        await read_frame(reader, FRAMING)
