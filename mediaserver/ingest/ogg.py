"""Ogg (RFC 3533) as it comes, with Opus (RFC 7845) or FLAC (RFC 9639 section 10.1) in it.

Checksums are not checked and lost pages not looked for: the bytes come by TCP, and a page that does not begin where the
one before it ended is refused. What the last page says is padding is heard, some milliseconds.
"""

from __future__ import annotations

import struct
from collections import deque

from mediaserver.ingest.bytebuffer import ByteBuffer
from mediaserver.ingest.flac import STREAMINFO_BYTES, check_rate
from mediaserver.ingest.packets import FfmpegPackets, OpusPackets, PacketDecoder
from mediaserver.ingest.resampler import Block
from mediaserver.ingest.undecodable import CONTAINERS, undecodable

BUFFER_BYTES = 192 * 1024
"""The largest page (65 307 bytes), and what was given at once."""

PACKET_BYTES_MAX = 2 * 1024 * 1024
"""Of one packet, over pages. Of a header that is longer, for it has a cover picture, no more than this is kept."""

SLICE_BYTES = 8 * 1024
"""Three hundred pages, if they are empty."""

_HEADER_BYTES = 27
_CONTINUED, _BEGIN = 1, 2
_CODECS = {
    b"OpusHead": "Opus",
    b"\x7fFLAC": "FLAC",
    b"\x01vorbis": "Vorbis",
    b"Speex": "Speex",
    b"\x80theora": "Theora",
    b"fishead": "Skeleton",
}


class OggSource:
    """An Ogg stream: its first logical stream that is Opus or FLAC, and those that are chained after it.

    Args:
        channels: 1 or as many as each is to be heard of.
        only_opus: whether FLAC in it is refused.
    """

    slice_bytes = SLICE_BYTES

    def __init__(self, channels: int, *, only_opus: bool = False) -> None:
        self._buffer = ByteBuffer(BUFFER_BYTES)
        self._channels = channels
        self._only_opus = only_opus
        self._serial: int | None = None
        self._has_data = False  # a stream that begins after data is a new link of the chain, not another beside it
        self._decoder: PacketDecoder | None = None
        self._is_opus = False
        self._headers_left = 0
        self._partial = bytearray()
        self._overlong = False
        self._packets: deque[bytes] = deque()  # of one page, 255 at most
        self._others: list[str] = []

    def give(self, data: bytes) -> None:
        """More bytes of the stream."""
        self._buffer.append(data)

    def end(self) -> None:
        """A page that was cut off is left out."""

    def take(self) -> Block | None:
        """The audio of the next packet."""
        while True:
            while self._packets:
                packet = self._packets.popleft()
                assert self._decoder is not None
                block = self._decoder.decode(packet)
                if block is not None:
                    return block
            if not self._page():
                return None

    def close(self) -> None:
        """What decoders hold goes with the last reference."""
        self._decoder = None

    def _page(self) -> bool:
        """Read one page; whether it was here."""
        header = self._buffer.peek(_HEADER_BYTES)
        if not b"OggS\0".startswith(header[:5]) and header[:5] != b"OggS\0":
            raise undecodable("The Ogg stream has something else where a page should begin.")
        if len(header) < _HEADER_BYTES:
            return False
        flags, serial, count = header[5], struct.unpack_from("<I", header, 14)[0], header[26]
        sizes = self._buffer.peek(count, _HEADER_BYTES)
        if len(self._buffer) < _HEADER_BYTES + count + sum(sizes) or len(sizes) < count:
            return False
        self._buffer.skip(_HEADER_BYTES + count)
        body = self._buffer.take(sum(sizes))
        if flags & _BEGIN:
            self._begin(serial, body)
        elif self._decoder is None:
            seen = ", ".join(self._others) or "no known codec"
            raise undecodable(f"The Ogg stream has no Opus ({seen}).", f"Send {CONTAINERS}.")
        elif serial == self._serial:
            self._collect(body, sizes, continued=bool(flags & _CONTINUED))
        return True

    def _begin(self, serial: int, first_packet: bytes) -> None:
        """A logical stream begins; the first one that can be heard is."""
        codec = next((title for start, title in _CODECS.items() if first_packet.startswith(start)), "an unknown codec")
        wanted = codec == "Opus" or (codec == "FLAC" and not self._only_opus)
        if (self._serial is not None and not self._has_data) or not wanted:
            if len(self._others) < len(_CODECS):
                self._others.append(codec)
            return
        self._serial, self._has_data = serial, False
        self._partial.clear()
        self._overlong = False
        if codec == "Opus":
            self._decoder = opus_decoder(first_packet, self._channels)
            self._headers_left = 1  # the tags
        else:
            if len(first_packet) < 17 + STREAMINFO_BYTES:
                raise undecodable("The FLAC header in the Ogg stream is cut off.")
            info = first_packet[17 : 17 + STREAMINFO_BYTES]
            check_rate(info, None)
            self._decoder = FfmpegPackets("flac", "FLAC", extradata=info)
        self._is_opus = codec == "Opus"

    def _collect(self, body: bytes, sizes: bytes, *, continued: bool) -> None:
        """The packets of a page (RFC 3533 section 5): segments of 255 bytes go on, a shorter one ends its packet."""
        self._has_data = True
        if not continued:
            self._partial.clear()
            self._overlong = False
        at = 0
        for size in sizes:
            if len(self._partial) < PACKET_BYTES_MAX:
                self._partial += body[at : at + size]
            else:
                self._overlong = True
            at += size
            if size < 255:
                self._finish_packet()

    def _finish_packet(self) -> None:
        packet, overlong = bytes(self._partial), self._overlong
        self._partial.clear()
        self._overlong = False
        if self._is_opus and self._headers_left:
            self._headers_left -= 1
            if not packet.startswith(b"OpusTags"):
                raise undecodable("The Ogg Opus stream has no tags after its header.")
        elif not self._is_opus and not packet.startswith(b"\xff"):
            return  # a metadata block
        elif overlong:
            raise undecodable(f"The Ogg stream has a packet of more than {PACKET_BYTES_MAX} bytes.")
        elif packet:
            self._packets.append(packet)


def opus_decoder(header: bytes, channels: int) -> OpusPackets:
    """The decoder that an `OpusHead` describes (RFC 7845 section 5.1), as Ogg and WebM have it.

    Args:
        header: the packet.
        channels: 1, or how many are to be heard each.

    Raises:
        MediaError: UNDECODABLE_AUDIO.
        VoiceForgeError: LIBOPUS_MISSING.
    """
    if len(header) < 19 or not header.startswith(b"OpusHead") or header[8] & 0xF0:
        raise undecodable("The header of the Opus stream is broken.")
    stated, pre_skip, _, gain, family = struct.unpack_from("<BHIhB", header, 9)
    if family != 0 or not 1 <= stated <= 2:
        raise undecodable(
            f"The Opus stream has {stated} channels in mapping family {family}.",
            "Send mono or stereo; more channels as linear16, WAV or FLAC.",
        )
    if channels not in (1, stated):
        raise undecodable(
            f"The Opus stream has {stated} channels, not {channels}.", "Say in `channels` how many it has."
        )
    return OpusPackets(channels, pre_skip_ticks=pre_skip, gain_db=gain / 256.0)
