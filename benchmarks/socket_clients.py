"""The clients of `voiceforge bench sockets`, in a process of their own: what they cost is not the server's.

Reads one task as JSON from its input, prints one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.drive import PUSH_MS, PUSH_SAMPLES, STAGGER_S
from benchmarks.tether import tie

QUERY = "encoding=linear16&sample_rate=16000&language=en"


async def connect(url: str, times: int) -> dict[str, Any]:
    """Connect one after another; milliseconds from the first byte of the TCP connection to `ready`."""
    took_ms = []
    for _ in range(times):
        async with aiohttp.ClientSession() as http:  # each its own connection: nothing is kept alive
            begun_s = time.perf_counter()
            async with http.ws_connect(f"{url}?{QUERY}") as ws:
                assert json.loads(await ws.receive_str())["type"] == "ready"
                took_ms.append(1000 * (time.perf_counter() - begun_s))
    return {"took_ms": took_ms}


async def idle(url: str, count: int) -> dict[str, Any]:
    """Hold connections that say nothing, until the input ends."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        sockets = [await http.ws_connect(f"{url}?{QUERY}") for _ in range(count)]
        for ws in sockets:
            await ws.receive_str()
        reading = [asyncio.create_task(ws.receive()) for ws in sockets]  # answers pings
        print(json.dumps({"open": count}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        lost = sum(task.done() for task in reading)
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await asyncio.gather(*(ws.close() for ws in sockets))
    return {"lost": lost}


async def speak(url: str, paths: list[str]) -> dict[str, Any]:
    """Play files of linear16 in real time, one connection each, as `benchmarks.drive.play` plays samples."""
    recordings = [Path(path).read_bytes() for path in paths]  # noqa: ASYNC240 - nobody is waiting yet
    begin_s = asyncio.get_running_loop().time() + 0.05
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        events = await asyncio.gather(
            *(
                _speak(http, url, recording, begin_s + (index * STAGGER_S) % 1.0)
                for index, recording in enumerate(recordings)
            )
        )
    return {"events": events}


async def _speak(http: aiohttp.ClientSession, url: str, audio: bytes, spoken_at_s: float) -> dict[str, int]:
    clock = asyncio.get_running_loop().time
    counts: dict[str, int] = {}
    await asyncio.sleep(spoken_at_s - clock())
    async with http.ws_connect(f"{url}?{QUERY}") as ws:

        async def read() -> None:
            async for message in ws:
                name = json.loads(message.data)["type"]
                counts[name] = counts.get(name, 0) + 1

        reading = asyncio.create_task(read())
        size = 2 * PUSH_SAMPLES
        for block in range(-(-len(audio) // size)):
            await asyncio.sleep(max(spoken_at_s + (block + 1) * PUSH_MS / 1000 - clock(), 0.0))
            await ws.send_bytes(audio[block * size : (block + 1) * size])
        await ws.send_str('{"type":"close_stream"}')
        await reading
    return counts


async def main() -> None:
    """Do one task."""
    task = json.loads(sys.stdin.readline())
    match task.pop("do"):
        case "connect":
            found = await connect(**task)
        case "idle":
            found = await idle(**task)
        case _:
            found = await speak(**task)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    tie(signal.SIGKILL)  # it has nothing to put in order
    asyncio.run(main())
