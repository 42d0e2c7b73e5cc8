"""What a client has heard of one session, put together from its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mediaserver.events import Final, Word


@dataclass(slots=True)
class Transcript:
    """Finals by utterance, revisions applied, and the interim that is on screen.

    `complete` says whether the server said that all was sent (`metadata`); `problems` are its warnings and errors.
    """

    finals: dict[int, Final] = field(default_factory=dict)
    stable: str = ""
    unstable: str = ""
    complete: bool = False
    problems: list[str] = field(default_factory=list)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take one event of the native protocol in; unknown types are left out, for servers may be newer."""
        match event.get("type"):
            case "interim":
                self.stable = str(event["stable"])
                self.unstable = str(event["transcript"])[len(self.stable) :]
            case "final":
                self.stable = self.unstable = ""
                self.finals[int(event["utterance_id"])] = _final(event)
            case "revision":
                known = self.finals.get(int(event["utterance_id"]))
                if known is not None:
                    self.finals[known.utterance_id] = replace(
                        known,
                        transcript=str(event["transcript"]),
                        confidence=float(event["confidence"]),
                        start=float(event["start"]),
                        duration=float(event["duration"]),
                        words=_words(event),
                    )
            case "metadata":
                self.complete = True
            case "warning" | "error":
                error = event.get("error") or {}
                self.problems.append(f"{error.get('message', '')} {error.get('hint', '')}".strip())

    def ordered(self) -> list[Final]:
        """The finals in the order of stream time."""
        return sorted(self.finals.values(), key=lambda final: final.start)


def _final(event: Mapping[str, Any]) -> Final:
    return Final(
        utterance_id=int(event["utterance_id"]),
        transcript=str(event["transcript"]),
        confidence=float(event["confidence"]),
        start=float(event["start"]),
        duration=float(event["duration"]),
        timestamp=float(event["timestamp"]),
        language=event.get("language"),
        language_confidence=event.get("language_confidence"),
        words=_words(event),
        speaker=event.get("speaker"),
    )


def _words(event: Mapping[str, Any]) -> list[Word]:
    return [
        Word(
            str(word["word"]),
            float(word["start"]),
            float(word["end"]),
            float(word["confidence"]),
            word.get("speaker"),
            bool(word.get("low_confidence", False)),
        )
        for word in event.get("words", [])
    ]
