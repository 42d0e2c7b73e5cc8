"""The metrics of all workers of a node, whichever of them is asked: each labelled by its worker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog
from aiohttp import hdrs, web

from mediaserver.metrics import Metrics
from signaling.cluster.hop_proxy import UNIX
from signaling.cluster.membership import Membership
from signaling.cluster.places import Place

log = structlog.get_logger(__name__)

INNER_PATH = "/internal/metrics"
"""Where one worker asks another, through the inner door only."""

SUPERVISOR = "supervisor"
"""The name of its socket in the folder of the workers', and its label."""

SCRAPE_LIMIT_S = 2.0
"""How long a worker may take to answer another; Prometheus itself waits for 10 s."""

SCRAPE_MAX_BYTES = 4 * 1024 * 1024

OPENMETRICS_END = "# EOF\n"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def labelled(text: str, worker: str) -> str:
    """An exposition whose samples say which worker's they are.

    Args:
        text: in the text format of Prometheus, or OpenMetrics.
        worker: its label's value: letters and digits.
    """
    label = f'worker="{worker}"'
    lines = []
    for line in text.splitlines(keepends=True):
        name = None if line.startswith("#") else _NAME.match(line)
        if name is None:
            lines.append(line)
        elif line[name.end()] == "{":
            lines.append(f"{name[0]}{{{label},{line[name.end() + 1 :]}")
        else:
            lines.append(f"{name[0]}{{{label}}}{line[name.end() :]}")
    return "".join(lines)


def merged(texts: Sequence[str]) -> str:
    """Several expositions of one format as one: a metric's samples stand together, its description once."""
    families: dict[str, list[str]] = {}
    described: dict[str, str] = {}
    is_open = any(text.endswith(OPENMETRICS_END) for text in texts)
    for text in texts:
        family, samples = "", families.setdefault("", [])
        for line in text.removesuffix(OPENMETRICS_END).splitlines(keepends=True):
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                samples = families.setdefault(family, [])
                said = described.get(family, "")
                if line not in said:
                    described[family] = said + line
            else:
                samples.append(line)
    body = "".join(described.get(family, "") + "".join(samples) for family, samples in families.items())
    return body + (OPENMETRICS_END if is_open else "")


@dataclass(frozen=True, slots=True)
class Crew:
    """Which of several workers of a supervisor this is.

    Args:
        number: from 1; its successor has the same.
        folder: where the sockets of all lie.
    """

    number: int
    folder: Path


class NodeMetrics:
    """What `/metrics` answers.

    Args:
        metrics: of this worker.
        crew: which it is.
        member: knows the others.
    """

    def __init__(self, metrics: Metrics, *, crew: Crew, member: Membership) -> None:
        self._metrics = metrics
        self._worker = str(crew.number)
        self._places = member.places
        self._proxy = member.hop.proxy
        self._supervisor = Place(SUPERVISOR, member.places.own.node, f"{UNIX}{crew.folder / SUPERVISOR}")
        member.hop.answers(INNER_PATH, self.answer)

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics of the node, and the content type. A worker that does not answer is left out, and counted."""
        node = self._supervisor.node
        others = [self._supervisor, *(place for place in self._places.others() if place.node == node)]
        answers = await asyncio.gather(*(self._asked(place, accept) for place in others))
        own, content_type = await self.own(accept)
        body = await asyncio.to_thread(merged, [own, *filter(None, answers)])  # some milliseconds of work
        return body.encode(), content_type

    async def own(self, accept: str) -> tuple[str, str]:
        """This worker's part."""
        body, content_type = await self._metrics.exposed(accept)
        return await asyncio.to_thread(labelled, body.decode(), self._worker), content_type

    async def answer(self, request: web.Request) -> web.Response:
        """This worker's part, for another one."""
        text, content_type = await self.own(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=text.encode(), headers={hdrs.CONTENT_TYPE: content_type})

    async def _asked(self, place: Place, accept: str) -> str:
        try:
            return await self._proxy.text_of(
                place, INNER_PATH, accept=accept, limit_bytes=SCRAPE_MAX_BYTES, limit_s=SCRAPE_LIMIT_S
            )
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as exc:
            self._metrics.scrapes_left_out_total.inc()
            log.warning("metrics left out", of=place.place_id, failure=type(exc).__name__)
            return ""
