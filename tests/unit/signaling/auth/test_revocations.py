"""Sessions end with the key that opened them, whichever door, token or secret they came by."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestServer
from front_door import FakeEngine, FakePeer

from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.metrics import Metrics
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from signaling.app import ACCOUNTS, make_app
from signaling.auth import revocations as module
from signaling.auth.keys import Keys, NewKey
from signaling.auth.principal import _CURRENT, Principal, Scope, TokenKind
from signaling.auth.revocations import Revocations
from signaling.registry import Registry


def of(key_id: str | None) -> Principal:
    return Principal("acme", key_id, frozenset({Scope.STREAM}))


async def test_sessions_of_a_key_that_was_ended_elsewhere_or_expires_are_closed(database: Database) -> None:
    now_s = 1_000_000.0
    here, elsewhere = (Keys(database, wall_s=lambda: now_s) for _ in range(2))
    registry = Registry(max_sessions=9, metrics=Metrics())
    revocations = Revocations(keys=here, registry=registry)
    await revocations.look()
    rows = {
        name: (await here.create(NewKey(name, "acme", expires_at=expires_at)))[0]
        for name, expires_at in (("good", None), ("revoked", None), ("expiring", now_s + 60))
    }
    peers = {name: FakePeer(name, SessionConfig()) for name in (*rows, "keyless")}
    for name, peer in peers.items():
        reset = _CURRENT.set(of(rows[name].id if name in rows else None))
        registry.add(name, peer, door="whip")
        _CURRENT.reset(reset)
    await revocations.look()
    assert len(registry.sessions()) == 4
    await elsewhere.revoke(rows["revoked"].id)
    await revocations.look()
    await peers["revoked"].ended.wait()
    now_s += 60
    await revocations.look()
    await peers["expiring"].ended.wait()
    assert {name: peer.closed for name, peer in peers.items()} == {
        "good": [],
        "revoked": ["key_ended"],
        "expiring": ["key_ended"],
        "keyless": [],
    }


async def test_in_the_same_process_nobody_waits(database: Database) -> None:
    keys, registry = Keys(database), Registry(max_sessions=9, metrics=Metrics())
    Revocations(keys=keys, registry=registry)
    row, _ = await keys.create(NewKey("x", "acme"))
    peer = FakePeer("s_1", SessionConfig())
    reset = _CURRENT.set(of(row.id))
    registry.add("s_1", peer, door="whip")
    _CURRENT.reset(reset)
    await keys.revoke(row.id)
    await peer.ended.wait()


@pytest.fixture
async def server(vad_model_path: ModelFiles, tmp_path: Path) -> AsyncIterator[TestServer]:
    metrics = Metrics()
    vad = VadPool(vad_model_path, metrics=metrics)
    settings = Settings(shutdown_deadline_s=1.0, data_dir=tmp_path / "data")
    served = TestServer(make_app(settings, metrics=metrics, engine=FakeEngine(), vad=vad))
    await served.start_server()
    yield served
    await served.close()
    await vad.close()


DOORS = {
    "native": "/ws/v1/transcribe?encoding=linear16&sample_rate=16000",
    "deepgram": "/v1/listen?encoding=linear16&sample_rate=16000",
    "openai": "/v1/realtime?intent=transcription",
}


@pytest.mark.parametrize(
    ("door", "by"),
    [("native", "key"), ("native", "join"), ("deepgram", "grant"), ("openai", "key"), ("openai", "secret")],
)
async def test_a_client_is_told_why(server: TestServer, door: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_PERIOD_S", 0.05)
    accounts = server.app[ACCOUNTS]
    row, key = await accounts.keys.create(NewKey("x", "acme"))
    principal, _ = await accounts.keys.find(key)
    assert principal is not None
    async with aiohttp.ClientSession() as http:
        value = key
        if by == "secret":
            url = server.make_url("/v1/realtime/client_secrets")
            async with http.post(
                url, json={"session": {"type": "transcription"}}, headers={"Authorization": f"Bearer {key}"}
            ) as response:
                value = (await response.json())["value"]
        elif by != "key":
            value = accounts.tokens.issue(principal, kind=TokenKind(by), ttl_s=60)
        headers = {"Authorization": f"Bearer {value}"}
        async with http.ws_connect(
            server.make_url(DOORS[door]), headers=headers, timeout=aiohttp.ClientWSTimeout(5)
        ) as ws:
            await Keys(accounts.database).revoke(row.id)  # as another process does
            told: list[dict[str, Any]] = []
            async for message in ws:
                assert message.type is WSMsgType.TEXT
                told.append(json.loads(message.data))
            assert ws.close_code == 1008
        assert "no longer works" in json.dumps(told)
