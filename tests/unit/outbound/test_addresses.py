"""Which addresses may be reached: by a table, and against what the standard library says of every other one."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.outbound.addresses import Reach, reach_of
from mediaserver.outbound.client import OutboundPolicy

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111"]
PUBLIC += ["2a00:1450:4001:81b::200e", "64:ff9b::808:808", "::ffff:8.8.8.8", "223.255.255.255"]

PRIVATE = ["127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"]
PRIVATE += ["100.127.255.255", "198.18.0.1", "::1", "fc00::1", "fdff::1", "::ffff:127.0.0.1", "::ffff:10.1.2.3"]
PRIVATE += ["64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::c0a8:101"]

NEVER = ["0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "100.100.100.200", "192.0.0.192", "224.0.0.1"]
NEVER += ["239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.7", "203.0.113.9", "192.88.99.1"]
NEVER += ["::", "fe80::1", "fe80::1%eth0", "2606:4700::1%2", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "3fff::1"]
NEVER += ["fd00:ec2::254", "fd20:ce::254", "2001::1", "2002:7f00:1::", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]
NEVER += ["64:ff9b:1::7f00:1", "::127.0.0.1", "::ffff:0:127.0.0.1", "100::1", "5f00::1", "4000::1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_reached(address: str) -> None:
    assert reach_of(address) is Reach.PUBLIC
    assert OutboundPolicy().allows(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_ones_only_where_the_operator_says_so(address: str) -> None:
    assert reach_of(address) is Reach.PRIVATE
    assert not OutboundPolicy().allows(address)
    assert OutboundPolicy(allow_private=True).allows(address)


@pytest.mark.parametrize("address", NEVER)
def test_the_rest_never(address: str) -> None:
    assert reach_of(address) is Reach.NEVER
    assert not OutboundPolicy(allow_private=True).allows(address)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), st.ip_addresses(network="2000::/3")))
def test_nothing_is_public_that_the_standard_library_does_not_hold_for_public(address: ipaddress.IPv4Address) -> None:
    if reach_of(str(address)) is Reach.PUBLIC:
        judged = ipaddress.ip_address(int(address) & 0xFFFF_FFFF) if embeds_ipv4(address) else address
        assert judged.is_global
        assert not judged.is_multicast


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:0:0", "64:ff9b::"]))
def test_an_embedded_address_is_judged_as_itself(address: ipaddress.IPv4Address, prefix: str) -> None:
    embedding = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
    assert reach_of(str(embedding)) is reach_of(str(address))


@given(st.text(max_size=20))
def test_what_is_no_address_is_not_allowed(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        assert not OutboundPolicy(allow_private=True).allows(text)


def embeds_ipv4(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.version == 6 and any(
        address in ipaddress.ip_network(network) for network in ("::ffff:0:0/96", "64:ff9b::/96")
    )
