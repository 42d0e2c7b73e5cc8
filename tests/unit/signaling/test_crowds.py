"""Requests that come in one moment are begun a few at a time, before anything else is done with them."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import make_app
from signaling.crowds import REQUESTS_EACH_TURN, Crowds
from tests.loop_turns import LoopTurns

CROWD = 15


async def test_of_requests_in_one_moment_a_few_begin_in_each_turn_and_all_are_answered() -> None:
    crowds, turns = Crowds(), LoopTurns()

    async def handler(_request: web.Request) -> web.Response:
        turns.note("request")
        return web.Response()

    request = make_mocked_request("POST", "/whip")
    turns.begin()
    responses = await asyncio.gather(*(crowds.middleware(request, handler) for _ in range(CROWD)))
    turns.end()
    assert [response.status for response in responses] == [200] * CROWD
    assert turns.most("request") == REQUESTS_EACH_TURN


async def test_a_crowd_waits_before_anything_is_done_for_it() -> None:
    app = make_app(Settings(), metrics=Metrics())
    assert getattr(app.middlewares[0], "__func__", None) is Crowds.middleware
