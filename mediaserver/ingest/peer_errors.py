"""What a peer tells its client of its media, each as a code, a sentence and a hint."""

from __future__ import annotations

from mediaserver.errors import ConfigError, MediaError
from mediaserver.session_config import MAX_CHANNELS
from mediaserver.settings import Settings


def too_many_labels(labels: int, tracks: int) -> ConfigError:
    """The refusal of labels for tracks that are not offered."""
    return ConfigError(
        "INVALID_CONFIG",
        f"`channel_labels`: there are {labels} for {tracks} audio tracks.",
        "Give each track that you offer one label, in the order of the media sections.",
    )


def tracks_refused(count: int) -> MediaError:
    """The warning to a client that offers more tracks than are heard."""
    return MediaError(
        "TRACKS_REFUSED",
        f"{count} of the offered audio tracks are not heard: a call has {MAX_CHANNELS} at most.",
        "Open a second peer connection for them.",
    )


CHANNELS_DIFFER = "CHANNELS_DIFFER"


def channels_differ(offered: int, were: int) -> MediaError:
    """The refusal of a client that comes back with other tracks than it had."""
    return MediaError(
        CHANNELS_DIFFER,
        f"The offer has {offered} audio channels; the session has {were}.",
        "Offer the tracks that the session was opened with, or open a new session.",
    )


def peer_closed() -> MediaError:
    """The refusal where the peer was closed before its offer was answered."""
    return MediaError("PEER_CLOSED", "The peer was closed while it was set up.", "Send a new offer.")


def media_paused(settings: Settings) -> MediaError:
    """The warning to a client that sends nothing any more."""
    return MediaError(
        "MEDIA_PAUSED",
        f"No audio for {settings.media_pause_warning_s:g} s.",
        "Check that the microphone is on; the session goes on when audio comes.",
        retryable=True,
    )


def no_media(settings: Settings) -> MediaError:
    """The end of a client that has never sent anything."""
    return MediaError(
        "NO_MEDIA",
        f"No audio within {settings.first_media_timeout_s:g} s of connecting.",
        "Check that the audio track is live and its sender is active, then connect again.",
        retryable=True,
    )
