"""Which addresses a TURN server may relay to, and which never: it stands inside, its clients outside.

A relay that forwards to any address is a way round every firewall: to the metadata service of the cloud it runs in, to
databases that listen on its own loopback, to the neighbours. What is denied here is every range that is not the public
internet (IANA's special-purpose registries), with each reason, and every IPv6 way of writing an IPv4 address."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mediaserver.errors import ConfigError

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Denied:
    """A range that nothing is relayed to.

    Args:
        network: the range.
        reason: what is there.
    """

    network: Network
    reason: str


EVERYTHING = (
    Denied(ip_network("0.0.0.0/0"), "every IPv4 address that is not allowed below"),
    Denied(ip_network("::/0"), "every IPv6 address that is not allowed below"),
)

NOT_PUBLIC = tuple(
    Denied(ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this host; on Linux a way to its loopback"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT; some clouds' metadata (100.100.100.200)"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's metadata and control at a public address"),
        ("169.254.0.0/16", "link-local; most clouds' metadata (169.254.169.254)"),
        ("172.16.0.0/12", "private; containers"),
        ("192.0.0.0/24", "protocol assignments; a cloud's metadata (192.0.0.192)"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "measurements within a network"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, and broadcast"),
        ("::/96", "this host, loopback, and IPv4 written as IPv6 (deprecated)"),
        ("::ffff:0:0/96", "IPv4 written as IPv6: would get round what is denied above"),
        ("64:ff9b::/96", "NAT64: IPv4 again"),
        ("64:ff9b:1::/48", "NAT64 within a network"),
        ("100::/64", "discarded"),
        ("2001::/23", "protocol assignments; Teredo: IPv4 again"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4: IPv4 again"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private; a cloud's metadata (fd00:ec2::254)"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)


def parse_network(text: str) -> Network:
    """An address, or a range in CIDR notation.

    Raises:
        ConfigError: INVALID_ADDRESS.
    """
    try:
        return ip_network(text, strict=False)
    except ValueError as exc:
        raise ConfigError(
            "INVALID_ADDRESS", f"`{text}` is neither an IP address nor a range.", "Write 192.0.2.7 or 192.0.2.0/28."
        ) from exc


def as_range(network: Network) -> str:
    """In coturn's words: one address, or `first-last`.

    Symptom: with a range that begins with `::`, every IPv4 address is denied. Cause: coturn (4.6) takes the unspecified
    address for less than any other, of the other family too; it never relays to it anyway. So a range begins one later.
    """
    first, last = network[0], network[-1]
    if network.version == 6 and first.is_unspecified and network.prefixlen:
        first += 1
    return str(first) if first == last else f"{first}-{last}"


def is_loopback(network: Network) -> bool:
    """Whether a range touches loopback, which coturn guards by an option of its own."""
    if isinstance(network, IPv4Network):
        return network.overlaps(IPv4Network("127.0.0.0/8"))
    return IPv6Address("::1") in network


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet."""
    parsed: IPv4Address | IPv6Address = ip_address(address)
    return not any(parsed in denied.network for denied in NOT_PUBLIC if denied.network.version == parsed.version)
