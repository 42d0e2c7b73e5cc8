"""The parts of an AsyncAPI 3.0 document that this server needs, as types: what is none of them cannot be written."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """Something in the document; unset fields are left out of it."""

    model_config = ConfigDict(extra="forbid")


class Ref(Part):
    """A reference to something described elsewhere in the document."""

    ref: str = Field(serialization_alias="$ref")


class Info(Part):
    """What the document is about."""

    title: str
    version: str
    description: str


class ServerVariable(Part):
    """A part of a server's address."""

    default: str
    description: str


class Server(Part):
    """Where channels are found."""

    host: str
    protocol: str
    description: str
    variables: dict[str, ServerVariable]


class Parameter(Part):
    """An open part of a channel's address."""

    description: str


class WebSocketBinding(Part):
    """How a WebSocket's handshake is made."""

    method: Literal["GET"] = "GET"
    query: dict[str, Any] | None = None
    binding_version: Literal["0.1.0"] = Field(default="0.1.0", serialization_alias="bindingVersion")


class Bindings(Part):
    """What a channel says of its protocol."""

    ws: WebSocketBinding


class MessagePart(Part):
    """One kind of message."""

    name: str
    summary: str
    content_type: str = Field(serialization_alias="contentType")
    payload: dict[str, Any]


class Channel(Part):
    """One conversation's connection."""

    address: str
    title: str
    description: str
    servers: list[Ref]
    messages: dict[str, Ref]
    parameters: dict[str, Parameter] | None = None
    bindings: Bindings | None = None


class OperationPart(Part):
    """What the server does in a channel: it receives what clients say, and sends what they are told."""

    action: Literal["send", "receive"]
    channel: Ref
    summary: str
    messages: list[Ref]


class Components(Part):
    """What is referred to."""

    messages: dict[str, MessagePart]
    schemas: dict[str, dict[str, Any]]


class AsyncApi(Part):
    """The whole document."""

    asyncapi: Literal["3.0.0"] = "3.0.0"
    info: Info
    default_content_type: str = Field(serialization_alias="defaultContentType")
    servers: dict[str, Server]
    channels: dict[str, Channel]
    operations: dict[str, OperationPart]
    components: Components
