"""STUN and TURN servers as clients meet them: whether they answer, what they see, and whether they reach this node."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from mediaserver.ingest.ice import IceOptions, listens_on_loopback, local_addresses, primary_address
from mediaserver.settings import Settings
from signaling.doctor.finding import Check, Finding, failed, fine, skipped, warned
from stun_turn.probe import ANSWER_S, Relay, TurnError, allocate, ask_stun
from stun_turn.servers import IceServers
from stun_turn.urls import ServerUrl

LIMIT_S = 8 * ANSWER_S
"""A relay is asked a handful of questions, each bounded itself."""

SKEW_S = 60
"""What a TURN server's clock may be off: credentials live that long at least."""

DAY_S = 86_400

REPEATS = 3
"""Of the packet through a relay: one may get lost on its way."""

ECHO_S = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One URL of a server, with what it is asked with."""

    url: ServerUrl
    text: str
    username: str | None
    credential: str | None
    timed: bool


def relay_checks(settings: Settings) -> list[Check]:
    """The checks of this subject: one a URL, and one where there is none."""
    entries = entries_of(settings)
    if not entries:
        return [Check("stun", _none), Check("turn", _none)]
    checks = []
    for entry in entries:
        if not entry.url.secure or not entry.url.relays:
            checks.append(Check(f"stun {entry.text}", partial(check_stun, settings, entry)))
        if entry.url.relays:
            checks.append(Check(f"turn {entry.text}", partial(check_turn, settings, entry), LIMIT_S))
    timed = [entry for entry in entries if entry.timed]
    if timed:
        checks.append(Check("turn clock", partial(check_turn_clock, settings, timed[0]), LIMIT_S))
    return checks


def entries_of(settings: Settings) -> list[Entry]:
    """Every URL that clients are told of.

    Raises:
        ConfigError: as `IceServers.from_settings`.
    """
    servers = IceServers.from_settings(settings).for_session(_name())
    own = set(settings.turn_urls)
    return [
        Entry(ServerUrl.parse(text), text, server.username, server.credential, timed=text in own)
        for server in servers
        for text in server.urls
    ]


async def check_stun(settings: Settings, entry: Entry) -> Finding:
    """Whether a server answers, and which address it sees this node under.

    Raises:
        TurnError: it does not answer.
    """
    seen = await ask_stun(entry.url)
    address = seen.address[0]
    text = f"It sees this machine as {address} ({seen.round_trip_s * 1000:.0f} ms)"
    announced = settings.announced_address
    if announced is not None and ip_address(announced).version == ip_address(address).version:
        if announced == address:
            return fine(f"{text}, the announced address.")
        return warned(
            f"{text}, but clients are told {announced}.",
            "Set `announced_address` to what the NAT maps to this machine.",
        )
    if address not in local_addresses(IceOptions.from_settings(settings)) and not listens_on_loopback(settings):
        return warned(
            f"{text}, which is none of its own: a NAT is between.",
            "If it maps that address 1:1 set `announced_address` to it, else clients need a TURN server.",
        )
    return fine(f"{text}.")


async def check_turn(settings: Settings, entry: Entry) -> Finding:
    """Whether a TURN server takes its credentials and relays to this node and back.

    Raises:
        TurnError: it does not.
    """
    try:
        async with allocate(entry.url, username=entry.username or "", credential=entry.credential or "") as relay:
            return await _round_trip(settings, relay)
    except TurnError as exc:
        if exc.code == "TURN_UNAUTHORIZED" and entry.timed and await _accepts(settings, entry, DAY_S):
            return failed(
                f"It takes credentials for expired that hold for {settings.turn_ttl_s} s: its clock is ahead.",
                "Set both machines' clocks by NTP.",
            )
        raise


async def check_turn_clock(settings: Settings, entry: Entry) -> Finding:
    """Whether the TURN server's clock agrees, told by which credentials it takes for expired."""
    hint = "Set both machines' clocks by NTP: credentials expire by them."
    if not await _accepts(settings, entry, DAY_S):
        return skipped("The TURN server takes no credentials at all.")
    if not await _accepts(settings, entry, SKEW_S):
        return failed(f"The TURN server's clock is more than {SKEW_S} s ahead of this machine's.", hint)
    if await _accepts(settings, entry, -SKEW_S):
        return failed(f"The TURN server's clock is more than {SKEW_S} s behind, or it checks no expiry.", hint)
    return fine(f"The TURN server's clock agrees within {SKEW_S} s.")


async def _accepts(settings: Settings, entry: Entry, ttl_s: int) -> bool:
    made = IceServers.from_settings(settings).credentials(_name(), ttl_s=ttl_s)
    try:
        async with allocate(entry.url, username=made.username, credential=made.credential):
            return True
    except TurnError as exc:
        if exc.code == "TURN_UNAUTHORIZED":
            return False
        raise


async def _round_trip(settings: Settings, relay: Relay) -> Finding:
    """Send a packet through the relay to where this node takes media, and one back."""
    options = IceOptions.from_settings(settings)
    if listens_on_loopback(settings) and not ip_address(relay.address[0]).is_loopback:
        return failed(
            f"It relays from {relay.address[0]}, but this node takes media on loopback only, for `host` is "
            f"{settings.host}.",
            "Set `host` to 0.0.0.0 or to an address of this machine.",
        )
    version = ip_address(relay.address[0]).version
    local = primary_address(local_addresses(options), version)
    if local is None:
        return failed(
            f"It relays IPv{version}, of which this node takes no media.",
            "Give the TURN server an address of the other version.",
        )
    announced = settings.announced_address
    told = announced if announced is not None and ip_address(announced).version == version else local
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as media:
        media.setblocking(False)
        port = _bind(media, local, options.ports)
        if port is None:
            return failed("It relays, but no UDP port is free here to try it.", "Widen the range of UDP ports.")
        mark = secrets.token_bytes(16)
        if not await _arrives(relay, media, mark, (told, port)):
            return failed(
                f"It relays, but nothing arrives at {told}, where this node takes media.",
                "Let UDP in from the TURN server to this node's ports; behind a NAT, it has to reach the announced "
                "address.",
            )
    return fine(f"It takes its credentials, and relays to {told} and back.")


async def _arrives(relay: Relay, media: socket.socket, mark: bytes, peer: tuple[str, int]) -> bool:
    """Whether a marked packet comes through, and its echo back."""
    loop = asyncio.get_running_loop()
    for _ in range(REPEATS):
        await relay.send(mark, peer)
        try:
            async with asyncio.timeout(ECHO_S):
                data, sender = await loop.sock_recvfrom(media, 1500)
                if data != mark:
                    continue
                await loop.sock_sendto(media, mark, sender)
                return (await relay.receive())[0] == mark
        except TimeoutError:
            continue
    return False


def _bind(sock: socket.socket, address: str, ports: Sequence[int]) -> int | None:
    for port in ports or (0,):
        try:
            sock.bind((address, port))
        except OSError:
            continue
        return int(sock.getsockname()[1])
    return None


def _name() -> str:
    return f"doctor-{secrets.token_hex(8)}"


async def _none() -> Finding:
    return skipped("None is configured (`ice_servers`, `turn_urls`): clients behind strict networks cannot connect.")
