"""Addresses, ports and consent of an ICE agent; and the private parts of aioice and aiortc that they hang on."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from collections.abc import AsyncIterator

import pytest
from aioice import stun
from aioice.ice import Connection, StunProtocol
from aiortc import RTCDtlsTransport, RTCPeerConnection

from mediaserver.errors import CapacityError
from mediaserver.ingest import ice
from mediaserver.ingest.ice import (
    IceOptions,
    _Agent,
    close_peer_connection,
    configure_ice,
    connections_of,
    listens_on_loopback,
    new_peer_connection,
)
from mediaserver.settings import Settings

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


def options(**changes: object) -> IceOptions:
    made = {"addresses": ("127.0.0.1",), "announced_address": None, "ports": range(0), "consent_timeout_s": 0.3}
    return IceOptions(**{**made, **changes})  # type: ignore[arg-type]


class Gathering:
    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.lost = 0

    def agent(self, chosen: IceOptions) -> Connection:
        connection = Connection(ice_controlling=False)
        self.connections.append(connection)
        _Agent(connection, chosen, self.on_lost).take_over()
        return connection

    def on_lost(self) -> None:
        self.lost += 1


@pytest.fixture
async def gathering() -> AsyncIterator[Gathering]:
    made = Gathering()
    yield made
    for connection in made.connections:
        await connection.close()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_which_hosts_are_loopback(host: str, expected: bool) -> None:
    assert listens_on_loopback(Settings(host=host)) is expected


def test_a_node_takes_media_where_it_listens() -> None:
    assert IceOptions.from_settings(Settings(host="127.0.0.1")).addresses == ("127.0.0.1", "::1")
    assert IceOptions.from_settings(Settings(host="0.0.0.0")).addresses == ()
    assert IceOptions.from_settings(Settings(host="192.0.2.7")).addresses == ("192.0.2.7",)
    assert IceOptions.from_settings(Settings()).ports == range(0)
    chosen = IceOptions.from_settings(Settings(udp_port_min=40_000, udp_port_max=40_001))
    assert list(chosen.ports) == [40_000, 40_001]


async def test_loopback_is_offered_and_what_cannot_be_bound_is_not(gathering: Gathering) -> None:
    connection = gathering.agent(options(addresses=("127.0.0.1", "203.0.113.1")))
    await connection.gather_candidates()
    assert [candidate.host for candidate in connection.local_candidates] == ["127.0.0.1"]


async def test_the_hosts_addresses_are_used_where_none_are_given(gathering: Gathering) -> None:
    connection = gathering.agent(options(addresses=()))
    found = await connection.get_component_candidates(1, ["127.0.0.1", "127.0.0.1", "169.254.9.9", "fe80::1"])
    assert [candidate.host for candidate in found] == ["127.0.0.1"]


async def test_the_hosts_addresses_are_looked_up_off_the_event_loop_and_only_where_none_are_given(
    gathering: Gathering, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def look(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        threads.append(threading.current_thread())
        return ["127.0.0.1"]

    monkeypatch.setattr(ice, "get_host_addresses", look)
    await gathering.agent(options()).gather_candidates()
    assert not threads
    connection = gathering.agent(options(addresses=()))
    await connection.gather_candidates()
    await connection.gather_candidates()  # a second time there is nothing to do
    assert [candidate.host for candidate in connection.local_candidates] == ["127.0.0.1"]
    (thread,) = threads
    assert thread is not threading.main_thread()


async def test_what_gathers_on_after_the_end_binds_nothing() -> None:
    pc = new_peer_connection()
    pc.addTransceiver("audio")
    configure_ice(pc, options(), on_lost=lambda: None)
    (connection,) = connections_of(pc)
    await close_peer_connection(pc)
    await connection.gather_candidates()
    assert connection.local_candidates == []
    assert connection._protocols == []


async def test_ports_come_from_the_range_until_it_is_used_up(gathering: Gathering) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        first = taken.getsockname()[1]
        ports = range(first, min(first + 3, 65_536))
        found = set()
        for _ in ports[1:]:
            connection = gathering.agent(options(ports=ports))
            try:
                await connection.gather_candidates()
            except CapacityError:
                break  # somebody else's socket is in the range
            found.add(connection.local_candidates[0].port)
        assert found <= set(ports[1:])
        with pytest.raises(CapacityError) as caught:
            await gathering.agent(options(ports=ports[:1])).gather_candidates()
        assert caught.value.code == "NO_UDP_PORT"
        assert caught.value.retry_after_s > 0


async def test_the_announced_address_stands_for_the_primary_one(
    gathering: Gathering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ice, "primary_address", lambda addresses, version: "127.0.0.2")
    connection = gathering.agent(options(addresses=("127.0.0.1", "127.0.0.2"), announced_address="203.0.113.9"))
    await connection.gather_candidates()
    (candidate,) = connection.local_candidates
    (protocol,) = connection._protocols
    assert (candidate.host, candidate.type) == ("203.0.113.9", "host")
    assert protocol.local_candidate.host == "127.0.0.2"
    assert protocol.local_candidate.port == candidate.port


def test_the_primary_address_is_one_of_the_hosts_own() -> None:
    assert ice.primary_address(["203.0.113.5", "::1"], 4) == "203.0.113.5"
    assert ice.primary_address(["203.0.113.5", "::1"], 6) == "::1"
    assert ice.primary_address(["203.0.113.5"], 6) is None


async def test_two_agents_of_a_process_do_not_change_each_other(gathering: Gathering) -> None:
    gathering.agent(options())
    untouched = Connection(ice_controlling=False)
    assert "get_component_candidates" not in vars(untouched)
    await untouched.close()


async def introduced(gathering: Gathering, chosen: IceOptions) -> tuple[Connection, Connection]:
    ours, theirs = gathering.agent(chosen), gathering.agent(options(consent_timeout_s=30.0))
    theirs.ice_controlling = True
    await asyncio.gather(ours.gather_candidates(), theirs.gather_candidates())
    for one, other in ((ours, theirs), (theirs, ours)):
        one.remote_username, one.remote_password = other.local_username, other.local_password
        for candidate in other.local_candidates:
            await one.add_remote_candidate(candidate)
    return ours, theirs


async def connected(gathering: Gathering, chosen: IceOptions) -> tuple[Connection, Connection]:
    ours, theirs = await introduced(gathering, chosen)
    await asyncio.gather(ours.connect(), theirs.connect())
    return ours, theirs


async def test_an_agent_that_is_closed_in_the_moment_it_connects_asks_for_no_consent(gathering: Gathering) -> None:
    """Otherwise it would for the whole timeout, and keep everything of the peer with it (`no_leaked_tasks`)."""
    ours, theirs = await introduced(gathering, options(consent_timeout_s=30.0))
    connecting = asyncio.gather(ours.connect(), theirs.connect())
    while not ours._check_list_done:
        await asyncio.sleep(0)
    await ours.close()
    await connecting
    assert ours._query_consent_task is not None
    await asyncio.wait_for(ours._query_consent_task, 0.1)
    assert gathering.lost == 0


async def test_a_peer_that_answers_no_check_is_lost_in_time(
    gathering: Gathering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stun, "RETRY_RTO", 0.05)  # an unanswered check takes 500 ms otherwise
    ours, theirs = await connected(gathering, options(consent_timeout_s=0.3))
    await asyncio.sleep(0.6)
    assert gathering.lost == 0
    for protocol in theirs._protocols:
        protocol.transport.abort()
    await asyncio.sleep(0.8)
    assert gathering.lost == 1
    with pytest.raises(ConnectionError):
        await ours.recv()


async def test_a_peer_connection_is_configured_between_its_descriptions() -> None:
    caller, callee = new_peer_connection(), new_peer_connection()
    caller.addTransceiver("audio")
    caller.createDataChannel("x")
    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(caller.localDescription)
    configure_ice(callee, options(), on_lost=lambda: None)
    (connection,) = connections_of(callee)
    await callee.setLocalDescription(await callee.createAnswer())
    assert [candidate.host for candidate in connection.local_candidates] == ["127.0.0.1"]
    assert " 127.0.0.1 " in callee.localDescription.sdp
    await close_peer_connection(callee)
    await close_peer_connection(caller)


async def test_one_that_is_closed_while_it_connects_begins_no_dtls(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[RTCDtlsTransport] = []

    async def start(transport: RTCDtlsTransport, _parameters: object) -> None:
        begun.append(transport)

    monkeypatch.setattr(RTCDtlsTransport, "start", start)
    caller, callee = new_peer_connection(), new_peer_connection()
    caller.addTransceiver("audio")
    caller.createDataChannel("transcripts")
    configure_ice(caller, options(), on_lost=lambda: None)
    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(caller.localDescription)
    configure_ice(callee, options(), on_lost=lambda: None)
    others = asyncio.all_tasks()
    await callee.setLocalDescription(await callee.createAnswer())
    connecting = asyncio.all_tasks() - others
    states: list[str] = []
    callee.on("connectionstatechange", lambda: states.append(callee.connectionState))
    while callee.iceConnectionState != "checking":
        await asyncio.sleep(0)
    await close_peer_connection(callee)
    assert connecting
    await asyncio.wait(connecting)
    assert begun == []
    assert states[-1:] == ["closed"]
    assert "connected" not in states
    await close_peer_connection(caller)


async def test_no_public_stun_server_is_asked() -> None:
    pc = new_peer_connection()
    pc.addTransceiver("audio")
    assert [connection.stun_server for connection in connections_of(pc)] == [None]
    await pc.close()


def test_contract_the_seams_are_where_they_were() -> None:
    gather = inspect.signature(Connection.get_component_candidates)
    assert list(gather.parameters) == ["self", "component", "addresses", "timeout"]
    gathering = inspect.getsource(Connection.gather_candidates)
    for line in (  # what `_gather_all` does in its place
        "if not self._local_candidates_start:",
        "self.get_component_candidates(component=component, addresses=addresses)",
        "self._local_candidates += candidates",
        "self._local_candidates_end = True",
    ):
        assert line in gathering
    assert Connection(ice_controlling=False)._components == {1}
    assert "asyncio.create_task(self.query_consent())" in inspect.getsource(Connection.connect)
    assert list(inspect.signature(StunProtocol.__init__).parameters) == ["self", "receiver"]
    made = vars(Connection(ice_controlling=False))
    assert {"_protocols", "_nominated", "_query_consent_task", "_local_candidates", "_closing"} <= set(made)
    assert asyncio.iscoroutinefunction(RTCPeerConnection.close)
    connecting = inspect.getsource(RTCPeerConnection._RTCPeerConnection__connect)  # type: ignore[attr-defined]
    assert 'if dtlsTransport.state == "new":' in connecting
