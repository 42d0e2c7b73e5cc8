"""What the clients of other servers show, from messages as those servers send them; and how it is scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.peers.client import Screen
from benchmarks.peers.measure import level
from benchmarks.peers.shown import Text, as_seen
from benchmarks.peers.voiceforge import VoiceForgeScreen
from benchmarks.peers.whisperlive import WhisperLiveScreen
from benchmarks.peers.whisperlivekit import WhisperLiveKitScreen
from benchmarks.screen import final_text, score_stream
from benchmarks.scripts import Script
from mediaserver.events import Word

UID = "a623e44d"


def segment(start: str, end: str, text: str, *, completed: bool) -> dict[str, Any]:
    return {"start": start, "end": end, "text": text, "completed": completed}


def lines(*texts: tuple[int, str], buffer: str = "") -> dict[str, Any]:
    return {
        "status": "active_transcription",
        "lines": [
            {"speaker": speaker, "text": text, "start": "0:00:00.00", "end": "0:00:13.06"} for speaker, text in texts
        ],
        "buffer_transcription": buffer,
        "buffer_diarization": "",
        "remaining_time_transcription": 7.1,
    }


class TestWhisperLive:
    def test_says_when_it_takes_audio(self) -> None:
        screen = WhisperLiveScreen()
        assert screen.take({"uid": UID, "message": "SERVER_READY", "backend": "faster_whisper"}) is None
        assert screen.ready
        assert screen.refusal is None

    def test_the_running_segment_is_replaced_and_completed_ones_stay(self) -> None:
        screen = WhisperLiveScreen()
        screen.take({"uid": UID, "segments": [segment("0.000", "1.000", " I was supposed to begin.", completed=False)]})
        done = segment("0.000", "5.860", " Alice was beginning to get very tired.", completed=True)
        text = screen.take({"uid": UID, "segments": [done, segment("5.860", "7.000", " As a nat...", completed=False)]})
        assert text == Text(
            "Alice was beginning to get very tired. As a nat...", "Alice was beginning to get very tired."
        )

    def test_completed_segments_are_kept_when_they_are_sent_no_more(self) -> None:
        screen = WhisperLiveScreen()
        for number in range(20):
            newest = range(max(number - 9, 0), number + 1)
            text = screen.take(
                {"segments": [segment(f"{k}.000", f"{k + 1}.000", f" word{k}", completed=True) for k in newest]}
            )
        assert text is not None
        assert text.settled.split() == [f"word{k}" for k in range(20)]

    def test_a_refusal_is_told_in_the_server_s_words(self) -> None:
        screen = WhisperLiveScreen()
        screen.take({"uid": UID, "status": "WAIT", "message": 9.98})
        assert screen.refusal == "WAIT: 9.98"
        assert not screen.ready


class TestWhisperLiveKit:
    def test_says_when_it_takes_audio_and_when_it_has_finished(self) -> None:
        screen = WhisperLiveKitScreen()
        screen.take({"type": "config", "useAudioWorklet": True, "mode": "full"})
        assert screen.ready
        assert not screen.ended
        screen.take({"type": "ready_to_stop"})
        assert screen.ended

    def test_lines_are_settled_and_the_buffer_follows_them(self) -> None:
        screen = WhisperLiveKitScreen()
        text = screen.take(lines((1, " Alice was beginning"), (-2, ""), (1, " to get tired."), buffer=" As a nat"))
        assert text == Text("Alice was beginning to get tired. As a nat", "Alice was beginning to get tired.")

    def test_a_line_that_goes_is_gone(self) -> None:
        screen = WhisperLiveKitScreen()
        screen.take(lines((1, " one two")))
        assert screen.take(lines((1, " one"))) == Text("one", "one")

    def test_an_error_is_a_refusal(self) -> None:
        screen = WhisperLiveKitScreen()
        screen.take({"type": "error", "error": "unsupported language"})
        assert screen.refusal == "unsupported language"


class TestVoiceForge:
    def test_utterances_follow_one_another_each_with_its_latest_text(self) -> None:
        screen = VoiceForgeScreen()
        screen.take({"type": "final", "utterance_id": 1, "transcript": "Hello word."})
        screen.take({"type": "interim", "utterance_id": 2, "transcript": "How"})
        text = screen.take({"type": "revision", "utterance_id": 1, "transcript": "Hello world."})
        assert text == Text("Hello world. How", "Hello world.")

    def test_readiness_end_and_other_events_show_nothing(self) -> None:
        screen = VoiceForgeScreen()
        assert screen.take({"type": "ready", "config": {}}) is None
        assert screen.take({"type": "speech_started", "at": 0.3}) is None
        assert screen.take({"type": "closed", "reason": "client"}) is None
        assert screen.ready
        assert screen.ended


@pytest.mark.parametrize("make", [WhisperLiveScreen, WhisperLiveKitScreen, VoiceForgeScreen])
@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        "text",
        3,
        {},
        {"segments": 3},
        {"lines": "x"},
        {"type": "final"},
        {"type": "final", "utterance_id": "x"},
    ],
)
def test_what_is_not_of_the_protocol_shows_nothing(make: type[Screen], message: object) -> None:
    assert make().take(message) is None


def test_odd_segments_and_lines_are_passed_over() -> None:
    broken = {"segments": [None, 3, {"start": "x", "text": "a", "completed": True}, {"completed": False}]}
    assert WhisperLiveScreen().take(broken) == Text("a", "a")
    assert WhisperLiveKitScreen().take({"lines": [None, {"speaker": 1}, {"text": "b"}]}) == Text("b", "b")


WORDS = [Word("one", 0.0, 0.5, 1.0), Word("two", 0.6, 1.0, 1.0), Word("three", 1.1, 1.5, 1.0)]


def test_a_word_counts_from_when_it_stays_unchanged() -> None:
    seen = as_seen([(1.0, "one"), (1.2, "one"), (2.0, "one too"), (3.0, "one two three")], words=WORDS, ended_at_s=9.0)
    score = score_stream(seen)
    assert score.word_s == pytest.approx([0.5, 2.0, 1.5])
    assert (score.shown_words, score.changed_words) == (4, 1)
    assert score.first_text_from_word_s == pytest.approx([1.0])
    assert final_text(seen) == "one two three"


def test_a_stream_that_shows_nothing_has_no_latency_and_no_text() -> None:
    seen = as_seen([], words=WORDS, ended_at_s=9.0)
    assert score_stream(seen).word_s == []
    assert final_text(seen) == ""


def test_words_that_are_written_otherwise_have_no_latency() -> None:
    score = score_stream(as_seen([(2.0, "one to three")], words=WORDS, ended_at_s=9.0))
    assert score.word_s == pytest.approx([1.5, 0.5])
    assert score.untimed_words == 1


def test_no_speaker_leaves_before_the_others() -> None:
    short, long = Script("a", np.ones(1000, np.float32)), Script("b", np.ones(4000, np.float32))
    levelled = level([short, long])
    assert [len(script.samples) for script in levelled] == [4000, 4000]
    assert (levelled[0].samples[:1000] == 1).all()
    assert np.abs(levelled[0].samples[1000:]).max() < 0.01
