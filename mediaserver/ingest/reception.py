"""What RTCP receiver reports say of one source (RFC 3550 sections 6.4.1, A.3 and A.8). Sans-IO.

A browser decides by these reports how much error correction it sends, so they must be right. aiortc's own numbers
are not when a timestamp wraps around or jumps: the jitter then exceeds its 32 bits and its reporting task dies.
"""

from __future__ import annotations

from mediaserver.ingest.jitter import MAX_DROPOUT_PACKETS, MAX_MISORDER_PACKETS

_SEQUENCES = 1 << 16
_TIMESTAMPS = 1 << 32
_MAX_LOST = (1 << 23) - 1
_MAX_TRANSIT_S = 10
"""A step in transit time of more than this is a new time base and says nothing of the network."""


class Reception:
    """Reception statistics of one source; the property names are those that aiortc's reports read."""

    def __init__(self, clock_rate: int) -> None:
        self.clock_rate = clock_rate
        self.packets_received = 0
        self._base = 0
        self._highest = -1
        self._suspect: int | None = None
        self._transit: int | None = None
        self._jitter = 0.0
        self._expected_before = 0
        self._received_before = 0

    def add(self, sequence_number: int, timestamp: int, arrival_s: float) -> None:
        """Counts a packet as it came off the network, in whatever order, copies included (appendix A.1)."""
        if self._highest < 0:
            self._base = self._highest = sequence_number
        distance = (sequence_number - self._highest + _SEQUENCES // 2) % _SEQUENCES - _SEQUENCES // 2
        if not -MAX_MISORDER_PACKETS <= distance < MAX_DROPOUT_PACKETS:
            expected_next, self._suspect = self._suspect, (sequence_number + 1) % _SEQUENCES
            if expected_next != sequence_number:
                return
            self._base = self._highest = sequence_number
            self.packets_received = self._expected_before = self._received_before = 0
            self._transit = None
        elif distance > 0:
            self._highest += distance
        self._suspect = None
        self.packets_received += 1

        transit = int(arrival_s * self.clock_rate) - timestamp
        if self._transit is not None:
            step = abs((transit - self._transit + _TIMESTAMPS // 2) % _TIMESTAMPS - _TIMESTAMPS // 2)
            if step <= _MAX_TRANSIT_S * self.clock_rate:
                self._jitter += (step - self._jitter) / 16.0
        self._transit = transit

    @property
    def max_seq(self) -> int:
        """Extended highest sequence number, 32 bits."""
        return self._highest % _TIMESTAMPS

    @property
    def jitter(self) -> int:
        """Interarrival jitter in ticks of the RTP clock."""
        return int(self._jitter)

    @property
    def packets_expected(self) -> int:
        """How many were sent, by the sequence numbers."""
        return self._highest - self._base + 1

    @property
    def packets_lost(self) -> int:
        """Cumulative loss, 24 bits, signed; copies make it fall."""
        return max(-_MAX_LOST - 1, min(_MAX_LOST, self.packets_expected - self.packets_received))

    @property
    def fraction_lost(self) -> int:
        """Loss since this was last read, in 256ths: one report reads it once (appendix A.3)."""
        expected = self.packets_expected - self._expected_before
        lost = expected - (self.packets_received - self._received_before)
        self._expected_before, self._received_before = self.packets_expected, self.packets_received
        return min(255, lost * 256 // expected) if expected > 0 and lost > 0 else 0
