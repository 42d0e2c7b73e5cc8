"""A client as a program, for tests that kill it: `python -m tests.faults.speaking_client URL DOOR RECORDING SECONDS`.

It prints its session's URL (or an empty line), `said` once it has said so much, and speaks on.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.conftest import Speech
from tests.faults.calls import peer, socket


async def over_webrtc(url: str, speech: Speech, seconds: float) -> None:
    async with peer(url, speech) as (client, _):
        say(client.location)
        await asyncio.sleep(seconds)
        say("said")
        await client.told.until("closed")


async def over_websocket(url: str, speech: Speech, seconds: float) -> None:
    async with socket(url) as client:
        say("")
        await client.speak(speech, to_s=seconds)
        say("said")
        await client.speak(speech, from_s=seconds)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    url, door, path, seconds = sys.argv[1:]
    recording = Speech(Path(path), "", 0.0)
    asyncio.run((over_webrtc if door == "whip" else over_websocket)(url, recording, float(seconds)))
