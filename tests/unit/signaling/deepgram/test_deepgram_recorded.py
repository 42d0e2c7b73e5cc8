"""A recording's transcript as the vendor writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from multidict import MultiDict

from mediaserver.events import Final, Word
from mediaserver.jobs.transcript import ChannelTranscript, Segment, Transcript
from signaling.routes.deepgram.query import RecordedQuery
from signaling.routes.deepgram.reading import parse_query
from signaling.routes.deepgram.recorded import Received, recorded

RECEIVED = Received("r1", datetime(2026, 11, 21, tzinfo=UTC), "abcd")


def segment(text: str, start: float, *, language: str = "en", gap: float = 0.0) -> Segment:
    """A word every half second, each as long as that less the gap."""
    words = [Word(word, start + n / 2, start + n / 2 + 0.5 - gap, 0.8) for n, word in enumerate(text.split())]
    final = Final(1, text, 0.8, start, words[-1].end - start, 0.0, language, None, words)
    return Segment(final, -0.2, 0.01, 1.2)


def channel(*segments: Segment, language: str = "en", probability: float | None = None) -> ChannelTranscript:
    return ChannelTranscript(tuple(segments), language, probability)


def answer(channels: list[ChannelTranscript], *pairs: tuple[str, str], **of_transcript: Any) -> dict[str, Any]:
    query = parse_query(RecordedQuery, MultiDict(pairs))
    transcript = Transcript(tuple(channels), 12.3456, "tiny.en", **of_transcript)
    return recorded(transcript, RECEIVED, query).model_dump(mode="json", exclude_none=True)


def test_what_was_asked_for_comes_back_and_nothing_else() -> None:
    body = answer([channel(segment("Hello, World!", 0.0), segment("Bye.", 2.0))])
    uuid = body["metadata"]["models"][0]
    assert body["metadata"] == {
        "transaction_key": "deprecated",
        "request_id": "r1",
        "sha256": "abcd",
        "created": "2026-11-21T00:00:00.000Z",
        "duration": 12.346,
        "channels": 1,
        "models": [uuid],
        "model_info": {uuid: body["metadata"]["model_info"][uuid]},
    }
    assert list(body["results"]) == ["channels"]
    (only,) = body["results"]["channels"]
    assert list(only) == ["alternatives"]
    (alternative,) = only["alternatives"]
    assert (alternative["transcript"], alternative["confidence"]) == ("hello world bye", 0.8)
    assert alternative["words"][2] == {"word": "bye", "start": 2.0, "end": 2.5, "confidence": 0.8}


def test_nothing_said_is_an_empty_transcript() -> None:
    body = answer([ChannelTranscript((), None, None)], ("smart_format", "true"), ("utterances", "true"))
    assert body["results"] == {
        "channels": [
            {
                "alternatives": [
                    {
                        "transcript": "",
                        "confidence": 0.0,
                        "words": [],
                        "paragraphs": {"transcript": "", "paragraphs": []},
                    }
                ]
            }
        ],
        "utterances": [],
    }


def test_tags_extras_and_warnings_are_in_the_metadata() -> None:
    body = answer([channel()], ("tag", "a"), ("extra", "k:v"), warnings=("The end is missing.",))
    assert body["metadata"]["tags"] == ["a"]
    assert body["metadata"]["extra"] == {"k": "v"}
    assert body["metadata"]["warnings"] == ["The end is missing."]


def test_paragraphs_end_at_pauses_between_sentences_and_after_six_of_them() -> None:
    said = channel(
        segment("One goes. It pauses", 0.0),
        segment("within. And", 4.0),  # 2 s within a sentence are no end of it
        segment("on. Then", 8.4),  # 3.4 s are one
        segment("this. A. B. C. D. E. F. G.", 9.4),
    )
    body = answer([said], ("paragraphs", "true"))
    text = body["results"]["channels"][0]["alternatives"][0]["paragraphs"]
    assert text["transcript"] == ("\nOne goes. It pauses within. And\n\non. Then this. A. B. C. D.\n\nE. F. G.")
    first = text["paragraphs"][0]
    assert [sentence["text"] for sentence in first["sentences"]] == ["One goes.", "It pauses within.", "And"]
    assert (first["num_words"], first["start"], first["end"]) == (6, 0.0, 5.0)


def test_utterances_are_cut_at_pauses_and_in_order_of_time() -> None:
    left = channel(segment("One two", 0.0), segment("three", 1.7), segment("four", 4.0))
    right = channel(segment("Five.", 2.5))
    body = answer([left, right], ("utterances", "true"), ("multichannel", "true"), ("punctuate", "true"))
    told = [(item["channel"], item["transcript"], item["start"], item["end"]) for item in body["results"]["utterances"]]
    assert told == [(0, "One two three", 0.0, 2.2), (1, "Five.", 2.5, 3.0), (0, "four", 4.0, 4.5)]
    assert len({item["id"] for item in body["results"]["utterances"]}) == 3
    closer = answer([left], ("utterances", "true"), ("utt_split", "0.5"))
    assert [item["transcript"] for item in closer["results"]["utterances"]] == ["one two", "three", "four"]


def test_a_detected_language_is_told_of_each_channel() -> None:
    body = answer([channel(segment("Ja.", 0.0), language="de", probability=0.987654)], ("detect_language", "true"))
    assert body["results"]["channels"][0]["detected_language"] == "de"
    assert body["results"]["channels"][0]["language_confidence"] == 0.988


def test_several_languages_are_told_with_their_words() -> None:
    said = channel(
        segment("Ja, gut.", 0.0, language="de"), segment("Um, yes.", 2.0), segment("So um fünf.", 4.0, language="de")
    )
    body = answer([said], ("language", "multi"))
    alternative = body["results"]["channels"][0]["alternatives"][0]
    assert alternative["languages"] == ["de", "en"]
    assert alternative["transcript"] == "ja gut yes so um fünf"  # the filler of one is a word of the other
    assert [word["language"] for word in alternative["words"]] == ["de", "de", "en", "de", "de", "de"]
    assert "detected_language" not in body["results"]["channels"][0]
