"""The configuration's text; whether a real coturn takes it, and what it then refuses, is in tests/integration."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from mediaserver.errors import ConfigError
from stun_turn.coturn import CoturnPlan, Peers
from stun_turn.peers import NOT_PUBLIC, as_range, is_public, parse_network

SECRET = "north-of-the-river-1"


def plan(**changes: Any) -> CoturnPlan:
    chosen: dict[str, Any] = {"secret": SECRET, "media_addresses": (ip_network("192.0.2.7"),), "max_sessions": 64}
    return CoturnPlan(**{**chosen, **changes})


def lines(chosen: CoturnPlan) -> list[str]:
    return [line for line in chosen.render().splitlines() if line and not line.startswith("#")]


def test_what_is_always_said() -> None:
    said = lines(plan())
    assert {
        "use-auth-secret",
        f"static-auth-secret={SECRET}",
        "realm=voiceforge",
        "fingerprint",
        "stale-nonce=600",
        "no-cli",
        "no-multicast-peers",
        "no-tcp-relay",
        "no-software-attribute",
        "no-rfc5780",
        "no-dynamic-ip-list",
        "user-quota=12",
        "total-quota=768",
        "max-bps=64000",
        "bps-capacity=49152000",
        "min-port=49152",
        "max-port=50687",
        "log-file=stdout",
        "simple-log",
        "pidfile=/tmp/turnserver.pid",
        "no-dtls",
        "no-tls",
    } <= set(said)
    assert len(said) == len(set(said))
    assert "allow-loopback-peers" not in said


def test_nobody_but_the_media_server_is_reached() -> None:
    said = lines(plan())
    assert [line for line in said if "peer-ip" in line] == [
        "denied-peer-ip=0.0.0.0-255.255.255.255",
        "denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "allowed-peer-ip=192.0.2.7",
    ]


def test_public_peers_leave_out_every_range_that_is_not_public() -> None:
    said = lines(plan(peers=Peers.PUBLIC, media_addresses=(ip_network("10.1.2.0/30"),)))
    for expected in ("10.0.0.0-10.255.255.255", "168.63.129.16", "::1-::ffff:ffff", "fe80::-febf:ffff:ffff"):
        assert any(line.startswith(f"denied-peer-ip={expected}") for line in said), expected
    assert "denied-peer-ip=0.0.0.0-255.255.255.255" not in said
    assert "allowed-peer-ip=10.1.2.0-10.1.2.3" in said


def test_every_range_has_its_reason_before_it() -> None:
    text = plan(peers=Peers.PUBLIC).render().splitlines()
    for entry in NOT_PUBLIC:
        at = text.index(f"denied-peer-ip={as_range(entry.network)}")
        assert text[at - 1] == f"# {entry.reason}"


def test_tls_is_1_2_or_newer() -> None:
    said = lines(plan(tls_certificate="/etc/tls/cert.pem", tls_key="/etc/tls/key.pem"))
    assert {"no-tlsv1", "no-tlsv1_1", "cert=/etc/tls/cert.pem", "pkey=/etc/tls/key.pem"} <= set(said)
    assert "no-tls" not in said
    assert "no-tlsv1_2" not in said


def test_addresses_and_ports_are_those_that_were_asked_for() -> None:
    said = lines(
        plan(
            listening_ips=("192.0.2.1", "2001:db8::1"),
            relay_ips=("192.0.2.2",),
            external_ip="198.51.100.9",
            relay_port_min=40_000,
            relay_port_max=40_099,
        )
    )
    assert {
        "listening-ip=192.0.2.1",
        "listening-ip=2001:db8::1",
        "relay-ip=192.0.2.2",
        "external-ip=198.51.100.9",
        "min-port=40000",
        "max-port=40099",
    } <= set(said)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"media_addresses": ()}, "NO_MEDIA_ADDRESS"),
        ({"media_addresses": (ip_network("127.0.0.1"),)}, "LOOPBACK_NOT_ALLOWED"),
        ({"media_addresses": (ip_network("::1"),)}, "LOOPBACK_NOT_ALLOWED"),
        ({"media_addresses": (ip_network("0.0.0.0/0"),)}, "LOOPBACK_NOT_ALLOWED"),
        ({"relay_port_min": 50_000, "relay_port_max": 49_000}, "RELAY_PORTS"),
        ({"relay_port_min": 500, "relay_port_max": 600}, "RELAY_PORTS"),
        ({"relay_port_min": 65_530}, "RELAY_PORTS"),
        ({"tls_certificate": "/cert.pem"}, "TLS_FILES"),
        ({"realm": "a\nallow-loopback-peers"}, "INVALID_COTURN_VALUE"),
        ({"external_ip": "turn.example"}, "INVALID_COTURN_VALUE"),
        ({"secret": "short"}, "INVALID_COTURN_VALUE"),
        ({"former_secrets": ("a-secret\nno-auth",)}, "INVALID_COTURN_VALUE"),
        ({"external_ip": "198.51.100.9/10.0.0.7"}, "INVALID_COTURN_VALUE"),
        ({"relay_ips": ("192.0.2.1\nno-auth",)}, "INVALID_COTURN_VALUE"),
        ({"pidfile": "relative"}, "INVALID_COTURN_VALUE"),
        ({"tls_certificate": "/a b", "tls_key": "/c"}, "INVALID_COTURN_VALUE"),
    ],
)
def test_what_would_open_more_than_it_says_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(**changes).render()
    assert caught.value.code == code
    assert "a-secret" not in str(caught.value)


def test_loopback_is_an_explicit_option() -> None:
    said = lines(plan(media_addresses=(ip_network("127.0.0.1"),), allow_loopback=True))
    assert {"allow-loopback-peers", "allowed-peer-ip=127.0.0.1"} <= set(said)


def test_networks_are_read_and_others_refused() -> None:
    assert as_range(parse_network("192.0.2.9/28")) == "192.0.2.0-192.0.2.15"
    assert as_range(parse_network("2001:db8::7")) == "2001:db8::7"
    with pytest.raises(ConfigError, match="neither an IP address nor a range"):
        parse_network("media.example")


def test_public_addresses_are_told_from_others() -> None:
    assert is_public("192.31.196.1")
    assert is_public("2620:4f:8000::1")
    for denied in NOT_PUBLIC:
        assert not is_public(str(ip_address(denied.network[0])))
        assert not is_public(str(ip_address(denied.network[-1])))
