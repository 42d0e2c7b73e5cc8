"""All routes of OpenAI's Realtime API."""

from __future__ import annotations

from aiohttp import web

from mediaserver.metrics import Metrics
from signaling.answering import Answering
from signaling.cluster.state import State
from signaling.limits import Admission
from signaling.registry import Registry
from signaling.routes.openai_realtime.access import Access
from signaling.routes.openai_realtime.calls_door import CallsDoor
from signaling.routes.openai_realtime.client_secrets import ClientSecrets
from signaling.routes.openai_realtime.secrets_door import SecretsDoor
from signaling.routes.openai_realtime.socket_door import SocketDoor
from signaling.sessions import SessionFactory

PREFIX = "/v1/realtime"
"""What all paths begin with; refusals below it are told in OpenAI's shape."""


class OpenAIRealtime:
    """The WebSocket, the calls and the secrets, which share who may come in.

    Args:
        sessions: makes the sessions.
        answering: how an offer becomes a session.
        registry: where sessions live.
        admission: whether one more may come in.
        metrics: refusals by code.
        state: what processes share.
    """

    def __init__(
        self,
        *,
        sessions: SessionFactory,
        answering: Answering,
        registry: Registry,
        admission: Admission,
        metrics: Metrics,
        state: State,
    ) -> None:
        self.client_secrets = client_secrets = ClientSecrets(state)
        """Which secrets there are; the guard asks."""
        access = Access(sessions=sessions, admission=admission, client_secrets=client_secrets)
        self._doors = (
            SocketDoor(sessions=sessions, registry=registry, access=access, metrics=metrics),
            CallsDoor(sessions=sessions, answering=answering, registry=registry, access=access, metrics=metrics),
            SecretsDoor(client_secrets=client_secrets, access=access, metrics=metrics),
        )

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [route for door in self._doors for route in door.routes()]
