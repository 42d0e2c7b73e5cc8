"""What the doctor says of a real coturn: one that is well, and each way of not being so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from turn_server import SECRET, TurnServer, free_port, plan, run_coturn

from mediaserver.settings import Settings
from signaling.doctor.finding import Finding, Status, examine
from signaling.doctor.relays import relay_checks
from stun_turn import probe, servers
from stun_turn.credentials import TurnCredentials, issue

pytestmark = [pytest.mark.needs("turnserver"), pytest.mark.timeout(60)]


@pytest_asyncio.fixture
async def turn(tmp_path: Path) -> AsyncIterator[TurnServer]:
    async with run_coturn(plan(tmp_path), tmp_path) as server:
        yield server


async def found(**settings: Any) -> dict[str, Finding]:
    """Findings by the first words of their names."""
    checks = relay_checks(Settings(**{"turn_secret": SECRET, **settings}))
    reports = await examine(checks, on_done=lambda report: None)
    return {report.name.partition(" turn:")[0]: report.finding for report in reports}


async def test_a_turn_server_that_is_well(turn: TurnServer) -> None:
    port = free_port()
    findings = await found(turn_urls=[turn.text], udp_port_min=port, udp_port_max=port)
    assert {name: finding.status for name, finding in findings.items()} == dict.fromkeys(
        ("stun", "turn", "turn clock"), Status.OK
    )
    assert "relays to 127.0.0.1 and back" in findings["turn"].message
    assert "sees this machine as 127.0.0.1" in findings["stun"].message


async def test_fixed_credentials_are_tried_too(turn: TurnServer) -> None:
    (server,) = turn.servers().for_session("fixed")
    findings = await found(ice_servers=[{**server.as_dict(), "urls": [f"{turn.text}?transport=tcp"]}])
    assert findings["turn"].status is Status.OK
    assert "turn clock" not in findings
    findings = await found(ice_servers=[{"urls": turn.text, "username": "somebody", "credential": "wrong"}])
    assert findings["turn"].status is Status.FAILED


async def test_another_secret(turn: TurnServer) -> None:
    findings = await found(turn_urls=[turn.text], turn_secret="another-secret-than-theirs")
    assert findings["turn"].status is Status.FAILED
    assert "401" in findings["turn"].message
    assert "secrets" in findings["turn"].hint
    assert findings["turn clock"].status is Status.SKIPPED
    assert findings["stun"].status is Status.OK


@pytest.mark.parametrize(
    ("ahead_s", "turn_says", "clock_says"),
    [(3600, "its clock is ahead", "60 s ahead"), (-3600, "and back", "60 s behind")],
)
async def test_a_clock_that_is_wrong(
    turn: TurnServer, monkeypatch: pytest.MonkeyPatch, ahead_s: int, turn_says: str, clock_says: str
) -> None:
    def elsewhen(secret: str, name: str, *, ttl_s: int, now_s: float) -> TurnCredentials:
        return issue(secret, name, ttl_s=ttl_s, now_s=now_s - ahead_s)

    monkeypatch.setattr(servers, "issue", elsewhen)
    findings = await found(turn_urls=[turn.text])
    assert turn_says in findings["turn"].message
    assert clock_says in findings["turn clock"].message
    assert findings["turn clock"].status is Status.FAILED


async def test_a_turn_server_that_may_not_relay_to_this_node(tmp_path: Path) -> None:
    async with run_coturn(plan(tmp_path, media_addresses=(ip_network("192.0.2.77"),)), tmp_path) as turn:
        findings = await found(turn_urls=[turn.text])
    assert findings["turn"].status is Status.FAILED
    assert "403" in findings["turn"].message
    assert "allowed-peer-ip" in findings["turn"].hint


async def test_a_turn_server_that_does_not_get_through_to_the_announced_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signaling.doctor.relays.ECHO_S", 0.1)
    chosen = plan(tmp_path, media_addresses=(ip_network("127.0.0.1"), ip_network("127.0.0.9")))
    async with run_coturn(chosen, tmp_path) as turn:
        findings = await found(turn_urls=[turn.text], announced_address="127.0.0.9")
    assert findings["turn"].status is Status.FAILED
    assert "nothing arrives at 127.0.0.9" in findings["turn"].message


async def test_a_node_that_no_turn_server_can_reach(tmp_path: Path) -> None:
    async with run_coturn(plan(tmp_path, external_ip="198.51.100.9"), tmp_path) as turn:
        findings = await found(turn_urls=[turn.text])
    assert findings["turn"].status is Status.FAILED
    assert "takes media on loopback only" in findings["turn"].message


async def test_a_turn_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ANSWER_S", 0.2)
    port = free_port()
    findings = await found(
        turn_urls=[f"turn:127.0.0.1:{port}?transport=tcp"], ice_servers=[{"urls": f"stun:127.0.0.1:{port}"}]
    )
    assert findings["turn"].status is Status.FAILED
    assert "cannot be reached by TCP" in findings["turn"].message
    assert findings[f"stun stun:127.0.0.1:{port}"].status is Status.FAILED
    findings = await found(turn_urls=["turn:no-such-host.invalid"])
    assert {finding.status for finding in findings.values()} == {Status.FAILED}
