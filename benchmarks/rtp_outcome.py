"""What became of a recorded peer: what it played, and what it was told of that."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.rtp_peer import RecordedPeer, SetUp
from benchmarks.screen import ScreenScore, Seen, score_stream
from mediaserver.events import Event, Final, Interim, Revision, SpeechStarted, SpeechStopped, Word

TELLS = {kind.type: kind for kind in (Interim, Final, Revision, SpeechStarted, SpeechStopped)}

Going = Literal["leave", "drop", "return"]
"""How a peer goes when its time is over: in order, without a word, or without a word and back again."""

LATE_S = 2.0
"""Text that ended so shortly before a drop may have been on its way: when it was told says nothing of the server."""


@dataclass(slots=True)
class Said:
    """A recording that a peer has played, in seconds of its stream."""

    reel: int
    start_s: float
    end_s: float


@dataclass(slots=True)
class Away:
    """A time without a connection: until `resumed` came, or for ever."""

    since_s: float
    until_s: float = float("inf")


@dataclass(slots=True)
class Guest:
    """A peer, what it played, when it was away (`perf_counter` seconds), and what it was told."""

    peer: RecordedPeer
    set_up: SetUp
    events: list[tuple[float, Mapping[str, Any]]]
    said: list[Said] = field(default_factory=list)
    aways: list[Away] = field(default_factory=list)
    rests_until_s: float = 0.0
    leaves_at_s: float = float("inf")
    going: Going = "leave"


def event_of(body: Mapping[str, Any]) -> Event | None:
    """The event of a native message, where the screen's figures rest on it."""
    kind = TELLS.get(body["type"])
    if kind is None:
        return None
    given = {item.name: body[item.name] for item in dataclasses.fields(kind) if item.name in body}
    if "words" in given:
        names = {item.name for item in dataclasses.fields(Word)}
        given["words"] = [
            Word(**{key: value for key, value in word.items() if key in names}) for word in given["words"]
        ]
    event: Event = kind(**given)
    return event


def outcome(guest: Guest) -> dict[str, Any]:
    """What became of a guest: the text of each recording that it played, and the screen's figures.

    A recording within which its connection was lost was not heard whole: it is only counted, as `cut`.
    """
    begun_s = guest.peer.began_at_s or 0.0
    aways = [Away(away.since_s - begun_s, away.until_s - begun_s) for away in guest.aways]
    seen = [Seen(at_s - begun_s, event) for at_s, body in guest.events if (event := event_of(body)) is not None]
    texts: dict[int, tuple[float, str]] = {}
    for item in seen:
        if isinstance(item.event, Final | Revision):
            middle_s = item.event.start + item.event.duration / 2
            texts[item.event.utterance_id] = (middle_s, item.event.transcript)
    said: list[tuple[int, str, int]] = []
    cut, claimed = 0, set()
    for part in guest.said:
        mine = [key for key, (at_s, _) in sorted(texts.items()) if part.start_s - 0.5 <= at_s <= part.end_s + 1.0]
        claimed.update(mine)
        if any(away.since_s <= part.end_s and part.start_s <= away.until_s for away in aways):
            cut += 1
        else:
            said.append((part.reel, " ".join(texts[key][1].strip() for key in mine), len(mine)))
    return {
        "said": said,
        "cut": cut,
        "stray": [text for key, (_, text) in sorted(texts.items()) if key not in claimed],
        "score": dataclasses.asdict(score_of(seen, aways)),
        "reason": guest.peer.reason,
        "stream_s": guest.peer.stream_s,
        "events": Counter(body["type"] for _, body in guest.events),
        "drops": len(aways),
        "twice": told_twice([body for _, body in guest.events]),
    }


def told_twice(bodies: Sequence[Mapping[str, Any]]) -> int:
    """How many finals came a second time: their utterance had one, or they are no newer than what came before."""
    newest, twice = -1, 0
    known: set[int] = set()
    for body in bodies:
        if body["type"] == "final":
            twice += body["utterance_id"] in known or body["seq"] <= newest
            known.add(body["utterance_id"])
        newest = max(newest, body.get("seq", newest))
    return twice


def score_of(seen: Sequence[Seen], aways: Sequence[Away]) -> ScreenScore:
    """The screen's figures; those of latency without utterances that were late because nobody was there."""
    on_time: list[Seen] = []
    late: list[Seen] = []
    touched = {
        item.event.utterance_id
        for item in seen
        if isinstance(item.event, Interim | Final | Revision) and any(_touches(item, away) for away in aways)
    }
    for item in seen:
        is_late = isinstance(item.event, Interim | Final | Revision) and item.event.utterance_id in touched
        (late if is_late else on_time).append(item)
    broken = score_stream(late)
    return score_stream(on_time) + ScreenScore(stable_broken=broken.stable_broken, unfinished=broken.unfinished)


def _touches(item: Seen, away: Away) -> bool:
    if away.since_s <= item.at_s <= away.until_s:
        return True
    assert isinstance(item.event, Interim | Final | Revision)
    return away.since_s - LATE_S <= item.event.start + item.event.duration and item.event.start <= away.until_s
