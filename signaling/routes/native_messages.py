"""What a client of the native WebSocket may say, as types; AsyncAPI is generated from them."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mediaserver.errors import ConfigError, VoiceForgeError

TEXT_MAX_LETTERS = 256 * 1024
"""A second of stereo at 48 kHz in Base64; of this length JSON is read within 10 ms, whatever is in it."""

FIELDS_MAX = 16
"""Of a message; none has more than two. What is wrong with each of ten thousand would take a tenth of a second."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Configure(_Message):
    """Changes the session's configuration; `ready` answers with what is in force."""

    type: Literal["configure"]
    config: dict[str, object] = Field(
        description="Fields to change: those of the URL but for `api_key`. The audio's format may change before the "
        "first audio only."
    )


class Audio(_Message):
    """The next bytes of the stream; a binary frame is the same without the envelope."""

    type: Literal["audio"]
    data: str = Field(description="Base64 (RFC 4648 section 4).")


class Finalize(_Message):
    """Ends the running utterance: its final comes at once."""

    type: Literal["finalize"]


class KeepAlive(_Message):
    """Keeps the connection though no audio comes; `pong` answers."""

    type: Literal["keep_alive"]


class CloseStream(_Message):
    """The audio is over: the last finals, `metadata` and `closed` follow."""

    type: Literal["close_stream"]


ClientMessage = Configure | Audio | Finalize | KeepAlive | CloseStream

_TYPES: dict[str, type[ClientMessage]] = {
    "configure": Configure,
    "audio": Audio,
    "finalize": Finalize,
    "keep_alive": KeepAlive,
    "close_stream": CloseStream,
}


def parse_message(text: str) -> ClientMessage:
    """One message.

    Raises:
        VoiceForgeError: MESSAGE_TOO_LONG, MALFORMED_MESSAGE or UNKNOWN_MESSAGE.
        ConfigError: INVALID_CONFIG, where `configure` has no object.
    """
    if len(text) > TEXT_MAX_LETTERS:
        raise VoiceForgeError(
            "MESSAGE_TOO_LONG",
            f"The message has {len(text)} letters; a text may have {TEXT_MAX_LETTERS}.",
            "Send shorter ones, or audio in binary frames, which may be longer.",
        )
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _malformed("The message is not JSON.") from exc
    if not isinstance(parsed, dict):
        raise _malformed("The message is not a JSON object.")
    name = parsed.get("type")
    message_type = _TYPES.get(name) if isinstance(name, str) else None
    if message_type is None:
        raise VoiceForgeError(
            "UNKNOWN_MESSAGE", f"There is no message of type {name!r:.80}.", f"Known: {', '.join(_TYPES)}."
        )
    if len(parsed) > FIELDS_MAX:
        raise _malformed(f"The message has {len(parsed)} fields.")
    try:
        return message_type.model_validate(parsed)
    except ValidationError as exc:
        if message_type is Configure and not isinstance(parsed.get("config"), dict):
            raise ConfigError(
                "INVALID_CONFIG", "`config` is not an object.", 'Send {"type":"configure","config":{"language":"en"}}.'
            ) from exc
        fields = ", ".join(f"`{'.'.join(str(part) for part in item['loc'])[:80]}`" for item in exc.errors()[:5])
        raise _malformed(f"The message has fields that are missing, unknown or of a wrong type: {fields}.") from exc


def _malformed(message: str) -> VoiceForgeError:
    return VoiceForgeError("MALFORMED_MESSAGE", message, 'Send one JSON object a message: {"type":"finalize"}.')
