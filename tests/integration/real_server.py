"""The real application with the real models, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp.test_utils import TestServer

from mediaserver.audio.turn import TurnPool
from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.engine import open_engine
from mediaserver.errors import CapacityError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import ADMISSION, REGISTRY, make_app
from tests.waiting import until


@asynccontextmanager
async def serving(
    model_files: ModelFiles,
    vad_model_path: Path,
    *,
    settings: Settings | None = None,
    metrics: Metrics | None = None,
    turns: TurnPool | None = None,
) -> AsyncIterator[TestServer]:
    """A server on loopback, for as long as the block lasts; its engine and VAD end with it."""
    settings, metrics = settings or Settings(), metrics or Metrics()
    engine = open_engine(settings, model_files, metrics)
    await engine.start()
    vad = VadPool(vad_model_path, metrics=metrics)
    server = TestServer(make_app(settings, metrics=metrics, engine=engine, vad=vad, turns=turns))
    await server.start_server()
    try:
        yield server
    finally:
        await server.close()
        await engine.close()
        await vad.close()


async def rested(server: TestServer) -> None:
    """Return once a new session would be let in: where finals were late, a server refuses them for some seconds yet."""

    def takes_one() -> bool:
        try:
            server.app[ADMISSION].check()
        except CapacityError:
            return False
        return True

    await until(takes_one)


async def emptied(server: TestServer) -> None:
    """Return once no session is left: a server closes after its client, which does not wait for that."""
    await until(lambda: len(server.app[REGISTRY]) == 0, 20.0)
