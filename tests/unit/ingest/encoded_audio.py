"""Streams of every encoding, made of samples by FFmpeg."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
from numpy.typing import NDArray


def encoded(container: str, codec: str, samples: NDArray[np.float32], rate: int) -> bytes:
    """Samples [channels, n] as FFmpeg writes them to a pipe: it cannot go back to fill in lengths."""
    channels = len(samples)
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels}c")
    out = io.BytesIO()
    pipe = type("Pipe", (), {"write": lambda _self, data: out.write(data)})()
    with av.open(pipe, "w", format=container) as muxer:
        stream = muxer.add_stream(codec, rate=rate)
        stream.layout = layout
        interleaved = np.ascontiguousarray(samples.T, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for part in av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate).resample(frame):
            part.pts = None
            fifo.write(part)
        size = stream.codec_context.frame_size or 1024
        while (block := fifo.read(size)) or (block := fifo.read(0, partial=True)):
            muxer.mux(stream.encode(block))
        muxer.mux(stream.encode(None))
    return out.getvalue()


def opus_packets(samples: NDArray[np.float32], rate: int) -> list[bytes]:
    """The packets of an Opus stream."""
    with av.open(io.BytesIO(encoded("ogg", "libopus", samples, rate))) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def wav(tag: int, bits: int, channels: int, rate: int, data: bytes, *, data_size: int | None = None) -> bytes:
    """A WAV with this header, whatever it says."""
    block = channels * bits // 8
    header = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)
    size = len(data) if data_size is None else data_size
    body = b"WAVEfmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body


def element(element_id: int, content: bytes, *, unknown_size: bool = False) -> bytes:
    """An EBML element; of unknown size as MediaRecorder writes segments and clusters."""
    name = element_id.to_bytes((element_id.bit_length() + 7) // 8, "big")
    size = b"\x01" + b"\xff" * 7 if unknown_size else (len(content) | 1 << 56).to_bytes(8, "big")
    return name + size + content


def webm(tracks: list[bytes], blocks: list[bytes], *, unknown_size: bool = True) -> bytes:
    """A WebM of one cluster, with these track entries and block elements."""
    cluster = element(0x1F43B675, element(0xE7, b"\0") + b"".join(blocks), unknown_size=unknown_size)
    segment = element(0x1654AE6B, b"".join(tracks)) + cluster
    return element(0x1A45DFA3, element(0x4282, b"webm")) + element(0x18538067, segment, unknown_size=unknown_size)


def opus_head(channels: int = 1, *, family: int = 0, gain: int = 0, pre_skip: int = 312) -> bytes:
    """RFC 7845 section 5.1."""
    return b"OpusHead" + struct.pack("<BBHIhB", 1, channels, pre_skip, 48_000, gain, family)


def track(codec: bytes, private: bytes = b"", *, number: int = 1, kind: int = 2, extra: bytes = b"") -> bytes:
    """A Matroska track entry; kind 2 is audio, 1 video."""
    content = element(0xD7, bytes([number])) + element(0x83, bytes([kind])) + element(0x86, codec)
    return element(0xAE, content + (element(0x63A2, private) if private else b"") + extra)


def simple_block(data: bytes, *, number: int = 1, lacing: int = 0) -> bytes:
    """A SimpleBlock whose flags say this lacing: 0 none, 1 Xiph, 2 fixed, 3 EBML."""
    return element(0xA3, bytes([0x80 | number]) + b"\0\0" + bytes([0x80 | lacing << 1]) + data)


def ogg_page(serial: int, packets: list[bytes], *, flags: int = 0) -> bytes:
    """A page with these whole packets (RFC 3533 section 6), 255 segments at most; its checksum is not right."""
    header = b"OggS" + struct.pack("<BBqIII", 0, flags, 0, serial, 0, 0)
    sizes = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    return header + bytes([len(sizes)]) + sizes + b"".join(packets)
