"""What holds of a conversation whatever is said in it: text is only added, and nothing a client sends breaks it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_talk import COMPLETED, DELTA, Talk, final, interim

from mediaserver.events import Closed, Finalized, SpeechStarted, SpeechStopped, UtteranceBegan, UtteranceSettled
from signaling.routes.openai_realtime.client_events import KINDS

STEPS = ("speak", "grow", "grow", "split", "stop", "final", "correct", "commit", "clear", "manual", "vad", "delete")


class Speaker:
    """Somebody who speaks, and a session that hears them, as `mediaserver.session` does."""

    def __init__(self) -> None:
        self.talk = Talk()
        self.said: list[str] = []
        self._running: int | None = None
        self._stable: dict[int, list[str]] = {}
        self._waiting: list[int] = []
        self._utterances = 0

    def step(self, name: str) -> None:
        self.talk.channels.stream_time_s += 0.5
        match name:
            case "speak" if self._running is None:
                self.talk.tell(SpeechStarted(self.talk.channels.stream_time_s))
                self._begin()
            case "grow" if self._running is not None:
                words = self._stable[self._running]
                words.append(f"u{self._running}w{len(words)}")
                self.talk.tell(interim(self._running, " ".join(words), "perhaps"))
            case "split" if self._running is not None:
                self._waiting.append(self._running)
                self._begin()
            case "stop" if self._running is not None:
                self._stop()
            case "final" | "correct" if self._waiting:
                self._final(corrected=name == "correct")
            case "commit" | "clear":
                self.talk.say(f"input_audio_buffer.{name}")
                self._stop()
                self.talk.tell(Finalized(self.talk.channels.stream_time_s))
            case "manual" | "vad":
                self.talk.update(turn_detection=None if name == "manual" else {"type": "server_vad"})
            case "delete":
                ids = [event["item_id"] for event in self.talk.told if event["type"].endswith("committed")]
                self.talk.say("conversation.item.delete", item_id=ids[-1] if ids else "none")

    def end(self) -> None:
        self._stop()
        while self._waiting:
            self._final(corrected=False)

    def _begin(self) -> None:
        self._utterances += 1
        self._running = self._utterances
        self._stable[self._running] = []
        self.talk.tell(UtteranceBegan(self._running))

    def _stop(self) -> None:
        if self._running is not None:
            self._waiting.append(self._running)
            self._running = None
            self.talk.tell(SpeechStopped(self.talk.channels.stream_time_s))

    def _final(self, *, corrected: bool) -> None:
        number = self._waiting.pop(0)
        words = [*self._stable[number], f"u{number}end"]
        if corrected:
            words[0] = f"corrected{number}"
        self.said += words
        self.talk.tell(final(number, " ".join(words)), UtteranceSettled(number))


@given(st.lists(st.sampled_from(STEPS), max_size=60))
@settings(max_examples=150, deadline=None)
def test_deltas_only_add_and_make_up_what_is_completed(steps: list[str]) -> None:
    speaker = Speaker()
    for step in steps:
        speaker.step(step)
    speaker.end()
    told = speaker.talk.told
    committed = [event["item_id"] for event in told if event["type"].endswith(".committed")]
    deleted = {event["item_id"] for event in told if event["type"].endswith("item.deleted")}
    completed = {event["item_id"]: event["transcript"] for event in told if event["type"] == COMPLETED}
    assert len(set(committed)) == len(committed)
    assert set(committed) - deleted <= set(completed) <= set(committed)  # nobody waits for a text that never comes
    texts = dict.fromkeys(completed, "")
    over: set[str] = set()
    for event in told:
        if event["type"] == COMPLETED:
            assert event["item_id"] not in over
            over.add(event["item_id"])
        if event["type"] == DELTA:
            assert event["item_id"] not in over
            texts[event["item_id"]] = texts.get(event["item_id"], "") + event["delta"]
    for item_id, transcript in completed.items():
        if "corrected" not in transcript:
            assert texts[item_id] == transcript
        pairs = zip(texts[item_id].split(), transcript.split(), strict=True)  # a word for a word, corrected or not
        assert all(delta == word or word.startswith("corrected") for delta, word in pairs)
    # Nothing is told twice, and what is told was said.
    words = [word for transcript in completed.values() for word in transcript.split()]
    assert len(set(words)) == len(words)
    assert set(words) <= set(speaker.said)
    if not {"clear", "delete", "manual"} & set(steps):
        assert sorted(words) == sorted(speaker.said)


KEYS = st.sampled_from(
    [
        "type",
        "event_id",
        "session",
        "audio",
        "input",
        "item_id",
        "turn_detection",
        "transcription",
        "format",
        "threshold",
        "include",
        "input_audio_format",
        "noise_reduction",
        "language",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["transcription", "server_vad", "semantic_vad", "audio/pcm", "audio/pcmu", "near_field", "en", "pcm16"]
    )
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
EVENTS = st.builds(
    lambda kind, fields: {**fields, "type": kind},
    st.sampled_from([*KINDS, "response.create", "x"]),
    st.dictionaries(KEYS | st.text(max_size=5), VALUES, max_size=4),
)
MESSAGES = EVENTS.map(json.dumps) | VALUES.map(json.dumps) | st.text(max_size=80) | st.binary(max_size=80)


@given(st.lists(MESSAGES, max_size=10))
@settings(max_examples=150, deadline=None)
def test_no_message_of_a_client_ends_the_conversation(messages: list[str | bytes]) -> None:
    talk = Talk()
    for message in messages:
        for told in talk.send(message):
            json.dumps(told, ensure_ascii=False).encode()  # it can be sent
    assert talk.update()["type"] == "session.updated"
    talk.begin(1, 0.0)
    talk.tell(SpeechStopped(1.0))
    talk.finish(1, "still there")
    talk.tell(Closed("client"))
