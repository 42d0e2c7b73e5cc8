"""The deadlines of a peer (sans-IO): when it counts as never connected, silent, paused, or gone on for too long."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mediaserver.settings import Settings

STILL_S = 1.0
"""Without packets for this long nobody is speaking: Opus' DTX sends one every 400 ms. Silence that is not sent cannot
end an utterance, so its final is asked for."""


class Alarm(StrEnum):
    """What a watchdog finds; the value is the reason of the peer's end, where it ends."""

    TIMEOUT = "timeout"
    NO_MEDIA = "no_media"
    MEDIA_STILL = "media_still"
    MEDIA_PAUSED = "media_paused"
    SESSION_MAX = "session_max"


@dataclass(frozen=True, slots=True)
class Due:
    """An alarm; `track` says whose, where it is about one of a call's tracks."""

    alarm: Alarm
    track: int = 0


@dataclass(slots=True)
class _Track:
    """When a track's last packet came, and whether it has been told that none followed."""

    packet_s: float | None = None
    stilled: bool = False


class Watchdog:
    """The deadlines of one peer, without a clock of its own: times are `now_s` on any monotonic clock.

    A call goes on while any of its tracks does. `MEDIA_STILL`, of each track, and, later, `MEDIA_PAUSED`, of all, come
    once a pause; every other alarm is the last.

    Args:
        settings: of the node.
        started_s: when the offer came.
        tracks: how many the call has.
        session_s: when its session began, which may have had other connections before; None: with the offer.
    """

    def __init__(
        self, settings: Settings, started_s: float, *, tracks: int = 1, session_s: float | None = None
    ) -> None:
        self.settings = settings
        self.started_s = started_s
        self._session_s = started_s if session_s is None else session_s
        self.connected_s: float | None = None
        self._tracks = [_Track() for _ in range(tracks)]
        self._warned = False

    @property
    def media_s(self) -> float | None:
        """When the last packet of any track came; None before the first."""
        return max((track.packet_s for track in self._tracks if track.packet_s is not None), default=None)

    def connected(self, now_s: float) -> None:
        """The peer is connected."""
        if self.connected_s is None:
            self.connected_s = now_s

    def media(self, last_packet_s: float, track: int = 0) -> None:
        """The last packet of a track came then; a later one than known ends a pause."""
        before_s, of_track = self.media_s, self._tracks[track]
        if of_track.packet_s is None or last_packet_s > of_track.packet_s:
            of_track.packet_s, of_track.stilled = last_packet_s, False
        if before_s is None or last_packet_s > before_s:
            self._warned = False

    def is_still(self, track: int) -> bool:
        """Whether a packet of that track would end a standstill, and so bring a deadline forward."""
        of_track = self._tracks[track]
        return of_track.packet_s is None or of_track.stilled

    def deadline(self) -> tuple[float, Due]:
        """The next alarm and when it is due, if nothing happens until then."""
        settings, media_s = self.settings, self.media_s
        due = [(self._session_s + settings.session_max_s, Due(Alarm.SESSION_MAX))]
        if self.connected_s is None:
            due.append((self.started_s + settings.connect_timeout_s, Due(Alarm.TIMEOUT)))
        elif media_s is None:
            due.append((self.connected_s + settings.first_media_timeout_s, Due(Alarm.NO_MEDIA)))
        else:
            due.append((media_s + settings.media_pause_timeout_s, Due(Alarm.TIMEOUT)))
            due += [
                (track.packet_s + STILL_S, Due(Alarm.MEDIA_STILL, number))
                for number, track in enumerate(self._tracks)
                if track.packet_s is not None and not track.stilled
            ]
            if not self._warned:
                due.append((media_s + settings.media_pause_warning_s, Due(Alarm.MEDIA_PAUSED)))
        return min(due, key=lambda item: item[0])

    def check(self, now_s: float) -> Due | None:
        """The alarm that is due now, if one is."""
        due_s, due = self.deadline()
        if now_s < due_s:
            return None
        if due.alarm is Alarm.MEDIA_STILL:
            self._tracks[due.track].stilled = True
        if due.alarm is Alarm.MEDIA_PAUSED:
            self._warned = True
        return due
