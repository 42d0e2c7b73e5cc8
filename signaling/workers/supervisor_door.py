"""What the supervisor counts, for the worker that is asked for the metrics of all."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from mediaserver.metrics import Metrics
from signaling.seeing.node_metrics import INNER_PATH, SUPERVISOR, labelled

COUNTED = ("voiceforge_worker_restarts_total", "voiceforge_engine_restarts_total")
"""What is counted here and by no worker."""


class SupervisorDoor:
    """A socket in the workers' folder.

    Args:
        folder: of this user alone.
        metrics: of the supervisor.
    """

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self._path = folder / SUPERVISOR
        self._metrics = metrics
        app = web.Application()
        app.router.add_get(INNER_PATH, self._exposition)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        await web.UnixSite(self._runner, self._path).start()

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _exposition(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        counted = self._metrics.registry.restricted_registry(COUNTED)
        body = labelled(encode(counted).decode(), "supervisor")
        return web.Response(body=body.encode(), headers={"Content-Type": content_type})
