"""The native protocol's events as models, made of `mediaserver.events` so that document and code cannot part."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from mediaserver import events
from mediaserver.errors import ErrorBody
from mediaserver.session.effective import EffectiveConfig
from signaling.openapi.operation import Message


class ToldWord(BaseModel):
    """A word with its place on the stream's clock, in seconds."""

    model_config = ConfigDict(extra="forbid")

    word: str
    start: float
    end: float
    confidence: float = Field(ge=0, le=1, description="How likely the word is right.")
    speaker: str | None
    low_confidence: bool = Field(description="Whether that is below the session's `min_confidence`.")


class ToldResume(BaseModel):
    """How a client comes back whose connection drops."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="Where to: a WebSocket there, or the offer of a new peer connection. A secret.")
    window_s: float = Field(gt=0, description="Within so many seconds of the drop.")


TYPED: dict[tuple[type[events.Event], str], object] = {
    (events.Ready, "config"): EffectiveConfig,
    (events.Ready, "resume"): ToldResume | None,
    (events.Resumed, "resume"): ToldResume | None,
    (events.Warned, "error"): ErrorBody,
    (events.Failed, "error"): ErrorBody,
    (events.Interim, "words"): list[ToldWord],
    (events.Final, "words"): list[ToldWord],
    (events.Revision, "words"): list[ToldWord],
}
"""What is written otherwise than it is kept: dictionaries of types that stand above events, and words without what is
for other protocols."""

ALL_EVENTS: tuple[type[events.Event], ...] = (
    events.Ready,
    events.SpeechStarted,
    events.Interim,
    events.SpeechStopped,
    events.Final,
    events.UtteranceEnd,
    events.Revision,
    events.Pong,
    events.Warned,
    events.Failed,
    events.Resumed,
    events.Reconnect,
    events.Metadata,
    events.Closed,
)
"""In the order in which a session tells them."""

SessionId = Annotated[str, Field(description="The session's name in logs and events; not a secret.")]
Seq = Annotated[int, Field(ge=0, description="Counts a connection's events up by one: a gap is a lost event.")]
ChannelNumber = Annotated[
    int,
    Field(ge=0, description="Which channel it was heard in, from 0; only where there are several or labelled ones."),
]
ChannelLabel = Annotated[str, Field(description="What the client calls the channel.")]
OwnFields = Annotated[dict[str, str], Field(description="The client's own fields, where it gave some.")]


def event_model(event: type[events.Event]) -> type[BaseModel]:
    """An event as `mediaserver.events.to_dict` writes it."""
    head: dict[str, Any] = {
        "type": (Literal[event.type], ...),
        "session_id": (SessionId, ...),
        "seq": (Seq, ...),
    }
    hints = get_type_hints(event, include_extras=True)
    of_channel: dict[str, Any] = (
        {"channel": (ChannelNumber, None), "channel_label": (ChannelLabel, None)} if event.of_channel else {}
    )
    own: dict[str, Any] = {item.name: (TYPED.get((event, item.name), hints[item.name]), ...) for item in fields(event)}
    return create_model(
        f"{event.__name__}Event",
        __config__=ConfigDict(extra="forbid"),
        __doc__=event.__doc__,
        **head,
        **of_channel,
        metadata=(OwnFields, None),
        **own,
    )


EVENT_MODELS: dict[str, type[BaseModel]] = {event.type: event_model(event) for event in ALL_EVENTS}
"""By the name on the wire."""

NATIVE_EVENTS: tuple[Message, ...] = tuple(
    Message(name, (model.__doc__ or name).strip().splitlines()[0], model) for name, model in EVENT_MODELS.items()
)
"""What clients of the native protocol are told, over a WebSocket, a data channel or server-sent events."""
