"""All checks, in the order in which an operator wants to read them."""

from __future__ import annotations

from mediaserver.settings import Settings
from signaling.doctor.finding import Check
from signaling.doctor.machine import machine_checks
from signaling.doctor.node import node_checks
from signaling.doctor.ports import port_checks
from signaling.doctor.relays import relay_checks
from signaling.doctor.stores import store_checks


def all_checks(settings: Settings, *, url: str | None) -> list[Check]:
    """What is looked at.

    Args:
        settings: of the node.
        url: of a server to look at as well, or None for the one of the settings.

    Raises:
        ConfigError: ICE or TURN servers that the server would not start with.
    """
    return [
        *machine_checks(settings),
        *port_checks(settings),
        *store_checks(settings),
        *relay_checks(settings),
        *node_checks(settings, url=url),
    ]
