"""The state behind a socket: what becomes of calls and listeners when it goes, and of what is no frame."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mediaserver.errors import VoiceForgeError
from mediaserver.local.frames import LENGTHS
from signaling.cluster import served, worker_connection
from signaling.cluster.memory import MemoryState
from signaling.cluster.served import ServedState, StateServer
from signaling.cluster.state import StateAwayError, StateFullError
from signaling.cluster.state_wire import BODY_MAX_BYTES, Call, encode


@pytest_asyncio.fixture
async def memory(tmp_path: Path) -> AsyncIterator[MemoryState]:
    state = MemoryState(items_max=3)
    yield state
    await state.close()


@pytest_asyncio.fixture
async def server(memory: MemoryState, tmp_path: Path, no_leaked_tasks: None) -> AsyncIterator[StateServer]:
    server = StateServer(memory, tmp_path / "s")
    await server.start()
    yield server
    await server.close()


@pytest_asyncio.fixture
async def state(tmp_path: Path, no_leaked_tasks: None) -> AsyncIterator[ServedState]:
    state = ServedState(tmp_path / "s")
    yield state
    await state.close()


async def test_only_this_user_may_open_it(server: StateServer, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    with pytest.raises(VoiceForgeError) as refused:
        await StateServer(MemoryState(), tmp_path / "s").start()
    assert refused.value.code == "STATE_SOCKET_IN_USE"


async def test_where_nobody_keeps_it_it_is_away_at_once(state: ServedState) -> None:
    async with asyncio.timeout(1.0):
        for _ in range(3):
            with pytest.raises(StateAwayError):
                await state.get("a")


async def test_it_is_back_once_somebody_keeps_it_again(
    state: ServedState, server: StateServer, memory: MemoryState, tmp_path: Path
) -> None:
    await state.put("a", b"1", ttl_s=60.0)
    async with state.listen("topic") as heard:
        await server.close()
        with pytest.raises(StateAwayError):
            await anext(heard)
    with pytest.raises(StateAwayError):
        await state.get("a")
    again = StateServer(memory, tmp_path / "s")
    await again.start()
    async with asyncio.timeout(10.0):
        while True:
            try:
                assert await state.get("a") == b"1"
                break
            except StateAwayError:
                await asyncio.sleep(0.01)
    async with state.listen("topic") as heard:
        await memory.publish("topic", b"again")
        assert await anext(heard) == b"again"
    await again.close()


async def test_a_full_state_says_so(state: ServedState, server: StateServer) -> None:
    for name in "abc":
        await state.put(name, b"", ttl_s=60.0)
    with pytest.raises(StateFullError):
        await state.put("d", b"", ttl_s=60.0)


async def test_one_that_does_not_answer_is_away_in_time(tmp_path: Path, no_leaked_tasks: None) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_unix_server(hold, tmp_path / "silent")
    state = ServedState(tmp_path / "silent", limit_s=0.05)
    with pytest.raises(StateAwayError):
        await state.get("a")
    await state.close()
    silent.close()


@pytest.mark.parametrize(
    "sent",
    [
        LENGTHS.pack(2, 0) + b"{}",
        LENGTHS.pack(4, 0) + b"\xff\xff\xff\xff",
        LENGTHS.pack(10, BODY_MAX_BYTES + 1),
        LENGTHS.pack(2**32 - 1, 0),
        encode(Call(call_id=1, method="get", name="a")).replace(b'"get"', b'"eat"'),
    ],
)
async def test_who_sends_what_is_no_call_is_hung_up_on(
    server: StateServer, state: ServedState, tmp_path: Path, sent: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    writer.write(sent)
    assert await reader.read() == b""
    writer.close()
    await state.put("a", b"still served", ttl_s=60.0)


async def test_a_worker_that_names_too_many_topics_is_hung_up_on(
    server: StateServer, state: ServedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_connection, "TOPICS_MAX", 2)
    async with state.listen("a") as heard, state.listen("b"):
        with pytest.raises(StateAwayError):
            async with state.listen("c"):
                pass
        with pytest.raises(StateAwayError):
            await anext(heard)


async def test_a_worker_too_many_is_hung_up_on(
    server: StateServer, state: ServedState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_connections_max", 1)
    await state.get("a")
    more = ServedState(tmp_path / "s")
    with pytest.raises(StateAwayError):
        await more.get("a")
    await more.close()
    assert await state.get("a") is None


async def test_calls_beyond_the_bound_fail_and_the_others_are_answered(
    server: StateServer, state: ServedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "IN_FLIGHT_MAX", 5)
    answers = await asyncio.gather(*(state.get("a") for _ in range(8)), return_exceptions=True)
    assert answers[:5] == [None] * 5
    assert all(isinstance(answer, StateAwayError) for answer in answers[5:])


async def test_after_the_end_it_is_away(server: StateServer, state: ServedState) -> None:
    async with state.listen("topic") as heard:
        await state.close()
        with pytest.raises(StateAwayError):
            await anext(heard)
    with pytest.raises(StateAwayError):
        await state.get("a")
