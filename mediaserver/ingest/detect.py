"""Which container a stream is, by its first bytes."""

from __future__ import annotations

from mediaserver.ingest.bytebuffer import ByteBuffer
from mediaserver.ingest.flac import FlacSource
from mediaserver.ingest.ogg import OggSource
from mediaserver.ingest.parsed import ParsedSource
from mediaserver.ingest.resampler import Block
from mediaserver.ingest.source import Source
from mediaserver.ingest.undecodable import CONTAINERS, undecodable
from mediaserver.ingest.wav import WavSource
from mediaserver.ingest.webm import WebmSource

HEAD_BYTES = 12
"""What is looked at: RIFF and MP4 say what they are behind a length."""

HEAD_SLICE_BYTES = 2 * 1024
"""The least that any of the containers may be given at once."""

TAG_BYTES_MAX = 16 * 1024 * 1024
"""The longest ID3 tag before the audio that is stepped over: it may have cover pictures."""

_BUFFER_BYTES = 128 * 1024
_FOREIGN = {
    b"FORM": "AIFF",
    b".snd": "AU",
    b"caff": "CAF",
    b"ADIF": "AAC in ADIF",
    b"#!AM": "AMR",
    b"RIFX": "big-endian WAV",
    b"\x30\x26\xb2\x75": "Windows Media",
}


class DetectedSource:
    """A stream of whichever container its first bytes are of; an ID3 tag before them is stepped over.

    Args:
        channels: 1 or as many as each is to be heard of.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._head: ByteBuffer | None = ByteBuffer(_BUFFER_BYTES)
        self._source: Source | None = None
        self._ended = False

    @property
    def slice_bytes(self) -> int:
        """Of what was found; little until then."""
        return self._source.slice_bytes if self._source is not None else HEAD_SLICE_BYTES

    def give(self, data: bytes) -> None:
        """More bytes of the stream."""
        if self._source is not None:
            self._source.give(data)
            return
        assert self._head is not None
        self._head.append(data)
        self._detect()

    def end(self) -> None:
        """What is held is all there is."""
        self._ended = True
        self._detect()
        if self._source is not None:
            self._source.end()

    def take(self) -> Block | None:
        """The next block of the container."""
        return self._source.take() if self._source is not None else None

    def close(self) -> None:
        """Closes what was found."""
        if self._source is not None:
            self._source.close()

    def _detect(self) -> None:
        if self._source is not None or self._head is None:
            return
        while True:
            head = self._head.peek(HEAD_BYTES)
            if not head or (len(head) < HEAD_BYTES and not self._ended):
                return
            if not head.startswith(b"ID3") or len(head) < 10:
                break
            size = 0
            for byte in head[6:10]:  # "synchsafe": seven bits a byte (ID3v2.4 section 6.2)
                size = size << 7 | byte & 0x7F
            if size > TAG_BYTES_MAX:
                raise undecodable(f"The stream begins with an ID3 tag of {size} bytes.")
            self._head.skip(10 + size + (10 if head[5] & 0x10 else 0))
        self._source = _source(head, self._channels)
        rest, self._head = self._head.take(len(self._head)), None
        self._source.give(rest)


def _source(head: bytes, channels: int) -> Source:
    if head.startswith((b"RIFF", b"RF64")):
        return WavSource()
    if head.startswith(b"fLaC"):
        return FlacSource()
    if head.startswith(b"OggS"):
        return OggSource(channels)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WebmSource(channels)
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # MPEG audio and ADTS share their sync word; the layer, which ADTS has as 0, tells them apart.
        return ParsedSource("mp3", "MP3") if head[1] & 6 else ParsedSource("aac", "AAC")
    foreign = "MP4" if head[4:8] in (b"ftyp", b"styp", b"moov", b"moof") else _FOREIGN.get(head[:4])
    if foreign is not None:
        raise undecodable(f"The stream is {foreign}, which cannot be heard while it comes.", f"Send {CONTAINERS}.")
    raise undecodable(
        "The stream is of no container that is known by its first bytes.",
        f"Send {CONTAINERS}; for samples without a container say `encoding`.",
    )
