"""What may be known of a peer, as a type: operators and clients see it as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, Field

from mediaserver.ingest.receiver import ReceiverStatus
from mediaserver.ingest.sdp import Offer, Track
from mediaserver.session.channels import Channels


class State(StrEnum):
    """Where a peer is in its life."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    HELD = "held"
    CLOSING = "closing"
    CLOSED = "closed"


class TrackState(BaseModel):
    """An audio track in a moment."""

    labels: list[str] = Field(description="What its channels are called; none where there is one channel and no label.")
    codec: str = Field(description="What the client writes it in, by preference.")
    jitter_target_ms: float = Field(description="How long packets wait for those before them.")
    network_jitter_ms: float = Field(description="As RFC 3550 reckons it.")
    packets: dict[str, int] = Field(description="How many, by what became of them.")

    @classmethod
    def of(cls, track: Track, status: ReceiverStatus | None, labels: Sequence[str]) -> Self:
        """The state of a track, before its receiver is there too."""
        return cls(
            labels=list(labels),
            codec=track.codecs[0].name.lower(),
            jitter_target_ms=0.0 if status is None else round(status.jitter_target_ms, 1),
            network_jitter_ms=0.0 if status is None else round(status.network_jitter_ms, 1),
            packets={} if status is None else asdict(status.packets),
        )


class PeerState(BaseModel):
    """A peer in a moment. What is said of packets is about all of its tracks together: the worst, or the sum."""

    session_id: str = Field(description="The session's name in logs and events; not a secret.")
    state: str = Field(description="`new`, `connecting`, `connected` …")
    channel: str = Field(description="Of the data channel.")
    codec: str | None = Field(description="What its audio is written in; null before an offer was accepted.")
    stream_time_s: float = Field(description="Audio received, in seconds.")
    concealed_s: float = Field(description="Audio made up for what was lost, in seconds.")
    jitter_target_ms: float = Field(description="How long packets wait for those before them.")
    network_jitter_ms: float = Field(description="As RFC 3550 reckons it.")
    packets: dict[str, int] = Field(description="How many, by what became of them.")
    metadata: dict[str, str] = Field(description="The client's own fields (caller, call id …).")
    tracks: list[TrackState] = Field(description="Each of them, in the order of their channels.")

    @classmethod
    def of(
        cls,
        *,
        session_id: str,
        state: State,
        data_channel: str,
        offer: Offer | None,
        statuses: Sequence[ReceiverStatus],
        channels: Channels | None,
    ) -> Self:
        """The state of a peer, before its receivers and sessions are there too."""
        labels = [] if channels is None else channels.labels
        tracks = (
            [
                TrackState.of(
                    track,
                    statuses[number] if statuses else None,
                    [labels[channel] for channel in offer.channels_of(number) if channel < len(labels)],
                )
                for number, track in enumerate(offer.tracks)
            ]
            if offer is not None
            else []
        )
        counts = [track.packets for track in tracks if track.packets]
        return cls(
            session_id=session_id,
            state=state.value,
            channel=data_channel,
            codec=tracks[0].codec if tracks else None,
            stream_time_s=0.0 if channels is None else round(channels.stream_time_s, 3),
            concealed_s=0.0 if channels is None else round(channels.concealed_s, 3),
            jitter_target_ms=max((track.jitter_target_ms for track in tracks), default=0.0),
            network_jitter_ms=max((track.network_jitter_ms for track in tracks), default=0.0),
            packets={fate: sum(count[fate] for count in counts) for fate in counts[0]} if counts else {},
            metadata={} if channels is None else dict(channels.config.metadata),
            tracks=tracks,
        )
