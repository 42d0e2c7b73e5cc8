"""The ports that a node listens on, and the address that it tells to its clients."""

from __future__ import annotations

import asyncio
import errno
import socket
from ipaddress import ip_address
from pathlib import Path

from mediaserver.ingest.ice import IceOptions, listens_on_loopback, local_addresses, primary_address
from mediaserver.settings import Settings
from signaling.doctor.finding import Check, Finding, failed, fine, warned
from signaling.doctor.node import says_voiceforge
from stun_turn.peers import is_public

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Which ports Linux chooses from where the settings name none."""


def port_checks(settings: Settings) -> list[Check]:
    """The checks of this subject."""
    return [
        Check("http port", lambda: check_http_port(settings)),
        Check("udp ports", lambda: check_udp_ports(settings)),
        Check("announced address", lambda: check_announced_address(settings)),
    ]


async def check_http_port(settings: Settings) -> Finding:
    """Whether the server can listen, or does already."""
    where = f"TCP port {settings.port} on {settings.host}"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        return failed(f"`host` {settings.host} means no address: {exc.strerror}.", "Give an address of this machine.")
    family, kind, _, _, address = found[0]
    with socket.socket(family, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen()
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                if await says_voiceforge(settings):
                    return fine(f"{where}: a VoiceForge server runs there.")
                return failed(f"{where} is taken by another program.", "Stop it, or choose another `port`.")
            if exc.errno == errno.EACCES:
                return failed(f"{where} may not be opened by this user.", "Choose a `port` above 1023.")
            return failed(f"{where}: {exc.strerror}.", "Give `host` an address of this machine.")
    return fine(f"{where} is free.")


async def check_udp_ports(settings: Settings) -> Finding:
    """Whether there are UDP ports for media, and as many as sessions."""
    options = IceOptions.from_settings(settings)
    addresses = local_addresses(options)
    ports = options.ports or range(1)  # 0, which lets the system choose
    free = await asyncio.to_thread(lambda: {address: _free(address, ports) for address in addresses})
    usable = {address: count for address, count in free.items() if count}
    if not usable:
        return failed(
            f"No UDP port of the range is free on {', '.join(addresses) or 'any address'}.",
            "Look what holds them (`ss -unlp`), or choose another `udp_port_min` and `udp_port_max`.",
        )
    told = ", ".join(usable)
    if not options.ports:
        let_in = "" if listens_on_loopback(settings) else ", which a firewall has to let in"
        return fine(f"UDP on {told}: the system chooses from ports {_ephemeral()}{let_in}.")
    fewest = min(usable.values())
    text = f"{fewest} of {len(ports)} UDP ports ({ports[0]} to {ports[-1]}) are free on {told}."
    if len(ports) < settings.max_sessions:
        return warned(
            text, f"Each session takes one: `max_sessions` is {settings.max_sessions}. Widen the range, or lower that."
        )
    return fine(text)


async def check_announced_address(settings: Settings) -> Finding:
    """Whether clients can reach the address that they are told, as far as that shows from here."""
    local = local_addresses(IceOptions.from_settings(settings))
    announced = settings.announced_address
    if announced is None:
        return _unannounced(settings, local)
    address = ip_address(announced)
    if address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local:
        return failed(f"`announced_address` {announced} is no address that a client can send to.", _PUBLIC_HINT)
    if listens_on_loopback(settings):
        return failed(
            f"`announced_address` is {announced}, but media is taken on loopback only, for `host` is {settings.host}.",
            "Set `host` to 0.0.0.0 or to an address of this machine.",
        )
    if primary_address(local, address.version) is None:
        return failed(
            f"`announced_address` {announced} is IPv{address.version}, of which this machine has no address.",
            "A NAT maps addresses of one version.",
        )
    if not is_public(announced):
        return warned(
            f"`announced_address` {announced} is not a public one: only its network reaches it.", _PUBLIC_HINT
        )
    return fine(f"Clients are told {announced}.")


_PUBLIC_HINT = "Give the public address that a NAT maps to this machine, or leave it unset."


def _unannounced(settings: Settings, local: list[str]) -> Finding:
    if listens_on_loopback(settings):
        return fine("Media is taken on loopback only: for clients on this machine.")
    public = [address for address in local if is_public(address)]
    if public:
        return fine(f"Clients are told this machine's own address {', '.join(public)}.")
    return warned(
        f"This machine has no public address ({', '.join(local) or 'none'}): only its own network reaches it.",
        "Set `announced_address` where a NAT maps one to it, or give clients a TURN server (`turn_urls`).",
    )


def _free(address: str, ports: range) -> int:
    """How many of the ports can be bound on that address."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    count = 0
    for port in ports:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((address, port))
            except OSError:
                continue
            count += 1
    return count


def _ephemeral() -> str:
    try:
        first, last = EPHEMERAL.read_text().split()
    except (OSError, ValueError):
        return "of its own choice"
    return f"{first} to {last}"
