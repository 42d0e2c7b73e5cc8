"""What the bytes of a token are.

Whisper's vocabulary is byte-level (Radford et al. 2019, §2.2): each byte is written as one printable letter, those that
have none of their own as letters from U+0100 on.
"""

from __future__ import annotations

from collections.abc import Mapping

_OWN = (*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1))
_OTHERS = [byte for byte in range(256) if byte not in _OWN]
_BYTE_OF: Mapping[str, int] = {
    **{chr(byte): byte for byte in _OWN},
    **{chr(256 + number): byte for number, byte in enumerate(_OTHERS)},
}


def piece_bytes(piece: str) -> bytes:
    """The UTF-8 bytes of a token, perhaps not whole characters; letters that stand for no byte are left out."""
    return bytes(_BYTE_OF[letter] for letter in piece if letter in _BYTE_OF)
