"""The failure of audio that came in bytes."""

from __future__ import annotations

from mediaserver.errors import MediaError

CONTAINERS = "WAV, FLAC, Ogg Opus, Ogg FLAC, WebM Opus, MP3 and AAC in ADTS"
"""What is told by its first bytes and can be heard while it comes."""


def undecodable(message: str, hint: str = "Send the bytes of one stream, unchanged and in order.") -> MediaError:
    """An UNDECODABLE_AUDIO with this sentence; nothing of the stream can be heard after it."""
    return MediaError("UNDECODABLE_AUDIO", message, hint)
