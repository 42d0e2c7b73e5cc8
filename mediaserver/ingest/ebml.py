"""EBML (RFC 8794): the numbers and elements that Matroska and WebM are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class ElementHeader(NamedTuple):
    """The start of an element."""

    element_id: int
    """With its length marker, as the specifications write it."""
    size: int | None
    """Bytes of what follows; None where nobody knew (section 6.2)."""
    header_bytes: int


class BrokenEbmlError(ValueError):
    """Bytes that are no EBML."""


def variable_integer(data: bytes, at: int, *, keep_marker: bool, max_bytes: int = 8) -> tuple[int, int] | None:
    """A variable-size integer (section 4) and its length; None where more bytes are needed.

    Raises:
        BrokenEbmlError: longer than `max_bytes`.
    """
    if at >= len(data):
        return None
    first = data[at]
    length = 9 - first.bit_length()
    if length > max_bytes:
        raise BrokenEbmlError
    if at + length > len(data):
        return None
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


def element_header(data: bytes, at: int = 0) -> ElementHeader | None:
    """The header of the element that begins there, 12 bytes at most; None where more bytes are needed.

    Raises:
        BrokenEbmlError: there is none.
    """
    named = variable_integer(data, at, keep_marker=True, max_bytes=4)
    if named is None:
        return None
    sized = variable_integer(data, at + named[1], keep_marker=False)
    if sized is None:
        return None
    unknown = sized[0] == (1 << 7 * sized[1]) - 1
    return ElementHeader(named[0], None if unknown else sized[0], named[1] + sized[1])


def children(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a whole master element: ids and contents.

    Raises:
        BrokenEbmlError: they are broken or cut off.
    """
    at = 0
    while at < len(data):
        header = element_header(data, at)
        if header is None or header.size is None or at + header.header_bytes + header.size > len(data):
            raise BrokenEbmlError
        at += header.header_bytes
        yield header.element_id, data[at : at + header.size]
        at += header.size


def unlaced(data: bytes, lacing: int) -> list[bytes]:
    """The frames of a Matroska block (RFC 9559 section 10.3) by its lacing: 0 none, 1 Xiph, 2 fixed size, 3 EBML.

    Raises:
        BrokenEbmlError: the sizes do not fit.
    """
    if lacing == 0:
        return [data]
    if not data:
        raise BrokenEbmlError
    count, at = data[0] + 1, 1
    sizes: list[int] = []
    if lacing == 2:
        sizes = [(len(data) - 1) // count] * (count - 1)
    for index in range(count - 1 if lacing != 2 else 0):
        if lacing == 1:
            size = 0
            while at < len(data) and data[at] == 255:
                size, at = size + 255, at + 1
            if at >= len(data):
                raise BrokenEbmlError
            size, at = size + data[at], at + 1
        else:
            coded = variable_integer(data, at, keep_marker=False)
            if coded is None:
                raise BrokenEbmlError
            value, length = coded
            # After the first size come differences, as signed integers: the middle of the range is zero.
            size, at = (value if index == 0 else sizes[-1] + value - ((1 << (7 * length - 1)) - 1)), at + length
        sizes.append(size)
    last = len(data) - at - sum(sizes)
    if last < 0 or any(size < 0 for size in sizes) or (lacing == 2 and last != (sizes or [last])[0]):
        raise BrokenEbmlError
    frames = []
    for size in [*sizes, last]:
        frames.append(data[at : at + size])
        at += size
    return frames
