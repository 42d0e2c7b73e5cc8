"""What a client of the native WebSocket may choose: what every session may, and how its audio is written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mediaserver.ingest.bytestream import AudioFormat, Encoding
from mediaserver.ingest.resampler import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ
from mediaserver.session_config import SessionConfig


class StreamConfig(SessionConfig):
    """The `config` of a `configure` over the native WebSocket. The audio's format may change before the first audio."""

    encoding: Annotated[Encoding | None, Field(strict=False)] = Field(
        None,
        description="How the audio is written; unset is a container, told by its first bytes: WAV, FLAC, Ogg Opus, Ogg "
        "FLAC, WebM Opus (as MediaRecorder writes it), MP3 or AAC in ADTS. `opus` is one packet a binary message.",
    )
    sample_rate: int | None = Field(
        None,
        ge=MIN_RATE_HZ,
        le=MAX_RATE_HZ,
        description="Hz; needed for `linear16` and `linear32`, 8000 by default for `mulaw` and `alaw`.",
    )
    channels: int = Field(1, ge=1, le=MAX_CHANNELS, description="Channels of the audio, interleaved.")
    multichannel: bool = Field(
        False, description="Whether each channel is transcribed by itself; else they are mixed to one."
    )

    @property
    def audio_format(self) -> AudioFormat:
        """What is said of the audio."""
        return AudioFormat(self.encoding, self.sample_rate, self.channels, self.multichannel)

    def session(self) -> SessionConfig:
        """What is said of the session."""
        return SessionConfig.model_validate(
            self.model_dump(exclude_unset=True, include=set(SessionConfig.model_fields))
        )


class StreamQuery(StreamConfig):
    """The query of the native WebSocket."""

    api_key: str | None = Field(
        None, repr=False, max_length=512, description="A key, for clients that cannot send `Authorization`."
    )
    token: str | None = Field(None, repr=False, max_length=8192, description="A join token, likewise.")
