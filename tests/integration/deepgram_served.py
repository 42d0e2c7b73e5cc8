"""A server for Deepgram's clients, and what every stream of it has to keep to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestServer

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.settings import Settings
from tests.integration.real_server import emptied, serving


@asynccontextmanager
async def served(model_files: ModelFiles, vad_model_path: Path, data_dir: Path) -> AsyncIterator[TestServer]:
    """The real application with the real models; it has to be empty at the end."""
    settings = Settings(data_dir=data_dir, outbound_allow_private=True)
    async with serving(model_files, vad_model_path, settings=settings) as server:
        yield server
        await emptied(server)


def finals_of(messages: list[dict[str, Any]], *, channel: int = 0, channels: int = 1) -> list[dict[str, Any]]:
    """The finals of one channel of a whole stream, which is checked for what the protocol promises."""
    assert messages[-1]["type"] == "Metadata"
    assert messages[-1]["channels"] == channels
    results = [item for item in messages if item["type"] == "Results" and item["channel_index"] == [channel, channels]]
    finals = [item for item in results if item["is_final"]]
    told_s = 0.0
    for item in results:
        assert abs(item["start"] - told_s) < 0.002, (item["start"], told_s)
        end_s = item["start"] + item["duration"]
        (alternative,) = item["channel"]["alternatives"]
        assert 0 <= alternative["confidence"] <= 1
        for word in alternative["words"]:
            assert item["start"] - 0.002 <= word["start"] <= word["end"]
            assert 0 <= word["confidence"] <= 1
        assert all(before["start"] <= after["start"] for before, after in pairwise(alternative["words"]))
        if item["is_final"]:
            told_s = end_s
            assert not alternative["words"] or alternative["words"][-1]["end"] <= end_s + 0.002
        else:
            assert not item["speech_final"]
            assert not item["from_finalize"]
    assert abs(told_s - messages[-1]["duration"]) < 0.01  # what was sent is final, all of it and once
    return finals


def text_of(finals: list[dict[str, Any]]) -> str:
    """Their transcripts, as one."""
    texts = [item["channel"]["alternatives"][0]["transcript"] for item in finals]
    return " ".join(text for text in texts if text)
