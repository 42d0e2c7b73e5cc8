"""Which addresses and ports a peer connection uses, and when a silent peer counts as gone.

aiortc has no setting for either. Both hang on the ICE agent of one peer connection (an `aioice.Connection`), so two of
its methods are replaced on that one object: no module is patched, and other connections in the process (tests, other
libraries) stay as they are. `tests/unit/ingest/test_ice.py` fails when a new release moves what is relied on here.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, Connection, get_host_addresses
from aioice.stun import TransactionError
from aiortc import RTCConfiguration, RTCDtlsTransport, RTCPeerConnection
from aiortc.rtcdtlstransport import State as DtlsState

from mediaserver.errors import CapacityError
from mediaserver.ingest.intake import bound_messages, bound_sources, bound_waiting, survive_malformed
from mediaserver.ingest.media_path import MediaProtocol
from mediaserver.settings import Settings

LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")

CONSENT_INTERVAL_S = 5.0
"""Mean time between two checks that the peer still consents to receive (RFC 7675 §5.1)."""

CONSENT_CHECKS_MIN = 3
"""At least so many checks fall into the time after which a peer counts as gone: one lost packet ends no call."""

COMPONENT = 1
"""RTP and RTCP share one (RFC 8834): the only component there is."""

PORT_RETRY_AFTER_S = 5
"""When a client may try again after all UDP ports were taken: about as often as sessions end on a full node."""

ROUTE_PROBES = {4: ("198.51.100.1", 9), 6: ("2001:db8::1", 9)}
"""By IP version, addresses that are never in use (RFC 5737, RFC 3849): the kernel is only asked which way it would
send, nothing is sent."""


@dataclass(frozen=True, slots=True)
class IceOptions:
    """Where media is received.

    Args:
        addresses: local addresses to offer; empty means all that the host has.
        announced_address: what clients are told in place of the host's own address of that IP version.
        ports: UDP ports to choose from; empty lets the system choose.
        consent_timeout_s: after how long without an answered check a peer counts as gone.
    """

    addresses: tuple[str, ...]
    announced_address: str | None
    ports: range
    consent_timeout_s: float

    @classmethod
    def from_settings(cls, settings: Settings) -> IceOptions:
        """The options of a node. A node that listens on loopback takes media on loopback, and nowhere else."""
        addresses: tuple[str, ...] = ()
        if listens_on_loopback(settings):
            addresses = LOOPBACK_ADDRESSES
        elif _is_specific(settings.host):
            addresses = (settings.host,)
        first, last = settings.udp_port_min, settings.udp_port_max
        ports = range(first, last + 1) if first else range(0)
        return cls(addresses, settings.announced_address, ports, settings.ping_timeout_s)


def listens_on_loopback(settings: Settings) -> bool:
    """Whether the node is reached from its own host only."""
    if settings.host == "localhost":
        return True
    try:
        return ip_address(settings.host).is_loopback
    except ValueError:
        return False


def local_addresses(options: IceOptions) -> list[str]:
    """The addresses on which a node takes media, as candidates name them unless one is announced in their place."""
    return list(options.addresses) or _usable(get_host_addresses(use_ipv4=True, use_ipv6=True))


def new_peer_connection() -> RTCPeerConnection:
    """A peer connection that asks no STUN server: aiortc's default is a public one, and waits for it for up to 5 s."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def close_peer_connection(pc: RTCPeerConnection) -> None:
    """Close a peer connection in whatever state it is, so that nothing of it goes on.

    Symptom: a peer that is closed while it connects leaves a task (and an error about it in the log) behind. Cause:
    aiortc's `close` does not wait for its own gathering and connecting. These bind further sockets, start the receiver
    which has just been stopped, and start ICE for the data channels on a closed transport unless it has no candidates.
    They would begin DTLS, too, which has nobody to talk to and is a quarter of all the work of such an end, unless it
    is over. It may go when `close` ends them first. May be called again.

    Nor does it leave a circle of objects, which only a search through all of them would find: each connection has 500,
    and what stands in for aiortc's methods refers to its sessions.
    """
    connections = connections_of(pc)
    for connection in connections:
        connection._local_candidates.clear()
    for transport in transports_of(pc):
        if transport.state == "new":
            transport._state = DtlsState.CLOSED
    await pc.close()
    for transceiver in pc.getTransceivers():
        await transceiver.stop()
    for connection in connections:
        await connection.close()  # sockets that were bound since
    _untie(pc)


def _untie(pc: RTCPeerConnection) -> None:
    """Have the parts of a closed peer connection refer to each other one way only."""
    for connection in connections_of(pc):
        for pair in connection._check_list:
            pair.task = None  # its cancellation refers to all that it passed through, this pair too
        connection._check_list.clear()
        _restore(connection)
        connection.get_component_candidates = _no_candidates  # type: ignore[method-assign]
        connection.query_consent = _no_consent  # type: ignore[method-assign]
    for transport in transports_of(pc):
        _restore(transport)
        for told in (transport, transport.transport, transport.transport.iceGatherer):
            told.remove_all_listeners()
    for part in (pc.sctp, *pc.getReceivers()):
        if part is not None:
            _restore(part)


def _restore(part: object) -> None:
    """Take off an object what stands in for methods of its class."""
    for name in [name for name in vars(part) if callable(getattr(type(part), name, None))]:
        delattr(part, name)


async def _no_candidates(component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:  # noqa: ASYNC109 - aioice's signature
    """What gathers on after the end finds nothing, and binds no socket."""
    return []


async def _no_consent() -> None:
    """Nobody is asked any more."""


def configure_ice(pc: RTCPeerConnection, options: IceOptions, *, on_lost: Callable[[], None]) -> None:
    """Have a peer connection gather and watch as `options` say. Call it between the two descriptions.

    Args:
        pc: has its remote description (so its transports exist) and no local one yet (so it has not gathered).
        options: of the node.
        on_lost: called once, on the event loop, when the peer answers no check any more.
    """
    for connection in connections_of(pc):
        _Agent(connection, options, on_lost).take_over()
        bound_waiting(connection)
    for transport in transports_of(pc):
        survive_malformed(transport)
        bound_sources(transport)
    if pc.sctp is not None:
        bound_messages(pc.sctp)


def connections_of(pc: RTCPeerConnection) -> list[Connection]:
    """The ICE agents of a peer connection: one, or two where data channels have a transport of their own."""
    return list(dict.fromkeys(transport.transport._connection for transport in transports_of(pc)))


def transports_of(pc: RTCPeerConnection) -> list[RTCDtlsTransport]:
    """What encrypts a peer connection, in as many parts as there are agents."""
    transports = [receiver.transport for receiver in pc.getReceivers()]
    if pc.sctp is not None:
        transports.append(pc.sctp.transport)
    return list(dict.fromkeys(transports))


class _Agent:
    """The methods of an ICE agent that are ours.

    Gathering. Symptom: no candidate on loopback, ports that no firewall rule can name, private addresses behind a
    1:1 NAT; the event loop stands still while the host's addresses are looked up, for each of which that takes up to
    1 ms. Cause: `aioice` leaves loopback out, binds port 0, has no mapping, and looks addresses up on the loop. It may
    go when aioice takes addresses, ports and a mapping as arguments.

    Consent. Symptom: a killed browser is noticed after more than 30 s. Cause: `aioice` counts six failures, 5 s
    apart. It may go when aioice takes the timeout as an argument.
    """

    def __init__(self, connection: Connection, options: IceOptions, on_lost: Callable[[], None]) -> None:
        self._connection = connection
        self._options = options
        self._on_lost = on_lost

    def take_over(self) -> None:
        """Replace the methods on this one object."""
        self._connection.gather_candidates = self._gather_all  # type: ignore[method-assign]
        self._connection.get_component_candidates = self._gather  # type: ignore[method-assign]
        self._connection.query_consent = self._watch_consent  # type: ignore[method-assign]

    async def _gather_all(self) -> None:
        """Gather once. Where no addresses are given, the host's are looked up, in a thread.

        Raises:
            CapacityError: no address has a free port in the range.
        """
        connection, options = self._connection, self._options
        if connection._local_candidates_start:
            return
        connection._local_candidates_start = True
        addresses = local_addresses(options) if options.addresses else await asyncio.to_thread(local_addresses, options)
        # Of an agent that was closed meanwhile this is `_no_candidates`.
        connection._local_candidates += await connection.get_component_candidates(COMPONENT, addresses)
        connection._local_candidates_end = True

    async def _gather(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:  # noqa: ASYNC109 - aioice's signature
        """Bind a socket on each address, and say where it is reached.

        Raises:
            CapacityError: no address has a free port in the range.
        """
        offered = [*(self._options.addresses or _usable(addresses))]
        announced, mapped = self._options.announced_address, None
        if announced is not None:
            # A 1:1 NAT maps one of the host's addresses: the one by which it reaches the internet. What others of
            # that family it has (containers, management) means nothing to those who are told the announced one.
            version = ip_address(announced).version
            mapped = primary_address(offered, version)
            offered = [address for address in offered if address == mapped or ip_address(address).version != version]
        found: list[Candidate] = []
        for address in offered:
            protocol = await self._bind(address)
            if protocol is None:
                continue
            host, port = protocol.transport.get_extra_info("sockname")[:2]
            protocol.local_candidate = _host_candidate(component, host, port)
            self._connection._protocols.append(protocol)
            found.append(
                protocol.local_candidate
                if announced is None or address != mapped
                else _host_candidate(component, announced, port)
            )
        if not found:
            raise CapacityError(
                "NO_UDP_PORT",
                "No UDP port is free for media.",
                "Widen udp_port_min to udp_port_max (one port per session and address), or try again later.",
                retry_after_s=PORT_RETRY_AFTER_S,
            )
        return found

    async def _bind(self, address: str) -> MediaProtocol | None:
        """A socket on that address and a free port; None where the host has no such address or no port is free."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        for port in self._ports():
            sock: socket.socket | None = None
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM)
                sock.setblocking(False)
                sock.bind((address, port))
                _, protocol = await loop.create_datagram_endpoint(lambda: MediaProtocol(self._connection), sock=sock)
            except OSError:
                if sock is not None:
                    sock.close()
                continue
            return protocol
        return None

    def _ports(self) -> Iterator[int]:
        """The ports to try, from a random one on: sessions that start together do not run into each other."""
        ports = self._options.ports
        if not ports:
            yield 0
            return
        start = random.randrange(len(ports))  # noqa: S311 - spreads load, guards nothing
        for offset in range(len(ports)):
            yield ports[(start + offset) % len(ports)]

    async def _watch_consent(self) -> None:
        """Ask for consent until it has not been given for the timeout, then close the agent (RFC 7675 §5.1)."""
        connection, timeout_s = self._connection, self._options.consent_timeout_s
        if connection._closing:
            return  # closed in the moment it connected: aioice starts this all the same, and nothing would end it
        interval_s = min(CONSENT_INTERVAL_S, timeout_s / CONSENT_CHECKS_MIN)
        loop = asyncio.get_running_loop()
        answered_s = loop.time()
        while True:
            await asyncio.sleep(interval_s * random.uniform(0.8, 1.2))  # noqa: S311 - RFC 7675: out of step with others
            for pair in list(connection._nominated.values()):
                if await self._consents(pair):
                    answered_s = loop.time()
            if loop.time() - answered_s >= timeout_s:
                connection._query_consent_task = None  # or closing would wait for this very task
                self._on_lost()
                await connection.close()
                return

    async def _consents(self, pair: CandidatePair) -> bool:
        password = self._connection.remote_password
        if password is None:
            return False
        try:
            await pair.protocol.request(
                self._connection.build_request(pair, nominate=False),
                pair.remote_addr,
                integrity_key=password.encode(),
                retransmissions=0,
            )
        except TransactionError:
            return False
        return True


def _usable(addresses: list[str]) -> list[str]:
    """Addresses that somebody else can reach: link-local ones need a scope that candidates cannot carry."""
    return [address for address in dict.fromkeys(addresses) if not ip_address(address).is_link_local]


def _host_candidate(component: int, host: str, port: int) -> Candidate:
    return Candidate(
        foundation=candidate_foundation("host", "udp", host),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "host"),
        host=host,
        port=port,
        type="host",
    )


def _is_specific(host: str) -> bool:
    try:
        return not ip_address(host).is_unspecified
    except ValueError:
        return False


def primary_address(addresses: list[str], version: int) -> str | None:
    """The address of that IP version among these that the host would reach the internet from; else the first."""
    own = [address for address in addresses if ip_address(address).version == version]
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(ROUTE_PROBES[version])
            routed: str | None = probe.getsockname()[0]
        except OSError:
            routed = None
    return routed if routed in own else next(iter(own), None)
