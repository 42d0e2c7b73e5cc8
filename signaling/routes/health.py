"""Whether the process lives, whether it takes sessions, and what it has counted."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from mediaserver.metrics import Metrics
from signaling.limits import LOADING_RETRY_AFTER_S, Admission


class Health:
    """`/healthz`, `/readyz` and `/metrics`.

    Args:
        admission: knows whether sessions are taken.
        metrics: what `/metrics` shows.
    """

    def __init__(self, *, admission: Admission, metrics: Metrics) -> None:
        self._admission = admission
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [
            web.get("/healthz", self.alive),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.exposition),
        ]

    async def alive(self, _request: web.Request) -> web.Response:
        """200 while the event loop turns; a restart helps if this does not answer."""
        return web.json_response({"status": "alive"}, headers={"Cache-Control": "no-store"})

    async def ready(self, _request: web.Request) -> web.Response:
        """200 when sessions are taken, else 503 with the reasons; a load balancer goes by this."""
        reasons = self._admission.reasons_not_ready()
        headers = {"Cache-Control": "no-store"}
        if not reasons:
            return web.json_response({"status": "ready", "reasons": []}, headers=headers)
        headers["Retry-After"] = str(LOADING_RETRY_AFTER_S)
        return web.json_response(
            {"status": "not ready", "reasons": reasons}, status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers
        )

    async def exposition(self, request: web.Request) -> web.Response:
        """All metrics, in the Prometheus or OpenMetrics text format, whichever `Accept` asks for."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._metrics.registry), headers={"Content-Type": content_type})
