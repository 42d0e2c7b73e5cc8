"""RTP packets in any order to what a decoder does next, in stream order. Sans-IO: the time is always passed in.

Nobody plays this audio, so nothing has to be held back to keep a loudspeaker fed: a packet that is next in order is
given out at once, and delay exists only where one is missing. The buffer then waits for it, `target_s` long, and
declares it lost. The wait adapts to how late missing packets really come and falls back when they stop coming late;
after a burst the delay is zero as soon as the packets are there, and no speech is dropped to get it back.

The stream's own time follows the RTP timestamps (RFC 3550 section 5.1): what was lost and what was never sent
(discontinuous transmission) is given out too, as concealment and as silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mediaserver.audio.clock import SAMPLE_RATE

MAX_DROPOUT_PACKETS = 3000
"""A sequence number this far ahead is a restart and no gap (RFC 3550 appendix A.1): a minute of 20 ms packets."""

MAX_MISORDER_PACKETS = 100
"""A sequence number this far behind is a restart and not late (RFC 3550 appendix A.1)."""

MAX_HELD_PACKETS = 128
"""More than the longest wait holds of the shortest common packets (1 s of 10 ms); bounds the memory of one stream."""

MAX_GAP_S = 30.0
"""Longest gap that is filled; a longer one is a reset. ICE consent ends after 30 s too (RFC 7675 section 5.1)."""

FIRST_CREDIT_S = 2.0
"""Gap that a new stream may have before time has passed: what a queue in the network holds and then drops."""

RESET_SILENCE_S = 1.0
"""Most silence that stands for a reset: enough to end an utterance, too little to flood anybody."""

MAX_OVERLAP_S = 0.12
"""A timestamp this far behind in an unbroken sequence is a reset. The longest Opus packet; less is sloppy stamping."""

TIMESTAMP_WOBBLE_S = 0.01
"""Gaps shorter than this are kept in mind, not filled: senders that stamp by the wall clock wobble by some
milliseconds, and silence spliced into speech for each would be a click."""

LATENESS_MARGIN_S = 0.01
"""What the wait is longer than the lateness that was seen: one turn of a sender's or a kernel's timer."""

TARGET_HALF_LIFE_S = 10.0
"""How soon the wait falls back: two or three bad moments of a radio link apart count as one spell."""

_SEQUENCES = 1 << 16
_TIMESTAMPS = 1 << 32


class Kind(Enum):
    """What the consumer does with a `Playout`."""

    PACKET = "packet"
    """Decode `payload`."""
    LOSS = "loss"
    """Conceal `samples`; `payload` is the packet after them, whose forward error correction may hold their end."""
    SILENCE = "silence"
    """Nothing was sent for `samples` (discontinuous transmission): silence."""
    RESET = "reset"
    """The sender started anew: silence of `samples`, then a decoder without memory."""


class Playout(NamedTuple):
    """One thing to do next."""

    kind: Kind
    samples: int
    """How long it lasts, in samples at 16 kHz."""
    payload: bytes | None = None
    packets: int = 1
    """How many packets it stands for: 1, or the number lost."""


@dataclass(slots=True)
class JitterCounts:
    """What became of the packets of a stream."""

    received: int = 0
    lost: int = 0
    """Declared lost; the late ones are among them."""
    late: int = 0
    """Arrived after they were declared lost, or from a source that was left."""
    duplicate: int = 0
    reordered: int = 0
    """Arrived after one of their successors, in time or late."""
    resets: int = 0


class _Held(NamedTuple):
    timestamp: int
    payload: bytes
    duration_ticks: int
    arrival_s: float


class JitterBuffer:
    """Puts the packets of one RTP source in order.

    Never raises for what a sender does. Holds at most `MAX_HELD_PACKETS` packets: with more, the wait for the oldest
    missing packet ends at once, so what is given up first is the hope for a late packet, never one that is here.

    Made-up audio (loss and silence) cannot outrun the clock: it is paid from a credit that grows with real time, so
    a sender that jumps ahead with each packet gets resets instead of hours of silence.

    Args:
        clock_rate: of the RTP timestamps, in Hz: 8000, 16000 or 48000 (whole samples at 16 kHz).
        target_ms: how long a missing packet is waited for, at the start and at least.
        max_ms: how far that may grow.
        counts: where packets are counted; shared by the buffers of one stream.
    """

    def __init__(self, clock_rate: int, *, target_ms: float, max_ms: float, counts: JitterCounts | None = None) -> None:
        self.counts = counts if counts is not None else JitterCounts()
        self._max_s = max_ms / 1000.0
        self._floor_s = min(target_ms / 1000.0, self._max_s)
        self._raised_s = 0.0  # target above the floor, at the time of _raised_at_s
        self._raised_at_s = 0.0
        self._credit_s = FIRST_CREDIT_S
        self._credit_at_s: float | None = None
        self._last_played_s: float | None = None
        self._longest_hold_s = 0.0
        self._deadline_s: float | None = None
        self._suspect: tuple[int, _Held] | None = None
        self._set_clock_rate(clock_rate)
        self._forget()

    def _set_clock_rate(self, clock_rate: int) -> None:
        if clock_rate not in (8_000, SAMPLE_RATE, 48_000):
            raise ValueError(f"RTP clock rate {clock_rate} Hz has no whole samples at {SAMPLE_RATE} Hz")
        self._clock_rate = clock_rate
        self._wobble_ticks = int(TIMESTAMP_WOBBLE_S * clock_rate)
        self._max_overlap_ticks = int(MAX_OVERLAP_S * clock_rate)

    def _forget(self) -> None:
        """Forgets where the sequence is; counts, wait and credit stay, for they describe path and sender."""
        self._held: dict[int, _Held] = {}
        self._missing: dict[int, float] = {}  # declared lost, with the time when that was noticed
        self._next: int | None = None  # unwrapped; None: the first packets are being collected
        self._reference = 0  # unwrapped sequence number of the first packet
        self._expected_timestamp: int | None = None  # where the audio that was given out ends
        self._last_duration_ticks = 0

    # Telling

    @property
    def next_deadline_s(self) -> float | None:
        """When `poll` has something to do if no packet comes first; None: never (so an idle stream costs nothing)."""
        return self._deadline_s

    @property
    def held_packets(self) -> int:
        """How many packets wait."""
        return len(self._held)

    def target_s(self, now_s: float) -> float:
        """How long a missing packet is waited for at the moment."""
        if not self._raised_s:
            return self._floor_s
        elapsed_s = max(0.0, now_s - self._raised_at_s)
        return float(self._floor_s + self._raised_s * 0.5 ** (elapsed_s / TARGET_HALF_LIFE_S))

    def take_longest_hold_s(self) -> float:
        """The longest that a packet was held since this was last asked."""
        longest, self._longest_hold_s = self._longest_hold_s, 0.0
        return longest

    # Driving

    def push(
        self, sequence_number: int, timestamp: int, payload: bytes, duration_ticks: int, now_s: float
    ) -> list[Playout]:
        """Takes a packet (header fields as in RFC 3550 section 5.1) and gives out what has become playable.

        Args:
            sequence_number: 16 bits.
            timestamp: 32 bits, of the packet's first sample.
            payload: what the decoder gets; empty for padding, which takes a sequence number and no time.
            duration_ticks: length of its audio in ticks of the RTP clock.
            now_s: monotonic time of arrival.
        """
        self.counts.received += 1
        packet = _Held(timestamp, payload, duration_ticks, now_s)
        if self._credit_at_s is None:
            self._credit_at_s = now_s
        if self._next is None and not self._held:
            self._reference = sequence_number + _SEQUENCES  # so that reordered first packets stay above zero
            self._held[self._reference] = packet
            return self._advance(now_s)

        base = self._reference if self._next is None else self._next
        distance = (sequence_number - base + _SEQUENCES // 2) % _SEQUENCES - _SEQUENCES // 2
        if not -MAX_MISORDER_PACKETS <= distance < MAX_DROPOUT_PACKETS:
            return self._suspected(sequence_number, packet)
        number = base + distance
        if self._next is not None and distance < 0:
            return self._late(number, sequence_number, packet)
        self._suspect = None
        if number in self._held:
            self.counts.duplicate += 1
            return []
        if self._held:
            overtakers = [held.arrival_s for other, held in self._held.items() if other > number]
            if overtakers:
                self.counts.reordered += 1
                self._adapt(now_s - min(overtakers), now_s)
        self._held[number] = packet
        return self._advance(now_s)

    def poll(self, now_s: float) -> list[Playout]:
        """Gives out what became due by time alone; call it at `next_deadline_s`."""
        return self._advance(now_s)

    def flush(self, now_s: float) -> list[Playout]:
        """Gives out all that is held without waiting any longer: at BYE and at the end (the last word lies in it)."""
        return self._advance(now_s, wait=False)

    def restart(self, clock_rate: int) -> None:
        """Makes ready for another source (a new SSRC or codec). `flush` first: what is held is forgotten here."""
        self._set_clock_rate(clock_rate)
        self._suspect = None
        self._deadline_s = None
        self._forget()

    # Order

    def _advance(self, now_s: float, *, wait: bool = True) -> list[Playout]:
        playouts: list[Playout] = []
        held = self._held
        while held:
            packet = held.pop(self._next, None) if self._next is not None else None
            lost = 0
            if packet is None:  # at the start, or before a gap
                noticed_s = min(each.arrival_s for each in held.values())
                deadline_s = noticed_s + self.target_s(now_s)
                if wait and now_s < deadline_s and len(held) <= MAX_HELD_PACKETS:
                    self._deadline_s = deadline_s
                    return playouts
                first = min(held)
                if self._next is not None:
                    lost = first - self._next
                    self._declare_lost(self._next, first, noticed_s)
                self._next = first
                packet = held.pop(first)
            assert self._next is not None
            self._next += 1
            self._play(packet, lost, now_s, playouts)
        self._deadline_s = None
        return playouts

    def _declare_lost(self, start: int, end: int, noticed_s: float) -> None:
        self.counts.lost += end - start
        oldest = end - MAX_MISORDER_PACKETS  # an older one is no longer told from a restart
        self._missing = {number: at_s for number, at_s in self._missing.items() if number >= oldest}
        self._missing.update(dict.fromkeys(range(max(start, oldest), end), noticed_s))

    def _late(self, number: int, sequence_number: int, packet: _Held) -> list[Playout]:
        """A packet whose turn is over: late, a second copy, or a sender that restarted just behind."""
        behind = self._gap_ticks(packet)
        if not -MAX_MISORDER_PACKETS * self._max_overlap_ticks <= behind <= 0:
            return self._suspected(sequence_number, packet)
        noticed_s = self._missing.pop(number, None)
        if noticed_s is None:
            self.counts.duplicate += 1
            return []
        self.counts.late += 1
        self.counts.reordered += 1
        self._adapt(packet.arrival_s - noticed_s, packet.arrival_s)
        return []

    def _suspected(self, sequence_number: int, packet: _Held) -> list[Playout]:
        """One wild number may be a stray; a second right after it is a restart (RFC 3550 appendix A.1)."""
        previous, self._suspect = self._suspect, (sequence_number, packet)
        if previous is None or (previous[0] + 1) % _SEQUENCES != sequence_number:
            return []
        self._suspect = None
        playouts = self._advance(packet.arrival_s, wait=False)
        self._forget()
        self._next = previous[0] + _SEQUENCES
        self._held = {self._next: previous[1], self._next + 1: packet}
        return playouts + self._advance(packet.arrival_s)

    def _adapt(self, lateness_s: float, now_s: float) -> None:
        """Half-way to what would have caught this packet; a freak that no allowed wait catches changes nothing."""
        wanted_s = lateness_s + LATENESS_MARGIN_S
        target_s = self.target_s(now_s)
        if target_s < wanted_s <= self._max_s:
            self._raised_s = (target_s + wanted_s) / 2.0 - self._floor_s
            self._raised_at_s = now_s

    # Time

    def _gap_ticks(self, packet: _Held) -> int:
        """From the end of what was given out to the start of this packet, signed, in ticks."""
        if self._expected_timestamp is None:
            return 0
        distance = packet.timestamp - self._expected_timestamp
        return (distance + _TIMESTAMPS // 2) % _TIMESTAMPS - _TIMESTAMPS // 2

    def _play(self, packet: _Held, lost: int, now_s: float, playouts: list[Playout]) -> None:
        self._longest_hold_s = max(self._longest_hold_s, now_s - packet.arrival_s)
        if self._expected_timestamp is None:
            if self._last_played_s is not None:
                self._reset(packet, playouts)
            self._expected_timestamp = packet.timestamp
        elif lost or packet.timestamp != self._expected_timestamp:
            self._bridge(packet, lost, playouts)
        self._last_played_s = packet.arrival_s
        samples = packet.duration_ticks * SAMPLE_RATE // self._clock_rate
        if samples <= 0:
            return
        playouts.append(Playout(Kind.PACKET, samples, packet.payload))
        self._expected_timestamp = (self._expected_timestamp + packet.duration_ticks) % _TIMESTAMPS
        self._last_duration_ticks = packet.duration_ticks

    def _bridge(self, packet: _Held, lost: int, playouts: list[Playout]) -> None:
        """Fills what lies between the end of the stream and a packet: first silence, then concealment, which must
        touch the packet for its error correction to fit."""
        gap = self._gap_ticks(packet)
        if gap < -self._max_overlap_ticks or gap > self._credit_ticks(packet.arrival_s):
            self._reset(packet, playouts)
            self._expected_timestamp = packet.timestamp
            return
        if gap <= 0 or (not lost and gap <= self._wobble_ticks):
            return
        concealed = min(gap, lost * max(self._last_duration_ticks, packet.duration_ticks))
        silence = gap - concealed
        if lost and silence <= self._wobble_ticks:
            concealed, silence = gap, 0
        if silence:
            self._fill(Kind.SILENCE, silence, playouts)
        if concealed:
            self._fill(Kind.LOSS, concealed, playouts, packet.payload, lost)

    def _fill(
        self, kind: Kind, ticks: int, playouts: list[Playout], payload: bytes | None = None, packets: int = 1
    ) -> None:
        """Gives out made-up audio of whole samples; a fraction of one stays for the next gap."""
        samples = ticks * SAMPLE_RATE // self._clock_rate
        self._credit_s -= samples / SAMPLE_RATE
        if samples:
            playouts.append(Playout(kind, samples, payload, packets))
        if self._expected_timestamp is not None:
            ticks = samples * self._clock_rate // SAMPLE_RATE
            self._expected_timestamp = (self._expected_timestamp + ticks) % _TIMESTAMPS

    def _reset(self, packet: _Held, playouts: list[Playout]) -> None:
        """The timestamps say nothing across a restart; the clock does, within bounds."""
        self.counts.resets += 1
        silent_s = 0.0
        if self._last_played_s is not None:
            away_s = packet.arrival_s - self._last_played_s - self._last_duration_ticks / self._clock_rate
            credit_s = self._credit_ticks(packet.arrival_s) / self._clock_rate
            silent_s = max(0.0, min(away_s, RESET_SILENCE_S, credit_s))
        self._credit_s -= silent_s
        playouts.append(Playout(Kind.RESET, int(silent_s * SAMPLE_RATE)))

    def _credit_ticks(self, now_s: float) -> int:
        if self._credit_at_s is not None and now_s > self._credit_at_s:
            self._credit_s = min(MAX_GAP_S, self._credit_s + now_s - self._credit_at_s)
            self._credit_at_s = now_s
        return int(self._credit_s * self._clock_rate)
