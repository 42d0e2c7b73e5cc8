"""Frames on a socket between processes of one machine: a header in JSON, and bytes behind it (sans-IO).

A frame is two lengths (header and body, in bytes, 32 bits each, big-endian), the header, and the body. Both ends are
of one program; what comes is held to its bounds all the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

LENGTHS = struct.Struct(">II")


class FrameError(Exception):
    """Bytes that are no frame, or a frame that is no message. The connection cannot be used further."""


@dataclass(frozen=True, slots=True)
class Framing:
    """The frames of one protocol, by how long their two parts may be."""

    header_max_bytes: int
    body_max_bytes: int

    def start(self, header: bytes, body_bytes: int) -> bytes:
        """A frame up to its body.

        Raises:
            FrameError: it is larger than a frame may be.
        """
        self._require_bounded(len(header), body_bytes, "too large")
        return LENGTHS.pack(len(header), body_bytes) + header

    def lengths(self, first: bytes) -> tuple[int, int]:
        """How many bytes of header and of body follow a frame's first `LENGTHS.size` bytes.

        Raises:
            FrameError: more than a frame may have.
        """
        header_bytes, body_bytes = LENGTHS.unpack(first)
        self._require_bounded(header_bytes, body_bytes, "announced")
        return header_bytes, body_bytes

    def _require_bounded(self, header_bytes: int, body_bytes: int, what: str) -> None:
        if header_bytes > self.header_max_bytes or body_bytes > self.body_max_bytes:
            raise FrameError(f"a frame of {header_bytes} + {body_bytes} bytes is {what}")
