"""What can go wrong, told the same way everywhere: a code, a sentence and a hint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What went wrong, as clients see it."""

    code: Annotated[str, Field(description="Stable across versions: clients may branch on it.")]
    message: Annotated[str, Field(description="One sentence that says what happened.")]
    hint: Annotated[str, Field(description="One sentence that says what to do about it.")]
    retryable: Annotated[bool, Field(description="Whether the same request may succeed later.")]


class VoiceForgeError(Exception):
    """A failure that a person or a client is told about.

    Args:
        code: SCREAMING_SNAKE, stable across versions; clients may branch on it.
        message: one sentence that says what happened.
        hint: one sentence that says what to do about it.
        retryable: whether the same request may succeed later.
    """

    def __init__(self, code: str, message: str, hint: str, *, retryable: bool = False) -> None:
        super().__init__(f"{message} {hint}")
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable

    def as_dict(self) -> dict[str, object]:
        """The JSON object that clients see under `error`."""
        return asdict(ErrorBody(self.code, self.message, self.hint, self.retryable))


class ConfigError(VoiceForgeError):
    """A `configure` message or query that names unknown fields or has values of a wrong type."""


class ModelError(VoiceForgeError):
    """A model that does not exist, cannot be fetched, or whose file is not the one that was published."""


class MediaError(VoiceForgeError):
    """Media that cannot be used: an SDP without audio, an unknown codec, a file that is not audio."""


class CapacityError(VoiceForgeError):
    """The node is full or shutting down.

    Args:
        retry_after_s: when another attempt may succeed, in seconds.
    """

    def __init__(self, code: str, message: str, hint: str, *, retry_after_s: int) -> None:
        super().__init__(code, message, hint, retryable=True)
        self.retry_after_s = retry_after_s
