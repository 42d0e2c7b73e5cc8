"""Programs that are killed: a client, and the process that decodes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import psutil

from mediaserver.decoder.catalogue import ModelFiles
from tests.conftest import Speech
from tests.faults.calls import call, peer, talk
from tests.faults.conftest import PING_TIMEOUT_S, RESUME_WINDOW_S
from tests.faults.node import CALM_S, Node, served, unharmed
from tests.faults.pulse import Pulse
from tests.scoring import word_errors

CLIENT = (sys.executable, "-m", "tests.faults.speaking_client")

SAID_S = 4.0
"""How much a client has said when it is killed."""

ENGINE_BACK_S = 30.0
"""It is started again at once, which takes 3 s on a free machine."""


async def killed_client(node: Node, door: str, speech: Speech) -> str:
    """A client that says a part of a recording and is killed; its session's URL."""
    process = await asyncio.create_subprocess_exec(
        *(*CLIENT, node.url, door, str(speech.path), str(SAID_S)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(CALM_S + SAID_S):
        location = (await process.stdout.readline()).decode().strip()
        assert (await process.stdout.readline()).strip() == b"said"
    process.kill()
    await process.wait()
    return location


async def test_a_killed_webrtc_client_leaves_its_finals_and_nothing_else(
    node: Node, pulse: Pulse, longest: Speech
) -> None:
    async with unharmed(node, pulse):
        location = await killed_client(node, "whip", longest)
        began_s = time.monotonic()
        gone_s = PING_TIMEOUT_S * 2 + RESUME_WINDOW_S + 2.0  # a check may just have been answered
        await node.until(sessions=0, limit_s=gone_s + 5.0)
        assert time.monotonic() - began_s <= gone_s + 5.0
        status, text = await asyncio.to_thread(node.fetch, f"{location.removeprefix(node.url)}/events")
        assert status == 200
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        heard = " ".join(event["transcript"] for event in events if event["type"] == "final").split()
        assert len(heard) >= 5
        assert word_errors(" ".join(longest.text.split()[: len(heard)]), " ".join(heard)) <= 0.3, heard
        assert events[-1] | {"seq": 0} == {**events[-1], "seq": 0, "type": "closed", "reason": "peer_lost"}


async def test_a_killed_websocket_client_leaves_nothing(node: Node, pulse: Pulse, longest: Speech) -> None:
    async with unharmed(node, pulse):
        await killed_client(node, "websocket", longest)
        took_s = await node.until(sessions=0, limit_s=RESUME_WINDOW_S + CALM_S)
        assert took_s <= RESUME_WINDOW_S + 5.0


async def test_no_word_is_lost_when_the_decoders_process_is_killed(
    tmp_path: Path, model_files: ModelFiles, vad_model_path: Path, speech: Speech, pulse: Pulse
) -> None:
    with served(tmp_path, "--engine-process") as node:
        await asyncio.gather(call(node.url, speech), talk(node.url, speech))
        async with unharmed(node, pulse, expected="engine died"), peer(node.url, speech) as (client, _):
            talking = asyncio.create_task(talk(node.url, speech, pace=1.0))
            await node.until(sessions=2)
            await asyncio.sleep(speech.duration_s / 2)
            (engine,) = [child for child in node.process.children() if "engine" in child.cmdline()]
            engine.kill()
            began_s = time.monotonic()
            await client.said()
            await client.hang_up()
            for told in (client.told, await talking):
                told.assert_whole()
                assert word_errors(speech.text, told.text) <= 0.2, told.text
                assert not told.of("error")
            while (await asyncio.to_thread(node.fetch, "/readyz"))[0] != 200:
                assert time.monotonic() - began_s < ENGINE_BACK_S
                await asyncio.sleep(0.05)
        assert (await node.metrics()).total("engine_restarts_total") == 1
        (engine,) = [child for child in node.process.children() if "engine" in child.cmdline()]
        node.popen.kill()
        async with asyncio.timeout(CALM_S):
            while engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.05)
