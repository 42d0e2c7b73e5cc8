"""The RTP packets of one speaker to samples: which source counts, in what order, by which decoder. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import MediaError
from mediaserver.ingest.codecs import AudioDecoder, Decoded, G711Decoder, G722Decoder, a_law_table, mu_law_table
from mediaserver.ingest.jitter import JitterBuffer, JitterCounts, Kind, Playout
from mediaserver.ingest.opus import CLOCK_RATE, OpusDecoder, load_libopus
from mediaserver.metrics import Metrics

MAX_SOURCES = 8
"""SSRCs in the life of a stream: holds, transfers and renegotiations of a long call; each more is refused, for a
reset costs a hundred times what a packet does."""

STRAGGLER_S = 1.0
"""A source that was left counts as late for this long; after it, it has come back (a call taken off hold)."""

SILENCE_CHUNK_SAMPLES = SAMPLE_RATE
"""Silence is handed on by the second, so that the longest gap is never one 2 MB array."""

PUBLISH_PACKETS = 50
"""Metrics follow every this many packets, a second of speech: a labelled counter costs 1 µs a time."""

OnSamples = Callable[[Samples, int], None]
"""Called with float32 16 kHz samples, shape [n], or [n, channels] of a stream with several, and how many of them are
concealment."""


class RtpPacket(Protocol):
    """What is read of an RTP packet (RFC 3550 section 5.1); aiortc's has it, and `media_path`'s."""

    @property
    def ssrc(self) -> int:
        """Of the source."""

    @property
    def payload_type(self) -> int:
        """What is in it."""

    @property
    def sequence_number(self) -> int:
        """16 bits."""

    @property
    def timestamp(self) -> int:
        """32 bits, of its first sample."""

    @property
    def payload(self) -> bytes:
        """For the decoder."""


def make_decoder(mime_type: str, channels: int = 1) -> AudioDecoder:
    """The decoder of a codec as SDP names it (`audio/opus`, `audio/PCMU`, `audio/PCMA`, `audio/G722`).

    Only Opus has two channels.

    Raises:
        MediaError: UNSUPPORTED_CODEC.
        VoiceForgeError: LIBOPUS_MISSING.
    """
    require_decoder(mime_type, channels)
    match mime_type.lower():
        case "audio/opus":
            return OpusDecoder(channels)
        case "audio/g722":
            return G722Decoder()
        case law:
            return G711Decoder(mu_law_table() if law == "audio/pcmu" else a_law_table())


def require_decoder(mime_type: str, channels: int = 1) -> None:
    """See that `make_decoder` has one, without making it.

    Raises:
        MediaError: UNSUPPORTED_CODEC.
        VoiceForgeError: LIBOPUS_MISSING.
    """
    match mime_type.lower(), channels:
        case "audio/opus", _:
            load_libopus()
        case "audio/pcmu" | "audio/pcma" | "audio/g722", 1:
            pass
        case _:
            raise MediaError(
                "UNSUPPORTED_CODEC", f"The codec {mime_type} is not supported.", "Offer Opus, G722, PCMU or PCMA."
            )


@dataclass(slots=True)
class StreamStatistics(JitterCounts):
    """What became of packets and audio since the start of the stream."""

    recovered: int = 0
    """Lost packets whose audio came out of the next packet's error correction."""
    concealed: int = 0
    """Lost packets whose audio was made up."""
    malformed: int = 0
    """Packets that their decoder refused; their audio was made up too."""
    refused: int = 0
    """Packets of an unknown payload type or of one source too many."""
    source_changes: int = 0
    samples: int = 0
    """Stream time in samples at 16 kHz: what was given to `on_samples`."""
    concealed_samples: int = 0
    silence_samples: int = 0
    """Of discontinuous transmission and resets."""


_FATES = ("received", "lost", "late", "duplicate", "reordered", "recovered", "concealed", "malformed", "refused")


class AudioStream:
    """One speaker's RTP. Memory: at most `MAX_HELD_PACKETS` packets, a decoder a codec, `MAX_SOURCES` numbers.

    Args:
        codecs: MIME type by payload type, as negotiated.
        on_samples: gets the audio in stream order, on the caller's thread.
        jitter_target_ms: how long a missing packet is waited for at the start and at least.
        jitter_max_ms: how far that may grow.
        metrics: where fates and delays are counted (seconds of audio are the session's to count, for every door).
        channels: that are heard, 1 or 2.

    Raises:
        VoiceForgeError: LIBOPUS_MISSING.
        MediaError: UNSUPPORTED_CODEC.
    """

    def __init__(
        self,
        codecs: Mapping[int, str],
        *,
        on_samples: OnSamples,
        jitter_target_ms: float,
        jitter_max_ms: float,
        metrics: Metrics,
        channels: int = 1,
    ) -> None:
        self.statistics = StreamStatistics()
        for mime_type in codecs.values():
            require_decoder(mime_type, channels)
        self._codecs = dict(codecs)
        self._channels = channels
        self._decoders: dict[int, AudioDecoder] = {}  # of what came: most offers name four, to use one
        self._frame = () if channels == 1 else (channels,)  # shape of the samples of one moment
        self._on_samples = on_samples
        self._metrics = metrics
        # One zero, seen again and again: a second of them would be as large as all else that a silent stream has.
        self._silence: Samples = np.broadcast_to(np.float32(0.0), (SILENCE_CHUNK_SAMPLES, *self._frame))
        self._published = StreamStatistics()
        self._ssrc: int | None = None
        self._payload_type: int | None = None
        self._decoder: AudioDecoder | None = None
        self._left: dict[int, float] = {}  # sources that are not current, with the time when they were left
        self._jitter = JitterBuffer(
            CLOCK_RATE, target_ms=jitter_target_ms, max_ms=jitter_max_ms, counts=self.statistics
        )

    @property
    def ssrc(self) -> int | None:
        """The source that is heard; None before the first packet."""
        return self._ssrc

    def knows(self, ssrc: int) -> bool:
        """Whether a source is heard, or has been."""
        return ssrc == self._ssrc or ssrc in self._left

    @property
    def clock_rate(self) -> int:
        """Of the RTP timestamps of that source, in Hz."""
        return self._decoder.clock_rate if self._decoder is not None else CLOCK_RATE

    @property
    def next_deadline_s(self) -> float | None:
        """When `poll` has something to do if no packet comes first."""
        return self._jitter.next_deadline_s

    def target_s(self, now_s: float) -> float:
        """How long a missing packet is waited for at the moment."""
        return self._jitter.target_s(now_s)

    def receive(self, packet: RtpPacket, now_s: float) -> bool:
        """Takes one packet and hands on what has become playable.

        Returns:
            Whether the packet belongs to the source that is heard; receiver reports are about that one.
        """
        ssrc, payload_type, payload = packet.ssrc, packet.payload_type, packet.payload
        if (ssrc != self._ssrc or payload_type != self._payload_type) and not self._switch(ssrc, payload_type, now_s):
            return False
        assert self._decoder is not None
        duration_ticks = self._decoder.duration_ticks(payload)
        self._play(self._jitter.push(packet.sequence_number, packet.timestamp, payload, duration_ticks, now_s))
        if self.statistics.received - self._published.received >= PUBLISH_PACKETS:
            self._publish()
        return True

    def poll(self, now_s: float) -> None:
        """Hands on what became due by time alone."""
        self._play(self._jitter.poll(now_s))

    def flush(self, now_s: float) -> None:
        """Hands on all that is held: at BYE and at the end."""
        self._play(self._jitter.flush(now_s))
        self._publish()

    def close(self) -> None:
        """Frees the decoders; `flush` first. The stream takes no packets afterwards."""
        self._publish()
        for decoder in self._decoders.values():
            decoder.close()
        self._decoders, self._codecs = {}, {}
        self._decoder = self._ssrc = self._payload_type = None

    def _switch(self, ssrc: int, payload_type: int, now_s: float) -> bool:
        """Turns to another source or codec, if it may be heard."""
        decoder = self._decoder_of(payload_type)
        if decoder is None:
            self.statistics.refused += 1
            return False
        if ssrc != self._ssrc and self._ssrc is not None:
            left_s = self._left.get(ssrc)
            if left_s is not None and now_s - left_s < STRAGGLER_S:
                self.statistics.late += 1
                return False
            if left_s is None and len(self._left) + 1 >= MAX_SOURCES:
                self.statistics.refused += 1
                return False
            self._left.pop(ssrc, None)
            self._left[self._ssrc] = now_s
            self.statistics.source_changes += 1
        self._play(self._jitter.flush(now_s))
        decoder.reset()
        self._jitter.restart(decoder.clock_rate)
        self._ssrc, self._payload_type, self._decoder = ssrc, payload_type, decoder
        return True

    def _decoder_of(self, payload_type: int) -> AudioDecoder | None:
        """The decoder of a payload type, made when its first packet comes; None of one that was not negotiated."""
        decoder = self._decoders.get(payload_type)
        if decoder is None and (mime_type := self._codecs.get(payload_type)) is not None:
            decoder = self._decoders[payload_type] = make_decoder(mime_type, self._channels)
        return decoder

    def _play(self, playouts: list[Playout]) -> None:
        decoder = self._decoder
        if decoder is None:
            return
        for kind, n_samples, payload, packets in playouts:
            if kind is Kind.PACKET:
                assert payload is not None
                decoded = decoder.decode(payload)
                if decoded.made_up:
                    self.statistics.malformed += 1
                self._hand_on(decoded, n_samples)
            elif kind is Kind.LOSS:
                decoded = decoder.conceal(n_samples, payload)
                recovered = int(decoded.made_up < n_samples)  # a packet corrects the one before it, no more
                self.statistics.recovered += recovered
                self.statistics.concealed += packets - recovered
                self._hand_on(decoded, n_samples)
            else:
                if kind is Kind.RESET:
                    decoder.reset()
                self._be_silent(n_samples)

    def _hand_on(self, decoded: Decoded, n_samples: int) -> None:
        samples, made_up = decoded
        if len(samples) != n_samples:  # a decoder that disagrees with the header; the stream's clock follows the header
            heard, samples = samples[:n_samples], np.zeros((n_samples, *self._frame), np.float32)
            samples[: len(heard)] = heard
        self.statistics.samples += n_samples
        self.statistics.concealed_samples += made_up
        self._on_samples(samples, made_up)

    def _be_silent(self, n_samples: int) -> None:
        self.statistics.samples += n_samples
        self.statistics.silence_samples += n_samples
        while n_samples > 0:
            chunk = self._silence[:n_samples]
            n_samples -= len(chunk)
            self._on_samples(chunk, 0)

    def _publish(self) -> None:
        """Adds to the metrics what was counted since the last time; the delay is the longest of that time."""
        statistics, before = self.statistics, self._published
        for fate in _FATES:
            if more := getattr(statistics, fate) - getattr(before, fate):
                self._metrics.rtp_packets_total.labels(fate).inc(more)
        if more := statistics.resets - before.resets:
            self._metrics.rtp_packets_total.labels("reset").inc(more)
        if statistics.received != before.received:
            self._metrics.jitter_delay_seconds.observe(self._jitter.take_longest_hold_s())
        self._published = replace(statistics)
