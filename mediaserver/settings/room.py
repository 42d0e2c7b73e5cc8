"""What a setting says of itself, and what the rooms of settings have in common."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Milliseconds = int
"""A duration; each setting names its own limits."""


class Group(StrEnum):
    """Headings of the reference, in its order."""

    SERVER = "server"
    ACCESS = "access"
    CLUSTER = "cluster"
    SEEING = "seeing"
    WEBRTC = "webrtc"
    AUDIO = "audio"
    DECODER = "decoder"
    SESSION = "session"
    RECORDINGS = "recordings"

    def knob(self, default: Any, description: str, **limits: Any) -> Any:
        """A setting of this group; its description is its line in the reference."""
        return Field(default, description=description, json_schema_extra={"group": self.value}, **limits)


class Room(BaseModel):
    """The settings of one group, with what must hold among them. Read as a part of `Settings` only."""

    model_config = ConfigDict(protected_namespaces=())
