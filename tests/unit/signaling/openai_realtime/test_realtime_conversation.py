"""A transcription session in OpenAI's words, without a session, a socket or a clock."""

from __future__ import annotations

import json
import math

import pytest
from realtime_talk import COMMITTED, COMPLETED, DELTA, FAILED, Json, Talk, final, interim

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.events import (
    Closed,
    Failed,
    Finalized,
    Ready,
    Revision,
    SpeechStarted,
    SpeechStopped,
    UtteranceBegan,
    UtteranceEnd,
    UtteranceSettled,
    Warned,
)
from mediaserver.ingest.bytestream import AudioFormat, Encoding
from signaling.routes.openai_realtime.errors import RealtimeError
from signaling.routes.openai_realtime.following import rest_after
from signaling.routes.openai_realtime.timeline import ITEMS_KEPT


def test_an_utterance_is_told_in_openais_order() -> None:
    talk = Talk()
    assert talk.created["type"] == "session.created"
    assert talk.created["session"]["id"] == "sess_abc"
    assert talk.created["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert talk.created["session"]["audio"]["input"]["transcription"]["model"] == "tiny.en"
    talk.begin(1, 1.0)
    talk.tell(interim(1, "the quick", "brawn"), interim(1, "the quick brown"))
    talk.tell(SpeechStopped(2.5))
    talk.finish(1, "the quick brown fox.")
    assert talk.types == [
        "input_audio_buffer.speech_started",
        DELTA,
        DELTA,
        "input_audio_buffer.speech_stopped",
        *COMMITTED,
        DELTA,
        COMPLETED,
    ]
    assert talk.told[0]["audio_start_ms"] == 700  # 300 ms of padding
    assert [event["delta"] for event in talk.told if event["type"] == DELTA] == ["the quick", " brown", " fox."]
    assert talk.told[3]["audio_end_ms"] == 2500
    assert talk.told[4]["previous_item_id"] is None
    assert talk.told[-1]["transcript"] == "the quick brown fox."
    assert talk.told[-1]["usage"] == {"type": "duration", "seconds": 1.8}
    assert "logprobs" not in talk.told[-1]
    (item_id,) = {event["item_id"] for event in talk.told if "item_id" in event}
    assert talk.told[5]["item"]["id"] == item_id
    assert talk.told[5]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    ids = [event["event_id"] for event in [talk.created, *talk.told]]
    assert len(set(ids)) == len(ids)


def test_items_are_a_chain() -> None:
    talk = Talk()
    for number in (1, 2, 3):
        talk.begin(number, float(number))
        talk.tell(SpeechStopped(number + 0.5))
        talk.finish(number, f"word {number}")
    added = [event for event in talk.told if event["type"] == "conversation.item.added"]
    assert [event["previous_item_id"] for event in added] == [None, added[0]["item"]["id"], added[1]["item"]["id"]]
    # Padding does not reach into the item before.
    starts = [event["audio_start_ms"] for event in talk.told if event["type"] == "input_audio_buffer.speech_started"]
    assert starts == [700, 1700, 2700]


def test_what_a_final_corrects_is_not_taken_back_and_what_follows_is_added() -> None:
    talk = Talk({"include": ["item.input_audio_transcription.logprobs"]})
    talk.begin(1, 0.0)
    talk.tell(interim(1, "as the quick brawn"), SpeechStopped(1.0))
    told = talk.finish(1, "As the quick, brown fox.")
    assert [event["type"] for event in told] == [DELTA, COMPLETED]
    assert told[1]["transcript"] == "As the quick, brown fox."
    assert talk.deltas(told[0]["item_id"]) == "as the quick brawn fox."
    assert [entry["token"] for entry in told[0]["logprobs"]] == [" fox."]


@pytest.mark.parametrize(
    ("told", "text", "rest"),
    [
        ("", "All of it.", "All of it."),
        ("all of", "all of it", " it"),
        ("are equal", "Are equal, now we are", ", now we are"),
        ("i.e., the letter", "i.e. the letter which was", " which was"),
        ("to to submit", "to submit, then", ", then"),
        ("the cut in the", "The gut in the gallet", " gallet"),
        ("no", "though it must", " it must"),
        ("one two three", "four", ""),
        ("one", "", ""),
        ("one two", "One", ""),
        ("he said said", "He said so", ""),
    ],
)
def test_a_text_goes_on_after_what_was_told_of_it(told: str, text: str, rest: str) -> None:
    assert rest_after(told, text) == rest


def test_what_follows_a_final_that_took_everything_back_is_a_word_of_its_own() -> None:
    talk = Talk()
    talk.begin(1, 0.0)
    talk.tell(interim(1, "hm"), UtteranceBegan(2))  # long speech is cut into utterances
    talk.finish(1, "")
    talk.tell(SpeechStopped(31.0))
    talk.finish(2, "the quick fox.")
    item_id = talk.told[0]["item_id"]
    assert talk.deltas(item_id) == "hm the quick fox."
    assert talk.told[-1]["transcript"] == "the quick fox."


@pytest.mark.parametrize("asked", ["commit", "clear"])
def test_what_the_client_asks_for_later_does_not_join_turns_or_take_one_away(asked: str) -> None:
    """A client may be seconds ahead of what has been heard."""
    talk = Talk()
    talk.begin(1, 1.0)
    talk.channels.stream_time_s = 5.0
    talk.say(f"input_audio_buffer.{asked}")
    talk.tell(SpeechStopped(2.0))
    talk.begin(2, 3.0)
    talk.tell(SpeechStopped(4.0), Finalized(5.0))
    talk.finish(1, "one")
    talk.finish(2, "two")
    completed = [event["transcript"] for event in talk.told if event["type"] == COMPLETED]
    assert completed == (["one", "two"] if asked == "commit" else ["one"])
    spoken = [event["type"].rpartition(".")[2] for event in talk.told if event["type"].startswith("input_audio_buffer")]
    assert spoken[:4] == ["speech_started", "speech_stopped", "committed", "speech_started"]
    assert spoken[4:] == ["committed" if asked == "commit" else "cleared"]


def test_finals_complete_their_items_in_order_while_others_speak() -> None:
    talk = Talk()
    talk.begin(1, 0.0)
    talk.tell(SpeechStopped(1.0))
    talk.begin(2, 2.0)
    talk.tell(interim(2, "second"), final(1, "first"), UtteranceSettled(1), SpeechStopped(3.0))
    talk.finish(2, "second one")
    completed = [event["transcript"] for event in talk.told if event["type"] == COMPLETED]
    assert completed == ["first", "second one"]


def test_long_speech_that_is_cut_stays_one_item() -> None:
    talk = Talk()
    talk.begin(1, 0.0)
    talk.tell(interim(1, "one two"), UtteranceBegan(2), interim(2, "four five"))
    item_id = talk.told[0]["item_id"]
    assert talk.deltas(item_id) == "one two"  # the second piece waits for the end of the first
    talk.finish(1, "one two three")
    assert talk.deltas(item_id) == "one two three four five"
    talk.tell(SpeechStopped(30.0))
    assert COMPLETED not in talk.types
    talk.finish(2, "four five six")
    assert talk.told[-1]["transcript"] == "one two three four five six" == talk.deltas(item_id)


def test_a_noise_is_an_item_without_words() -> None:
    talk = Talk()
    talk.begin(1, 0.0)
    talk.tell(SpeechStopped(1.0), UtteranceSettled(1))
    assert talk.told[-1]["type"] == COMPLETED
    assert talk.told[-1]["transcript"] == ""


def test_a_decode_that_fails_is_told_of_its_item() -> None:
    talk = Talk()
    talk.begin(1, 0.0)
    error: Json = {"code": "ENGINE_DOWN", "message": "It is down.", "hint": "Wait.", "retryable": True}
    talk.tell(SpeechStopped(1.0), Failed(error), UtteranceSettled(1, error))
    assert talk.types[-2:] == ["error", FAILED]
    assert talk.told[-1]["error"]["code"] == "engine_down"
    assert talk.told[-1]["error"]["type"] == "server_error"


def test_what_is_not_decoded_when_the_connection_ends_has_failed() -> None:
    talk = Talk()
    talk.begin(1, 0.0)
    talk.tell(SpeechStopped(1.0), Closed("shutdown"))
    assert talk.types[-2:] == [FAILED, "error"]
    assert talk.told[-1]["error"]["code"] == "shutting_down"


def test_a_session_that_lasted_too_long_says_so() -> None:
    assert Talk().tell(Closed("session_max"))[0]["error"]["code"] == "session_expired"
    assert Talk().tell(Closed("client")) == []


def test_what_openai_has_no_word_for_is_not_told() -> None:
    talk = Talk()
    revision = Revision(1, "x", 0.9, 0.0, 1.0, 1.0, [])
    talk.tell(Warned({"code": "MEDIA_PAUSED"}), revision, UtteranceEnd(1, 1.0), Ready({}, "tiny.en"))
    talk.tell(interim(7, "of nothing"), UtteranceSettled(7), SpeechStopped(1.0), UtteranceBegan(8))
    assert talk.told == []
    assert talk.channels.tells_inner


# --- commits by hand


def test_a_commit_by_hand_is_an_item_of_all_that_was_said_since_the_last() -> None:
    talk = Talk({"audio": {"input": {"turn_detection": None}}})
    assert talk.created["session"]["audio"]["input"]["turn_detection"] is None
    talk.begin(1, 0.2)
    talk.tell(interim(1, "one"))
    assert talk.commit(3.0) == []  # what came before it has still to be judged
    assert talk.channels.finalized == [3.0]
    talk.tell(SpeechStopped(3.0), Finalized(3.0))
    talk.finish(1, "one two")
    assert talk.types == [DELTA, *COMMITTED, DELTA, COMPLETED]
    assert talk.told[-1]["usage"]["seconds"] == 3.0
    talk.tell(SpeechStarted(3.0), UtteranceBegan(2), SpeechStopped(4.0), Finalized(4.0))  # the track had stopped
    talk.finish(2, "three")
    talk.begin(3, 5.0)
    talk.commit(6.0)
    talk.tell(SpeechStopped(6.0), Finalized(6.0))
    talk.finish(3, "four")
    assert talk.told[-1]["transcript"] == "three four"
    assert talk.told[-1]["usage"]["seconds"] == 3.0


def test_commits_that_wait_together_are_items_each() -> None:
    talk = Talk({"audio": {"input": {"turn_detection": None}}})
    talk.commit(1.0)
    talk.commit(2.0)
    talk.begin(1, 0.0)
    talk.tell(SpeechStopped(1.0), Finalized(1.0))
    talk.begin(2, 1.0)
    talk.tell(SpeechStopped(2.0), Finalized(2.0))
    talk.finish(1, "first")
    talk.finish(2, "second")
    assert [event["transcript"] for event in talk.told if event["type"] == COMPLETED] == ["first", "second"]


def test_a_commit_of_silence_is_an_item_without_words() -> None:
    talk = Talk({"audio": {"input": {"turn_detection": None}}})
    talk.commit(1.0)
    talk.tell(Finalized(1.0))
    assert talk.types == [*COMMITTED, COMPLETED]
    assert talk.told[-1]["transcript"] == ""


@pytest.mark.parametrize("manual", [True, False])
def test_a_commit_of_next_to_nothing_is_refused(manual: bool) -> None:
    talk = Talk({"audio": {"input": {"turn_detection": None}}} if manual else None)
    (told,) = talk.say("input_audio_buffer.commit", event_id="mine")
    assert told["error"]["code"] == "input_audio_buffer_commit_empty"
    assert told["error"]["event_id"] == "mine"
    talk.commit(0.08)
    assert talk.told[-1]["error"]["code"] == "input_audio_buffer_commit_empty"
    assert talk.commit(0.1) == []
    assert talk.commit(0.15)[0]["error"]["code"] == "input_audio_buffer_commit_empty"


def test_a_commit_while_somebody_speaks_ends_the_item_without_a_stop() -> None:
    talk = Talk()
    talk.begin(1, 0.5)
    talk.commit(2.0)
    talk.tell(SpeechStopped(2.0), Finalized(2.0))
    talk.finish(1, "cut off")
    assert talk.types == ["input_audio_buffer.speech_started", *COMMITTED, DELTA, COMPLETED]
    talk.begin(2, 2.0)
    assert talk.told[-1]["type"] == "input_audio_buffer.speech_started"
    assert talk.told[-1]["audio_start_ms"] == 2000


def test_what_is_cleared_is_never_told_of_again() -> None:
    talk = Talk({"audio": {"input": {"turn_detection": None}}})
    talk.begin(1, 0.0)
    talk.channels.stream_time_s = 1.0
    assert talk.say("input_audio_buffer.clear") == []
    assert talk.tell(SpeechStopped(1.0), Finalized(1.0))[0]["type"] == "input_audio_buffer.cleared"
    assert talk.tell(interim(1, "secret"), final(1, "secret"), UtteranceSettled(1)) == []
    talk.commit(2.0)
    talk.begin(2, 1.0)
    talk.tell(SpeechStopped(2.0), Finalized(2.0))
    talk.finish(2, "said")
    assert talk.told[-1]["transcript"] == "said"
    assert talk.told[-1]["usage"]["seconds"] == 1.0


def test_a_clear_of_nothing_is_answered_at_once_and_waits_for_nothing() -> None:
    talk = Talk()
    assert talk.say("input_audio_buffer.clear")[0]["type"] == "input_audio_buffer.cleared"
    talk.channels.stream_time_s = 1.0
    assert talk.say("input_audio_buffer.clear") == []
    for _ in range(100):
        talk.say("input_audio_buffer.clear")
    assert len(talk.channels.finalized) == 1


# --- items


def test_items_can_be_asked_for_again() -> None:
    talk = Talk()
    talk.begin(1, 0.0)
    talk.tell(SpeechStopped(1.0))
    item_id = talk.told[0]["item_id"]
    (told,) = talk.say("conversation.item.retrieve", item_id=item_id)
    assert told["type"] == "conversation.item.retrieved"
    assert told["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    talk.finish(1, "said")
    (told,) = talk.say("conversation.item.retrieve", item_id=item_id)
    assert told["item"]["content"][0]["transcript"] == "said"


def test_a_deleted_item_is_forgotten_and_told_no_more() -> None:
    talk = Talk()
    talk.begin(1, 0.0)
    talk.tell(SpeechStopped(1.0))
    item_id = talk.told[0]["item_id"]
    assert talk.say("conversation.item.delete", item_id=item_id)[0]["type"] == "conversation.item.deleted"
    assert talk.finish(1, "said") == []
    for verb in ("retrieve", "delete"):
        (told,) = talk.say(f"conversation.item.{verb}", item_id=item_id, event_id="e")
        assert told["error"]["code"] == f"item_{verb}_invalid_item_id"
        assert told["error"]["param"] == "item_id"
    talk.begin(2, 2.0)
    talk.tell(SpeechStopped(3.0))
    assert talk.told[-1]["previous_item_id"] is None


def test_old_items_are_forgotten() -> None:
    talk = Talk()
    for number in range(1, ITEMS_KEPT + 2):
        talk.begin(number, float(number))
        talk.tell(SpeechStopped(number + 0.5), UtteranceSettled(number))
    first = talk.told[0]["item_id"]
    assert talk.say("conversation.item.retrieve", item_id=first)[0]["type"] == "error"


# --- the session


def test_an_update_changes_what_it_names_and_null_turns_off() -> None:
    talk = Talk()
    told = talk.update(
        transcription={"model": "gpt-4o-transcribe", "language": "en", "prompt": "Ahoy", "keywords": ["Nemo"]},
        turn_detection={"type": "server_vad", "threshold": 0.6, "prefix_padding_ms": 200, "silence_duration_ms": 700},
        noise_reduction={"type": "near_field"},
    )
    assert told["type"] == "session.updated"
    given = told["session"]["audio"]["input"]
    assert given["transcription"]["model"] == "tiny.en"  # which it really is
    config = talk.channels.config
    assert (config.language, config.prompt, config.hotwords) == ("en", "Ahoy", ["Nemo"])
    assert (config.vad_threshold, config.pre_roll_ms, config.endpointing_ms) == (0.6, 200, 700)
    assert (config.denoise, config.turn_detection, config.vad_enabled) == ("speex", "silence", True)
    talk.update(turn_detection={"type": "server_vad", "threshold": 0.4})
    assert (talk.channels.config.vad_threshold, talk.channels.config.endpointing_ms) == (0.4, 700)
    assert talk.channels.config.prompt == "Ahoy"
    talk.update(turn_detection=None, noise_reduction=None)
    assert talk.channels.config.vad_enabled is False
    assert talk.channels.config.denoise == "off"
    told = talk.update(turn_detection={"type": "server_vad"})
    assert told["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
    assert talk.channels.config.endpointing_ms is None  # the node's


@pytest.mark.parametrize(
    ("eagerness", "waits"), [(None, (300, 4000)), ("auto", (300, 4000)), ("low", (600, 8000)), ("high", (200, 2000))]
)
def test_eagerness_says_how_long_a_pause_may_be(eagerness: str | None, waits: tuple[int, int]) -> None:
    talk = Talk(turn_model=True)
    told = talk.update(turn_detection={"type": "semantic_vad", **({"eagerness": eagerness} if eagerness else {})})
    config = talk.channels.config
    assert config.turn_detection == "semantic"
    assert (config.turn_complete_ms, config.turn_incomplete_ms) == waits
    assert told["session"]["audio"]["input"]["turn_detection"]["eagerness"] == (eagerness or "auto")


def test_a_node_whose_own_turns_are_semantic_says_so() -> None:
    talk = Talk(turn_detection="semantic", denoise="spectral_gate")
    given = talk.created["session"]["audio"]["input"]
    assert given["turn_detection"]["type"] == "semantic_vad"
    assert given["noise_reduction"] == {"type": "far_field"}


def test_without_transcription_turns_are_told_and_no_text() -> None:
    talk = Talk()
    told = talk.update(transcription=None)
    assert told["session"]["audio"]["input"]["transcription"] is None
    assert talk.channels.config.interim_results is False
    talk.begin(1, 0.0)
    talk.tell(interim(1, "x"), SpeechStopped(1.0))
    talk.finish(1, "x y")
    assert talk.types[1:] == ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", *COMMITTED]
    assert talk.update(transcription={})["session"]["audio"]["input"]["transcription"]["model"] == "tiny.en"


def test_log_probabilities_spell_the_text() -> None:
    talk = Talk({"include": ["item.input_audio_transcription.logprobs"]})
    talk.begin(1, 0.0)
    talk.tell(interim(1, "the quick", "brown"), SpeechStopped(1.0))
    talk.finish(1, "the quick brown fox")
    talk.tell(SpeechStarted(2.0), UtteranceBegan(2), UtteranceBegan(3))
    talk.finish(2, "one")
    talk.tell(SpeechStopped(4.0))
    talk.finish(3, "two")
    for event in talk.told:
        if event["type"] in (DELTA, COMPLETED):
            text = event["delta"] if event["type"] == DELTA else event["transcript"]
            assert "".join(entry["token"] for entry in event["logprobs"]) == text
            assert all(entry["logprob"] == pytest.approx(math.log(0.5), abs=1e-3) for entry in event["logprobs"])
            assert all(bytes(entry["bytes"]).decode() == entry["token"] for entry in event["logprobs"])
    assert [event["transcript"] for event in talk.told if event["type"] == COMPLETED][-1] == "one two"


def test_the_legacy_shape_is_answered_in_the_legacy_shape() -> None:
    for beside in (False, True):
        talk = Talk()
        flat = {
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "whisper-1", "language": "en"},
            "input_audio_noise_reduction": {"type": "far_field"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
            "include": ["item.input_audio_transcription.logprobs"],
        }
        (told,) = talk.say("transcription_session.update", **(flat if beside else {"session": flat}))
        assert told["type"] == "transcription_session.updated"
        assert told["session"]["input_audio_format"] == "g711_ulaw"
        assert told["session"]["turn_detection"]["silence_duration_ms"] == 300
        assert "client_secret" not in told["session"]
        assert talk.channels.config.endpointing_ms == 300
        assert talk.channels.config.denoise == "spectral_gate"
        talk.begin(1, 0.0)
        talk.tell(SpeechStopped(1.0))
        assert talk.types[-1] == "conversation.item.created"
        assert talk.told[-1]["item"]["type"] == "message"


def test_the_format_goes_to_whoever_reads_the_audio() -> None:
    talk = Talk()
    formats: list[AudioFormat] = []
    talk.conversation.on_format = formats.append
    talk.update(format={"type": "audio/pcma"})
    talk.update(format={"type": "audio/pcma"})  # no other than before
    assert formats == [AudioFormat(Encoding.ALAW, 8000)]
    talk.channels.refuses = ConfigError("UNKNOWN_LANGUAGE", "No.", "Hint.")
    told = talk.update(format={"type": "audio/pcm", "rate": 16000}, transcription={"language": "xx"})
    assert told["error"]["param"] == "session.audio.input.transcription.language"
    assert formats[1:] == [AudioFormat(Encoding.LINEAR16, 16000), AudioFormat(Encoding.ALAW, 8000)]


def test_a_call_of_several_tracks_is_refused() -> None:
    talk = Talk()
    talk.channels.count = 2
    with pytest.raises(RealtimeError, match="2 audio tracks"):
        talk.conversation.begin(talk.channels)  # type: ignore[arg-type]


REFUSED: list[tuple[str, str, str | None]] = [
    ("{", "invalid_json", None),
    ("[" * 100_000, "invalid_json", None),
    ("[1]", "invalid_json", None),
    ("{}", "missing_required_parameter", "type"),
    ('{"type":7}', "missing_required_parameter", "type"),
    ('{"type":"nonsense"}', "unknown_event", "type"),
    ('{"type":"\\ud800"}', "unknown_event", "type"),
    ('{"type":"nonsense","event_id":"\\ud800"}', "unknown_event", "type"),
    ('{"type":"response.create"}', "unsupported_event", "type"),
    ('{"type":"response.cancel"}', "unsupported_event", "type"),
    ('{"type":"output_audio_buffer.clear"}', "unsupported_event", "type"),
    ('{"type":"conversation.item.create","item":{}}', "unsupported_event", "type"),
    ('{"type":"conversation.item.truncate"}', "unsupported_event", "type"),
    ('{"type":"input_audio_buffer.append","audio":"AAAA"}', "audio_by_rtp", "type"),
    ('{"type":"input_audio_buffer.append"}', "missing_required_parameter", "audio"),
    ('{"type":"input_audio_buffer.commit","now":true}', "unknown_parameter", "now"),
    ('{"type":"conversation.item.retrieve"}', "missing_required_parameter", "item_id"),
    ('{"type":"conversation.item.retrieve","item_id":3}', "invalid_value", "item_id"),
    ('{"type":"input_audio_buffer.commit","event_id":3}', "invalid_value", "event_id"),
    ('{"type":"session.update"}', "missing_required_parameter", "session"),
    ('{"type":"session.update","session":[]}', "invalid_value", "session"),
    ('{"type":"transcription_session.update","session":{"voice":"a"}}', "unsupported_parameter", "session.voice"),
    ('{"type":"transcription_session.update","modalities":["audio"]}', "invalid_value", "session.modalities.0"),
]

SESSIONS: list[tuple[Json, str, str]] = [
    ({"type": "realtime"}, "unsupported_session_type", "type"),
    ({"type": "translation"}, "invalid_value", "type"),
    ({"instructions": "Be kind"}, "unsupported_parameter", "instructions"),
    ({"tools": []}, "unsupported_parameter", "tools"),
    ({"output_modalities": ["audio"]}, "unsupported_parameter", "output_modalities"),
    ({"audio": {"output": {"voice": "x"}}}, "unsupported_parameter", "audio.output"),
    ({"include": ["everything"]}, "invalid_value", "include.0"),
    ({"wishes": 3}, "unknown_parameter", "wishes"),
    ({"audio": {"input": {"format": {"type": "audio/mp3"}}}}, "invalid_value", "audio.input.format"),
    ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 1}}}}, "invalid_value", "audio.input.format.rate"),
    (
        {"audio": {"input": {"noise_reduction": {"type": "near_field", "strength": 0.5}}}},
        "unknown_parameter",
        "audio.input.noise_reduction.strength",
    ),
    (
        {"audio": {"input": {"transcription": {"delay": "low"}}}},
        "unknown_parameter",
        "audio.input.transcription.delay",
    ),
    (
        {"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe-diarize"}}}},
        "diarization_unsupported",
        "audio.input.transcription.model",
    ),
    (
        {"audio": {"input": {"transcription": {"model": "other-model"}}}},
        "model_not_loaded",
        "audio.input.transcription.model",
    ),
    (
        {"audio": {"input": {"transcription": {"prompt": "x" * 801}}}},
        "invalid_value",
        "audio.input.transcription.prompt",
    ),
    (
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 1.5}}}},
        "invalid_value",
        "audio.input.turn_detection.threshold",
    ),
    (
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000}}}},
        "unsupported_parameter",
        "audio.input.turn_detection.idle_timeout_ms",
    ),
    (
        {"audio": {"input": {"turn_detection": {"threshold": 0.5}}}},
        "missing_required_parameter",
        "audio.input.turn_detection",
    ),
    (
        {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "very"}}}},
        "invalid_value",
        "audio.input.turn_detection.eagerness",
    ),
]


@pytest.mark.parametrize(("message", "code", "param"), REFUSED)
def test_what_a_client_may_not_say_is_refused_by_name(message: str, code: str, param: str | None) -> None:
    talk = Talk()
    (told,) = talk.send(message)
    assert told["type"] == "error"
    assert told["error"]["type"] == "invalid_request_error"
    assert (told["error"]["code"], told["error"]["param"]) == (code, param), told
    assert len(told["error"]["message"]) > 20
    assert talk.update()["type"] == "session.updated"  # it goes on


@pytest.mark.parametrize(("session", "code", "param"), SESSIONS)
def test_what_a_session_cannot_be_is_refused_by_name(session: Json, code: str, param: str) -> None:
    talk = Talk()
    before = talk.channels.config
    (told,) = talk.say("session.update", session=session, event_id="mine")
    assert (told["error"]["code"], told["error"]["event_id"]) == (code, "mine"), told
    assert told["error"]["param"].removeprefix("session.") == param
    assert talk.channels.config is before


def test_a_node_without_an_end_of_turn_model_says_so() -> None:
    talk = Talk()
    talk.channels.refuses = ConfigError("TURN_MODEL_NOT_LOADED", "There is none.", "Start one with it.")
    told = talk.update(turn_detection={"type": "semantic_vad"})
    assert told["error"]["code"] == "turn_model_not_loaded"
    assert told["error"]["param"] == "session.audio.input.turn_detection.type"


def test_a_data_channel_that_is_of_no_use_is_told_why() -> None:
    talk = Talk()
    error = json.loads(talk.conversation.refuse(VoiceForgeError("CHANNEL_IN_USE", "It is.", "Do.")))
    assert error["error"]["code"] == "channel_in_use"
