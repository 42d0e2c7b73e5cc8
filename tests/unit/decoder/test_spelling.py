"""Tokens and their bytes."""

from mediaserver.decoder.spelling import piece_bytes


def test_every_byte_has_its_letter() -> None:
    assert piece_bytes("ĠHello") == b" Hello"
    assert piece_bytes("Ã©") == "é".encode()
    assert piece_bytes("Ċ") == b"\n"
    assert piece_bytes("") == b""
    assert piece_bytes("€") == b"", "no letter of the alphabet"
