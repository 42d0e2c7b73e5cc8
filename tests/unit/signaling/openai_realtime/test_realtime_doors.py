"""What the doors of OpenAI's Realtime API take and refuse, before anything is heard."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from aiohttp import WSServerHandshakeError
from front_door import Node, StartNode

from mediaserver.errors import CapacityError
from signaling.app import MODELS
from signaling.auth.principal import KeyLimits, Principal, Scope
from signaling.cluster.memory import MemoryState
from signaling.problems import HttpError
from signaling.routes.openai_realtime.client_secrets import SECRETS_MAX, ClientSecrets
from signaling.routes.openai_realtime.errors import RealtimeError
from signaling.routes.openai_realtime.requests import form_parts
from signaling.routes.openai_realtime.session_state import SessionState, parse_session

Json = dict[str, Any]

CALLS, SECRETS, LEGACY = "/v1/realtime/calls", "/v1/realtime/client_secrets", "/v1/realtime/transcription_sessions"
OFFER = "v=0\r\no=- 2 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
SDP = {"Content-Type": "application/sdp"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    """A server that could open sessions, if anybody were let in."""
    node = await start_node()
    node.app[MODELS].vad = cast(Any, object())
    return node


def form(**parts: str) -> tuple[str, dict[str, str]]:
    body = "".join(f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{parts[name]}\r\n' for name in parts)
    return f"{body}--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


async def refused(node: Node, method: str, url: str, **request: Any) -> tuple[int, Json]:
    async with node.client.request(method, url, **request) as response:
        body = await response.json()
        assert set(body["error"]) == {"message", "type", "param", "code"}, body
        assert response.headers.get("Cache-Control") == "no-store"
        return response.status, body["error"]


# --- secrets


async def test_a_secret_has_the_session_that_it_opens(node: Node) -> None:
    session = {"type": "transcription", "audio": {"input": {"transcription": {"language": "en"}}}}
    async with node.client.post(SECRETS, json={"expires_after": {"seconds": 60}, "session": session}) as response:
        assert response.status == 200
        told = await response.json()
    assert told["value"].startswith("ek_")
    assert told["session"]["object"] == "realtime.transcription_session"
    assert told["session"]["audio"]["input"]["transcription"] == {
        "model": "tiny.en",
        "language": "en",
        "languages": None,
        "prompt": None,
        "keywords": None,
    }
    async with node.client.post(SECRETS) as response:
        assert (await response.json())["session"]["type"] == "transcription"


async def test_a_legacy_session_has_its_secret_in_it(node: Node) -> None:
    flat = {"input_audio_format": "pcm16", "client_secret": {"expires_at": {"anchor": "created_at", "seconds": 10}}}
    async with node.client.post(LEGACY, json=flat) as response:
        told = await response.json()
    assert told["client_secret"]["value"].startswith("ek_")
    assert told["input_audio_format"] == "pcm16"
    assert told["turn_detection"]["type"] == "server_vad"


@pytest.mark.parametrize(
    ("url", "body", "code", "param"),
    [
        (SECRETS, {"session": {"type": "realtime"}}, "unsupported_session_type", "session.type"),
        (SECRETS, {"session": {"type": "transcription", "tools": []}}, "unsupported_parameter", "session.tools"),
        (SECRETS, {"session": 3}, "invalid_value", "session"),
        (SECRETS, {"expires_after": {"seconds": 9}}, "invalid_value", "expires_after.seconds"),
        (SECRETS, {"expires_after": {"anchor": "now"}}, "invalid_value", "expires_after.anchor"),
        (SECRETS, {"wish": 1}, "unknown_parameter", "wish"),
        (
            SECRETS,
            {"session": {"audio": {"input": {"transcription": {"language": "xx"}}}}},
            "unknown_language",
            "session.audio.input.transcription.language",
        ),
        (
            SECRETS,
            {"session": {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}},
            "turn_model_not_loaded",
            "session.audio.input.turn_detection.type",
        ),
        (LEGACY, {"modalities": ["audio"]}, "invalid_value", "modalities.0"),
        (
            LEGACY,
            {"client_secret": {"expires_at": {"seconds": 7201}}},
            "invalid_value",
            "client_secret.expires_at.seconds",
        ),
        (LEGACY, {"input_audio_transcription": {"model": "x"}}, "model_not_loaded", "audio.input.transcription.model"),
    ],
)
async def test_a_secret_of_what_cannot_be_is_refused(node: Node, url: str, body: Json, code: str, param: str) -> None:
    status, error = await refused(node, "POST", url, json=body)
    assert (status, error["code"], error["param"]) == (400, code, param), error
    assert node.refused(code.upper()) == 1


async def test_bodies_that_are_none_are_refused(node: Node) -> None:
    json_type = {"Content-Type": "application/json"}
    assert (await refused(node, "POST", SECRETS, data="{", headers=json_type))[1]["code"] == "invalid_json"
    assert (await refused(node, "POST", SECRETS, data="[]", headers=json_type))[1]["code"] == "invalid_json"
    assert (await refused(node, "POST", SECRETS, data="x=1"))[0] == 415
    assert (await refused(node, "POST", SECRETS, data="x" * 70_000, headers=json_type))[0] == 413


async def test_secrets_are_counted_by_key_and_refused_when_there_are_too_many() -> None:
    now_s = 1000.0
    store = ClientSecrets(MemoryState(now_s=lambda: now_s), now=lambda: now_s)
    state = SessionState().updated(parse_session({"include": None}, within=""))
    first = await store.issue(state, seconds=10)
    assert first.expires_at == 1010
    assert await store.state_of(first.value) == state
    for _ in range(SECRETS_MAX - 1):
        last = await store.issue(state, seconds=600)
    with pytest.raises(CapacityError, match="client secrets already") as raised:
        await store.issue(state, seconds=600)
    assert raised.value.retry_after_s == 10
    await store.issue(state, seconds=600, issuer=Principal("acme", "abc", frozenset({Scope.STREAM})))
    now_s = 1010.0
    await store.issue(state, seconds=10)  # in the place of the one that has expired
    with pytest.raises(HttpError, match="has expired"):
        await store.state_of(first.value)
    assert await store.issuer_of(first.value) is None
    assert await store.state_of(last.value) == state
    assert await store.state_of("sk-anything") is None
    assert await store.state_of(None) is None


async def test_a_secret_is_what_it_was_in_another_process() -> None:
    shared = MemoryState()
    asked = {
        "audio": {
            "input": {
                "turn_detection": None,
                "transcription": {"language": "de", "prompt": "Guten Tag"},
                "noise_reduction": {"type": "near_field"},
            }
        }
    }
    state = SessionState().updated(parse_session(asked, within=""))
    issuer = Principal("acme", "abc", frozenset({Scope.STREAM}), KeyLimits(sessions=3))
    issued = await ClientSecrets(shared).issue(state, seconds=60, issuer=issuer)
    other = ClientSecrets(shared)
    assert await other.state_of(issued.value) == state
    assert await other.issuer_of(issued.value) == issuer
    taken = await other.state_of(issued.value)
    assert taken is not None
    assert (taken.is_manual, taken.config()) == (True, state.config())
    assert issued.value not in repr(shared.__dict__), "nowhere as it is"
    for name in [name for _, _, name in shared._items if name.startswith("client-secret:")]:
        await shared.put(name, b'{"session": {"of": "later"}}', ttl_s=60.0)
    assert await other.state_of("sk-x") is None
    with pytest.raises(HttpError):
        await other.state_of(issued.value)


# --- keys


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("GET", "/v1/realtime", {**UPGRADE, "Authorization": "Bearer ek_unknown"}),
        (
            "GET",
            "/v1/realtime",
            {**UPGRADE, "Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.ek_unknown"},
        ),
        ("POST", CALLS, {**SDP, "Authorization": "Bearer ek_unknown"}),
        ("POST", CALLS, {**SDP, "Authorization": "Basic abc"}),
        ("POST", CALLS, {**SDP, "Authorization": "Bearer "}),
        ("POST", SECRETS, {"Authorization": "Bearer ek_any"}),
    ],
)
async def test_an_unknown_secret_opens_nothing(
    node: Node, method: str, url: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    data = OFFER if method == "POST" and url == CALLS else None
    status, error = await refused(node, method, url, headers=headers, data=data)
    assert (status, error["code"], error["type"]) == (401, "invalid_api_key", "invalid_request_error")
    assert "ek_unknown" not in json.dumps(error) + caplog.text


# --- the WebSocket


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("?intent=conversation", "invalid_value", "intent"),
        ("?model=gpt-9", "model_not_loaded", "model"),
        ("?model=gpt-4o-transcribe-diarize", "diarization_unsupported", "model"),
        ("?call_id=rtc_1", "unsupported_parameter", "call_id"),
        ("?intent=transcription&wish=1", "unknown_parameter", "wish"),
        ("?model=tiny.en&model=tiny.en", "invalid_value", "model"),
    ],
)
async def test_queries_are_refused_before_the_upgrade(node: Node, query: str, code: str, param: str) -> None:
    for method, url, request in (
        ("GET", "/v1/realtime", {"headers": UPGRADE}),
        ("POST", CALLS, {"headers": SDP, "data": OFFER}),
    ):
        status, error = await refused(node, method, url + query, **request)
        assert (status, error["code"], error["param"]) == (400, code, param), error


async def test_a_key_in_a_subprotocol_is_neither_answered_nor_logged(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(WSServerHandshakeError) as raised:
        await node.client.ws_connect("/v1/realtime", protocols=["openai-insecure-api-key.sk-hush"])
    assert raised.value.status == 400
    assert "sk-hush" not in caplog.text


async def test_a_plain_request_is_told_to_upgrade(node: Node) -> None:
    status, error = await refused(node, "GET", "/v1/realtime?intent=transcription")
    assert (status, error["code"]) == (426, "upgrade_required")


async def test_nobody_comes_in_while_the_model_is_loading(start_node: StartNode) -> None:
    node = await start_node(loaded=False)
    for method, url, request in (
        ("GET", "/v1/realtime", {"headers": UPGRADE}),
        ("POST", CALLS, {"headers": SDP, "data": OFFER}),
    ):
        status, error = await refused(node, method, url, **request)
        assert (status, error["code"], error["type"]) == (503, "model_loading", "server_error")
    async with node.client.post(SECRETS) as response:  # a secret can be had before
        assert response.status == 200


# --- calls


@pytest.mark.parametrize(
    ("data", "headers", "status", "code"),
    [
        (OFFER, {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (OFFER, {**SDP, "Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        ("x" * 70_000, SDP, 413, "body_too_large"),
        ("  ", SDP, 400, "invalid_sdp"),
        ("{", {"Content-Type": "application/json"}, 400, "invalid_json"),
        ("{}", {"Content-Type": "application/json"}, 400, "missing_required_parameter"),
        ('{"sdp":"v=0","voice":1}', {"Content-Type": "application/json"}, 400, "unsupported_parameter"),
        (
            '{"sdp":"v=0","session":{"type":"realtime"}}',
            {"Content-Type": "application/json"},
            400,
            "unsupported_session_type",
        ),
        ("nothing", {"Content-Type": "multipart/form-data"}, 400, "invalid_form"),
        ("nothing", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "invalid_form"),
        (*form(sdp=OFFER, session="[]"), 400, "invalid_json"),
        (*form(sdp=OFFER, session='{"type":"transcription","instructions":"x"}'), 400, "unsupported_parameter"),
        (*form(sdp=OFFER, wish="1"), 400, "unknown_parameter"),
    ],
)
async def test_offers_that_cannot_be_answered_are_refused(
    node: Node, data: str, headers: dict[str, str], status: int, code: str
) -> None:
    told, error = await refused(node, "POST", CALLS, data=data, headers=headers)
    assert (told, error["code"]) == (status, code), error


async def test_a_call_that_is_none_is_not_hung_up(node: Node) -> None:
    status, error = await refused(node, "POST", f"{CALLS}/rtc_nobody/hangup")
    assert (status, error["code"]) == (404, "call_not_found")


async def test_what_is_not_there_is_said_in_openais_shape(node: Node) -> None:
    assert (await refused(node, "GET", "/v1/realtime/sessions"))[1]["code"] == "not_found"
    assert (await refused(node, "DELETE", CALLS))[1]["code"] == "method_not_allowed"


async def test_a_page_of_an_origin_that_is_let_in_may_call(start_node: StartNode) -> None:
    node = await start_node(cors_origins=["https://app.example"])
    for url in (CALLS, SECRETS, LEGACY, f"{CALLS}/rtc_x/hangup"):
        async with node.client.options(url, headers={"Origin": "https://app.example"}) as response:
            assert response.status == 204
            assert "X-OpenAI-Agents-SDK" in response.headers["Access-Control-Allow-Headers"]
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert "Location" in response.headers["Access-Control-Expose-Headers"]


def test_forms_are_read_as_they_are() -> None:
    body, _ = form(sdp=OFFER, session='{"a":"--b-"}')
    assert form_parts(body.replace('--b-"', '--x-"'), boundary="b") == {"sdp": OFFER, "session": '{"a":"--x-"}'}
    quoted = '--b\r\ncontent-type: a/b\r\ncontent-disposition: form-data; filename="f"; name=sdp\r\n\r\nv\r\n--b--'
    assert form_parts(quoted, boundary="b") == {"sdp": "v"}
    for broken in ("", "--b", "--b\r\n\r\nx\r\n--b--", "--b\r\nContent-Disposition: form-data; name=a\r\nx--b--"):
        with pytest.raises(RealtimeError):
            form_parts(broken, boundary="b")
    twice = form(sdp=OFFER, session="{}")[0].replace("session", "sdp")
    with pytest.raises(RealtimeError, match="two parts"):
        form_parts(twice, boundary="b")
