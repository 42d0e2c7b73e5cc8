"""How long a session lasts and waits, what is kept and posted of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import SecretStr

from mediaserver.settings.room import Group, Room

knob = Group.SESSION.knob


class WebhookBatch(StrEnum):
    """How many events of a live session go into a webhook."""

    EVENT = "event"
    SESSION = "session"


WebhookEvent = Literal[
    "ready",
    "speech_started",
    "speech_stopped",
    "final",
    "revision",
    "utterance_end",
    "metadata",
    "warning",
    "error",
    "closed",
]
"""What a webhook may tell of a live session: all but interims, which are old before they arrive."""


class SessionSettings(Room):
    """The settings of the group `session`."""

    session_max_s: float = knob(7200.0, "Longest session in seconds.", gt=0)
    resume_window_s: float = knob(
        30.0,
        "Seconds for which a session waits for a client whose connection dropped (docs/resume.md); 0 does not wait.",
        ge=0,
        le=600,
    )
    socket_idle_timeout_s: float = knob(
        60.0,
        "Seconds without audio or a message after which a session over a WebSocket ends.",
        gt=0,
        le=3600,
    )
    min_confidence: float = knob(
        0.5,
        "Confidence below which a word is marked `low_confidence`; 0 marks none. Words are marked, never left out. "
        "Where the model's confidence is calibrated, 0.5 marks those that are more likely wrong than right.",
        ge=0,
        le=1,
    )
    webhook_url: str | None = knob(
        None,
        "Where the events of live sessions are posted, unless a client names another place for its own.",
    )
    webhook_secret: SecretStr | None = knob(None, "Signs what is posted to `webhook_url` (HMAC-SHA256).", min_length=16)
    webhook_batch: WebhookBatch = knob(
        WebhookBatch.EVENT, "`event`: each is posted by itself; `session`: all of them at its end."
    )
    webhook_events: list[WebhookEvent] = knob(
        ["final", "revision", "utterance_end", "metadata", "closed"],
        "Which events of live sessions are posted, as JSON.",
    )
    event_log_kib: int = knob(
        512,
        "Text in KiB that is kept of a session's events for those who read them again or later; finals of about half "
        "an hour of speech. What tells of the course of speech is dropped first, then the oldest finals.",
        ge=16,
        le=65_536,
    )
    events_linger_s: float = knob(
        60.0, "Seconds for which a session's events can be read after its end.", ge=0, le=3600
    )
