"""The vendor's temporary tokens and its list of models."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.signaling.deepgram.vendors_door import BOTH_SHAPES, FOREIGN_TOKEN, Node, told

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


async def test_a_temporary_token_opens_connections_and_gets_no_other(node: Node) -> None:
    async with node.http.post(node.url("/v1/auth/grant"), json={"ttl_seconds": 7}) as response:
        granted = await response.json()
    assert granted["expires_in"] == 7
    token = granted["access_token"]
    for options in ({"headers": {"Authorization": f"bearer {token}"}}, {"protocols": ["bearer", token]}):
        async with node.connect(**options) as line:
            await line.say(type="CloseStream")
            await line.rest()
    headers = {"Authorization": f"Bearer {token}"}
    async with node.http.post(node.url("/v1/auth/grant"), headers=headers) as response:
        status, body, _ = await told(node, response)
    assert (status, body["category"]) == (403, "INSUFFICIENT_PERMISSIONS")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"json": {"ttl_seconds": 0}}, 400, "INVALID_CONFIG"),
        ({"json": {"ttl_seconds": 3601}}, 400, "INVALID_CONFIG"),
        ({"json": []}, 400, "INVALID_CONFIG"),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "INVALID_JSON"),
        ({"data": b"ttl_seconds=7"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"headers": {"Authorization": f"Bearer {FOREIGN_TOKEN}"}}, 401, "INVALID_AUTH"),
    ],
)
async def test_a_wrong_request_for_a_token_is_refused(node: Node, sent: dict[str, Any], status: int, code: str) -> None:
    async with node.http.post(node.url("/v1/auth/grant"), **sent) as response:
        refused, body, _ = await told(node, response)
    assert (refused, body["category"]) == (status, code)


async def test_a_token_lives_for_half_a_minute_unless_asked(node: Node) -> None:
    for sent in ({}, {"json": {"ttl_seconds": None, "more": 1}}):
        async with node.http.post(node.url("/v1/auth/grant"), **sent) as response:  # type: ignore[arg-type]
            assert (await response.json())["expires_in"] == 30


async def test_models_are_what_clients_of_both_vendors_read(node: Node) -> None:
    async with node.http.get(node.url("/v1/models")) as response:
        listed = await response.json()
    assert listed["object"] == "list"
    assert listed["data"] == listed["stt"]
    (only,) = listed["data"]
    assert (only["id"], only["object"], only["canonical_name"], only["languages"]) == (
        "tiny.en",
        "model",
        "tiny.en",
        ["en"],
    )
    assert listed["tts"] == []
    for name in ("tiny.en", only["uuid"], "nova-3", "whisper-1"):
        async with node.http.get(node.url(f"/v1/models/{name}")) as response:
            assert await response.json() == only


async def test_a_model_that_is_not_there_is_told_in_both_shapes(node: Node, start: Any) -> None:
    async with node.http.get(node.url("/v1/models/gpt-9")) as response:
        body = await response.json()
        assert response.status == 404
    assert set(body) == BOTH_SHAPES | {"error"}
    assert (body["error"]["code"], body["error"]["param"], body["error"]["type"]) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    loading = await start(loaded=False)
    async with loading.http.get(loading.url("/v1/models")) as response:
        assert (response.status, (await response.json())["category"]) == (503, "MODEL_LOADING")
