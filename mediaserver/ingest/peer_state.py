"""What may be known of a peer, as a type: operators and clients see it as JSON."""

from __future__ import annotations

from pydantic import BaseModel, Field


class PeerState(BaseModel):
    """A peer in a moment."""

    session_id: str = Field(description="The session's name in logs and events; not a secret.")
    state: str = Field(description="`new`, `connecting`, `connected` …")
    channel: str = Field(description="Of the data channel.")
    codec: str | None = Field(description="What its audio is written in; null before an offer was accepted.")
    stream_time_s: float = Field(description="Audio received, in seconds.")
    concealed_s: float = Field(description="Audio made up for what was lost, in seconds.")
    jitter_target_ms: float = Field(description="How long packets wait for those before them.")
    network_jitter_ms: float = Field(description="As RFC 3550 reckons it.")
    packets: dict[str, int] = Field(description="How many, by what became of them.")
