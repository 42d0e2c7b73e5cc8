"""Asks STUN and TURN servers as a client would: which address they see, and whether they relay.

For `voiceforge doctor` and for tests. The messages and their authentication are aioice's; what is asked, and what an
answer means, is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from aioice import stun
from aioice.turn import TurnClientProtocol, TurnClientTcpProtocol, TurnClientUdpProtocol

from mediaserver.errors import VoiceForgeError
from stun_turn.urls import ServerUrl

ANSWER_S = 5.0
"""For each question: three transmissions (RFC 8489 §6.2.1) to a server on the other side of the world."""

ALLOCATION_S = 60
"""What a probe asks for; it gives it back sooner."""

Address = tuple[str, int]
T = TypeVar("T")


class TurnError(VoiceForgeError):
    """A TURN server that does not answer or does not want to.

    Args:
        status: STUN's error code; 0 where there was no answer.
    """

    def __init__(self, code: str, message: str, hint: str, *, status: int = 0) -> None:
        super().__init__(code, message, hint, retryable=status in (0, _QUOTA, _NO_CAPACITY))
        self.status = status


_FORBIDDEN, _QUOTA, _NO_CAPACITY = 403, 486, 508
"""RFC 8656 §19."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a STUN server answered.

    Args:
        address: ours, as it sees us: IP address and port.
        round_trip_s: between question and answer.
    """

    address: Address
    round_trip_s: float


class Relay:
    """An allocation on a TURN server: an address of its own that packets arrive at for us.

    Args:
        protocol: connected and allocated.
    """

    def __init__(self, protocol: TurnClientProtocol, received: asyncio.Queue[tuple[bytes, Address]]) -> None:
        self._protocol = protocol
        self._received = received
        assert protocol.relayed_address is not None
        assert protocol.mapped_address is not None
        self.address: Address = protocol.relayed_address
        self.seen: Address = protocol.mapped_address

    async def permit(self, peer: Address) -> None:
        """Ask that packets may pass between us and the peer's address (CreatePermission, RFC 8656 §9).

        Raises:
            TurnError: TURN_PEER_DENIED, or any other refusal.
        """
        request = stun.Message(message_method=stun.Method.CREATE_PERMISSION, message_class=stun.Class.REQUEST)
        request.attributes["XOR-PEER-ADDRESS"] = peer
        await _answered(self._protocol.request_with_retry(request))

    async def bind(self, peer: Address) -> None:
        """Ask for a channel to the peer (ChannelBind, RFC 8656 §12).

        Raises:
            TurnError: TURN_PEER_DENIED, or any other refusal.
        """
        await _answered(self._protocol.channel_bind(0x4000, peer))

    async def send(self, data: bytes, peer: Address) -> None:
        """Have a packet relayed to the peer, over a channel.

        Raises:
            TurnError: the channel was refused.
        """
        await _answered(self._protocol.send_data(data, peer))

    async def receive(self) -> tuple[bytes, Address]:
        """The next packet that was relayed to us, and who sent it.

        Raises:
            TurnError: TURN_SILENT when none comes.
        """
        return await _answered(self._received.get())

    async def refresh(self) -> None:
        """Ask that the allocation goes on (RFC 8656 §8).

        Raises:
            TurnError: it was refused.
        """
        request = stun.Message(message_method=stun.Method.REFRESH, message_class=stun.Class.REQUEST)
        request.attributes["LIFETIME"] = ALLOCATION_S
        await _answered(self._protocol.request_with_retry(request))


class _Receiver(asyncio.DatagramProtocol):
    """Where aioice puts what was relayed."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue(maxsize=100)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # of a probe nobody sends as many: the newest is dropped
            self.received.put_nowait((data, (addr[0], addr[1])))


@contextlib.asynccontextmanager
async def allocate(
    url: ServerUrl, *, username: str, credential: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Relay]:
    """An allocation for the time of a block; given back afterwards.

    Args:
        url: of the TURN server.
        username, credential: what it is asked with.
        tls: how its certificate is checked; by the system's authorities if None.

    Raises:
        TurnError: TURN_UNREACHABLE, TURN_SILENT, TURN_UNAUTHORIZED, TURN_QUOTA, TURN_NO_CAPACITY, TURN_TLS or
            TURN_REFUSED.
    """
    receiver = _Receiver()
    protocol = await _connect(url, username=username, credential=credential, tls=tls)
    try:
        await _answered(protocol.connect())
        protocol.receiver = receiver
        yield Relay(protocol, receiver.received)
    finally:
        if protocol.relayed_address is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await protocol.delete()
        protocol.transport.close()


async def ask_stun(url: ServerUrl) -> Seen:
    """Ask a server which address it sees (Binding, RFC 8489 §3).

    Raises:
        TurnError: TURN_UNREACHABLE, TURN_SILENT or TURN_REFUSED.
    """
    protocol = await _connect(url, username=None, credential=None, tls=None)
    loop = asyncio.get_running_loop()
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    asked_s = loop.time()
    try:
        response, _ = await _answered(protocol.request(request))
    finally:
        protocol.transport.close()
    seen = response.attributes.get("XOR-MAPPED-ADDRESS") or response.attributes.get("MAPPED-ADDRESS")
    if seen is None:
        raise TurnError("TURN_REFUSED", "The server's answer names no address.", "Is it a STUN server?")
    return Seen((seen[0], seen[1]), loop.time() - asked_s)


async def _connect(
    url: ServerUrl, *, username: str | None, credential: str | None, tls: ssl.SSLContext | None
) -> TurnClientProtocol:
    """A connection to the server, on which nothing was asked yet."""
    loop = asyncio.get_running_loop()

    def fields(server: Address) -> dict[str, Any]:
        return {
            "server": server,
            "username": username,
            "password": credential,
            "lifetime": ALLOCATION_S,
            "channel_refresh_time": ALLOCATION_S,
        }

    try:
        async with asyncio.timeout(ANSWER_S):
            found = await loop.getaddrinfo(url.host, url.port)
            address = (str(found[0][4][0]), url.port)
            if url.transport == "tcp":
                _, over_tcp = await loop.create_connection(
                    lambda: TurnClientTcpProtocol(**fields(address)),
                    *address,
                    ssl=(tls or ssl.create_default_context()) if url.secure else None,
                    server_hostname=url.host if url.secure else None,
                )
                return over_tcp
            _, over_udp = await loop.create_datagram_endpoint(
                lambda: TurnClientUdpProtocol(**fields(address)), remote_addr=address
            )
            return over_udp
    except ssl.SSLError as exc:
        raise TurnError(
            "TURN_TLS", f"TLS with {url.host}:{url.port} failed: {exc.reason or exc}.", "Check its certificate."
        ) from exc
    except TimeoutError as exc:
        raise _silent() from exc
    except OSError as exc:
        raise TurnError(
            "TURN_UNREACHABLE",
            f"{url.host}:{url.port} cannot be reached by {url.transport.upper()}: {exc.strerror or exc}.",
            "Check that it runs, its address, and the firewalls between.",
        ) from exc


async def _answered(question: Awaitable[T]) -> T:
    """The answer, in time, or what was said instead."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await question
    except stun.TransactionFailed as exc:
        raise _refused(exc.response) from exc
    except (TimeoutError, stun.TransactionError) as exc:
        raise _silent() from exc
    except (ConnectionError, OSError) as exc:
        raise TurnError("TURN_UNREACHABLE", f"The connection failed: {exc}.", "Check that it runs.") from exc


def _silent() -> TurnError:
    return TurnError(
        "TURN_SILENT", f"No answer came within {ANSWER_S:g} s.", "Check that it runs, and the firewalls between."
    )


def _refused(response: stun.Message) -> TurnError:
    status, reason = response.attributes.get("ERROR-CODE", (0, "without a reason"))
    code, hint = {
        int(HTTPStatus.UNAUTHORIZED): ("TURN_UNAUTHORIZED", "Compare the secrets, and the two machines' clocks."),
        _FORBIDDEN: ("TURN_PEER_DENIED", "Allow the media server's address: `allowed-peer-ip` in coturn."),
        _QUOTA: ("TURN_QUOTA", "Too many allocations are open: wait, or raise `user-quota` or `total-quota`."),
        _NO_CAPACITY: ("TURN_NO_CAPACITY", "Widen the TURN server's relay ports, or its bandwidth."),
    }.get(status, ("TURN_REFUSED", "Look at the TURN server's log."))
    return TurnError(code, f"The server refused: {status} {reason}.", hint, status=status)
