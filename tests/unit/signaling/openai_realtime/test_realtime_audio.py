"""Audio in messages: decoded piece by piece, and just what base64 is as a whole."""

from __future__ import annotations

import base64
import json
import random

import pytest

from signaling.routes.openai_realtime.client_events import PIECE_LETTERS, InputAudioBufferAppend, parse_event
from signaling.routes.openai_realtime.errors import RealtimeError


def append(audio: str) -> InputAudioBufferAppend:
    event = parse_event(json.dumps({"type": "input_audio_buffer.append", "audio": audio, "event_id": "e1"}))
    assert isinstance(event, InputAudioBufferAppend)
    return event


@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, PIECE_LETTERS // 4 * 3 - 1, PIECE_LETTERS // 4 * 3, PIECE_LETTERS * 2 + 1]
)
def test_audio_of_any_length_comes_out_as_it_went_in(size: int) -> None:
    audio = random.Random(size).randbytes(size)
    assert append(base64.b64encode(audio).decode()).decoded() == audio


@pytest.mark.parametrize(
    "audio",
    [
        "A",
        "AAAAA",
        "AA=A",
        "AA==AA==",
        "A" * (PIECE_LETTERS - 2) + "==" + "AAAA",  # a piece that is right, and a whole that is not
        "A" * (PIECE_LETTERS - 1) + "=" + "AA==",
        "A" * PIECE_LETTERS + "A",
        "A" * PIECE_LETTERS + "é",
        "A" * PIECE_LETTERS + "\n",
        "AAA-",
        "====",
    ],
)
def test_what_is_no_base64_is_refused_by_name(audio: str) -> None:
    with pytest.raises(RealtimeError) as caught:
        append(audio).decoded()
    assert (caught.value.code, caught.value.param, caught.value.event_id) == ("INVALID_BASE64", "audio", "e1")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "session.update", "session": {"type": "transcription", "include": [1] * 100_000}},
        {"type": "input_audio_buffer.append", "audio": "AAAA", "more": list(range(100_000))},
    ],
)
def test_a_long_message_that_is_no_audio_is_refused_before_it_is_judged(event: dict[str, object]) -> None:
    with pytest.raises(RealtimeError) as caught:
        parse_event(json.dumps(event))
    assert "letters that are not audio" in caught.value.message
