"""The seam to aiortc: RTP is taken where its receiver gets it, before its own jitter buffer and decoder.

aiortc's audio path multiplies loss by about five (one lost packet discards five), keeps the delay of a burst, knows
neither error correction nor concealment, and runs a thread a track. ICE, DTLS, SRTP, RTCP and routing stay aiortc's.

What is private there and used here, all of it held by tests/unit/ingest/test_receiver.py:
`RTCRtpReceiver._handle_rtp_packet`, `._handle_rtcp_packet`, `._handle_disconnect`, `._enabled`, its dictionary
`__remote_streams`, `__started`, and `RTCDtlsTransport._rtp_router.ssrc_table`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiortc import RTCRtpReceiver
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtp import AnyRtcpPacket, RtcpByePacket, RtpPacket

from mediaserver.audio.clock import Samples
from mediaserver.ingest.media_path import MediaPath
from mediaserver.ingest.opus import load_libopus
from mediaserver.ingest.reception import Reception
from mediaserver.ingest.stream import AudioStream, OnSamples, StreamStatistics
from mediaserver.ingest.stream import RtpPacket as IncomingPacket
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings

_REMOTE_STREAMS = "_RTCRtpReceiver__remote_streams"
_STARTED = "_RTCRtpReceiver__started"


@dataclass(frozen=True)
class ReceiverStatus:
    """A look at one receiver, for `GET` on a session."""

    codecs: dict[int, str]
    """MIME type by payload type."""
    ssrc: int | None
    jitter_target_ms: float
    network_jitter_ms: float
    """Interarrival jitter (RFC 3550 section 6.4.1)."""
    packets: StreamStatistics


class AudioReceiver:
    """Takes over the audio of one aiortc receiver. All of it runs on the event loop; it owns no task and no thread.

    It has at most one timer, and only while packets are held behind a missing one: a silent peer costs nothing.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        *,
        on_samples: OnSamples,
        on_bye: Callable[[], None],
        settings: Settings,
        metrics: Metrics,
        channels: int = 1,
    ) -> None:
        self.last_packet_s: float | None = None
        """Time of the event loop when the last packet that counts came; None before the first."""
        self._receiver = receiver
        self._start_aiortc = receiver.receive
        self._aiortc_rtcp = receiver._handle_rtcp_packet
        self._aiortc_disconnect = receiver._handle_disconnect
        self._on_samples = on_samples
        self._on_bye = on_bye
        self._settings = settings
        self._metrics = metrics
        self._channels = channels
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._stream: AudioStream | None = None
        self._statistics = StreamStatistics()
        self._stopped = False
        self._codecs: dict[int, str] = {}
        self._reception: Reception | None = None
        self._reception_ssrc: int | None = None
        self._reports = cast(dict[int, Any], getattr(receiver, _REMOTE_STREAMS))

    @classmethod
    def attach(
        cls,
        receiver: RTCRtpReceiver,
        *,
        on_samples: OnSamples,
        on_bye: Callable[[], None],
        settings: Settings,
        metrics: Metrics,
        channels: int = 1,
    ) -> AudioReceiver:
        """Takes over `receiver`, between `setRemoteDescription` and `setLocalDescription`, in the event loop.

        Args:
            receiver: of the audio transceiver (`transceiver.receiver`), not yet started.
            on_samples: gets float32 16 kHz samples in stream order, [n] or [n, channels], and how many of them are
                concealment; quick, for it runs in the receive path.
            on_bye: called when the sender says goodbye (RTCP BYE, RFC 3550 section 6.6) and when the transport is
                gone; what was held has been handed on by then. A sender may come back, so it may be called again.
            settings: the jitter buffer's.
            metrics: where packets are counted.
            channels: of each packet that are heard, 1 or 2.

        Raises:
            VoiceForgeError: LIBOPUS_MISSING.
            RuntimeError: the receiver has started already, with a decoder thread of its own.
        """
        load_libopus()
        if getattr(receiver, _STARTED):
            raise RuntimeError("attach the receiver before aiortc starts it")
        self = cls(
            receiver, on_samples=on_samples, on_bye=on_bye, settings=settings, metrics=metrics, channels=channels
        )
        seam = cast(Any, receiver)
        seam.receive = self._receive
        seam._handle_rtp_packet = self._handle_rtp_packet
        seam._handle_rtcp_packet = self._handle_rtcp_packet
        seam._handle_disconnect = self._handle_disconnect
        return self

    @property
    def packets_received(self) -> int:
        """Packets of the sources that are heard."""
        return self._statistics.received

    def status(self) -> ReceiverStatus:
        """Numbers of this moment; `packets` goes on counting."""
        stream, reception = self._stream, self._reception
        network_jitter_ms = 0.0
        if reception is not None:
            network_jitter_ms = 1000.0 * reception.jitter / reception.clock_rate
        return ReceiverStatus(
            codecs=dict(self._codecs),
            ssrc=stream.ssrc if stream else None,
            jitter_target_ms=1000.0 * stream.target_s(self._loop.time()) if stream else 0.0,
            network_jitter_ms=network_jitter_ms,
            packets=self._statistics,
        )

    def flush(self) -> None:
        """Hands on what is held without waiting for what is missing."""
        if self._stream is not None:
            self._stream.flush(self._loop.time())
            self._arm()

    def stop(self) -> None:
        """Flushes, frees the decoders and takes no more packets; idempotent. Closing the peer stays aiortc's."""
        if self._stream is not None:
            self.flush()
            self._stream.close()
            self._stream = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stopped = True
        self._on_samples, self._on_bye = _unheard, _untold  # who was told before is let go of

    # What aiortc calls

    async def _receive(self, parameters: RTCRtpReceiveParameters) -> None:
        """Starts aiortc's receiver (RTCP, routing) and ends the decoder thread that it starts along with it."""
        if self._stopped:
            return  # nothing would end what it starts
        if self._stream is None:
            codecs = ((codec.payloadType, codec.mimeType) for codec in parameters.codecs)
            self._codecs = {payload_type: mime_type for payload_type, mime_type in codecs if payload_type is not None}
            self._stream = AudioStream(
                self._codecs,
                on_samples=self._on_samples,
                jitter_target_ms=self._settings.jitter_target_ms,
                jitter_max_ms=self._settings.jitter_max_ms,
                metrics=self._metrics,
                channels=self._channels,
            )
            self._statistics = self._stream.statistics
        await self._start_aiortc(parameters)
        self._aiortc_disconnect()  # in aiortc 1.16 this does no more than end that thread
        MediaPath(self._receiver.transport, self._take).open()

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        """A packet that came aiortc's way: of a call with several tracks, or before `MediaPath` had keys."""
        self._take(packet)

    def _take(self, packet: IncomingPacket) -> None:
        stream = self._stream
        if stream is None or not self._receiver._enabled:
            return
        now_s = self._loop.time()
        ssrc = packet.ssrc
        if not stream.receive(packet, now_s):
            # aiortc remembers every SSRC that it routes, without bound; one that is not heard is forgotten again. Not
            # one that was left: its late packets are refused too, and it may come back.
            if not stream.knows(ssrc):
                self._receiver.transport._rtp_router.ssrc_table.pop(ssrc, None)
            return
        self.last_packet_s = now_s
        if self._reception is None or ssrc != self._reception_ssrc:
            self._report_on(ssrc, stream.clock_rate)
        assert self._reception is not None
        self._reception.add(packet.sequence_number, packet.timestamp, now_s)
        if stream.next_deadline_s is not None and self._timer is None:
            self._arm()

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        await self._aiortc_rtcp(packet)
        if isinstance(packet, RtcpByePacket) and self._stream is not None and self._stream.ssrc in packet.sources:
            self._say_bye()

    def _handle_disconnect(self) -> None:
        self._aiortc_disconnect()
        self._say_bye()

    # Inside

    def _say_bye(self) -> None:
        if not self._stopped:
            self.flush()
            self._on_bye()

    def _report_on(self, ssrc: int, clock_rate: int) -> None:
        """Receiver reports are about the source that is heard, and no other (RFC 3550 section 6.4)."""
        if self._reception_ssrc is not None:
            self._reports.pop(self._reception_ssrc, None)
        self._reception = self._reports[ssrc] = Reception(clock_rate)
        self._reception_ssrc = ssrc
        self._receiver.transport._rtp_router.ssrc_table[ssrc] = self._receiver  # for its RTCP: `MediaPath` routes none

    def _arm(self) -> None:
        """Sets the timer if packets are held; one that is set already fires first and looks again."""
        deadline_s = self._stream.next_deadline_s if self._stream is not None else None
        if deadline_s is not None and self._timer is None:
            self._timer = self._loop.call_at(deadline_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._stream is not None:
            self._stream.poll(self._loop.time())
            self._arm()


def _unheard(_samples: Samples, _concealed: int) -> None:
    """Samples after the end."""


def _untold() -> None:
    """A goodbye after the end."""
