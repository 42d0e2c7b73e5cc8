"""The vendor's protocols together, as the application adds them."""

from __future__ import annotations

from aiohttp import web

from mediaserver.metrics import Metrics
from signaling.auth.tokens import Tokens
from signaling.limits import Admission
from signaling.outbound import Outbound
from signaling.recordings import Recordings
from signaling.registry import Registry
from signaling.routes.deepgram.grant import PATH as GRANT_PATH
from signaling.routes.deepgram.grant import Grant
from signaling.routes.deepgram.listen import Listen
from signaling.routes.deepgram.models import PATH as MODELS_PATH
from signaling.routes.deepgram.models import Models
from signaling.routes.deepgram.preflight import preflight
from signaling.routes.deepgram.rest import Rest
from signaling.sessions import SessionFactory

PATH = "/v1/listen"

PATHS = (PATH, GRANT_PATH)
"""Below these, refusals are as the vendor writes them, whatever raises them."""


class Deepgram:
    """Live speech, recordings, temporary tokens and the models.

    Args:
        sessions: makes sessions.
        registry: where they live.
        admission: whether one more may come in.
        recordings: the pipeline of what is no live speech.
        outbound: the way to callbacks and to recordings by URL.
        tokens: makes temporary tokens.
        metrics: refusals by code.
    """

    def __init__(
        self,
        *,
        sessions: SessionFactory,
        registry: Registry,
        admission: Admission,
        recordings: Recordings,
        outbound: Outbound,
        tokens: Tokens,
        metrics: Metrics,
    ) -> None:
        self._listen = Listen(
            sessions=sessions,
            registry=registry,
            admission=admission,
            outbound=outbound,
            metrics=metrics,
        )
        self._rest = Rest(
            recordings=recordings,
            engine=lambda: sessions.engine,
            outbound=outbound,
            settings=sessions.settings,
            metrics=metrics,
        )
        self._grant = Grant(tokens=tokens)
        self._models = Models(engine=lambda: sessions.engine, settings=sessions.settings)

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [
            web.get(PATH, self._listen.connect, allow_head=False),
            web.post(PATH, self._rest.transcribe),
            *self._grant.routes(),
            *self._models.routes(),
            *(web.options(path, preflight) for path in (*PATHS, MODELS_PATH)),
        ]

    async def close(self) -> None:
        """Give up recordings whose transcripts were to be posted later."""
        await self._rest.close()
