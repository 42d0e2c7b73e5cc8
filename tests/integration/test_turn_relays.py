"""A real coturn with the configuration that we make: what it relays, and everything that it refuses."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from turn_server import TurnServer, free_port, plan, run_coturn

from stun_turn.coturn import Peers
from stun_turn.credentials import TurnCredentials
from stun_turn.probe import Address, Relay, TurnError, allocate, ask_stun
from stun_turn.urls import ServerUrl
from tests.waiting import until

pytestmark = [pytest.mark.needs("turnserver"), pytest.mark.timeout(60)]


@pytest_asyncio.fixture
async def turn(tmp_path: Path) -> AsyncIterator[TurnServer]:
    async with run_coturn(plan(tmp_path, allocations_per_session=2, max_sessions=2), tmp_path) as server:
        yield server


async def relay(stack: AsyncExitStack, turn: TurnServer, made: TurnCredentials) -> Relay:
    return await stack.enter_async_context(allocate(turn.url, username=made.username, credential=made.credential))


async def test_coturn_understands_every_line(turn: TurnServer) -> None:
    await until(lambda: "White listing: 127.0.0.1" in turn.log())
    await until(lambda: "Black listing: 0.0.0.0-255.255.255.255" in turn.log())
    assert "Bad configuration" not in turn.log()
    assert "ERROR" not in turn.log()


async def test_a_packet_goes_through_and_its_answer_comes_back(turn: TurnServer) -> None:
    assert (await ask_stun(turn.url)).address[0] == "127.0.0.1"
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
        media.bind(("127.0.0.1", 0))
        media.setblocking(False)
        made = turn.servers().credentials("s-1")
        async with allocate(turn.over_tcp, username=made.username, credential=made.credential) as relayed:
            await relayed.send(b"there", media.getsockname())
            data, sender = await asyncio.wait_for(loop.sock_recvfrom(media, 100), 5)
            assert (data, sender) == (b"there", relayed.address)
            await loop.sock_sendto(media, b"back", relayed.address)
            assert await relayed.receive() == (b"back", media.getsockname())
    await until(lambda: "s-1" in turn.log())  # one finds a session's relaying in coturn's log by its id


async def test_expired_credentials_and_those_of_another_secret_are_refused(turn: TurnServer) -> None:
    expired = turn.servers().credentials("s-1", ttl_s=-5)
    forged = turn.servers(secret="another-secret-than-theirs").credentials("s-1")
    fine = turn.servers().credentials("s-1")
    longer = TurnCredentials(f"9{fine.username}", fine.credential, 0)
    for made in (expired, forged, longer, TurnCredentials("s-1", "", 0)):
        async with AsyncExitStack() as stack:
            with pytest.raises(TurnError) as caught:
                await relay(stack, turn, made)
        assert (caught.value.code, caught.value.status) == ("TURN_UNAUTHORIZED", 401)


async def test_two_secrets_are_taken_while_servers_change_over(tmp_path: Path) -> None:
    async with run_coturn(plan(tmp_path, former_secrets=("the-secret-before-this",)), tmp_path) as turn:
        for made in (
            turn.servers().credentials("s-1"),
            turn.servers(secret="the-secret-before-this").credentials("s-2"),
        ):
            async with AsyncExitStack() as stack:
                await relay(stack, turn, made)


async def test_an_allocation_outlives_its_credentials(turn: TurnServer) -> None:
    made = turn.servers().credentials("s-1", ttl_s=2)
    async with AsyncExitStack() as stack:
        relayed = await relay(stack, turn, made)
        await asyncio.sleep(3.0)  # coturn looks at its own clock
        await relayed.refresh()
        await relayed.permit(("127.0.0.1", 9))
        with pytest.raises(TurnError, match="401"):
            await relay(stack, turn, made)


async def test_a_session_has_its_share_and_all_of_them_have_theirs(turn: TurnServer) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = (turn.servers().credentials(name) for name in ("s-1", "s-2", "s-3"))
        for made in (first, first):
            await relay(stack, turn, made)
        with pytest.raises(TurnError) as caught:
            await relay(stack, turn, first)
        assert (caught.value.code, caught.value.status) == ("TURN_QUOTA", 486)
        renewed = turn.servers().credentials("s-1", ttl_s=900)
        with pytest.raises(TurnError, match="486"):
            await relay(stack, turn, renewed)  # newer credentials are no new share: the name counts, not the time
        for made in (second, second):
            await relay(stack, turn, made)
        with pytest.raises(TurnError, match="486"):
            await relay(stack, turn, third)


DENIED = (
    *("127.0.0.2", "10.0.0.1", "100.100.100.200", "169.254.169.254", "168.63.129.16", "172.17.0.1", "192.168.1.1"),
    *("0.0.0.0", "0.0.0.1", "192.0.0.192", "198.18.0.1", "203.0.113.1", "224.0.0.1", "255.255.255.255"),
)
DENIED_IPV6 = (
    *("::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:a00:1::"),
    *("2001:0:1::", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "2001:db8::1"),
)
PUBLIC = {4: "192.31.196.1", 6: "2620:4f:8000::1"}
"""Of nobody in particular: they answer nothing but name servers' questions (RFC 7535), and nothing is sent."""


async def denied(question: Callable[[Address], Awaitable[None]], address: str) -> bool:
    """Whether a question about a peer is refused for that peer."""
    try:
        await question((address, 80))
    except TurnError as exc:
        return (exc.code, exc.status) == ("TURN_PEER_DENIED", 403)
    return False


@pytest.mark.parametrize("peers", list(Peers))
async def test_nobody_inside_is_reached(tmp_path: Path, peers: Peers) -> None:
    chosen = plan(
        tmp_path,
        peers=peers,
        media_addresses=(ip_network("127.0.0.1"), ip_network("2620:4f:8000::7")),
        listening_ips=("127.0.0.1", "::1"),
        relay_ips=("127.0.0.1", "::1"),
    )
    async with run_coturn(chosen, tmp_path, "allocation-default-address-family=keep") as turn:
        made = turn.servers().credentials("s-1")
        for host, addresses, media in (("127.0.0.1", DENIED, "127.0.0.1"), ("[::1]", DENIED_IPV6, "2620:4f:8000::7")):
            url = ServerUrl.parse(f"turn:{host}:{turn.port}")
            async with allocate(url, username=made.username, credential=made.credential) as relayed:
                assert not await denied(relayed.permit, media)
                for address in addresses:
                    assert await denied(relayed.permit, address), address
                    assert await denied(relayed.bind, address), address
                version = ip_address(media).version
                assert await denied(relayed.permit, PUBLIC[version]) is (peers is Peers.MEDIA)


async def test_behind_a_nat_clients_are_told_the_public_address_and_the_private_one_is_not_reached(
    tmp_path: Path,
) -> None:
    chosen = plan(tmp_path, external_ip="198.51.100.9", media_addresses=(ip_network("127.0.0.7"),))
    async with run_coturn(chosen, tmp_path) as turn, AsyncExitStack() as stack:
        relayed = await relay(stack, turn, turn.servers().credentials("s-1"))
        assert relayed.address[0] == "198.51.100.9"
        assert await denied(relayed.permit, "127.0.0.1"), "the relay's own address"
        assert not await denied(relayed.permit, "127.0.0.7")


async def test_without_the_explicit_option_no_loopback_is_reached(tmp_path: Path) -> None:
    chosen = plan(tmp_path, allow_loopback=False, media_addresses=(ip_network("192.0.2.7"),))
    async with run_coturn(chosen, tmp_path) as turn, AsyncExitStack() as stack:
        relayed = await relay(stack, turn, turn.servers().credentials("s-1"))
        assert await denied(relayed.permit, "127.0.0.1")
        assert not await denied(relayed.permit, "192.0.2.7"), "the media server's private address, allowed explicitly"


async def test_networks_that_let_only_tls_out_are_served(tmp_path: Path) -> None:
    certificate, key = certificate_files(tmp_path)
    tls_port = free_port()
    chosen = plan(tmp_path, tls_certificate=str(certificate), tls_key=str(key), tls_port=tls_port)
    url = ServerUrl.parse(f"turns:localhost:{tls_port}?transport=tcp")
    async with run_coturn(chosen, tmp_path) as turn:
        made = turn.servers().credentials("s-1")
        trusted = ssl.create_default_context(cafile=str(certificate))
        async with allocate(url, username=made.username, credential=made.credential, tls=trusted) as relayed:
            await relayed.permit(("127.0.0.1", 9))
        with pytest.raises(TurnError) as caught:
            async with allocate(url, username=made.username, credential=made.credential):
                pass  # signed by nobody that the system trusts
        assert caught.value.code == "TURN_TLS"
        assert "Bad configuration" not in turn.log()


def certificate_files(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"
