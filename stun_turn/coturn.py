"""A hardened configuration for coturn (4.6 or newer), with the reason beside each line that has one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from mediaserver.errors import ConfigError
from mediaserver.settings import STRONG_LETTERS
from stun_turn.peers import EVERYTHING, NOT_PUBLIC, Network, as_range, is_address, is_loopback

ALLOCATIONS_PER_SESSION = 12
"""A browser allocates for each of its networks (Wi-Fi, cable, phone; IPv4 and IPv6) and each TURN URL: 4 × 3."""

MAX_BYTES_PER_S = 64_000
"""Of one allocation, each way: 512 kbit/s. Opus takes 5 to 15 kB/s with its headers, G.711 10; the most that Opus can
take is 510 kbit/s."""

RELAY_PORT_MIN = 49_152
"""The first of the dynamic ports (RFC 6335 §6), as is coturn's own default."""

STALE_NONCE_S = 600
ALLOCATION_S = 600
"""An allocation that nobody refreshes goes after so long: clients that died hold their share no longer than that."""

REALM = re.compile(r"[A-Za-z0-9._-]{1,127}")
PATH = re.compile(r"/[^\s\"'#;]*")


class Peers(StrEnum):
    """Whom clients may reach through the relay."""

    MEDIA = "media"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class CoturnPlan:
    """What a configuration says.

    Args:
        secret: shared with the media servers.
        media_addresses: of the media servers; each may be a range.
        max_sessions: how many clients may be relayed at once.
        realm: any name; clients learn it from the server.
        listening_ips: addresses to listen on; empty means all.
        listening_port: UDP and TCP.
        relay_ips: addresses to relay from; empty lets coturn take the one that the client came in by.
        external_ip: the public address, where a NAT maps the relay's address 1:1.
        relay_port_min, relay_port_max: UDP ports to relay from; a maximum of 0 is as many as are needed.
        tls_certificate, tls_key: paths of PEM files, as coturn sees them; without them there is no TLS.
        tls_port: TCP, where there is TLS.
        peers: `media`, the media servers and nobody else; `public`, also every public address.
        allow_loopback: whether the media servers may be on the relay's own loopback; for tests on one machine.
        allocations_per_session: what one session's credentials can hold at once.
        max_bytes_per_s: of one allocation, each way.
        pidfile: a path that can be written.
        log_sessions: whether coturn's log names each allocation's session and its client's address.
        former_secrets: that are still taken, while media servers change over to `secret`.
    """

    secret: str
    media_addresses: tuple[Network, ...]
    max_sessions: int
    realm: str = "voiceforge"
    listening_ips: tuple[str, ...] = ()
    listening_port: int = 3478
    relay_ips: tuple[str, ...] = ()
    external_ip: str | None = None
    relay_port_min: int = RELAY_PORT_MIN
    relay_port_max: int = 0
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_port: int = 5349
    peers: Peers = Peers.MEDIA
    allow_loopback: bool = False
    allocations_per_session: int = ALLOCATIONS_PER_SESSION
    max_bytes_per_s: int = MAX_BYTES_PER_S
    pidfile: str = "/tmp/turnserver.pid"  # noqa: S108 - a container's own; nothing reads it
    log_sessions: bool = False
    former_secrets: tuple[str, ...] = ()

    @property
    def total_allocations(self) -> int:
        """The most at once, of all sessions."""
        return self.allocations_per_session * self.max_sessions

    @property
    def relay_ports(self) -> range:
        """The UDP ports to relay from: twice as many as allocations, for a port rests a while after its use."""
        last = self.relay_port_max or min(65_535, self.relay_port_min + 2 * self.total_allocations - 1)
        return range(self.relay_port_min, last + 1)

    def check(self) -> None:
        """Refuse what coturn would take wrongly, or what would open more than is said.

        Raises:
            ConfigError: NO_MEDIA_ADDRESS, LOOPBACK_NOT_ALLOWED, RELAY_PORTS, TLS_FILES or INVALID_COTURN_VALUE.
        """
        if not self.media_addresses:
            raise ConfigError(
                "NO_MEDIA_ADDRESS",
                "Nothing says which addresses the media servers have, so nothing could be relayed to them.",
                "Name them by `--media-address`, or set `announced_address` or `host`.",
            )
        if not self.allow_loopback and any(is_loopback(network) for network in self.media_addresses):
            raise ConfigError(
                "LOOPBACK_NOT_ALLOWED",
                "The media server is on loopback: a relay to it would reach everything on the relay's own loopback "
                "that the ranges leave open.",
                "Have the media server listen on a network (`host`), or say `--allow-loopback` for a test.",
            )
        if len(self.relay_ports) < self.allocations_per_session or self.relay_ports.start < 1024:
            raise ConfigError(
                "RELAY_PORTS",
                f"The relay ports {self.relay_port_min} to {self.relay_port_max} are no usable range.",
                f"Give at least {self.allocations_per_session} ports from 1024 on, in order.",
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError(
                "TLS_FILES", "TLS needs a certificate and its key.", "Give both `--tls-certificate` and `--tls-key`."
            )
        paths = (self.tls_certificate, self.tls_key, self.pidfile)
        wrong = [path for path in paths if path is not None and PATH.fullmatch(path) is None]
        if REALM.fullmatch(self.realm) is None:
            wrong.append(self.realm)
        if any(re.fullmatch(STRONG_LETTERS, secret) is None for secret in (self.secret, *self.former_secrets)):
            wrong.append("a secret")  # which is not shown
        addresses = (*self.listening_ips, *self.relay_ips, self.external_ip or "")
        wrong += [address for address in addresses if address and not is_address(address)]
        if wrong:
            raise ConfigError(
                "INVALID_COTURN_VALUE",
                f"`{wrong[0]}` cannot stand in coturn's configuration.",
                "Paths are absolute, without blanks and quotes; addresses are no names; a realm is letters and digits.",
            )

    def render(self) -> str:
        """The configuration as text. It holds the secret.

        Raises:
            ConfigError: as `check`.
        """
        self.check()
        sections = (self._head(), self._network(), self._who(), self._whom(), self._how_much(), self._tls(), _rest())
        return "\n\n".join("\n".join(lines) for lines in (*sections, self._process())) + "\n"

    def _head(self) -> list[str]:
        return [
            "# coturn for VoiceForge, made by `voiceforge turn config`. It holds a secret: for coturn's user only.",
            f"# Open to clients: UDP and TCP {self.listening_port}"
            + (f", TCP {self.tls_port}" if self.tls_certificate else "")
            + f", UDP {self.relay_ports.start} to {self.relay_ports.stop - 1} from the media servers.",
        ]

    def _network(self) -> list[str]:
        lines = [f"listening-port={self.listening_port}"]
        lines += [f"listening-ip={address}" for address in self.listening_ips]
        lines += [f"relay-ip={address}" for address in self.relay_ips]
        if self.external_ip is not None:
            lines += [
                "# A NAT maps the relay's address 1:1: clients are told the public one. (Not as `public/private`: then",
                "# coturn would relay to the private one, to whatever listens on this machine.)",
                f"external-ip={self.external_ip}",
            ]
        return [
            *lines,
            "# Twice as many ports as allocations: a port rests a while after its use.",
            f"min-port={self.relay_ports.start}",
            f"max-port={self.relay_ports.stop - 1}",
        ]

    def _who(self) -> list[str]:
        return [
            "# Who: only those to whom a VoiceForge server gave credentials. They expire and are bound to a session.",
            "use-auth-secret",
            f"static-auth-secret={self.secret}",
            *(f"static-auth-secret={former}" for former in self.former_secrets),
            f"realm={self.realm}",
            "# A recorded request cannot be played again later. (The value needs the `=`, or it is ignored.)",
            f"stale-nonce={STALE_NONCE_S}",
            "# Clients tell STUN from media by it where both arrive at one port.",
            "fingerprint",
        ]

    def _whom(self) -> list[str]:
        denied = EVERYTHING if self.peers == Peers.MEDIA else NOT_PUBLIC
        lines = ["# Whom clients reach through this server: the media servers, and nobody inside their network."]
        if self.peers == Peers.MEDIA:
            lines.append("# Nobody outside it either: there is nothing here for those who look for an open relay.")
        for entry in denied:
            lines += [f"# {entry.reason}", f"denied-peer-ip={as_range(entry.network)}"]
        lines += [
            "# The media servers. What is both denied and allowed is allowed. coturn knows no ports here: what else",
            "# listens for UDP at these addresses is a firewall's to guard.",
        ]
        lines += [f"allowed-peer-ip={as_range(network)}" for network in self.media_addresses]
        if self.allow_loopback:
            lines += ["# For a test on one machine; never for others to reach.", "allow-loopback-peers"]
        return [
            *lines,
            "no-multicast-peers",
            "# Media is UDP; TCP connections from here would reach what only speaks TCP.",
            "no-tcp-relay",
            "# The lists above are all there is: nothing is added from a database.",
            "no-dynamic-ip-list",
            "no-dynamic-realms",
        ]

    def _how_much(self) -> list[str]:
        return [
            "# How much. A browser allocates for each of its networks and each URL; one session's share:",
            f"user-quota={self.allocations_per_session}",
            f"# That for each of {self.max_sessions} sessions.",
            f"total-quota={self.total_allocations}",
            "# Bytes a second of one allocation, each way; speech takes 5 000 to 15 000.",
            f"max-bps={self.max_bytes_per_s}",
            "# All allocations at that rate: the bound that this machine's link has to carry.",
            f"bps-capacity={self.total_allocations * self.max_bytes_per_s}",
            "# What is not refreshed for so long goes: clients that died hold nothing for longer.",
            f"max-allocate-lifetime={ALLOCATION_S}",
        ]

    def _tls(self) -> list[str]:
        lines = ["# No browser speaks DTLS to a TURN server: one parser of strangers' packets less.", "no-dtls"]
        if self.tls_certificate is None or self.tls_key is None:
            return [
                *lines,
                "# No certificate was given. TLS is what passes firewalls that let only the web out.",
                "no-tls",
            ]
        return [
            *lines,
            f"tls-listening-port={self.tls_port}",
            f"cert={self.tls_certificate}",
            f"pkey={self.tls_key}",
            "# TLS 1.2 and 1.3 only (RFC 8996), with forward secrecy.",
            "no-tlsv1",
            "no-tlsv1_1",
            "cipher-list=ECDHE+AESGCM:ECDHE+CHACHA20",
        ]

    def _process(self) -> list[str]:
        return [
            "# The process: in the foreground, its log on standard output, as containers want it.",
            "log-file=stdout",
            "simple-log",
            "new-log-timestamp",
            f"pidfile={self.pidfile}",
            *(["# Each allocation, by its session's id and its client's address.", "verbose"] * self.log_sessions),
        ]


def _rest() -> list[str]:
    return [
        "# Nothing that is not needed: no console, no version told; and short answers, for questions come with forged",
        "# senders too.",
        "no-cli",
        "no-auth-pings",
        "no-software-attribute",
        "no-rfc5780",
        "no-stun-backward-compatibility",
        "response-origin-only-with-rfc5780",
    ]
