"""Where a request comes from and whether by HTTPS, as trusted proxies say; nobody else is believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request
from front_door import StartNode
from multidict import CIMultiDict

from signaling.auth import addresses as module
from signaling.auth.addresses import Origin, origin_of

FAR = "192.0.2.9"


def origin(*headers: tuple[str, str], trusted: tuple[str, ...] = ("10.0.0.0/8",), remote: str = "10.0.0.1") -> Origin:
    request = make_mocked_request("GET", "/", headers=CIMultiDict(headers))
    return origin_of(request.clone(remote=remote), list(trusted))


FOR, PROTO, STANDARD = "X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ((), Origin("10.0.0.1", False)),
        (((FOR, FAR),), Origin(FAR, False)),
        (((FOR, FAR), (PROTO, "https")), Origin(FAR, True)),
        (((FOR, FAR), (PROTO, "HTTPS")), Origin(FAR, True)),
        (((FOR, f"{FAR}, 10.0.0.2"), (PROTO, "https, http")), Origin(FAR, True)),
        (((FOR, f"{FAR}, 10.0.0.2"), (PROTO, "http, https")), Origin(FAR, False)),
        (((FOR, f"198.51.100.7, {FAR}, 10.0.0.2"), (PROTO, "https")), Origin(FAR, True)),
        (((PROTO, "https"),), Origin("10.0.0.1", True)),
        (((STANDARD, f"for={FAR};proto=https;by=10.0.0.1"),), Origin(FAR, True)),
        (((STANDARD, f'For="{FAR}:4711"; Proto=http'),), Origin(FAR, False)),
        (((STANDARD, 'for="[2001:db8::1]:4711";proto=https'),), Origin("2001:db8::1", True)),
        (((STANDARD, f"for=198.51.100.7, for={FAR};proto=https, for=10.0.0.2;proto=http"),), Origin(FAR, True)),
        (((STANDARD, f"for={FAR};proto=https"), (STANDARD, "for=10.0.0.2")), Origin(FAR, True)),
        (((STANDARD, 'for="_a,b";proto=https'),), Origin("_a,b", True)),
        (((STANDARD, "proto=https"),), Origin("unknown", True)),
        (((STANDARD, "for=unknown"),), Origin("unknown", False)),
        (((STANDARD, '"""===;;;'),), Origin("unknown", False)),
        (((FOR, FAR), (STANDARD, "for=127.0.0.1;proto=https")), Origin(FAR, False)),
        (((FOR, ""), (STANDARD, "for=127.0.0.1")), Origin("10.0.0.1", False)),
    ],
)
def test_a_trusted_proxy_is_believed(headers: tuple[tuple[str, str], ...], found: Origin) -> None:
    assert origin(*headers) == found


@pytest.mark.parametrize("name", [FOR, PROTO, STANDARD])
def test_nobody_else_is(name: str) -> None:
    value = {FOR: FAR, PROTO: "https", STANDARD: f"for={FAR};proto=https"}[name]
    assert origin((name, value), remote="198.51.100.7") == Origin("198.51.100.7", False)


def test_who_has_no_address_is_not_this_machine() -> None:
    assert origin(remote="", trusted=("127.0.0.0/8",)) == Origin("unknown", False)


def test_no_list_is_read_to_its_end() -> None:
    assert origin((FOR, ", ".join([FAR] + ["10.0.0.2"] * module.HOPS_MAX))).address == "10.0.0.2"
    long = ", ".join(["for=10.0.0.2"] * 100)
    assert origin((STANDARD, f"for={FAR}, {long}")).address == "unknown"


async def test_browsers_that_came_by_https_are_told_to_come_so_again(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data", hsts_max_age_s=600, trusted_proxies=["127.0.0.1"])
    for headers, told in (({PROTO: "https"}, "max-age=600"), ({PROTO: "http"}, None), ({}, None)):
        async with node.client.get("/healthz", headers=headers) as response:
            assert response.headers.get("Strict-Transport-Security") == told
    quiet = await start_node(data_dir=tmp_path / "data", trusted_proxies=["127.0.0.1"])
    async with quiet.client.get("/healthz", headers={PROTO: "https"}) as response:
        assert "Strict-Transport-Security" not in response.headers
