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


@dataclass(slots=True)
class Watchdog:
    """The deadlines of one peer, without a clock of its own: times are `now_s` on any monotonic clock.

    `MEDIA_STILL` and, later, `MEDIA_PAUSED` come once a pause; every other alarm is the last.
    """

    settings: Settings
    started_s: float
    connected_s: float | None = None
    media_s: float | None = None
    stilled: bool = False
    warned: bool = False

    def connected(self, now_s: float) -> None:
        """The peer is connected."""
        if self.connected_s is None:
            self.connected_s = now_s

    def media(self, last_packet_s: float) -> None:
        """The last packet of audio came then; a later one than known ends a pause."""
        if self.media_s is None or last_packet_s > self.media_s:
            self.media_s = last_packet_s
            self.stilled = self.warned = False

    def deadline(self) -> tuple[float, Alarm]:
        """The next alarm and when it is due, if nothing happens until then."""
        settings = self.settings
        due = [(self.started_s + settings.session_max_s, Alarm.SESSION_MAX)]
        if self.connected_s is None:
            due.append((self.started_s + settings.connect_timeout_s, Alarm.TIMEOUT))
        elif self.media_s is None:
            due.append((self.connected_s + settings.first_media_timeout_s, Alarm.NO_MEDIA))
        else:
            due.append((self.media_s + settings.media_pause_timeout_s, Alarm.TIMEOUT))
            if not self.stilled:
                due.append((self.media_s + STILL_S, Alarm.MEDIA_STILL))
            if not self.warned:
                due.append((self.media_s + settings.media_pause_warning_s, Alarm.MEDIA_PAUSED))
        return min(due)

    def check(self, now_s: float) -> Alarm | None:
        """The alarm that is due now, if one is."""
        due_s, alarm = self.deadline()
        if now_s < due_s:
            return None
        if alarm is Alarm.MEDIA_STILL:
            self.stilled = True
        if alarm is Alarm.MEDIA_PAUSED:
            self.warned = True
        return alarm
