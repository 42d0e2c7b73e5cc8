"""Tenants and deletion over HTTP, and who may ask for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from front_door import OFFER, SDP, Node, StartNode
from sqlalchemy import select

from mediaserver.jobs.store import NewJob, Store
from mediaserver.storage.usage import Usage
from signaling.app import ACCOUNTS, PRIVACY, REGISTRY
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope, TokenKind
from signaling.privacy import service
from signaling.privacy.certificate import problem_of
from signaling.privacy.eraser import Eraser
from signaling.privacy.erasures import OF_TENANT_IN_PERIOD

TENANTS = "/api/v1/admin/tenants"


@pytest.fixture
async def node(start_node: StartNode, tmp_path: Path) -> Node:
    return await start_node(data_dir=tmp_path / "data", token_secret="t" * 32, audit_log=str(tmp_path / "audit.log"))


async def headers(node: Node, tenant: str, *scopes: Scope) -> dict[str, str]:
    _, value = await node.app[ACCOUNTS].keys.create(NewKey("x", tenant, scopes=scopes))
    return {"Authorization": f"Bearer {value}"}


async def ask(node: Node, method: str, path: str, sent: dict[str, str], **given: Any) -> tuple[int, Any]:
    async with node.client.request(method, path, headers=sent, **given) as response:
        return response.status, await response.json()


async def completed(node: Node, erasure_id: str, sent: dict[str, str]) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            status, body = await ask(node, "GET", f"/api/v1/erasures/{erasure_id}", sent)
            assert status == 200
            if body["state"] == "completed":
                return dict(body)
            await asyncio.sleep(0.05)


async def test_an_admin_says_how_long_things_are_kept(node: Node) -> None:
    admin = await headers(node, "house", Scope.ADMIN)
    wanted = {"transcript_keep_s": 3600, "upload_keep_s": None, "usage_keep_days": 7}
    status, body = await ask(node, "PUT", f"{TENANTS}/acme", admin, json=wanted)
    assert (status, body["retention"]) == (200, wanted)
    assert (await ask(node, "GET", f"{TENANTS}/acme", admin))[1] == body
    _, all_of_them = await ask(node, "GET", TENANTS, admin)
    assert [one["tenant"] for one in all_of_them["tenants"]] == ["acme", "house"]
    for path, sent, status in ((f"{TENANTS}/acme", {"x": 1}, 400), (f"{TENANTS}/a%20b", wanted, 400)):
        assert (await ask(node, "PUT", path, admin, json=sent))[0] == status


async def test_a_tenant_deletes_its_own_and_gets_a_certificate(node: Node, tmp_path: Path) -> None:
    store = Store(node.app[ACCOUNTS].database)
    own, other = await headers(node, "acme", Scope.JOBS), await headers(node, "other", Scope.JOBS)
    for tenant in ("acme", "other"):
        await store.add([NewJob(f"job_{tenant}", {}, 60.0, url="https://x.invalid", tenant=tenant)], now_s=1.0)
    async with node.client.delete("/api/v1/data", headers=own) as response:
        assert response.status == 202
        location, body = response.headers["Location"], await response.json()
    assert location == f"/api/v1/erasures/{body['id']}"
    done = await completed(node, body["id"], own)
    assert done["deleted"]["recordings"] == 1
    certificate = done["certificate"]
    assert certificate["statement"]["is_complete"]
    assert problem_of(certificate, certificate["signature"]["public_key"]) is None
    assert set(await store.get_all(["job_acme", "job_other"])) == {"job_other"}
    assert (await ask(node, "GET", location, other))[0] == 404
    assert (await ask(node, "GET", "/api/v1/erasures", other))[1] == {"erasures": []}
    assert len((await ask(node, "GET", "/api/v1/erasures", own))[1]["erasures"]) == 1
    async with asyncio.timeout(5):
        while '"data.deleted"' not in (tmp_path / "audit.log").read_text():
            await asyncio.sleep(0.05)


async def test_an_admin_deletes_anybodys(node: Node) -> None:
    admin = await headers(node, "house", Scope.ADMIN)
    status, body = await ask(node, "DELETE", f"{TENANTS}/acme/data?usage_totals=delete", admin)
    assert status == 202
    done = await completed(node, body["id"], admin)
    assert done["certificate"]["statement"]["kept"] == {"usage_totals": 0}
    for path in (f"{TENANTS}/acme/data?usage_totals=some", f"{TENANTS}/a%20b/data"):
        assert (await ask(node, "DELETE", path, admin))[0] == 400
    assert (await ask(node, "GET", "/api/v1/erasures/era_none", admin))[0] == 404


async def test_who_may_not(node: Node) -> None:
    stream, jobs = await headers(node, "acme", Scope.STREAM), await headers(node, "acme", Scope.JOBS)
    principal, _ = await node.app[ACCOUNTS].keys.find(jobs["Authorization"].split()[1])
    assert principal is not None
    grant = node.app[ACCOUNTS].tokens.issue(principal, kind=TokenKind.GRANT, ttl_s=60)
    token = {"Authorization": f"Bearer {grant}"}
    for method, path, sent in (
        ("DELETE", "/api/v1/data", stream),
        ("DELETE", "/api/v1/data", token),
        ("GET", "/api/v1/erasures", stream),
        ("GET", "/api/v1/erasures/x", token),
        ("DELETE", f"{TENANTS}/acme/data", jobs),
        ("GET", TENANTS, jobs),
        ("PUT", f"{TENANTS}/acme", jobs),
    ):
        assert (await ask(node, method, path, sent))[0] == 403, (method, path)
    for method, path in (("DELETE", "/api/v1/data"), ("GET", "/api/v1/erasures"), ("GET", TENANTS)):
        assert (await ask(node, method, path, {}))[0] == 401


async def test_other_processes_forget_too_and_one_that_fails_keeps_nobody_waiting(
    start_node: StartNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_PERIOD_S", 0.05)
    both = [await start_node(data_dir=tmp_path / "data") for _ in range(2)]
    admin, stream = await headers(both[0], "house", Scope.ADMIN), await headers(both[0], "acme", Scope.STREAM)
    logs = []
    for node in both:
        async with node.client.post("/whip", data=OFFER, headers={**SDP, **stream}) as response:
            logs.append(response.headers["Location"])
        assert (await node.client.delete(logs[-1])).status == 200
    erase = Eraser.erase

    async def fails_for_broken(eraser: Eraser, erasure: Any) -> Any:
        if erasure.tenant == "broken":
            raise OSError(5, "a file cannot be deleted")
        return await erase(eraser, erasure)

    monkeypatch.setattr(Eraser, "erase", fails_for_broken)
    _, broken = await ask(both[0], "DELETE", f"{TENANTS}/broken/data", admin)
    _, body = await ask(both[0], "DELETE", f"{TENANTS}/acme/data", admin)
    await completed(both[0], body["id"], admin)
    async with asyncio.timeout(20):
        for node, log in zip(both, logs, strict=True):
            while (await node.client.get(f"{log}/events")).status != 404:
                await asyncio.sleep(0.05)
    assert (await ask(both[0], "GET", f"/api/v1/erasures/{broken['id']}", admin))[1]["state"] == "running"


async def test_sessions_that_run_are_ended_and_forgotten(node: Node) -> None:
    admin, stream = await headers(node, "house", Scope.ADMIN), await headers(node, "acme", Scope.STREAM)
    other = await headers(node, "other", Scope.STREAM)
    logs = []
    for sent in (stream, stream, other):
        async with node.client.post("/whip", data=OFFER, headers={**SDP, **sent}) as response:
            assert response.status == 201
            logs.append(response.headers["Location"])
    async with node.client.delete(logs[0]) as response:
        assert response.status == 200
    _, body = await ask(node, "DELETE", f"{TENANTS}/acme/data", admin)
    done = await completed(node, body["id"], admin)
    assert (done["deleted"]["event_logs"], done["deleted"]["sessions_ended"]) == (2, 1)
    assert done["certificate"]["statement"]["is_complete"]
    assert [peer.closed for peer in node.peers] == [["client"], ["data_deleted"], []]
    for log, status in zip(logs, (404, 404, 200), strict=True):
        async with node.client.get(f"{log}/events") as response:
            assert response.status == status
    async with node.client.post("/whip", data=OFFER, headers={**SDP, **stream}) as response:
        assert response.status == 201, "a new one is welcome"
    await node.app[PRIVACY].heed()
    assert node.peers[-1].closed == []


async def test_a_session_that_is_closing_already_is_waited_for(node: Node) -> None:
    """What it used is written down when it is gone: that would stand there after the certificate."""
    admin, stream = await headers(node, "house", Scope.ADMIN), await headers(node, "acme", Scope.STREAM)
    async with node.client.post("/whip", data=OFFER, headers={**SDP, **stream}) as response:
        location = response.headers["Location"]
    node.peers[0].may_close.clear()
    closing = asyncio.create_task(node.client.delete(location))
    async with asyncio.timeout(30):
        while node.app[REGISTRY].sessions():
            await asyncio.sleep(0)
        _, body = await ask(node, "DELETE", f"{TENANTS}/acme/data", admin)
        while (await ask(node, "GET", f"/api/v1/erasures/{body['id']}", admin))[1]["state"] == "queued":
            await asyncio.sleep(0.01)
    node.peers[0].may_close.set()
    assert (await closing).status == 200
    assert (await completed(node, body["id"], admin))["deleted"]["sessions_ended"] == 1


async def test_other_processes_end_theirs_and_what_these_used_names_no_session(
    start_node: StartNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_PERIOD_S", 0.05)
    both = [await start_node(data_dir=tmp_path / "data") for _ in range(2)]
    admin, stream = await headers(both[0], "house", Scope.ADMIN), await headers(both[0], "acme", Scope.STREAM)
    for node in both:
        async with node.client.post("/whip", data=OFFER, headers={**SDP, **stream}) as response:
            assert response.status == 201
    _, body = await ask(both[0], "DELETE", f"{TENANTS}/acme/data", admin)
    await completed(both[0], body["id"], admin)
    async with asyncio.timeout(20):
        while not both[1].peers[0].closed:
            await asyncio.sleep(0.05)
    await both[1].app[PRIVACY].heed()
    assert [node.peers[0].closed for node in both] == [["data_deleted"]] * 2
    async with both[0].app[ACCOUNTS].database.reading() as session:
        assert (await session.scalars(select(Usage.id).where(Usage.tenant == "acme"))).all() == []


async def test_a_tenant_cannot_keep_the_database_busy_with_deletions(node: Node) -> None:
    """Each writes SQLite's file anew; an administrator may all the same."""
    own, other = await headers(node, "acme", Scope.JOBS), await headers(node, "other", Scope.JOBS)
    admin = await headers(node, "house", Scope.ADMIN)
    for _ in range(OF_TENANT_IN_PERIOD):
        status, body = await ask(node, "DELETE", "/api/v1/data", own)
        assert status == 202
        await completed(node, body["id"], own)
    async with node.client.delete("/api/v1/data", headers=own) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (429, "ERASED_TOO_OFTEN")
        assert 3500 < int(response.headers["Retry-After"]) <= 3600
    assert (await ask(node, "DELETE", "/api/v1/data", other))[0] == 202
    assert (await ask(node, "DELETE", f"{TENANTS}/acme/data", admin))[0] == 202
