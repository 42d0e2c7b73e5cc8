"""A full disk, a locked database, a clock that is set, and tokens that are used again: one server, one key."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from mediaserver.decoder.catalogue import ModelFiles
from tests.conftest import Speech
from tests.faults.calls import Told, socket, talk
from tests.faults.conftest import RESUME_WINDOW_S
from tests.faults.keyed import USAGE_S, Keyed, keyed_server, locked_database, post_json
from tests.faults.node import CALM_S, MIB, unharmed
from tests.faults.pulse import Pulse
from tests.scoring import word_errors

LOCKED_S = 7.0
"""Longer than a writer waits (5 s)."""

DISK_RESERVE_MIB = 1
"""Below which the node says that it is not ready; its disk has 300."""

READY_AGAIN_S = 15.0

AT_ONCE = 20

HOUR_S = 3600.0


@pytest.fixture(scope="module")
def keyed(
    tmp_path_factory: pytest.TempPathFactory, model_files: ModelFiles, vad_model_path: Path, longest: Speech
) -> Iterator[Keyed]:
    """A server with a key; a conversation and a recording have been through it."""
    folder = tmp_path_factory.mktemp("keyed")
    settings = {"resume_window_s": RESUME_WINDOW_S, "disk_reserve_mib": DISK_RESERVE_MIB}
    with keyed_server(folder, audit_log=folder / "data" / "audit.jsonl", **settings) as server:

        async def warm_up() -> None:
            await asyncio.gather(*(talk(server.node.url, longest, headers=server.headers) for _ in range(4)))
            async with aiohttp.ClientSession(headers=server.headers) as http:
                status, _, body = await submit(http, server, longest)
                assert status == 201
                await job_ended(http, server, body["id"])

        asyncio.run(warm_up())
        yield server


async def submit(http: aiohttp.ClientSession, server: Keyed, speech: Speech) -> tuple[int, int, dict[str, str]]:
    """Hand a recording in: status, Retry-After, body."""
    form = aiohttp.FormData()
    form.add_field("file", speech.path.read_bytes(), filename="speech.flac", content_type="audio/flac")
    async with http.post(f"{server.node.url}/api/v1/transcriptions", data=form) as response:
        return response.status, int(response.headers.get("Retry-After", 0)), await response.json()


async def job_ended(http: aiohttp.ClientSession, server: Keyed, job: str) -> dict[str, object]:
    """The job once it has ended."""
    async with asyncio.timeout(CALM_S * 2):
        while True:
            async with http.get(f"{server.node.url}/api/v1/transcriptions/{job}") as response:
                body: dict[str, object] = await response.json()
            if body["state"] not in ("queued", "running"):
                return body
            await asyncio.sleep(0.1)


def right(told: Told, speech: Speech) -> None:
    """All was heard, and told."""
    told.assert_whole()
    assert word_errors(speech.text, told.text) <= 0.2, told.text


def lasted_s(*tolds: Told) -> float:
    """What is to be counted for conversations, in seconds."""
    return sum(float(told.of("metadata")[0]["duration"]) for told in tolds)


async def join_token(server: Keyed, ttl_s: int = 60) -> dict[str, str]:
    """A token for one session, as a header."""
    answer = await asyncio.to_thread(
        post_json, f"{server.node.url}/api/v1/tokens", {"ttl_s": ttl_s}, headers=server.headers
    )
    return {"Authorization": f"Bearer {answer['token']}"}


async def comes_in(server: Keyed, headers: dict[str, str]) -> int:
    """Try a token; 101, or what it is refused by."""
    try:
        async with socket(server.node.url, headers=headers, is_patient=False) as client:
            await client.hang_up()
            return 101
    except aiohttp.WSServerHandshakeError as exc:
        return exc.status


async def test_of_many_uses_of_a_token_at_once_one_comes_in_and_none_later(
    keyed: Keyed, pulse: Pulse, speech: Speech
) -> None:
    right(await talk(keyed.node.url, speech, headers=keyed.headers), speech)  # it is not busy with something else
    async with unharmed(keyed.node, pulse):
        token = await join_token(keyed)
        answers = Counter(await asyncio.gather(*(comes_in(keyed, token) for _ in range(AT_ONCE))))
        assert answers[101] == 1, answers
        assert set(answers) <= {101, 401, 503}, answers  # a busy node refuses, and leaves the token good
        assert await comes_in(keyed, token) == 401
        broken = {"Authorization": token["Authorization"][:-2]}
        assert await comes_in(keyed, broken) == 401
    secret = token["Authorization"].removeprefix("Bearer ")
    assert secret not in keyed.node.log_text()
    assert keyed.key not in keyed.node.log_text()


async def test_a_locked_database_keeps_newcomers_waiting_and_nobody_who_speaks(
    keyed: Keyed, pulse: Pulse, speech: Speech
) -> None:
    before_s = await keyed.audio_s()
    async with unharmed(keyed.node, pulse), aiohttp.ClientSession(headers=keyed.headers) as http:
        talking = asyncio.create_task(talk(keyed.node.url, speech, pace=1.0, headers=keyed.headers))
        await asyncio.sleep(1.0)
        with locked_database(keyed):
            began_s = time.monotonic()
            status, retry_after_s, body = await submit(http, keyed, speech)
            assert (status, body["error"]["code"]) == (503, "DATABASE_BUSY")  # type: ignore[index]
            assert retry_after_s > 0
            assert 4.0 < time.monotonic() - began_s < LOCKED_S + 5.0
            right(await talk(keyed.node.url, speech, headers=keyed.headers), speech)  # it is read as ever
            await asyncio.sleep(max(0.0, began_s + LOCKED_S - time.monotonic()))
        told = await talking
        right(told, speech)
        status, _, body = await submit(http, keyed, speech)
        assert status == 201
        assert (await job_ended(http, keyed, body["id"]))["state"] == "completed"
    wanted_s = before_s + 2 * lasted_s(told) + speech.duration_s
    await keyed.until_counted(wanted_s, limit_s=USAGE_S * 4 + 10.0)


async def test_on_a_full_disk_everybody_is_heard_and_what_was_used_is_written_once_there_is_room(
    keyed: Keyed, pulse: Pulse, speech: Speech
) -> None:
    if not keyed.has_own_disk:
        pytest.skip("needs a file system of its own (unshare -m, or -Urm for users)")
    before_s = await keyed.audio_s()
    filler = keyed.data_dir / "filler"
    async with (
        unharmed(keyed.node, pulse, expected="audit log cannot be written"),
        aiohttp.ClientSession(headers=keyed.headers) as http,
    ):
        fill(filler)
        try:
            told = await talk(keyed.node.url, speech, pace=1.0, headers=keyed.headers)
            right(told, speech)
            status, _, body = await submit(http, keyed, speech)
            assert (status, body["error"]["code"]) == (507, "DISK_FULL")  # type: ignore[index]
            assert "usage not written" in keyed.node.log_text()
            status, text = await asyncio.to_thread(keyed.node.fetch, "/readyz")
            assert status == 503
            assert "disk" in text
            refusals = {(503, "AUDIT_AWAY"), (507, "DISK_FULL")}  # nothing is done unseen, or half
            assert await new_key(http, keyed) in refusals
        finally:
            filler.unlink()
        began_s = time.monotonic()
        await keyed.until_counted(before_s + lasted_s(told), limit_s=USAGE_S * 4 + 10.0)
        status, _, body = await submit(http, keyed, speech)
        assert status == 201
        assert (await new_key(http, keyed))[0] == 201
        assert (await job_ended(http, keyed, body["id"]))["state"] == "completed"
        while (await asyncio.to_thread(keyed.node.fetch, "/readyz"))[0] != 200:
            assert time.monotonic() - began_s < READY_AGAIN_S + CALM_S
            await asyncio.sleep(0.2)


async def new_key(http: aiohttp.ClientSession, server: Keyed) -> tuple[int, str]:
    """What an administrator who makes a key is answered: the status, and why not."""
    wanted = {"name": "another", "tenant": "acme"}
    async with http.post(f"{server.node.url}/api/v1/admin/keys", json=wanted) as response:
        return response.status, (await response.json()).get("error", {}).get("code", "")


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S], ids=["ahead", "back"])
async def test_a_clock_that_is_set_changes_nothing_for_who_speaks(
    keyed: Keyed, pulse: Pulse, speech: Speech, step_s: float
) -> None:
    before_s = await keyed.audio_s()
    try:
        async with unharmed(keyed.node, pulse), aiohttp.ClientSession(headers=keyed.headers) as http:
            talking = asyncio.create_task(talk(keyed.node.url, speech, pace=1.0, headers=keyed.headers))
            old = await join_token(keyed, ttl_s=600)
            await asyncio.sleep(1.0)
            _, _, body = await submit(http, keyed, speech)  # it runs under a lease
            keyed.node.step_clock(step_s)
            told = await talking
            right(told, speech)
            assert told.of("metadata")[0]["duration"] == pytest.approx(speech.duration_s, abs=0.2)
            assert (await job_ended(http, keyed, body["id"]))["state"] == "completed"
            new = await join_token(keyed)
            assert [await comes_in(keyed, new) for _ in range(2)] == [101, 401]
            # A token's time is the wall clock's: an hour ahead it is over; set back, it is good once all the same.
            assert [await comes_in(keyed, old) for _ in range(2)] == ([401, 401] if step_s > 0 else [101, 401])
            right(await talk(keyed.node.url, speech, headers=keyed.headers), speech)
        await keyed.until_counted(before_s + lasted_s(told) * 2 + speech.duration_s, limit_s=USAGE_S * 4 + 10.0)
    finally:
        keyed.node.step_clock(0.0)
