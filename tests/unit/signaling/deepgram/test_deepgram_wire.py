"""Events to the vendor's messages, and its clients' messages to calls."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mediaserver.errors import VoiceForgeError
from mediaserver.events import (
    Event,
    Failed,
    Final,
    Interim,
    Metadata,
    Pong,
    Ready,
    SpeechStarted,
    SpeechStopped,
    UtteranceEnd,
    Warned,
    Word,
)
from mediaserver.session.dialect import Telling
from signaling.routes.deepgram.messages import ModelInfo
from signaling.routes.deepgram.style import Style
from signaling.routes.deepgram.wire import Request, Wire

WORDS = [Word("Hello,", 0.5, 0.8, 0.95), Word("World!", 0.9, 1.25, 0.85)]
INTERIM = Interim(1, "Hello, World!", "", 0.9, 0.5, 1.0, 2.0, WORDS)
FINAL = Final(1, "Hello, World!", 0.91, 0.5, 1.0, 2.0, "en", None, WORDS)


class FakeChannels:
    """What a message may act on."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.stream_time_s = 3.0
        self.finalized: list[int] = []
        self.configured: list[object] = []
        self.error: VoiceForgeError | None = None

    def finalize_channel(self, channel: int) -> None:
        self.finalized.append(channel)

    def configure(self, changes: object) -> None:
        if self.error is not None:
            raise self.error
        self.configured.append(changes)


class Stream:
    """A wire and what it says."""

    def __init__(self, **request: Any) -> None:
        self.posted: list[Telling] = []
        self.answered: list[Telling] = []
        self.wire = Wire(
            Request(
                **{
                    "request_id": "r1",
                    "created": datetime(2026, 11, 21, 18, 30, 1, 234_567, tzinfo=UTC),
                    "model": ModelInfo(name="tiny.en", version="1.0"),
                    "model_uuid": "u1",
                    "style": Style(),
                    "language": "en",
                    **request,
                }
            ),
            tell=self.posted.append,
            answer=self.answered.append,
            digest=lambda: "abcd",
        )
        self.channels = FakeChannels(request.get("channels", 1))

    def tell(self, event: Event, channel: int = 0) -> list[dict[str, Any]]:
        return [json.loads(telling.text) for telling in self.wire.tell(event, channel)]

    def hear(self, message: object) -> list[dict[str, Any]]:
        text = message if isinstance(message, str) else json.dumps(message)
        assert self.wire.hear(text, self.channels)  # type: ignore[arg-type]
        answers = [json.loads(telling.text) for telling in self.answered]
        self.answered.clear()
        return answers


def test_results_have_all_that_clients_read() -> None:
    stream = Stream(extra=(("call", "7"),))
    stream.wire.tell(SpeechStopped(1.5), 0)
    assert stream.tell(FINAL) == [
        {
            "type": "Results",
            "channel_index": [0, 1],
            "start": 0.0,
            "duration": 1.5,
            "is_final": True,
            "speech_final": True,
            "from_finalize": False,
            "channel": {
                "alternatives": [
                    {
                        "transcript": "hello world",
                        "confidence": 0.91,
                        "words": [
                            {"word": "hello", "start": 0.5, "end": 0.8, "confidence": 0.95},
                            {"word": "world", "start": 0.9, "end": 1.25, "confidence": 0.85},
                        ],
                    }
                ]
            },
            "metadata": {
                "request_id": "r1",
                "model_info": {"name": "tiny.en", "version": "1.0", "arch": "whisper"},
                "model_uuid": "u1",
                "extra": {"call": "7"},
            },
        }
    ]


def test_punctuation_comes_with_punctuated_words() -> None:
    (result,) = Stream(style=Style(has_punctuation=True)).tell(FINAL)
    alternative = result["channel"]["alternatives"][0]
    assert alternative["transcript"] == "Hello, World!"
    assert [(word["word"], word["punctuated_word"]) for word in alternative["words"]] == [
        ("hello", "Hello,"),
        ("world", "World!"),
    ]


def test_interims_may_be_dropped_and_finals_may_not() -> None:
    stream = Stream()
    (interim,) = stream.wire.tell(INTERIM, 0)
    (final,) = stream.wire.tell(FINAL, 0)
    assert [interim.droppable, final.droppable] == [True, False]
    assert json.loads(interim.text)["is_final"] is False
    assert stream.tell(INTERIM) == []


def test_no_silence_is_a_speech_final_where_endpoints_are_off() -> None:
    stream = Stream(has_endpoints=False)
    stream.wire.tell(SpeechStopped(1.5), 0)
    (result,) = stream.tell(FINAL)
    assert (result["is_final"], result["speech_final"]) == (True, False)


def test_languages_are_told_where_they_are_detected() -> None:
    (result,) = Stream(language=None).tell(FINAL)
    alternative = result["channel"]["alternatives"][0]
    assert alternative["languages"] == ["en"]
    assert {word["language"] for word in alternative["words"]} == {"en"}
    (interim,) = Stream(language=None).tell(INTERIM)
    assert "languages" not in interim["channel"]["alternatives"][0]


def test_what_was_not_asked_for_is_not_told() -> None:
    stream = Stream()
    for event in (SpeechStarted(0.5), UtteranceEnd(1, 1.25), Ready({}, "m"), Pong(1.0)):
        assert stream.tell(event) == []
    asked = Stream(has_vad_events=True, has_utterance_ends=True, channels=2)
    assert asked.tell(SpeechStarted(0.512), 1) == [{"type": "SpeechStarted", "channel": [1, 2], "timestamp": 0.512}]
    assert asked.tell(UtteranceEnd(1, 1.25), 1) == [{"type": "UtteranceEnd", "channel": [1, 2], "last_word_end": 1.25}]


def test_faults_are_told_and_being_ahead_is_none() -> None:
    stream = Stream()
    lost = VoiceForgeError("FINAL_LOST", "It is gone.", "Wait.").as_dict()
    for event in (Warned(lost), Failed(lost)):
        assert stream.tell(event) == [{"type": "Error", "variant": "FINAL_LOST", "description": "It is gone. Wait."}]
    assert stream.tell(Warned(VoiceForgeError("AUDIO_AHEAD", "a", "b").as_dict())) == []


def test_the_end_has_the_rest_of_each_channel_and_the_totals() -> None:
    stream = Stream(channels=2, tags=("a",), extra=(("k", "v"),))
    stream.tell(FINAL, 1)
    left, right, metadata = stream.tell(Metadata(4.0004, 1.0, 1, 0.0, "tiny.en"))
    assert [(item["channel_index"], item["start"], item["duration"]) for item in (left, right)] == [
        ([0, 2], 0.0, 4.0),
        ([1, 2], 1.5, 2.5),
    ]
    assert left["channel"]["alternatives"] == [{"transcript": "", "confidence": 0.0, "words": []}]
    assert metadata == {
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": "r1",
        "sha256": "abcd",
        "created": "2026-11-21T18:30:01.234Z",
        "duration": 4.0,
        "channels": 2,
        "models": ["u1"],
        "model_info": {"u1": {"name": "tiny.en", "version": "1.0", "arch": "whisper"}},
        "tags": ["a"],
        "extra": {"k": "v"},
    }


def test_a_finalize_reaches_every_channel_or_the_one_that_is_named_and_is_answered() -> None:
    stream = Stream(channels=2)
    assert stream.hear({"type": "Finalize"}) == []
    assert stream.channels.finalized == [0, 1]
    stream.wire.finalized(1)
    (answer,) = [json.loads(telling.text) for telling in stream.posted]
    assert (answer["channel_index"], answer["from_finalize"], answer["is_final"]) == ([1, 2], True, True)
    assert (answer["start"], answer["duration"]) == (0.0, 3.0)
    stream.wire.finalized(1)
    assert len(stream.posted) == 1
    stream.channels.finalized.clear()
    stream.hear({"type": "Finalize", "channel": 1})
    assert stream.channels.finalized == [1]
    (fault,) = stream.hear({"type": "Finalize", "channel": 2})
    assert fault["variant"] == "NO_SUCH_CHANNEL"


def test_keep_alive_is_not_answered_and_close_stream_is_the_last_word() -> None:
    stream = Stream()
    assert stream.hear({"type": "KeepAlive", "of": "a newer client"}) == []
    assert stream.wire.hear('{"type":"CloseStream"}', stream.channels) is False  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        *("", "null", "[]", "{}", '{"type":"Finalise"}', '{"type":"Finalize","channel":"x"}', "[" * 10_000),
        json.dumps({"type": "Configure", "keyterms": [1] * 5000}),
        json.dumps({"type": "KeepAlive", "more": "x" * 20_000}),  # it would be taken, were it shorter
    ],
)
def test_a_message_that_cannot_be_read_is_answered_with_its_beginning(message: str) -> None:
    (fault,) = Stream().hear(message)
    assert (fault["type"], fault["variant"], fault["message"]) == ("Error", "SchemaError", message[:200])


def test_words_to_expect_and_punctuation_can_change_while_it_runs() -> None:
    stream = Stream()
    assert stream.hear({"type": "Configure", "keyterms": ["Kant"], "features": {"smart_format": True}}) == [
        {"type": "ConfigureSuccess", "request_id": "r1", "keyterms": ["Kant"]}
    ]
    assert stream.channels.configured == [{"hotwords": ["Kant"]}]
    (result,) = stream.tell(FINAL)
    assert result["channel"]["alternatives"][0]["transcript"] == "Hello, World!"
    assert stream.hear({"type": "Configure", "features": {"smart_format": False}}) == [
        {"type": "ConfigureSuccess", "request_id": "r1"}
    ]
    assert len(stream.channels.configured) == 1
    (result,) = stream.tell(FINAL)
    assert result["channel"]["alternatives"][0]["transcript"] == "hello world"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"features": {"numerals": True}}, "CONFIGURE_FEATURE_NOT_SUPPORTED"),
        ({"keyterms": ["x"] * 101}, "CONFIGURE_KEYTERM_LIMIT_EXCEEDED"),
        ({"keyterms": ["x" * 61]}, "CONFIGURE_KEYTERM_LIMIT_EXCEEDED"),
        ({"keyterms": ["Kant"]}, "CONFIGURE_INTERNAL_ERROR"),
    ],
)
def test_a_change_that_cannot_be_made_changes_nothing(message: dict[str, Any], code: str) -> None:
    stream = Stream()
    stream.channels.error = VoiceForgeError("X", "It cannot be.", "Wait.")
    message["features"] = {**message.get("features", {}), "punctuate": True}
    (failure,) = stream.hear({"type": "Configure", **message})
    assert (failure["type"], failure["code"], failure["request_id"]) == ("ConfigureFailure", code, "r1")
    assert stream.channels.configured == []
    (result,) = stream.tell(FINAL)
    assert result["channel"]["alternatives"][0]["transcript"] == "hello world"
