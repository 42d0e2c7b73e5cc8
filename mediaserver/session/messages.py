"""What a client may say in the native protocol, and to which part of a session it goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

from mediaserver.errors import VoiceForgeError

KNOWN_TYPES = ("configure", "finalize", "keep_alive", "close_stream")


class Conversation(Protocol):
    """What a message may act on: a session, or the channels of a connection."""

    on_close_stream: Callable[[], None] | None

    def configure(self, changes: object) -> None:
        """Change the configuration from here on."""
        ...

    def finalize(self) -> None:
        """End the running utterance."""
        ...

    def keep_alive(self) -> None:
        """Answer."""
        ...

    def fail(self, error: VoiceForgeError) -> None:
        """Tell the client of a request that failed."""
        ...


def handle_message(session: Conversation, message: str | bytes) -> None:
    """Carry out one JSON message; whatever is wrong with it comes back as an `error` event. Never raises."""
    try:
        _dispatch(session, _parsed(message))
    except VoiceForgeError as error:
        session.fail(error)


def _parsed(message: str | bytes) -> dict[str, object]:
    try:
        parsed = json.loads(message)
    except (ValueError, RecursionError) as exc:
        raise VoiceForgeError(
            "MALFORMED_MESSAGE", "The message is not JSON.", 'Send one JSON object a message: {"type":"finalize"}.'
        ) from exc
    if not isinstance(parsed, dict):
        raise VoiceForgeError(
            "MALFORMED_MESSAGE", "The message is not a JSON object.", 'Send an object: {"type":"finalize"}.'
        )
    return parsed


def _dispatch(session: Conversation, message: dict[str, object]) -> None:
    match message.get("type"):
        case "configure":
            session.configure(message.get("config"))
        case "finalize":
            session.finalize()
        case "keep_alive":
            session.keep_alive()
        case "close_stream":
            if session.on_close_stream is not None:
                session.on_close_stream()
        case "audio":
            raise VoiceForgeError(
                "AUDIO_BY_RTP", "Over WebRTC audio comes by RTP.", "Send it as a media track of the peer connection."
            )
        case other:
            raise VoiceForgeError(
                "UNKNOWN_MESSAGE", f"There is no message of type {other!r:.80}.", f"Known: {', '.join(KNOWN_TYPES)}."
            )
