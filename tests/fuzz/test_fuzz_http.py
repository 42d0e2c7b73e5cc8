"""The REST interfaces under mutated bodies: jobs, uploads, OpenAI's audio, tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import ODD_TEXT, bytes_astray, queries, texts, utf8
from tests.fuzz.requests import RECORDING, ask, header_text
from tests.fuzz.server import IS_DEEP, MESSAGES, Fuzzed
from tests.fuzz.sockets import Query

pytestmark = pytest.mark.timeout(3600)

JOBS = "/api/v1/transcriptions"
OPTIONS = {
    "language": st.sampled_from([None, "en"]),
    "prompt": st.text(max_size=9),
    "hotwords": st.just(["Anna"]),
    "multichannel": st.booleans(),
    "priority": st.sampled_from(["express", "normal", "low"]),
    "metadata": st.just({"caller": "Ann"}),
    "webhook_url": st.sampled_from([None, None, None, "http://127.0.0.1:1/hook"]),
    "expires_in_s": st.integers(60, 86_400),
    "task": st.sampled_from(["transcribe", "translate"]),
}
URLS = st.sampled_from(
    ["http://nowhere.invalid/a.wav"] * 4 + ["http://127.0.0.1:1/a.wav", "https://[::1]/a", "ftp://127.0.0.1/"]
)
BY_URL = st.fixed_dictionaries({"url": URLS}, optional=OPTIONS)
BATCH = st.fixed_dictionaries(
    {"items": st.lists(BY_URL, min_size=1, max_size=3)},
    optional={"options": st.fixed_dictionaries({}, optional=OPTIONS)},
)
SPEECH_FIELDS: dict[str, st.SearchStrategy[str]] = {
    "model": st.sampled_from(["whisper-1", "gpt-4o-transcribe"]),
    "response_format": st.sampled_from(["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]),
    "language": st.just("en"),
    "prompt": st.text(max_size=9),
    "temperature": st.sampled_from(["0", "0.5"]),
    "timestamp_granularities[]": st.sampled_from(["word", "segment"]),
    "include[]": st.just("logprobs"),
    "stream": st.sampled_from(["true", "false"]),
    "chunking_strategy": st.sampled_from(["auto", '{"type":"server_vad"}']),
}
JOB_FIELDS: dict[str, st.SearchStrategy[str]] = {
    "language": st.just("en"),
    "priority": st.sampled_from(["express", "normal"]),
    "multichannel": st.sampled_from(["true", "false"]),
    "metadata": st.just('{"caller":"Ann"}'),
    "options": st.just('{"prompt":"Anna"}'),
}


def part(name: str, value: bytes, more: str = "") -> bytes:
    """A part of a form."""
    return (
        b'--b\r\nContent-Disposition: form-data; name="'
        + utf8(name)
        + b'"'
        + utf8(more)
        + b"\r\n\r\n"
        + value
        + b"\r\n"
    )


@st.composite
def forms(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[str]], base: Query = []) -> tuple[str, bytes]:  # noqa: B006
    """A form with a recording, whose fields, parts or bytes have gone astray."""
    parts = [part(name, utf8(value)) for name, value in draw(queries(fields, base))]
    recording = draw(st.one_of(st.just(RECORDING), bytes_astray(st.just(RECORDING))))
    file = part("file", recording, '; filename="a.wav"\r\nContent-Type: audio/wav')
    parts.insert(draw(st.integers(0, len(parts))), file)
    body = b"".join(parts) + b"--b--\r\n"
    if draw(st.integers(0, 2)) == 2:
        body = draw(bytes_astray(st.just(body)))
    boundary = draw(
        st.sampled_from(["; boundary=b"] * 8 + ["", "; boundary=", "; boundary=" + "b" * 80, '; boundary="'])
    )
    return f"multipart/form-data{boundary}", body


JSON_TYPE = st.just("application/json")
SPEECH = forms(SPEECH_FIELDS, [("model", "whisper-1")])
REQUEST: st.SearchStrategy[tuple[str, tuple[str, bytes]]] = st.one_of(
    st.tuples(st.just(JOBS), st.tuples(JSON_TYPE, texts(BY_URL).map(utf8))),
    st.tuples(st.just(f"{JOBS}/batch"), st.tuples(JSON_TYPE, texts(BATCH).map(utf8))),
    st.tuples(st.just(JOBS), forms(JOB_FIELDS)),
    st.tuples(st.just("/v1/audio/transcriptions"), SPEECH),
    st.tuples(st.just("/v1/audio/translations"), SPEECH),
    st.tuples(st.just("/v1/auth/grant"), st.tuples(JSON_TYPE, texts(st.just({"ttl_seconds": 30})).map(utf8))),
)


async def settled_jobs(server: Fuzzed) -> None:
    """Delete all jobs, each once it has ended."""
    while True:
        _, listed = await ask(server, "GET", JOBS, query=[("limit", "200")])
        for job in listed["jobs"]:
            await ask(server, "DELETE", f"{JOBS}/{job['id']}")
        if not listed["jobs"]:
            return
        await asyncio.sleep(0.01)


def test_mutated_bodies_leave_the_rest_interfaces_as_they_were(fuzzed: Fuzzed) -> None:
    async def a_request(path: str, content_type: str, body: bytes) -> None:
        status, answer = await ask(fuzzed, "POST", path, body, {"Content-Type": content_type})
        fuzzed.tally[f"{path} {status}"] += 1
        if path.startswith(JOBS) and status == 201:
            for job in [answer] if "id" in answer else answer["jobs"]:
                await ask(fuzzed, "GET", f"{JOBS}/{job['id']}")
            await settled_jobs(fuzzed)

    async def good() -> None:
        body = part("model", b"whisper-1") + part("file", RECORDING, '; filename="a.wav"') + b"--b--\r\n"
        status, answer = await ask(
            fuzzed, "POST", "/v1/audio/transcriptions", body, {"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert status == 200, answer
        assert answer["text"].startswith("hello")

    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES if IS_DEEP else MESSAGES // 2)
    @given(REQUEST)
    def try_one(request: tuple[str, tuple[str, bytes]]) -> None:
        path, (content_type, body) = request
        fuzzed.run(a_request(path, content_type, body))
        fuzzed.after_a_message()

    fuzzed.run(good())
    try_one()
    fuzzed.run(good())


def test_mutated_uploads_leave_nothing_behind(fuzzed: Fuzzed) -> None:
    right = st.just(str(len(RECORDING)))
    numbers = st.one_of(right, right, st.sampled_from(["0", "1", "-1", "99999999999999999999", "1.5"]), ODD_TEXT)
    create = st.fixed_dictionaries(
        {"Tus-Resumable": st.sampled_from(["1.0.0"] * 5 + ["0.9"]), "Upload-Length": numbers},
        optional={"Upload-Metadata": st.one_of(st.just("filename YS53YXY="), ODD_TEXT)},
    )
    append = st.tuples(
        st.one_of(st.just("0"), numbers), st.one_of(st.just(RECORDING), bytes_astray(st.just(RECORDING)))
    )

    async def an_upload(headers: dict[str, str], pieces: list[tuple[str, bytes]]) -> None:
        given_headers = {name: header_text(value) for name, value in headers.items()}
        async with fuzzed.http.post(fuzzed.url("/api/v1/uploads"), headers=given_headers) as response:
            fuzzed.tally["messages"] += 1
            fuzzed.tally[f"created {response.status}"] += 1
            assert response.status < 500 or response.status in (503, 507), await response.text()
            location = response.headers.get("Location", "")
        if not location:
            return
        for offset, data in pieces:
            about: dict[str, Any] = {
                "Tus-Resumable": "1.0.0",
                "Upload-Offset": offset,
                "Content-Type": "application/offset+octet-stream",
            }
            await ask(fuzzed, "PATCH", location, data, about)
        await ask(fuzzed, "HEAD", location, headers={"Tus-Resumable": "1.0.0"})
        await ask(fuzzed, "DELETE", location, headers={"Tus-Resumable": "1.0.0"})

    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // 4)
    @given(create, st.lists(append, max_size=3))
    def try_one(headers: dict[str, str], pieces: list[tuple[str, bytes]]) -> None:
        fuzzed.run(an_upload(headers, pieces))
        fuzzed.after_a_message()

    try_one()
    left = [str(path) for path in fuzzed.data_dir.rglob("*") if path.is_file() and "jobs.db" not in path.name]
    assert left == []
