"""The AsyncAPI 3.0 document of an application: what is said over its WebSockets and data channels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from aiohttp import web

from mediaserver.version import VERSION
from signaling.openapi.async_types import (
    AsyncApi,
    Bindings,
    Channel,
    Components,
    Info,
    MessagePart,
    OperationPart,
    Parameter,
    Ref,
    Server,
    ServerVariable,
    WebSocketBinding,
)
from signaling.openapi.operation import JSON, Conversation, Message
from signaling.openapi.schemas import Schemas, without_keyword
from signaling.openapi.walk import DescribedRoute, described_routes

DESCRIPTION = """\
What is said over WebSockets and WebRTC data channels while somebody speaks. The requests that open them are in
`/openapi.json`. `receive` is what clients say, `send` what they are told.
"""

CARRIERS = {
    "ws": "WebSockets (RFC 6455); wss behind a proxy that ends TLS.",
    "webrtc": "Data channels of a peer connection (RFC 8831); the address is the channel's label.",
}


def asyncapi_document(app: web.Application, *, host: str) -> bytes:
    """The document as JSON. Takes tens of milliseconds: not for the event loop.

    Args:
        app: with all its routes.
        host: name and port that the server is reached at, unless clients know better.
    """
    spoken = [
        (route, conversation) for route in described_routes(app) for conversation in route.operation.conversations
    ]
    schemas = Schemas()
    for route, conversation in spoken:
        for message in conversation.from_client:
            schemas.want(message.payload, "validation")
        for message in conversation.from_server:
            schemas.want(message.payload, "serialization")
        for read in (route.operation.query, *route.operation.path.values()):
            if read is not None:
                schemas.want(read, "validation")
    schemas.make()
    keys = _keys([conversation for _, conversation in spoken])
    document = AsyncApi(
        info=Info(title="VoiceForge", version=VERSION, description=DESCRIPTION),
        default_content_type=JSON,
        servers={
            carrier: Server(
                host="{host}",
                protocol=carrier,
                description=text,
                variables={"host": ServerVariable(default=host, description="Name and port of the server.")},
            )
            for carrier, text in CARRIERS.items()
        },
        channels={conversation.name: _channel(route, conversation, schemas, keys) for route, conversation in spoken},
        operations={
            name: operation for _, conversation in spoken for name, operation in _operations(conversation).items()
        },
        components=Components(
            messages={
                keys[id(message)]: part
                for _, conversation in spoken
                for message, part in _messages(conversation, schemas)
            },
            # AsyncAPI's discriminator is another one than OpenAPI's; the `const` of each choice says the same.
            schemas={name: without_keyword(item, "discriminator") for name, item in schemas.components.items()},
        ),
    )
    return document.model_dump_json(by_alias=True, exclude_none=True).encode()


def _keys(conversations: Sequence[Conversation]) -> dict[int, str]:
    """A name for each message, by identity: what several conversations share is described once."""
    keys: dict[int, str] = {}
    for conversation in conversations:
        for message in (*conversation.from_client, *conversation.from_server):
            keys.setdefault(id(message), f"{conversation.name}.{message.name}")
    return keys


def _channel(route: DescribedRoute, conversation: Conversation, schemas: Schemas, keys: Mapping[int, str]) -> Channel:
    said = (*conversation.from_client, *conversation.from_server)
    parts = re.findall(r"\{([^}]+)\}", conversation.address or route.path)
    return Channel(
        address=conversation.address or route.path,
        title=conversation.title,
        description=conversation.description,
        servers=[Ref(ref=f"#/servers/{conversation.carrier}")],
        messages={message.name: Ref(ref=f"#/components/messages/{keys[id(message)]}") for message in said},
        parameters={part: Parameter(description=_described(route, part, schemas)) for part in parts} or None,
        bindings=_bindings(route, schemas) if conversation.carrier == "ws" else None,
    )


def _bindings(route: DescribedRoute, schemas: Schemas) -> Bindings:
    if route.operation.query is None:
        return Bindings(ws=WebSocketBinding())
    query = schemas.resolved(schemas.schema(route.operation.query, "validation"))
    return Bindings(ws=WebSocketBinding(query=query))


def _described(route: DescribedRoute, part: str, schemas: Schemas) -> str:
    return str(schemas.schema(route.operation.path[part], "validation").get("description", part))


def _operations(conversation: Conversation) -> dict[str, OperationPart]:
    return {
        f"{conversation.name}_{action}": OperationPart(
            action=action,
            channel=Ref(ref=f"#/channels/{conversation.name}"),
            summary=summary,
            messages=[Ref(ref=f"#/channels/{conversation.name}/messages/{message.name}") for message in messages],
        )
        for action, summary, messages in _directions(conversation)
        if messages
    }


def _directions(conversation: Conversation) -> list[tuple[Literal["send", "receive"], str, Sequence[Message]]]:
    return [
        ("receive", "What clients may say.", conversation.from_client),
        ("send", "What clients are told.", conversation.from_server),
    ]


def _messages(conversation: Conversation, schemas: Schemas) -> list[tuple[Message, MessagePart]]:
    return [
        (
            message,
            MessagePart(
                name=message.name,
                summary=message.summary,
                content_type=message.content_type,
                payload=without_keyword(
                    schemas.schema(message.payload, "validation" if action == "receive" else "serialization"),
                    "discriminator",
                ),
            ),
        )
        for action, _, messages in _directions(conversation)
        for message in messages
    ]
