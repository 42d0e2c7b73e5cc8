"""What a client may choose and say, and how it is answered."""

from __future__ import annotations

import pytest

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.decoder.window import Kind
from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.events import Failed, Final, Interim, Pong, Ready
from mediaserver.session.messages import handle_message
from mediaserver.session_config import SessionConfig
from tests.unit.session.scripted import FRAME_S, Stream


async def test_a_client_may_choose_how_much_is_kept_from_before_speech() -> None:
    for asked, kept_s in ((None, 0.3), (0, 0.0), (600, 0.6)):
        stream = Stream(config=SessionConfig(pre_roll_ms=asked))
        stream.session.start()
        assert stream.sink.of(Ready)[0].config["pre_roll_ms"] == round(kept_s * 1000)
        await stream.pause(1.0)
        await stream.speak(1.0)
        await stream.session.close("client")
        begins_s = stream.decoder.of(Kind.FINAL, Kind.SPECULATIVE)[-1].start_sample / SAMPLE_RATE
        assert begins_s == pytest.approx(1.0 - kept_s, abs=2 * FRAME_S)


async def test_without_vad_everything_is_speech_until_finalize() -> None:
    stream = Stream(config=SessionConfig(vad_enabled=False))
    await stream.pause(1.0)
    await stream.speak(0.1)
    await stream.pause(1.9)
    assert stream.sink.of(Interim)
    stream.session.finalize()
    await stream.pause(0.1)
    assert stream.sink.of(Final)[0].duration == pytest.approx(3.0, abs=0.1)


async def test_without_vad_nothing_is_decoded_until_something_is_like_speech() -> None:
    stream = Stream(config=SessionConfig(vad_enabled=False))
    stream.vad.quiet = 0.08
    await stream.pause(25.0)
    stream.session.finalize()
    await stream.pause(2.0)
    assert not stream.decoder.windows
    assert "warning" not in stream.sink.types
    stream.vad.quiet = 0.12
    await stream.pause(1.0)
    assert stream.sink.of(Interim)
    await stream.session.close("client")
    [final] = stream.sink.of(Final)
    assert final.duration == pytest.approx(3.0, abs=0.1)


async def test_a_word_before_the_utterance_was_noticed_is_decoded_without_vad() -> None:
    stream = Stream(config=SessionConfig(vad_enabled=False))
    await stream.speak(0.1)
    await stream.pause(1.0)
    stream.session.finalize()
    await stream.pause(0.1)
    assert stream.sink.of(Final)


async def test_a_threshold_below_what_is_like_speech_is_the_clients_choice() -> None:
    stream = Stream(config=SessionConfig(vad_threshold=0.04))
    stream.vad.quiet = 0.05
    await stream.pause(2.0)
    assert stream.sink.of(Interim)


async def test_a_suppressor_that_is_not_installed_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(kind: object) -> None:
        raise VoiceForgeError("DENOISER_NOT_INSTALLED", "It is not installed.", "Install it.")

    stream = Stream()
    before = stream.session.config
    monkeypatch.setattr("mediaserver.session.session.make_denoiser", missing)
    handle_message(stream.session, '{"type":"configure","config":{"denoise":"speex","endpointing_ms":200}}')
    assert stream.sink.of(Failed)[-1].error["code"] == "DENOISER_NOT_INSTALLED"
    assert stream.session.config == before
    assert len(stream.sink.of(Ready)) == 1


async def test_a_session_refuses_a_model_or_language_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="does not know 'fr'"):
        Stream(config=SessionConfig(language="fr"))
    with pytest.raises(ConfigError, match="has 'scripted' loaded"):
        Stream(config=SessionConfig(model="large-v3"))


async def test_configure_takes_effect_and_is_confirmed() -> None:
    stream = Stream()
    handle_message(stream.session, '{"type":"configure","config":{"endpointing_ms":200,"interim_results":false}}')
    ready = stream.sink.of(Ready)[-1]
    assert ready.config["endpointing_ms"] == 200
    await stream.speak(1.0)
    await stream.pause(0.4)
    assert stream.sink.of(Final)
    assert not stream.sink.of(Interim)


async def test_the_threshold_of_marks_can_be_moved_while_somebody_speaks() -> None:
    stream = Stream(min_confidence=0.95)
    await stream.speak(1.0)
    handle_message(stream.session, '{"type":"configure","config":{"min_confidence":0.85}}')
    assert stream.sink.of(Ready)[-1].config["min_confidence"] == 0.85
    await stream.pause(1.0)
    assert all(word.low_confidence for word in stream.sink.of(Interim)[0].words)
    final = stream.sink.of(Final)[0]
    assert final.words
    assert not any(word.low_confidence for word in final.words)


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        ("not json", "MALFORMED_MESSAGE", "not JSON"),
        (b"\xff\xfe", "MALFORMED_MESSAGE", "not JSON"),
        ("[1]", "MALFORMED_MESSAGE", "not a JSON object"),
        ("[" * 100_000, "MALFORMED_MESSAGE", "not JSON"),
        ('{"type":"dance"}', "UNKNOWN_MESSAGE", "'dance'"),
        ("{}", "UNKNOWN_MESSAGE", "None"),
        ('{"type":"audio","data":""}', "AUDIO_BY_RTP", "RTP"),
        ('{"type":"configure"}', "INVALID_CONFIG", "not an object"),
        ('{"type":"configure","config":{"langage":"en"}}', "INVALID_CONFIG", "`langage`"),
        (
            '{"type":"configure","config":{"endpointing_ms":"soon","vad_enabled":"yes"}}',
            "INVALID_CONFIG",
            "`vad_enabled`",
        ),
        ('{"type":"configure","config":{"language":"xx"}}', "UNKNOWN_LANGUAGE", "'xx'"),
        ('{"type":"configure","config":{"min_confidence":1.5}}', "INVALID_CONFIG", "`min_confidence`"),
        ('{"type":"configure","config":{"min_confidence":NaN}}', "INVALID_CONFIG", "`min_confidence`"),
        ('{"type":"configure","config":{"min_confidence":"high"}}', "INVALID_CONFIG", "`min_confidence`"),
        ('{"type":"configure","config":{"min_confidence":true}}', "INVALID_CONFIG", "`min_confidence`"),
    ],
)
async def test_a_message_that_is_wrong_is_answered_by_an_error_that_names_it(
    message: str | bytes, code: str, says: str
) -> None:
    stream = Stream()
    before = stream.session.config
    handle_message(stream.session, message)
    error = stream.sink.of(Failed)[-1].error
    assert error["code"] == code
    assert says in str(error["message"])
    assert error["hint"]
    assert stream.session.config == before


async def test_keep_alive_is_answered_and_close_stream_is_passed_on() -> None:
    stream = Stream()
    asked = []
    stream.session.on_close_stream = lambda: asked.append(True)
    handle_message(stream.session, '{"type":"keep_alive"}')
    handle_message(stream.session, '{"type":"close_stream"}')
    assert stream.sink.of(Pong)
    assert asked == [True]
