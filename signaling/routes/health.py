"""Whether the process lives, whether it takes sessions, and what it has counted."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field

from mediaserver.metrics import Metrics
from signaling.limits import LOADING_RETRY_AFTER_S, Admission
from signaling.openapi.operation import JSON, Access, Answer, Operation, RetryAfter, Tag, described
from signaling.seeing.node_metrics import NodeMetrics


class Alive(BaseModel):
    """The process lives."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether sessions are taken."""

    status: Literal["ready", "not ready"]
    reasons: list[str] = Field(description="Why not, a sentence each; empty when ready.")
    codes: list[str] = Field(description="The same for programs: `stopping`, `overloaded`, `disk_full` …")


ALIVE = Operation(
    summary="Whether the process lives",
    tag=Tag.SERVER,
    access=Access.OPEN,
    description="A restart helps if this does not answer.",
    answers={HTTPStatus.OK: Answer("The event loop turns.", {JSON: Alive})},
)

READY = Operation(
    summary="Whether sessions are taken",
    tag=Tag.SERVER,
    access=Access.OPEN,
    description="For load balancers. It falls before the node does: where finals would be late, or disk, memory, file "
    "descriptors or UDP ports are nearly used up. A node that is full is still ready: it refuses a session by itself.",
    answers={
        HTTPStatus.OK: Answer("Sessions are taken.", {JSON: Readiness}),
        HTTPStatus.SERVICE_UNAVAILABLE: Answer(
            "No sessions are taken, for the reasons given.", {JSON: Readiness}, {"Retry-After": RetryAfter}
        ),
    },
)

METRICS = Operation(
    summary="What has been counted",
    tag=Tag.SERVER,
    access=Access.METRICS,
    description="For Prometheus, in its text format or in OpenMetrics, whichever `Accept` asks for.",
    answers={HTTPStatus.OK: Answer("All metrics.", {"text/plain": str, "application/openmetrics-text": str})},
)


class Health:
    """`/healthz`, `/readyz` and `/metrics`.

    Args:
        admission: knows whether sessions are taken.
        metrics: what `/metrics` shows.
        of_node: what it shows where there are several workers.
        others_take: whether another worker of this node takes sessions, to which they are passed on.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        metrics: Metrics,
        of_node: NodeMetrics | None = None,
        others_take: Callable[[], bool] = lambda: False,
    ) -> None:
        self._admission = admission
        self._metrics = metrics
        self._of_node = of_node
        self._others_take = others_take

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [
            web.get("/healthz", self.alive),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.exposition),
        ]

    @described(ALIVE)
    async def alive(self, _request: web.Request) -> web.Response:
        """200 while the event loop turns; a restart helps if this does not answer."""
        return web.json_response(Alive().model_dump(), headers={"Cache-Control": "no-store"})

    @described(READY)
    async def ready(self, _request: web.Request) -> web.Response:
        """200 when sessions are taken, else 503 with the reasons; a load balancer goes by this."""
        reasons = self._admission.not_ready()
        headers = {"Cache-Control": "no-store"}
        if not reasons or (not self._admission.stopping and self._others_take()):
            return web.json_response(Readiness(status="ready", reasons=[], codes=[]).model_dump(), headers=headers)
        headers["Retry-After"] = str(LOADING_RETRY_AFTER_S)
        body = Readiness(
            status="not ready",
            reasons=[reason.sentence for reason in reasons],
            codes=[reason.code for reason in reasons],
        )
        return web.json_response(body.model_dump(), status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)

    @described(METRICS)
    async def exposition(self, request: web.Request) -> web.Response:
        """All metrics, in the Prometheus or OpenMetrics text format, whichever `Accept` asks for."""
        accept = request.headers.get("Accept", "")
        if self._of_node is None:
            body, content_type = await self._metrics.exposed(accept)
        else:
            body, content_type = await self._of_node.exposition(accept)
        return web.Response(body=body, headers={"Content-Type": content_type})
