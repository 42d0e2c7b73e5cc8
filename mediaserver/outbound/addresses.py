"""Which addresses may be connected to on a client's behalf. Pure; the tables are IANA's special-purpose registries.

Three kinds: public ones may always be reached; private ones where the operator says so (`outbound_allow_private`);
the rest never, for nothing good lives there: cloud metadata services hand out credentials at link-local addresses.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address


class Reach(Enum):
    """What an address leads to."""

    PUBLIC = "public"
    PRIVATE = "private"
    NEVER = "never"


_PRIVATE_4 = [
    IPv4Network(text)
    for text in (
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "127.0.0.0/8",  # this machine
        "100.64.0.0/10",  # carriers' NAT (RFC 6598)
        "198.18.0.0/15",  # benchmarks between own devices (RFC 2544)
    )
]

_NEVER_4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this network"; Linux takes 0.0.0.0 for loopback
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "100.100.100.200/32",  # the metadata service of a cloud that keeps it in the carriers' range
        "192.0.0.0/24",  # protocol assignments, a metadata service among them
        "192.0.2.0/24",  # documentation
        "198.51.100.0/24",
        "203.0.113.0/24",
        "192.88.99.0/24",  # 6to4 relays, gone (RFC 7526)
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]

_PRIVATE_6 = [IPv6Network("::1/128"), IPv6Network("fc00::/7")]

_NEVER_6 = [
    IPv6Network(text)
    for text in (
        "fd00:ec2::254/128",  # metadata services of clouds, within the private range
        "fd20:ce::254/128",
        "2001::/23",  # protocol assignments: Teredo, which embeds an IPv4 address, among them
        "2001:db8::/32",  # documentation
        "3fff::/20",
        "2002::/16",  # 6to4, which embeds an IPv4 address
    )
]

_GLOBAL_6 = IPv6Network("2000::/3")
"""All that is assigned as global unicast (RFC 4291); whatever is outside is something else."""

_EMBEDDING_6 = [
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped
    IPv6Network("64:ff9b::/96"),  # NAT64 (RFC 6052): where a network has IPv6 only, every IPv4 host is reached so
]


def reach_of(address: str) -> Reach:
    """What kind of address this is; one that embeds an IPv4 address is of that one's kind.

    Args:
        address: IPv4 or IPv6 in the usual text form; a zone (`%eth0`) is allowed.

    Raises:
        ValueError: this is no address.
    """
    parsed = ip_address(address)
    return _reach_4(parsed) if isinstance(parsed, IPv4Address) else _reach_6(parsed)


def _reach_4(address: IPv4Address) -> Reach:
    if any(address in network for network in _NEVER_4):
        return Reach.NEVER
    return Reach.PRIVATE if any(address in network for network in _PRIVATE_4) else Reach.PUBLIC


def _reach_6(address: IPv6Address) -> Reach:
    if address.scope_id is not None:
        return Reach.NEVER  # a zone is named where an address means nothing beyond the link
    if any(address in network for network in _EMBEDDING_6):
        return _reach_4(IPv4Address(int(address) & 0xFFFF_FFFF))
    if any(address in network for network in _NEVER_6):
        return Reach.NEVER
    if any(address in network for network in _PRIVATE_6):
        return Reach.PRIVATE
    return Reach.PUBLIC if address in _GLOBAL_6 else Reach.NEVER
