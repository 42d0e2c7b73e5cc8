"""The AsyncAPI document: what it says of events is what `mediaserver.events` writes.

The structure is held against the words of the specification 3.0.0, for its JSON Schema is no part of this repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
from documented import asyncapi_of, followed, references, whole_app

from mediaserver import events
from mediaserver.errors import VoiceForgeError
from mediaserver.events import Event
from mediaserver.session.effective import Effective
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.openapi.operation import JSON
from signaling.openapi.walk import described_routes
from signaling.routes.native_described import SOCKET_MESSAGES
from signaling.routes.native_events import ALL_EVENTS, EVENT_MODELS
from signaling.routes.native_messages import ClientMessage

ERROR = VoiceForgeError("SOME_CODE", "It failed.", "Try again.").as_dict()
INNER_EVENTS = {"utterance_began", "utterance_settled", "finalized"}
"""For dialects that ask for them; no client of the native protocol is told."""

WORD = events.Word("hello", 0.1, 0.4, 0.9)


class Decoder:
    """What `Effective` asks of one."""

    model_name = "tiny.en"
    languages = ("en",)


def effective() -> dict[str, object]:
    return Effective.of(SessionConfig.model_validate({}), Settings(), Decoder()).as_dict()  # type: ignore[arg-type]


def samples() -> list[events.Event]:
    return [
        events.Ready(config=effective(), model="tiny.en"),
        events.SpeechStarted(0.5),
        events.SpeechStopped(1.5),
        events.Interim(0, "hello you", "hello", 0.8, 0.5, 1.0, 1.5, [WORD]),
        events.Final(0, "hello you", 0.8, 0.5, 1.0, 1.5, "en", 0.9, [WORD]),
        events.Final(1, "", 0.0, 0.5, 1.0, 1.5, None, None, []),
        events.Revision(0, "hello you", 0.8, 0.5, 1.0, 1.5, [WORD]),
        events.UtteranceEnd(0, 1.4),
        events.Metadata(10.0, 4.0, 2, 0.0, "tiny.en"),
        events.Closed("client"),
        events.Pong(1.0),
        events.Warned(error=ERROR),
        events.Failed(error=ERROR),
        events.Ready(config=effective(), model="tiny.en", resume=events.Resume("/whip/secret", 30.0)),
        events.Resumed(12.34, 395_200, resume=events.Resume("/ws/v1/transcribe/secret", 30.0)),
        events.Resumed(12.34),
        events.Reconnect("draining"),
    ]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return asyncapi_of(whole_app(tmp_path_factory.mktemp("data")))


def test_every_event_is_described() -> None:
    assert {event.type for event in ALL_EVENTS} == {event.type for event in Event.__subclasses__()} - INNER_EVENTS
    assert {type(event) for event in samples()} == set(ALL_EVENTS)


@pytest.mark.parametrize("event", samples(), ids=lambda event: event.type)
@pytest.mark.parametrize("channel", [None, events.Channel(1), events.Channel(0, "agent")])
def test_an_event_is_written_as_it_is_described(event: events.Event, channel: events.Channel | None) -> None:
    for metadata in (None, {"caller": "Ann"}):
        written = events.to_json(event, session_id="s_1", seq=3, channel=channel, metadata=metadata)
        EVENT_MODELS[event.type].model_validate_json(written, strict=True)


@pytest.mark.parametrize("event", samples(), ids=lambda event: event.type)
async def test_an_event_fits_its_schema_in_the_document(event: events.Event, document: dict[str, Any]) -> None:
    message: Any = followed(document, document["channels"]["transcribe"]["messages"][event.type]["$ref"])
    schema = {**message["payload"], "components": document["components"]}
    validator = jsonschema_rs.validator_for(schema)
    written = events.to_dict(event, session_id="s_1", seq=3)
    assert [error.message for error in validator.iter_errors(written)] == []
    assert not validator.is_valid({**written, "surprise": 1})
    assert not validator.is_valid({**written, "type": "other"})


def test_every_message_that_clients_may_send_is_described() -> None:
    read = {model.model_fields["type"].annotation for model in get_args(ClientMessage)}
    names = {name for annotation in read for name in get_args(annotation)}
    assert {message.name for message in SOCKET_MESSAGES} == names | {"binary_audio"}


async def test_what_the_specification_asks_for_is_there(document: dict[str, Any]) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(document["info"])
    for server in document["servers"].values():
        assert {"host", "protocol"} <= set(server)
    for channel in document["channels"].values():
        for server in channel["servers"]:
            assert server["$ref"].startswith("#/servers/")
        for part in channel.get("parameters", {}):
            assert f"{{{part}}}" in channel["address"]
        assert channel["address"].count("{") == len(channel.get("parameters", {}))
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        of_channel = operation["channel"]["$ref"]
        assert of_channel.startswith("#/channels/")
        for message in operation["messages"]:  # must be those of its channel, by reference
            assert message["$ref"].startswith(f"{of_channel}/messages/")


async def test_all_references_lead_somewhere(document: dict[str, Any]) -> None:
    for reference in set(references(document)):
        assert isinstance(followed(document, reference), dict), reference


async def test_schemas_are_of_the_default_format(document: dict[str, Any]) -> None:
    """It is a superset of JSON Schema draft 07, which knows none of these."""

    def keywords(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {word for item in value.values() for word in keywords(item)}
        return {word for item in value for word in keywords(item)} if isinstance(value, list) else set()

    assert "discriminator" not in keywords(document["components"])  # a string here, an object in OpenAPI
    newer = {"prefixItems", "$defs", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "$dynamicRef"}
    assert keywords(document["components"]) & newer == set()


async def test_every_websocket_says_what_is_said_over_it(tmp_path: Path) -> None:
    silent = [
        route.path
        for route in described_routes(whole_app(tmp_path))
        if 101 in route.operation.answers and not any(one.carrier == "ws" for one in route.operation.conversations)
    ]
    assert silent == []


async def test_audio_is_bytes_and_the_rest_is_json(document: dict[str, Any]) -> None:
    kinds = {message["contentType"] for message in document["components"]["messages"].values()}
    assert kinds == {JSON, "application/octet-stream"}
