"""What clients of the native protocol may say, for the documents: the models that messages are read with.

`configure` is read in two steps, for its `config` changes one that is in force; here it has both.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mediaserver.session_config import SessionConfig
from signaling.openapi.operation import BytesOfFile, Message
from signaling.routes.native_messages import Audio, CloseStream, Configure, Finalize, KeepAlive
from signaling.stream_config import StreamConfig

Changes = Field(description="Fields to change; the others stay as they are.")


class ConfigurePeer(Configure):
    """Changes the session's configuration; `ready` answers with what is in force."""

    config: Annotated[SessionConfig, Changes]  # type: ignore[assignment]


class ConfigureStream(Configure):
    """Changes the session's configuration; `ready` answers with what is in force."""

    config: Annotated[StreamConfig, Changes]  # type: ignore[assignment]


def _message(name: str, model: type[Configure | Audio | Finalize | KeepAlive | CloseStream]) -> Message:
    return Message(name, (model.__doc__ or name).splitlines()[0], model)


_CONTROL = (_message("finalize", Finalize), _message("keep_alive", KeepAlive), _message("close_stream", CloseStream))

PEER_MESSAGES: tuple[Message, ...] = (_message("configure", ConfigurePeer), *_CONTROL)
"""Over a data channel; audio comes by RTP."""

SOCKET_MESSAGES: tuple[Message, ...] = (
    Message("binary_audio", "The next bytes of the stream.", BytesOfFile, "application/octet-stream"),
    _message("audio", Audio),
    _message("configure", ConfigureStream),
    *_CONTROL,
)
"""Over the native WebSocket."""
