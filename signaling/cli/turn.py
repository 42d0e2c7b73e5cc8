"""`voiceforge turn …`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from mediaserver.errors import ConfigError, MediaError
from mediaserver.settings import Settings
from signaling.cli.knobs import load_settings
from stun_turn.coturn import RELAY_PORT_MIN, CoturnPlan, Peers
from stun_turn.peers import Network, parse_network

SECRET_BYTES = 32
"""256 bits: nobody finds it by trying, whatever credentials they have seen."""

OWNER_ONLY = 0o600


@click.group()
def turn() -> None:
    """Set up the TURN server that relays for clients whose network lets no media through."""


@turn.command()
def secret() -> None:
    """Print a new secret, for `turn_secret` here and `static-auth-secret` there."""
    click.echo(secrets.token_hex(SECRET_BYTES))


@turn.command()
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: standard output]"
)
@click.option(
    "--media-address",
    "media_addresses",
    multiple=True,
    metavar="ADDRESS",
    help="Address of a media server, or a range such as 10.1.2.0/28; several may be given.  [default: this machine's, "
    "by `announced_address` and `host`]",
)
@click.option(
    "--peers",
    type=click.Choice([str(peers) for peers in Peers]),
    default=str(Peers.MEDIA),
    show_default=True,
    help="Whom clients may reach: the media servers alone, or also every public address.",
)
@click.option("--realm", default="voiceforge", show_default=True, help="Any name; the TURN server tells it to clients.")
@click.option(
    "--listening-ip", "listening_ips", multiple=True, metavar="ADDRESS", help="Address to listen on.  [default: all]"
)
@click.option("--listening-port", type=click.IntRange(1, 65535), default=3478, show_default=True, help="UDP and TCP.")
@click.option(
    "--relay-ip", "relay_ips", multiple=True, metavar="ADDRESS", help="Address to relay from.  [default: as reached]"
)
@click.option(
    "--external-ip", metavar="ADDRESS", help="Public address that a NAT maps 1:1 to the one that is relayed from."
)
@click.option(
    "--relay-port-min",
    type=click.IntRange(1024, 65535),
    default=RELAY_PORT_MIN,
    show_default=True,
    help="First UDP port to relay from.",
)
@click.option(
    "--relay-port-max", type=click.IntRange(0, 65535), default=0, help="Last one.  [default: as many as are needed]"
)
@click.option("--tls-certificate", metavar="PATH", help="PEM file, as the TURN server sees it; without it, no TLS.")
@click.option("--tls-key", metavar="PATH", help="PEM file of its key.")
@click.option("--tls-port", type=click.IntRange(1, 65535), default=5349, show_default=True, help="TCP.")
@click.option("--max-sessions", type=click.IntRange(1), help="Most clients relayed at once.  [default: the setting]")
@click.option("--pidfile", metavar="PATH", default="/tmp/turnserver.pid", show_default=True)  # noqa: S108 - coturn's own
@click.option(
    "--former-secret-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the secret before this one, which is taken too until all servers have changed over.",
)
@click.option("--log-sessions", is_flag=True, help="Have its log name sessions' ids and clients' addresses.")
@click.option("--allow-loopback", is_flag=True, help="Relay to loopback: for a test on one machine, never for others.")
def config(
    *,
    output: Path | None,
    media_addresses: tuple[str, ...],
    peers: str,
    realm: str,
    listening_ips: tuple[str, ...],
    listening_port: int,
    relay_ips: tuple[str, ...],
    external_ip: str | None,
    relay_port_min: int,
    relay_port_max: int,
    tls_certificate: str | None,
    tls_key: str | None,
    tls_port: int,
    max_sessions: int | None,
    pidfile: str,
    former_secret_file: Path | None,
    log_sessions: bool,
    allow_loopback: bool,
) -> None:
    """Write a configuration for coturn that relays to the media servers and to nobody else.

    The secret is the setting `turn_secret`. Reasons stand in the file beside what they are for.
    """
    settings = load_settings({})
    if settings.turn_secret is None:
        raise ConfigError(
            "TURN_SECRET_MISSING",
            "There is no `turn_secret` to write.",
            "Set VOICEFORGE_TURN_SECRET, here and for `serve`, to what `voiceforge turn secret` prints.",
        )
    plan = CoturnPlan(
        secret=settings.turn_secret.get_secret_value(),
        media_addresses=tuple(parse_network(text) for text in media_addresses) or own_addresses(settings),
        max_sessions=max_sessions or settings.max_sessions,
        realm=realm,
        listening_ips=listening_ips,
        listening_port=listening_port,
        relay_ips=relay_ips,
        external_ip=external_ip,
        relay_port_min=relay_port_min,
        relay_port_max=relay_port_max,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_port=tls_port,
        peers=Peers(peers),
        allow_loopback=allow_loopback,
        pidfile=pidfile,
        log_sessions=log_sessions,
        former_secrets=() if former_secret_file is None else (_read(former_secret_file),),
    )
    text = plan.render()
    if settings.udp_port_min and _overlap(plan.relay_ports, range(settings.udp_port_min, settings.udp_port_max + 1)):
        click.echo(
            "Warning: the relay's ports overlap with `udp_port_min` to `udp_port_max`; on one machine they take each "
            "other's.",
            err=True,
        )
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)


def own_addresses(settings: Settings) -> tuple[Network, ...]:
    """The addresses that this node's candidates can have."""
    from mediaserver.ingest.ice import IceOptions, local_addresses  # noqa: PLC0415 - brings WebRTC, half a second

    options = IceOptions.from_settings(settings)
    announced = [] if options.announced_address is None else [options.announced_address]
    return tuple(parse_network(address) for address in dict.fromkeys([*announced, *local_addresses(options)]))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as exc:
        raise ConfigError("FILE_UNREADABLE", f"{path} cannot be read: {exc.strerror}.", "Give another file.") from exc


def _overlap(one: range, other: range) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)


def _write(output: Path, text: str) -> None:
    """Write a file that only its owner reads, from its first byte on."""
    try:
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT, OWNER_ONLY), "w") as file:
            if output.is_file():  # one that was there may be open to others
                output.chmod(OWNER_ONLY)
                file.truncate()
            file.write(text)
    except OSError as exc:
        raise MediaError(
            "OUTPUT_NOT_WRITTEN", f"{output} cannot be written: {exc.strerror}.", "Give another --output."
        ) from exc
