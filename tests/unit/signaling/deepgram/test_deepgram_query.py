"""The query of `/v1/listen`: what the vendor's clients can send works or is refused by name."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from deepgram.listen.v1.client import V1Client
from deepgram.listen.v1.media.client import MediaClient
from multidict import MultiDict

from mediaserver.errors import ConfigError
from mediaserver.ingest.bytestream import AudioFormat, Encoding
from signaling.routes.deepgram.query import ENCODINGS, LiveQuery, RecordedQuery
from signaling.routes.deepgram.reading import languages_of, parse_query
from signaling.routes.deepgram.refusing import REASON
from signaling.routes.deepgram.style import Replacement, Style

NOT_OF_THE_QUERY = {"self", "authorization", "request_options", "request", "url"}


def live(*pairs: tuple[str, str]) -> LiveQuery:
    return parse_query(LiveQuery, MultiDict(pairs))


def recorded(*pairs: tuple[str, str]) -> RecordedQuery:
    return parse_query(RecordedQuery, MultiDict(pairs))


def refused(parse: object, *pairs: tuple[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(*pairs)  # type: ignore[operator]
    assert caught.value.code == "INVALID_PARAMETER"
    return caught.value.message


@pytest.mark.parametrize(
    ("call", "model"), [(V1Client.connect, LiveQuery), (MediaClient.transcribe_file, RecordedQuery)]
)
def test_every_parameter_of_the_vendors_sdk_is_known(call: object, model: type[LiveQuery | RecordedQuery]) -> None:
    of_the_sdk = set(inspect.signature(call).parameters) - NOT_OF_THE_QUERY  # type: ignore[arg-type]
    assert len(of_the_sdk) > 25
    assert of_the_sdk <= set(model.model_fields)


def test_what_most_samples_send_is_taken() -> None:
    query = live(("model", "nova-3"), ("language", "en-US"), ("smart_format", "true"), ("interim_results", "True"))
    assert query.interim_results
    assert query.style == Style(has_punctuation=True)
    assert languages_of(query, known=["en"], node_language=None) == ("en", None)


@pytest.mark.parametrize("model", [LiveQuery, RecordedQuery])
def test_what_cannot_be_done_is_refused_by_name_with_the_reason(model: type[LiveQuery]) -> None:
    reasons = {
        name: str(field.json_schema_extra[REASON])
        for name, field in model.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and REASON in field.json_schema_extra
    }
    assert {"diarize", "redact", "numerals", "detect_entities"} <= reasons.keys()
    for name, reason in reasons.items():
        with pytest.raises(ConfigError) as caught:
            parse_query(model, MultiDict([(name, "true")]))
        assert caught.value.message == f"Refused: `{name}`: {reason}."
        assert parse_query(model, MultiDict([(name, "false")])) is not None, name  # what happens anyway


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([("nonsense", "1")], "`nonsense` is not a known parameter"),
        ([("language", "en"), ("language", "de")], "`language` is given more than once"),
        ([("encoding", "speex")], "`encoding`: speex is not read by this server"),
        ([("encoding", "wav")], "`encoding`: it is one of linear16"),
        ([("sample_rate", "fast")], "`sample_rate`"),
        ([("sample_rate", "3")], "`sample_rate`"),
        ([("channels", "99")], "`channels`"),
        ([("version", "2021-03-17")], "`version`: there is one version"),
        ([("alternatives", "3")], "`alternatives`"),
        ([("keywords", "snuffleupagus:5")], "`keywords`: words cannot be weighed"),
        ([("keyterm", "x" * 61)], "`keyterm` has a word that is empty or longer"),
        ([("keywords", ":1")], "`keywords` has a word that is empty or longer"),
        ([("keyterm", "w")] * 101, "`keyterm` has more than 100 words"),
        ([("extra", "no colon")], "`extra`: an extra is `key:value`"),
        ([("tag", "x" * 300)], "`tag`"),
        ([("callback_method", "DELETE")], "`callback_method`: is POST or PUT"),
        ([("language_hint", "en")], "`language_hint` needs `language=multi`"),
        ([("utterance_end_ms", "500"), ("interim_results", "true")], "`utterance_end_ms`"),
        ([("utterance_end_ms", "1000")], "`utterance_end_ms` needs `interim_results=true`"),
        ([("endpointing", "soon")], "`endpointing`"),
        ([("endpointing", "20000")], "`endpointing` is at most"),
        ([("multichannel", "true")], "`multichannel` of a container needs `channels`"),
        ([("detect_language", "true")], "`detect_language` is not a known parameter"),
    ],
)
def test_a_live_query_that_is_wrong_is_refused_by_name(pairs: list[tuple[str, str]], told: str) -> None:
    assert told in refused(live, *pairs)


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([("interim_results", "true")], "`interim_results` is not a known parameter"),
        ([("utt_split", "0")], "`utt_split`"),
        ([("utt_split", "nan")], "`utt_split`"),
        ([("summarize", "v2")], "`summarize`: what is said is written down, not judged"),
        ([("custom_topic", "cats"), ("custom_topic", "dogs")], "`custom_topic`: what is said"),
        ([("detect_language", "true"), ("language", "en")], "`detect_language` and `language` exclude each other"),
        ([("encoding", "opus")], "`encoding`: packets in a body have no length"),
        ([("encoding", "linear16")], "`sample_rate` is missing"),
    ],
)
def test_a_recordings_query_that_is_wrong_is_refused_by_name(pairs: list[tuple[str, str]], told: str) -> None:
    assert told in refused(recorded, *pairs)


def test_all_that_is_wrong_is_told_at_once() -> None:
    message = refused(live, ("diarize", "true"), ("endpointing", "soon"), ("foo", "1"))
    assert all(name in message for name in ("`diarize`", "`endpointing`", "`foo`"))


def test_silences_are_what_sessions_take() -> None:
    assert live().endpointing_ms is None  # the node's: the vendor's 10 ms would cut words
    assert live(("endpointing", "10")).endpointing_ms == 100
    assert live(("endpointing", "300")).endpointing_ms == 300
    assert live(("endpointing", "true")).has_endpoints
    for off in ("false", "0"):
        assert not live(("endpointing", off)).has_endpoints
    assert live(("endpointing", "false")).endpointing_ms is None


def test_words_to_expect_come_from_both_names() -> None:
    query = live(("keyterm", "Anna Seghers"), ("keyterm", "Kant"), ("keywords", "Hegel:1"), ("keywords", "Fichte"))
    assert query.hotwords == ["Anna Seghers", "Kant", "Hegel", "Fichte"]


def test_what_comes_back_is_kept() -> None:
    query = recorded(("tag", "a"), ("tag", "b"), ("extra", "call:7:x"), ("replace", "kant:Kant"), ("replace", "um"))
    assert query.tag == ["a", "b"]
    assert query.extras == {"call": "7:x"}
    assert query.style.replacements == (Replacement(("kant",), "Kant"), Replacement(("um",), ""))


def test_the_vendors_names_of_encodings_are_ours() -> None:
    for name, encoding in ENCODINGS.items():
        query = live(("encoding", name), ("sample_rate", "16000"), ("channels", "2"), ("multichannel", "true"))
        assert query.audio_format == AudioFormat(encoding, 16_000, 2, True)
    assert ENCODINGS["linear32"] is Encoding.FLOAT32


def test_a_rate_without_an_encoding_is_not_read() -> None:
    assert live(("sample_rate", "44100")).audio_format == AudioFormat()


def test_opus_in_a_container_is_told_by_its_first_bytes() -> None:
    query = live(("encoding", "opus"), ("sample_rate", "48000"))
    assert query.container_format(b"OggS\0\2") == AudioFormat()
    assert query.container_format(b"\x1aE\xdf\xa3\x01") == AudioFormat()
    assert query.container_format(b"\x78\x07") is None
    assert live(("encoding", "linear16"), ("sample_rate", "8000")).container_format(b"OggS") is None


@pytest.mark.parametrize(
    ("pairs", "known", "node", "chosen"),
    [
        ([], ["en"], None, ("en", None)),
        ([], ["en", "de"], "de", ("de", None)),
        ([("language", "pt-BR")], ["en", "pt"], None, ("pt", None)),
        ([("language", "zh-HK")], ["zh", "yue"], None, ("yue", None)),
        ([("language", "zh-HK")], ["zh"], None, ("zh", None)),
        ([("language", "nb")], ["no"], None, ("no", None)),
        ([("language", "multi")], ["en", "de"], "de", (None, ["en", "de"])),
        ([("language", "multi"), ("language_hint", "de-CH")], ["en", "de"], None, (None, ["de"])),
        ([("language", "tlh")], ["en"], None, ("tlh", None)),  # refused by the session, which knows its model
    ],
)
def test_a_language_is_the_models(
    pairs: list[tuple[str, str]], known: list[str], node: str | None, chosen: tuple[str | None, list[str] | None]
) -> None:
    assert languages_of(live(*pairs), known=known, node_language=node) == chosen


def test_the_language_of_a_recording_is_detected_among_those_that_are_named() -> None:
    assert languages_of(recorded(("detect_language", "true")), known=["en", "de"], node_language="de") == (
        None,
        ["en", "de"],
    )
    named = recorded(("detect_language", "de"), ("detect_language", "en-GB"))
    assert languages_of(named, known=["en", "de", "fr"], node_language=None) == (None, ["de", "en"])
    assert languages_of(recorded(("detect_language", "false")), known=["en"], node_language=None) == ("en", None)


@pytest.mark.parametrize("query", [live(("language", "multi")), recorded(("detect_language", "true"))])
def test_nothing_is_detected_by_a_model_of_one_language(query: LiveQuery) -> None:
    with pytest.raises(ConfigError, match="knows 'en' alone") as caught:
        languages_of(query, known=["en"], node_language=None)
    assert caught.value.code == "UNKNOWN_LANGUAGE"


def test_every_parameter_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[4] / "docs" / "deepgram.md").read_text(encoding="utf-8")
    missing = [name for name in {**LiveQuery.model_fields, **RecordedQuery.model_fields} if f"`{name}`" not in page]
    assert missing == []
