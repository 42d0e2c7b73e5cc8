"""A deletion of a tenant's data where several processes have its sessions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from front_door import OFFER, SDP
from two_places import two_places

from signaling.app import ACCOUNTS
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope
from signaling.privacy import service


async def test_a_certificate_waits_for_sessions_of_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_PERIOD_S", 0.7)
    monkeypatch.setattr(service, "OTHERS_S", 5.0)
    async with two_places(tmp_path) as two:
        keys = two.first.app[ACCOUNTS].keys
        _, value = await keys.create(NewKey("x", "acme", scopes=(Scope.STREAM, Scope.JOBS)))
        own = {"Authorization": f"Bearer {value}"}
        async with two.http.post(two.second.url("/whip"), data=OFFER, headers={**SDP, **own}) as response:
            assert response.status == 201
        async with two.http.delete(two.first.url("/api/v1/data"), headers=own) as response:
            location = two.first.url(response.headers["Location"])
        async with asyncio.timeout(30):
            while True:
                async with two.http.get(location, headers=own) as response:
                    erasure = await response.json()
                assert two.second.sessions == 0 or erasure["state"] != "completed"
                if erasure["state"] == "completed":
                    break
                await asyncio.sleep(0.05)
        assert two.second.peers[0].closed == ["data_deleted"]
        assert erasure["certificate"]["statement"]["found_afterwards"]["rows"]["usage_rows"] == 0
