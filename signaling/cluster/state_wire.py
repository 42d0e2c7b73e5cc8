"""What goes over the socket between a worker and the state of its node.

The body of a frame (`mediaserver/local/frames.py`) is values as they are, one behind the other. Both ends are of one
program; headers are checked strictly all the same.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mediaserver.local.frames import FrameError, Framing
from mediaserver.local.sockets import read_frame

HEADER_MAX_BYTES = 128 * 1024
"""The names of a thousand places are half of it."""

BODY_MAX_BYTES = 4 * 1024 * 1024
"""A swap has two values of `VALUE_MAX_BYTES`; the members of the largest group that is read are less than this."""

FRAMING = Framing(header_max_bytes=HEADER_MAX_BYTES, body_max_bytes=BODY_MAX_BYTES)

NAME_MAX_LETTERS = 512


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Name = Annotated[str, Field(max_length=NAME_MAX_LETTERS)]


class Call(_Message):
    """A method of `State`. `call_id` is unique among the connection's calls without an answer."""

    type: Literal["call"] = "call"
    call_id: Annotated[int, Field(ge=0)]
    method: Literal[
        "put",
        "get",
        "left_s",
        "add",
        "swap",
        "delete",
        "join",
        "leave",
        "members",
        "draw",
        "put_back",
        "publish",
        "listen",
        "unlisten",
    ]
    name: Name
    member: Name = ""
    ttl_s: Annotated[float, Field(ge=0)] = 0.0
    limit: int | None = None
    per_minute: Annotated[int, Field(ge=1)] = 1
    expected_bytes: Annotated[int, Field(ge=0)] = 0
    """How much of a swap's body is the value that is expected; the rest is the new one."""


class Answer(_Message):
    """What a call returned, or why it failed. `members`: their names and how many bytes of the body each has."""

    type: Literal["answer"] = "answer"
    call_id: Annotated[int, Field(ge=0)]
    result: bool | float | None = None
    members: list[tuple[str, int]] | None = None
    failure: Literal["away", "full"] | None = None


class Told(_Message):
    """What was published on a topic that this connection listens to."""

    type: Literal["told"] = "told"
    topic: Name


FromServer = Answer | Told
_CALL: TypeAdapter[Call] = TypeAdapter(Call)
_FROM_SERVER: TypeAdapter[FromServer] = TypeAdapter(Annotated[FromServer, Field(discriminator="type")])


def encode(message: Call | FromServer, body: bytes = b"") -> bytes:
    """A frame.

    Raises:
        FrameError: it is larger than a frame may be.
    """
    header = message.model_dump_json(exclude_defaults=True).encode()
    # The type is a default, and what tells one message from another.
    header = b'{"type":"%s",%s' % (message.type.encode(), header[1:])
    return FRAMING.start(header, len(body)) + body


async def read_call(reader: asyncio.StreamReader) -> tuple[Call, bytes]:
    """The next call and its body.

    Raises:
        FrameError: it is none.
        IncompleteReadError, OSError: the other end is gone.
    """
    header, body = await read_frame(reader, FRAMING)
    return _validated(_CALL, header), body


async def read_from_server(reader: asyncio.StreamReader) -> tuple[FromServer, bytes]:
    """The next message of the server and its body. Raises what `read_call` does."""
    header, body = await read_frame(reader, FRAMING)
    return _validated(_FROM_SERVER, header), body


def _validated(adapter: TypeAdapter[Any], header: bytes) -> Any:
    try:
        return adapter.validate_json(header)
    except ValidationError as exc:
        raise FrameError(f"no message: {exc.error_count()} fields are wrong") from exc
