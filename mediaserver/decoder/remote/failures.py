"""What a session or an operator is told when an engine in another process cannot do what it should."""

from __future__ import annotations

from pathlib import Path

from mediaserver.decoder.remote.outbox import AWAY_LIMIT_S, MAX_TRIES
from mediaserver.errors import VoiceForgeError


def closed() -> VoiceForgeError:
    """The media process is stopping."""
    return VoiceForgeError("ENGINE_CLOSED", "The decoder is stopping.", "Connect again later.", retryable=True)


def too_many() -> VoiceForgeError:
    """More windows wait than are kept."""
    return VoiceForgeError(
        "ENGINE_OVERLOADED", "Too much audio waits for its decode.", "Try again later.", retryable=True
    )


def away() -> VoiceForgeError:
    """A final waited too long for an engine."""
    return VoiceForgeError(
        "ENGINE_AWAY",
        f"The decoder has been away for {AWAY_LIMIT_S:g} s: a piece of audio was not decoded.",
        "The session goes on, and so does its text once the decoder is back.",
        retryable=True,
    )


def given_up() -> VoiceForgeError:
    """A window was in hand whenever an engine died."""
    return VoiceForgeError(
        "DECODE_FAILED",
        f"A piece of audio was not decoded: {MAX_TRIES} decoders ended over it.",
        "The session goes on.",
        retryable=True,
    )


def unsendable() -> VoiceForgeError:
    """A window or hypothesis that the wire does not carry: too large, or with a field of a wrong type."""
    return VoiceForgeError(
        "DECODE_FAILED",
        "A piece of audio, or what it says, could not be sent to or from the decoder.",
        "The session goes on.",
    )


def unreachable(path: Path) -> VoiceForgeError:
    """No engine answered at start."""
    return VoiceForgeError(
        "ENGINE_UNREACHABLE",
        f"No engine answers at {path}.",
        "Start one with `voiceforge engine --socket PATH`, and name the same path in `engine_socket`.",
        retryable=True,
    )


def changed(before: str, now: str) -> VoiceForgeError:
    """The engine came back as another: sessions have been told of the former one's model and languages."""
    return VoiceForgeError(
        "ENGINE_CHANGED",
        f"The engine came back with the model {now!r} instead of {before!r}.",
        "Start this server again, or the engine with the former model.",
    )


def start_failed(what: str) -> VoiceForgeError:
    """The engine's process ended, or hung, before it listened."""
    return VoiceForgeError(
        "ENGINE_FAILED",
        f"The engine's process did not start: {what}.",
        "Its own lines above say why; `voiceforge engine --socket PATH` runs one by hand.",
    )
