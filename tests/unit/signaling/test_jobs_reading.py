"""Forms that are cut, mixed up and made up: whatever comes, it is read or refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from unittest import mock

import pytest
from aiohttp import StreamReader
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import RequestPayloadError
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.errors import VoiceForgeError
from signaling.problems import HttpError, status_of
from signaling.routes.jobs_reading import Form, read_form, shown_name

PART = 'Content-Disposition: form-data; name="{}"'
GOOD = (
    b"--x\r\n" + PART.format("language").encode() + b"\r\n\r\nen\r\n"
    b"--x\r\n" + PART.format('file"; filename="a.wav').encode() + b"\r\n\r\nsounds\r\n--x--\r\n"
)

PIECES = st.lists(
    st.one_of(
        st.sampled_from([b"--x", b"--x--", b"\r\n", b"\r\n\r\n", b"--", b"x", b"{", b"[" * 2000, b'"', b"; charset=x"]),
        st.sampled_from(["file", "options", "metadata", "hotwords", "priority", "nonsense", ""]).map(
            lambda name: PART.format(name).encode() + b"\r\n\r\n"
        ),
        st.sampled_from(
            [b"Content-Length: -1\r\n", b"Content-Transfer-Encoding: base64\r\n", b"Content-Encoding: gzip\r\n"]
        ),
        st.binary(max_size=20),
    ),
    max_size=20,
).map(b"".join)


async def read(body: bytes, broken: Exception | None = None) -> Form:
    protocol = mock.Mock(_reading_paused=False)
    content = StreamReader(protocol, 2**16, loop=asyncio.get_running_loop())
    content.feed_data(body)
    if broken is None:
        content.feed_eof()
    else:
        content.set_exception(broken)
    request = make_mocked_request(
        "POST", "/", headers={"Content-Type": "multipart/form-data; boundary=x"}, payload=content
    )

    async def save(pieces: AsyncIterator[bytes]) -> int:
        return sum([len(piece) async for piece in pieces])

    return await read_form(request, save, max_bytes=1000)


def test_a_good_form_is_read() -> None:
    form = asyncio.run(read(GOOD))
    assert (form.file_name, form.size_bytes, form.options.language) == ("a.wav", 6, "en")


@pytest.mark.parametrize("broken", [RequestPayloadError(), ConnectionResetError()])
def test_a_body_that_breaks_off_is_said_to(broken: Exception) -> None:
    with pytest.raises(HttpError) as failure:
        asyncio.run(read(GOOD[:40], broken))
    assert failure.value.code == "BODY_BROKEN"


@pytest.mark.filterwarnings("ignore:.*:aiohttp.multipart.BadContentDispositionHeader")
@pytest.mark.filterwarnings("ignore:.*:aiohttp.multipart.BadContentDispositionParam")
@settings(max_examples=150, deadline=None)
@given(st.one_of(PIECES, st.tuples(st.integers(0, len(GOOD)), PIECES).map(lambda cut: GOOD[: cut[0]] + cut[1])))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    refused: VoiceForgeError | None = None
    try:
        asyncio.run(read(body))
    except VoiceForgeError as exc:
        refused = exc
    assert refused is None or 400 <= status_of(refused) < 500


@given(st.text(max_size=400))
def test_names_that_are_shown_are_harmless(name: str) -> None:
    shown = shown_name(name)
    assert shown is None or (shown.isprintable() and "/" not in shown and "\\" not in shown and len(shown) <= 255)
