"""Media processes and an engine over a real socket: sharing, faults, an engine that goes and comes back."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from mediaserver.decoder.remote import client as client_module
from mediaserver.decoder.remote import server as server_module
from mediaserver.decoder.remote.client import RemoteEngine
from mediaserver.decoder.remote.server import EngineServer
from mediaserver.decoder.remote.wire import (
    FRAMING,
    PROTOCOL,
    SHAPE,
    Decode,
    Hello,
    Refused,
    State,
    Welcome,
    encode,
    read_from_engine,
)
from mediaserver.decoder.status import EngineStatus
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.local.frames import LENGTHS
from mediaserver.metrics import Metrics
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("no_leaked_threads", "no_leaked_tasks")


class Scripted:
    """An engine that says each window's session once `gate` is open, unless `fault` has something else to say."""

    model_name = "scripted"
    languages: tuple[str, ...] = ("en", "de")

    def __init__(self) -> None:
        self.ready = True
        self.retry_after_s: int | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.windows: list[Window] = []
        self.cancelled = 0
        self.odd: Hypothesis | None = None
        self.withdrawn: list[str] = []

    def withdraw(self, session_id: str) -> None:
        self.withdrawn.append(session_id)

    def overload_retry_after_s(self) -> int | None:
        return self.retry_after_s

    async def decode(self, window: Window) -> Hypothesis:
        self.windows.append(window)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fault is not None:
            raise self.fault
        return self.odd or Hypothesis(words=[HypothesisWord(window.session_id, 0.0, 0.1, 1.0)], queued_s=0.25)


class Host:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.kills = 0
        self.closed = False

    async def start(self) -> None:
        pass

    def kill(self) -> None:
        self.kills += 1

    async def close(self) -> None:
        self.closed = True


def window(session: str = "a", kind: Kind = Kind.FINAL) -> Window:
    return Window(session, kind, np.full(1600, 0.5, dtype=np.float32), 0, "en")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine"


@asynccontextmanager
async def serving(engine: Scripted, path: Path) -> AsyncIterator[EngineServer]:
    server = EngineServer(engine, path)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def connected(path: Path, **keywords: object) -> AsyncIterator[RemoteEngine]:
    remote = RemoteEngine(path, metrics=Metrics(), interim_period_s=0.6, **keywords)  # type: ignore[arg-type] # keywords of any kind
    try:
        await remote.start()
        yield remote
    finally:
        await remote.close()


def said(hypothesis: Hypothesis) -> str:
    return hypothesis.words[0].text


async def test_it_is_the_engine_to_who_uses_it(path: Path) -> None:
    engine = Scripted()
    async with serving(engine, path), connected(path) as remote:
        assert (remote.model_name, remote.languages, remote.ready) == ("scripted", ("en", "de"), True)
        hypothesis = await remote.decode(window())
        assert hypothesis.queued_s == 0.25
        assert np.array_equal(engine.windows[0].samples, window().samples)
        assert remote.overload_retry_after_s() is None
        engine.retry_after_s = 7
        await until(lambda: remote.overload_retry_after_s() == 7)
        engine.ready = False
        await until(lambda: not remote.ready)


async def test_two_media_processes_share_it_and_their_sessions_never_meet(path: Path) -> None:
    engine = Scripted()
    async with serving(engine, path), connected(path) as one, connected(path) as other:
        results = await asyncio.gather(one.decode(window("same")), other.decode(window("same")))
    assert {said(result) for result in results} == {"1/same", "2/same"}


async def test_what_becomes_of_a_window_is_told_as_it_is(path: Path) -> None:
    engine = Scripted()
    async with serving(engine, path), connected(path) as remote:
        engine.fault = Replaced()
        with pytest.raises(Replaced):
            await remote.decode(window(kind=Kind.INTERIM))
        engine.fault = VoiceForgeError("DECODE_FAILED", "It failed.", "Go on.", retryable=True)
        with pytest.raises(VoiceForgeError) as caught:
            await remote.decode(window())
        assert caught.value.as_dict() == engine.fault.as_dict()


async def test_a_hypothesis_that_cannot_be_sent_fails_its_window(path: Path) -> None:
    engine = Scripted()
    engine.odd = Hypothesis(language=3)  # type: ignore[arg-type] # meant
    async with serving(engine, path), connected(path) as remote:
        with pytest.raises(VoiceForgeError, match="could not be sent"):
            await remote.decode(window())


async def test_a_window_that_cannot_be_sent_fails_alone(path: Path) -> None:
    engine = Scripted()
    async with serving(engine, path), connected(path) as remote:
        with pytest.raises(VoiceForgeError, match="could not be sent"):
            await remote.decode(Window("a", Kind.FINAL, np.zeros(16_000 * 61, dtype=np.float32), 0))
        assert said(await remote.decode(window())) == "1/a"


async def test_who_gives_up_is_forgotten_on_both_sides(path: Path) -> None:
    engine = Scripted()
    engine.gate.clear()
    async with serving(engine, path), connected(path) as remote:
        task = asyncio.create_task(remote.decode(window()))
        await until(lambda: len(engine.windows) == 1)
        task.cancel()
        await until(lambda: engine.cancelled == 1)
        engine.gate.set()
        await remote.decode(window("next"))


async def test_what_is_withdrawn_is_withdrawn_in_the_engine(path: Path) -> None:
    engine = Scripted()
    engine.gate.clear()
    async with serving(engine, path), connected(path) as remote:
        sent = asyncio.create_task(remote.decode(window(kind=Kind.SPECULATIVE)))
        await until(lambda: len(engine.windows) == 1)
        remote.withdraw("a")
        remote.withdraw("unknown")
        await until(lambda: engine.withdrawn == ["1/a"])
        engine.gate.set()
        assert said(await sent) == "1/a"  # it was being decoded: it goes on


async def test_a_final_outlives_its_engine_and_an_interim_gives_way(path: Path) -> None:
    first, second = Scripted(), Scripted()
    first.gate.clear()
    async with connected_when(path, first) as (remote, server):
        final = asyncio.create_task(remote.decode(window("f")))
        interim = asyncio.create_task(remote.decode(window("i", Kind.INTERIM)))
        await until(lambda: len(first.windows) == 2)
        await server.close()
        with pytest.raises(Replaced):
            await interim
        await until(lambda: not remote.ready)
        with pytest.raises(Replaced):
            await remote.decode(window("i", Kind.INTERIM))
        later = asyncio.create_task(remote.decode(window("later")))
        async with serving(second, path):
            assert said(await final) == "1/f"
            assert said(await later) == "1/later"
            await until(lambda: remote.ready)


@asynccontextmanager
async def connected_when(path: Path, engine: Scripted) -> AsyncIterator[tuple[RemoteEngine, EngineServer]]:
    """A connected engine whose server the test closes itself."""
    async with serving(engine, path) as server, connected(path) as remote:
        yield remote, server


async def test_waiting_for_an_engine_ends_in_a_clear_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaserver.decoder.remote.outbox.AWAY_LIMIT_S", 0.05)
    monkeypatch.setattr(client_module, "SWEEP_S", 0.01)
    engine = Scripted()
    async with connected_when(path, engine) as (remote, server):
        await server.close()
        await until(lambda: not remote.ready)
        with pytest.raises(VoiceForgeError) as caught:
            await remote.decode(window())
        assert caught.value.code == "ENGINE_AWAY"
        assert caught.value.retryable


async def test_an_engine_that_never_comes_is_a_sentence(path: Path) -> None:
    with pytest.raises(VoiceForgeError) as caught:
        async with connected(path, start_limit_s=0.1):
            pass
    assert caught.value.code == "ENGINE_UNREACHABLE"


async def test_an_engine_may_come_later_than_its_client(path: Path) -> None:
    remote = RemoteEngine(path, metrics=Metrics(), interim_period_s=0.6)
    starting = asyncio.create_task(remote.start())
    await asyncio.sleep(0)
    assert not remote.ready
    async with serving(Scripted(), path):
        await starting
        assert remote.ready
        await remote.close()


async def test_another_version_is_refused_at_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Scripted(), path):
        for name, other in (("SHAPE", "another"), ("PROTOCOL", PROTOCOL + 1)):
            with monkeypatch.context() as patch:
                patch.setattr(client_module, name, other)
                with pytest.raises(VoiceForgeError) as caught:
                    async with connected(path):
                        pass
            assert caught.value.code == "ENGINE_VERSION"
        async with connected(path) as remote:
            assert remote.ready


async def test_an_engine_that_comes_back_with_another_model_is_not_used(path: Path) -> None:
    other = Scripted()
    other.model_name = "another"
    async with connected_when(path, Scripted()) as (remote, server):
        await server.close()
        final = asyncio.create_task(remote.decode(window()))
        async with serving(other, path) as replaced:
            await until(lambda: replaced._numbered > 1)  # it was tried more than once
            assert not remote.ready
        async with serving(Scripted(), path):
            assert said(await final).endswith("/a")


async def test_an_engine_that_hangs_is_ended_by_its_host(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SILENCE_LIMIT_S", 0.05)
    host = Host()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for message in (Welcome("scripted", ("en",)), State(True, None)):
            writer.writelines(encode(message))
        await reader.read(-1)  # until the client hangs up
        writer.close()

    server = await asyncio.start_unix_server(hang, path)
    try:
        async with connected(path, host=host):
            await until(lambda: host.kills > 0)
    finally:
        server.close()
    assert host.closed


async def test_closing_fails_what_waits_and_what_comes_after(path: Path) -> None:
    engine = Scripted()
    engine.gate.clear()
    async with serving(engine, path), connected(path) as remote:
        waiting = asyncio.create_task(remote.decode(window()))
        await until(lambda: len(engine.windows) == 1)
        await remote.close()
        for late in (waiting, asyncio.create_task(remote.decode(window()))):
            with pytest.raises(VoiceForgeError) as caught:
                await late
            assert caught.value.code == "ENGINE_CLOSED"
        await until(lambda: engine.cancelled == 1)


# --- the server against clients that are none


async def exchange(path: Path, data: bytes) -> bytes:
    """Send bytes and read until the engine hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    async with asyncio.timeout(5):
        answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return answer


HELLO = b"".join(encode(Hello(PROTOCOL, SHAPE)))


def framed(header: bytes) -> bytes:
    return LENGTHS.pack(len(header), 0) + header


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        framed(b"{}"),
        framed(b'{"type":"cancel","ident":1}'),  # before the hello
        HELLO + HELLO,
        HELLO + framed(b"nonsense"),
        HELLO + LENGTHS.pack(2**31, 0),
        HELLO + b"".join(2 * [*encode(Decode(1, window()))]),  # twice the same number
    ],
)
async def test_a_client_that_is_none_is_hung_up_on_and_harms_nobody(path: Path, data: bytes) -> None:
    engine = Scripted()
    engine.gate.clear()
    async with serving(engine, path), connected(path) as remote:
        task = asyncio.create_task(remote.decode(window("good")))
        await until(lambda: len(engine.windows) == 1)
        await exchange(path, data)
        engine.gate.set()
        assert said(await task) == "1/good"


async def test_who_says_no_hello_is_hung_up_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HELLO_LIMIT_S", 0.05)
    async with serving(Scripted(), path):
        assert await exchange(path, b"") == b""


async def test_one_connection_too_many_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 1)
    async with serving(Scripted(), path), connected(path):
        answer = await exchange(path, HELLO)
        assert FRAMING.lengths(answer[: LENGTHS.size]) == (len(answer) - LENGTHS.size, 0)
        refused = read_from_engine(answer[LENGTHS.size :], b"")
        assert isinstance(refused, Refused)
        assert refused.code == "ENGINE_FULL"


async def test_one_window_too_many_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_IN_FLIGHT", 1)
    engine = Scripted()
    engine.gate.clear()
    async with serving(engine, path), connected(path) as remote:
        first = asyncio.create_task(remote.decode(window()))
        await until(lambda: len(engine.windows) == 1)
        with pytest.raises(VoiceForgeError) as caught:
            await remote.decode(window("b"))
        assert caught.value.code == "ENGINE_OVERLOADED"
        engine.gate.set()
        await first
        await remote.decode(window("b"))


async def test_a_client_that_vanishes_leaves_nothing_behind(path: Path) -> None:
    engine = Scripted()
    engine.gate.clear()
    async with serving(engine, path):
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.writelines([HELLO, *encode(Decode(1, window()))])
        await until(lambda: len(engine.windows) == 1)
        writer.transport.abort()
        await until(lambda: engine.cancelled == 1)


async def test_a_client_that_reads_nothing_holds_nobody_up(path: Path) -> None:
    engine = Scripted()
    engine.odd = Hypothesis(words=[HypothesisWord(" word", 0.0, 0.1, 1.0)] * 2000)
    server = EngineServer(engine, path)
    await server.start()
    _, writer = await asyncio.open_unix_connection(str(path), limit=1)
    writer.write(HELLO)
    for ident in range(50):
        writer.writelines(encode(Decode(ident, window())))
    await until(lambda: len(engine.windows) == 50)
    async with connected(path) as remote:
        await remote.decode(window())
    async with asyncio.timeout(5):
        await server.close()
    writer.transport.abort()


# --- the socket itself


async def test_only_this_user_may_open_the_socket_and_it_goes_with_its_server(path: Path) -> None:
    async with serving(Scripted(), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_an_engine_is_lost_that_goes_and_not_one_that_is_let_go(path: Path) -> None:
    def lost(lines: Sequence[Mapping[str, object]]) -> list[object]:
        return [line["log_level"] for line in lines if line["event"] == "engine lost"]

    async with serving(Scripted(), path):
        with capture_logs() as lines:
            async with connected(path) as remote:
                assert remote.ready
        assert lost(lines) == []
    with capture_logs() as lines:
        async with AsyncExitStack() as stack:
            async with serving(Scripted(), path):
                remote = await stack.enter_async_context(connected(path))
            await until(lambda: not remote.ready)
    assert lost(lines) == ["warning"]


async def test_two_engines_cannot_have_one_socket(path: Path) -> None:
    async with serving(Scripted(), path), connected(path) as remote:
        with pytest.raises(VoiceForgeError) as caught:
            await EngineServer(Scripted(), path).start()
        assert caught.value.code == "ENGINE_SOCKET_IN_USE"
        await remote.decode(window())


async def test_the_socket_of_an_engine_that_died_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(Scripted(), path), connected(path) as remote:
        await remote.decode(window())


async def test_no_other_file_is_touched(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(VoiceForgeError, match="cannot be made"):
        await EngineServer(Scripted(), path).start()
    assert path.read_text() == "mine"


async def test_a_path_that_no_socket_can_have_is_a_sentence(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    for start in (
        EngineServer(Scripted(), long).start,
        RemoteEngine(long, metrics=Metrics(), interim_period_s=0.6).start,
    ):
        with pytest.raises(VoiceForgeError, match="longer than"):
            await start()


async def test_what_waits_is_counted(path: Path) -> None:
    metrics = Metrics()
    remote = RemoteEngine(path, metrics=metrics, interim_period_s=0.6)
    async with serving(Scripted(), path):
        await remote.start()
        await remote.decode(window())
    labels = {"kind": "final", "outcome": "decoded"}
    assert metrics.registry.get_sample_value("voiceforge_windows_total", labels) == 1.0
    heard = {"kind": "final"}
    audio_s = metrics.registry.get_sample_value("voiceforge_decoded_audio_seconds_total", heard)
    assert audio_s == pytest.approx(window().duration_s)
    await remote.close()


async def test_an_engine_says_how_it_is(path: Path) -> None:
    engine = Scripted()
    told = EngineStatus("cpu", "int8", 2, 1, {"final": 3}, 77, 1.5, 1000, 7)
    engine.status = lambda: told  # type: ignore[attr-defined]
    remote = RemoteEngine(path, metrics=Metrics(), interim_period_s=0.6)
    assert remote.status() is None
    async with serving(engine, path):
        await remote.start()
        assert remote.status() == told
    await until(lambda: remote.status() is None)
    await remote.close()
