"""Who is let in, at the door of a whole application, before anything is opened."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from front_door import OFFER, SDP, Node, StartNode

from mediaserver.errors import ConfigError
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.app import ACCOUNTS, REGISTRY
from signaling.auth.accounts import Accounts
from signaling.auth.guard import require_keys
from signaling.auth.keys import NewKey
from signaling.auth.principal import LOCAL, Scope, TokenKind
from signaling.auth.tokens import LEFT_MIN_S, Tokens, is_token
from signaling.cluster.memory import MemoryState
from signaling.seeing.telemetry import configure_logging

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


SECRET_LETTERS = 43
"""Of a key's secret, and of a token's signature: 256 bits in base64."""


async def new_key(node: Node, *scopes: Scope, **others: Any) -> str:
    _, value = await node.app[ACCOUNTS].keys.create(NewKey("test", "acme", scopes=scopes or tuple(Scope), **others))
    return value


@pytest.fixture
async def guarded(start_node: StartNode, tmp_path: Path) -> Node:
    """A server that has a key."""
    node = await start_node(data_dir=tmp_path / "data")
    await new_key(node)
    return node


DOORS = [
    ("POST", "/whip", {"data": OFFER, "headers": SDP}),
    ("GET", "/ws/v1/transcribe?encoding=linear16&sample_rate=16000", {"headers": UPGRADE}),
    ("GET", "/v1/listen?encoding=linear16&sample_rate=16000", {"headers": UPGRADE}),
    ("POST", "/v1/listen", {"data": b"x"}),
    ("POST", "/v1/auth/grant", {}),
    ("GET", "/v1/realtime?intent=transcription", {"headers": UPGRADE}),
    ("POST", "/v1/realtime/calls", {"data": OFFER, "headers": SDP}),
    ("POST", "/v1/realtime/client_secrets", {}),
    ("POST", "/v1/audio/transcriptions", {"data": b"x"}),
    ("POST", "/api/v1/transcriptions", {"data": b"x"}),
    ("GET", "/api/v1/transcriptions", {}),
    ("GET", "/api/v1/config", {}),
    ("OPTIONS", "/whip", {}),
]


@pytest.mark.parametrize(("method", "path", "sent"), DOORS)
@pytest.mark.parametrize("wrong", [None, "vf_00000000_" + "x" * 43, "sk-abc", "ek_abc", "eyJhbGciOiJIUzI1NiJ9.e30.x"])
async def test_no_door_opens_without_a_key(
    guarded: Node, method: str, path: str, sent: dict[str, Any], wrong: str | None
) -> None:
    headers = {**sent.get("headers", {}), **({} if wrong is None else bearer(wrong))}
    async with guarded.client.request(method, path, **{**sent, "headers": headers}) as response:
        assert response.status == 401
        challenge = response.headers["WWW-Authenticate"]
        assert challenge.startswith("Bearer")
        assert ("invalid_token" in challenge) is (wrong is not None)
        body = await response.json()
    if path.startswith("/v1/listen") or path.startswith("/v1/auth"):
        assert body["err_code"] == "INVALID_AUTH"
    elif path.startswith("/v1/"):
        assert body["error"]["code"] == "invalid_api_key"
        assert body["error"]["type"] == "invalid_request_error"
    else:
        assert body["error"]["code"] == "INVALID_API_KEY"
    assert guarded.peers == []
    assert len(guarded.app[REGISTRY]) == 0


@pytest.mark.parametrize(("method", "path", "sent"), DOORS)
async def test_every_door_opens_with_a_key(guarded: Node, method: str, path: str, sent: dict[str, Any]) -> None:
    headers = {**sent.get("headers", {}), **bearer(await new_key(guarded))}
    async with guarded.client.request(method, path, **{**sent, "headers": headers}) as response:
        assert response.status not in (401, 403)


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/", "/whip/unknown", "/nowhere"]
)
async def test_what_is_open_needs_no_key(guarded: Node, path: str) -> None:
    async with guarded.client.get(path) as response:
        assert response.status in (200, 404)


async def test_a_preflight_needs_no_key(guarded: Node) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    async with guarded.client.options("/whip", headers=asked) as response:
        assert response.status == 204
        assert "Link" not in response.headers


async def test_turn_credentials_are_for_who_may_open_sessions(start_node: StartNode, tmp_path: Path) -> None:
    relay: dict[str, Any] = {"turn_urls": ["turn:turn.example:3478"], "turn_secret": "s" * 32}
    node = await start_node(data_dir=tmp_path / "data", **relay)
    keys = {scope: await new_key(node, scope) for scope in Scope}
    for scope, key in keys.items():
        async with node.client.get("/api/v1/config", headers=bearer(key)) as response:
            told = (await response.json())["ice_servers"]
        async with node.client.options("/whip", headers=bearer(key)) as response:
            linked = response.headers.getall("Link", [])
        assert bool(told) is bool(linked) is (scope is Scope.STREAM), scope
        assert all("credential" in server for server in told)
    for method, path in (("GET", "/api/v1/config"), ("OPTIONS", "/whip")):
        async with node.client.request(method, path) as response:
            assert response.status == 401
            assert "turn.example" not in await response.text() + str(response.headers)


async def test_metrics_by_setting(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data", metrics_need_key=True)
    key = await new_key(node, Scope.JOBS)
    assert (await node.client.get("/metrics")).status == 401
    assert (await node.client.get("/metrics", headers=bearer(key))).status == 200


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        (Scope.JOBS, "POST", "/whip"),
        (Scope.JOBS, "OPTIONS", "/whip"),
        (Scope.ADMIN, "GET", "/v1/listen"),
        (Scope.STREAM, "POST", "/v1/listen"),
        (Scope.STREAM, "GET", "/api/v1/transcriptions"),
        (Scope.JOBS, "POST", "/v1/realtime/client_secrets"),
        (Scope.JOBS, "POST", "/v1/auth/grant"),
    ],
)
async def test_a_key_does_what_its_scopes_say(guarded: Node, scope: Scope, method: str, path: str) -> None:
    key = await new_key(guarded, scope)
    async with guarded.client.request(method, path, headers=bearer(key)) as response:
        assert response.status == 403
        assert "insufficient_permissions" in (await response.text()).lower()
    assert guarded.refused("INSUFFICIENT_PERMISSIONS") == 1


async def test_without_keys_this_machine_is_served_with_anything(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data")
    for headers in ({}, bearer("anything"), bearer("vf_00000000_" + "x" * 43)):
        assert (await node.client.post("/whip", data=OFFER, headers={**SDP, **headers})).status == 201


async def test_without_keys_strangers_are_refused(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data", trusted_proxies=["127.0.0.0/8"])
    forwarded = {"X-Forwarded-For": "198.51.100.7"}
    async with node.client.post("/whip", data=OFFER, headers={**SDP, **forwarded}) as response:
        assert response.status == 401
        assert "no keys yet" in await response.text()
    assert node.peers == []


async def test_who_is_no_trusted_proxy_is_not_believed(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data")
    key = await new_key(node, networks=["192.0.2.0/24"])
    forged = {**bearer(key), "X-Forwarded-For": "192.0.2.9"}
    async with node.client.get("/api/v1/config", headers=forged) as response:
        assert response.status == 401
        assert "from this address" in await response.text()


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
async def test_strangers_behind_a_proxy_of_this_machine_are_strangers(
    start_node: StartNode, tmp_path: Path, header: str
) -> None:
    node = await start_node(data_dir=tmp_path / "data")  # whose operator forgot `trusted_proxies`
    forwarded = {header: "198.51.100.7" if header == "X-Forwarded-For" else "for=198.51.100.7"}
    assert (await node.client.get("/api/v1/admin/keys")).status == 200
    async with node.client.get("/api/v1/admin/keys", headers=forwarded) as response:
        assert response.status == 401
        assert "trusted_proxies" in await response.text()
    key = await new_key(node, networks=["127.0.0.1"])
    assert (await node.client.get("/api/v1/config", headers=bearer(key))).status == 200
    assert (await node.client.get("/api/v1/config", headers={**bearer(key), **forwarded})).status == 401


async def test_a_trusted_proxy_is_believed_for_its_own_hop(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data", trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    key = await new_key(node, networks=["192.0.2.0/24"])
    for told, status in (
        ("192.0.2.9", 200),
        ("192.0.2.9, 10.0.0.1", 200),
        ("192.0.2.9:4711", 200),
        ("192.0.2.9, 198.51.100.7", 401),  # what stands before an untrusted hop is that one's invention
        ("nonsense", 401),
        ("", 401),
    ):
        headers = {**bearer(key), "X-Forwarded-For": told}
        assert (await node.client.get("/api/v1/config", headers=headers)).status == status, told


async def test_keyless_access_of_this_machine(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data", keyless_access="loopback")
    key = await new_key(node, Scope.JOBS)
    assert (await node.client.get("/api/v1/config")).status == 200
    assert (await node.client.post("/whip", data=OFFER, headers=SDP)).status == 201
    assert (await node.client.post("/whip", data=OFFER, headers={**SDP, **bearer(key)})).status == 403
    assert (await node.client.post("/whip", data=OFFER, headers={**SDP, **bearer(key[:-1])})).status == 401


async def test_keyless_access_of_everyone(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data", keyless_access="everyone", trusted_proxies=["127.0.0.1"])
    await new_key(node)
    stranger = {"X-Forwarded-For": "198.51.100.7"}
    assert (await node.client.post("/whip", data=OFFER, headers={**SDP, **stranger})).status == 201


@pytest.mark.parametrize(
    ("settings", "starts"),
    [({}, True), ({"host": "0.0.0.0"}, False), ({"host": "0.0.0.0", "keyless_access": "everyone"}, True)],
)
async def test_a_server_for_strangers_starts_with_keys_only(
    tmp_path: Path, settings: dict[str, Any], starts: bool
) -> None:
    node = Settings(data_dir=tmp_path, **settings)
    accounts = Accounts(node)
    if starts:
        await require_keys(node, accounts.keys)
    else:
        with pytest.raises(ConfigError, match="voiceforge keys create") as refused:
            await require_keys(node, accounts.keys)
        assert refused.value.code == "NO_KEYS"
    await accounts.keys.create(NewKey("first", "acme"))
    await require_keys(node, accounts.keys)
    await accounts.close()


async def test_revoking_ends_a_key(guarded: Node) -> None:
    key = await new_key(guarded)
    assert (await guarded.client.get("/api/v1/config", headers=bearer(key))).status == 200
    await guarded.app[ACCOUNTS].keys.revoke(key.split("_")[1])
    async with guarded.client.get("/api/v1/config", headers=bearer(key)) as response:
        assert response.status == 401
        assert "revoked" in await response.text()


# --- tokens


async def join_token(node: Node, *, ttl_s: float = 60, **config: Any) -> str:
    principal, _ = await node.app[ACCOUNTS].keys.find(await new_key(node))
    assert principal is not None
    return node.app[ACCOUNTS].tokens.issue(principal, kind=TokenKind.JOIN, ttl_s=ttl_s, config=config or None)


async def offer(node: Node, token: str, query: str = "") -> tuple[int, str]:
    async with node.client.post(f"/whip{query}", data=OFFER, headers={**SDP, **bearer(token)}) as response:
        return response.status, await response.text()


async def test_a_join_token_opens_one_session(guarded: Node) -> None:
    token = await join_token(guarded)
    assert is_token(token)
    assert (await guarded.client.get("/api/v1/config", headers=bearer(token))).status == 200, "a page looks first"
    assert (await offer(guarded, token))[0] == 201
    status, said = await offer(guarded, token)
    assert status == 401
    assert "has been used" in said
    assert len(guarded.peers) == 1


async def test_a_token_is_used_once_without_keys_too(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data")
    token = node.app[ACCOUNTS].tokens.issue(LOCAL, kind=TokenKind.JOIN, ttl_s=60)
    assert [(await offer(node, token))[0] for _ in range(2)] == [201, 401]
    token = node.app[ACCOUNTS].tokens.issue(LOCAL, kind=TokenKind.JOIN, ttl_s=60)
    await new_key(node)
    node.app[ACCOUNTS].keys._exist = None
    assert (await offer(node, token))[0] == 401, "it was given out when nobody needed a key"


async def test_a_server_whose_clock_is_ahead_forgets_no_token_that_others_still_take(tmp_path: Path) -> None:
    secret, settings = "s" * 32, Settings(data_dir=tmp_path)
    async with closing_accounts(settings) as accounts:
        row, _ = await accounts.keys.create(NewKey("test", "acme"))
        principal = await accounts.keys.principal_of_id(row.id)
        assert principal is not None

        def server(now_s: float) -> Tokens:
            state, database = MemoryState(), accounts.database
            return Tokens(keys=accounts.keys, database=database, state=state, secret=secret, wall_s=lambda: now_s)

        behind, ahead = server(1000.0), server(1000.0 + LEFT_MIN_S - 1)
        token, _ = await behind.read(behind.issue(principal, kind=TokenKind.JOIN, ttl_s=30))
        assert token is not None
        assert await behind.spend(token)
        another, _ = await ahead.read(ahead.issue(principal, kind=TokenKind.JOIN, ttl_s=30))
        assert another is not None
        assert await ahead.spend(another)
        assert not await behind.spend(token)


@asynccontextmanager
async def closing_accounts(settings: Settings) -> AsyncIterator[Accounts]:
    accounts = Accounts(settings)
    yield accounts
    await accounts.close()


async def test_a_token_whose_session_was_refused_stays_good(guarded: Node) -> None:
    token = await join_token(guarded)
    guarded.engine.retry_after_s = 3
    assert (await offer(guarded, token))[0] == 503
    guarded.engine.retry_after_s = None
    assert (await offer(guarded, token))[0] == 201


async def test_a_token_opens_no_other_protocol_and_no_other_scope(guarded: Node) -> None:
    token = await join_token(guarded)
    for path in ("/v1/listen", "/v1/realtime"):
        assert (await guarded.client.get(path, headers={**UPGRADE, **bearer(token)})).status == 403
    assert (await guarded.client.get("/api/v1/transcriptions", headers=bearer(token))).status == 403


async def test_a_token_ends_with_its_key(guarded: Node) -> None:
    token = await join_token(guarded)
    for row in await guarded.app[ACCOUNTS].keys.all():
        await guarded.app[ACCOUNTS].keys.revoke(row.id)
    status, said = await offer(guarded, token)
    assert status == 401
    assert "key no longer works" in said


async def test_tokens_that_expired_or_are_forged_are_refused(guarded: Node) -> None:
    claims = {"iss": "voiceforge", "exp": time.time() + 60, "jti": "1", "kind": "join"}
    good = await join_token(guarded)
    for wrong in (
        await join_token(guarded, ttl_s=-1),
        good[:-4] + "AAAA",
        jwt.encode(claims, "x" * 32, algorithm="HS256"),
        jwt.encode(claims, "", algorithm="none"),
        "eyJhbGciOiJIUzI1NiJ9..",
    ):
        assert (await offer(guarded, wrong))[0] == 401
    assert guarded.peers == []


async def test_a_grant_opens_deepgrams_door_only(guarded: Node) -> None:
    key = await new_key(guarded, Scope.STREAM)
    async with guarded.client.post("/v1/auth/grant", headers={"Authorization": f"Token {key}"}) as response:
        grant = (await response.json())["access_token"]
    assert (await guarded.client.get("/v1/listen", headers=bearer(grant))).status == 426
    assert (await guarded.client.post("/v1/listen", headers=bearer(grant))).status == 403, "the key has no scope jobs"
    assert (await offer(guarded, grant))[0] == 403
    assert (await guarded.client.post("/v1/auth/grant", headers=bearer(grant))).status == 403


async def test_a_client_secret_carries_its_key(guarded: Node) -> None:
    key = await new_key(guarded, Scope.STREAM)
    async with guarded.client.post("/v1/realtime/client_secrets", headers=bearer(key)) as response:
        secret = (await response.json())["value"]
    assert (await guarded.client.get("/v1/realtime?intent=transcription", headers=bearer(secret))).status == 426
    assert (await offer(guarded, secret))[0] == 403
    await guarded.app[ACCOUNTS].keys.revoke(key.split("_")[1])
    assert (await guarded.client.get("/v1/realtime", headers=bearer(secret))).status == 401


async def test_a_client_secret_makes_no_other_however_it_is_sent(guarded: Node) -> None:
    key = await new_key(guarded, Scope.STREAM)
    pinned = {"session": {"type": "transcription", "audio": {"input": {"transcription": {"language": "de"}}}}}
    async with guarded.client.post("/v1/realtime/client_secrets", json=pinned, headers=bearer(key)) as response:
        secret = (await response.json())["value"]
    # Whoever reads another header than the guard takes the bearer for somebody else.
    twice = {**bearer("sk-other"), "Sec-WebSocket-Protocol": f"bearer, {secret}"}
    for path in ("/v1/realtime/client_secrets", "/v1/realtime/transcription_sessions"):
        for headers in (bearer(secret), twice):
            assert (await guarded.client.post(path, json={}, headers=headers)).status == 401, path


async def test_a_client_secret_of_nobody_is_for_who_needs_no_key(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data", trusted_proxies=["127.0.0.1"])
    async with node.client.post("/v1/realtime/client_secrets", json={}) as response:
        secret = (await response.json())["value"]
    stranger = {"X-Forwarded-For": "198.51.100.7"}
    path = "/v1/realtime?intent=transcription"
    assert (await node.client.get(path, headers=bearer(secret))).status == 426
    assert (await node.client.get(path, headers={**bearer(secret), **stranger})).status == 401


async def test_a_token_does_not_tell_what_its_tenant_used(guarded: Node) -> None:
    key = await new_key(guarded, Scope.STREAM)
    assert (await guarded.client.get("/api/v1/usage", headers=bearer(key))).status == 200
    for token in (await join_token(guarded), await client_secret(guarded, key)):
        async with guarded.client.get("/api/v1/usage", headers=bearer(token)) as response:
            assert response.status == 403


async def client_secret(node: Node, key: str) -> str:
    async with node.client.post("/v1/realtime/client_secrets", json={}, headers=bearer(key)) as response:
        return str((await response.json())["value"])


async def test_keys_come_in_each_protocols_form(guarded: Node) -> None:
    key = await new_key(guarded)
    for path, headers in (
        ("/v1/listen?encoding=nonsense", {"Sec-WebSocket-Protocol": f"token, {key}"}),
        ("/v1/listen?encoding=nonsense", {"Authorization": f"Token {key}"}),
        ("/v1/realtime?model=nonsense", {"Sec-WebSocket-Protocol": f"realtime, openai-insecure-api-key.{key}"}),
        (f"/ws/v1/transcribe?encoding=nonsense&api_key={key}", {}),
        (f"/ws/v1/transcribe?encoding=nonsense&token={key}", {}),
    ):
        async with guarded.client.get(path, headers={**UPGRADE, **headers}) as response:
            assert response.status in (400, 404), path  # it was let in, and refused for what it asks
    async with guarded.client.get(f"/api/v1/config?api_key={key}") as response:
        assert response.status == 401, "in a URL only where there is no other way"


async def test_neither_keys_nor_tokens_are_logged(
    guarded: Node, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    aiohttp_level = logging.getLogger("aiohttp").level
    configure_logging(level="debug", log_format="json")
    logging.getLogger().addHandler(caplog.handler)
    logging.getLogger("aiohttp").setLevel(logging.DEBUG)
    try:
        key, token = await new_key(guarded), await join_token(guarded)
        for value in (key, token, key[:-1] + "!", token[:-2]):
            for method, path, sent in DOORS:
                forms = (bearer(value), {"Sec-WebSocket-Protocol": f"token, {value}"}, {})
                for headers in forms:
                    query = ("&" if "?" in path else "?") + f"api_key={value}&token={value}"
                    both = {**sent, "headers": {**sent.get("headers", {}), **headers}}
                    async with guarded.client.request(method, path + query, **both) as response:
                        assert value not in (await response.text() if response.status >= 400 else "")
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
        logging.getLogger("aiohttp").setLevel(aiohttp_level)
    out, err = capfd.readouterr()
    told = caplog.text + out + err
    assert told
    for value in (key, token):
        secret = value[-SECRET_LETTERS:]  # not what follows its last "_": that may be one letter, which is in any log
        assert secret[:30] not in told
        assert secret[-30:] not in told


# --- whose recordings they are


async def test_a_tenant_sees_its_own_recordings_only(guarded: Node) -> None:
    keys = guarded.app[ACCOUNTS].keys
    _, one = await keys.create(NewKey("one", "one", scopes=[Scope.JOBS]))
    _, other = await keys.create(NewKey("other", "other", scopes=[Scope.JOBS]))
    admin = await new_key(guarded)
    sent = {"json": {"url": "https://recordings.invalid/a.wav"}, "headers": bearer(one)}
    async with guarded.client.post("/api/v1/transcriptions", **sent) as response:
        assert response.status == 201, await response.text()
        job = f"/api/v1/transcriptions/{(await response.json())['id']}"
    tus = {"Tus-Resumable": "1.0.0"}
    sized = {**bearer(one), **tus, "Upload-Length": "9"}
    async with guarded.client.post("/api/v1/uploads", headers=sized) as response:
        assert response.status == 201
        upload = response.headers["Location"]
    for method, path in (
        ("GET", job),
        ("GET", f"{job}/result"),
        ("GET", f"{job}/events"),
        ("POST", f"{job}/cancel"),
        ("DELETE", job),
        ("HEAD", upload),
        ("PATCH", upload),
        ("DELETE", upload),
    ):
        headers = {**bearer(other), **tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        async with guarded.client.request(method, path, headers=headers) as response:
            assert response.status == 404, (method, path)
    sent = {"json": {"upload_id": upload.rpartition("/")[2]}, "headers": bearer(other)}
    async with guarded.client.post("/api/v1/transcriptions", **sent) as response:
        assert response.status == 404
    seen = {}
    for name, key in (("one", one), ("other", other), ("admin", admin)):
        async with guarded.client.get("/api/v1/transcriptions", headers=bearer(key)) as response:
            seen[name] = len((await response.json())["jobs"])
    assert seen == {"one": 1, "other": 0, "admin": 1}
    assert (await guarded.client.delete(job, headers=bearer(one))).status == 204
    assert (await guarded.client.delete(upload, headers={**bearer(one), **tus})).status == 204


# --- keys and tokens over HTTP


async def test_an_admin_makes_rotates_lists_and_revokes_keys(guarded: Node) -> None:
    headers, path = bearer(await new_key(guarded)), "/api/v1/admin/keys"
    wanted = {"name": "shop", "tenant": "shop", "scopes": ["stream"], "limits": {"sessions": 2}}
    async with guarded.client.post(path, json=wanted, headers=headers) as response:
        assert response.status == 201
        made = await response.json()
    assert made["key"]["limits"]["sessions"] == 2
    assert (await guarded.client.get("/api/v1/config", headers=bearer(made["value"]))).status == 200
    one = f"{path}/{made['key']['id']}"
    async with guarded.client.post(f"{one}/rotate", json={"overlap_s": 0}, headers=headers) as response:
        assert response.status == 201
        follower = await response.json()
    assert (await guarded.client.get("/api/v1/config", headers=bearer(made["value"]))).status == 401
    assert (await guarded.client.get("/api/v1/config", headers=bearer(follower["value"]))).status == 200
    async with guarded.client.get(path, headers=headers) as response:
        told = await response.text()
    assert follower["key"]["id"] in told
    assert follower["value"] not in told
    assert "digest" not in told
    assert (await guarded.client.post(f"{one}/rotate", headers=headers)).status == 409
    assert (await guarded.client.delete(f"{path}/{follower['key']['id']}", headers=headers)).status == 200
    assert (await guarded.client.get("/api/v1/config", headers=bearer(follower["value"]))).status == 401
    assert (await guarded.client.delete(f"{path}/00000000", headers=headers)).status == 404
    assert (await guarded.client.post(f"{path}/00000000/rotate", headers=headers)).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/admin/keys"),
        ("POST", "/api/v1/admin/keys"),
        ("POST", "/api/v1/admin/keys/x/rotate"),
        ("DELETE", "/api/v1/admin/keys/x"),
    ],
)
async def test_only_an_admin_does(guarded: Node, method: str, path: str) -> None:
    key = await new_key(guarded, Scope.STREAM, Scope.JOBS)
    assert (await guarded.client.request(method, path, headers=bearer(key))).status == 403


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"name": "x", "tenant": "a b"},
        {"name": "x", "tenant": "a", "scopes": []},
        {"name": "x", "tenant": "a", "networks": ["no"]},
        {"name": "x", "tenant": "a", "limits": {"hours": 1}},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(guarded: Node, wanted: dict[str, Any]) -> None:
    headers = bearer(await new_key(guarded))
    assert (await guarded.client.post("/api/v1/admin/keys", json=wanted, headers=headers)).status == 400


async def test_a_join_token_decides_its_sessions_configuration(guarded: Node) -> None:
    headers = bearer(await new_key(guarded, Scope.STREAM))
    wanted = {"ttl_s": 60, "config": {"language": "en"}}
    async with guarded.client.post("/api/v1/tokens", json=wanted, headers=headers) as response:
        assert response.status == 201
        token = (await response.json())["token"]
    assert (await guarded.client.post("/api/v1/tokens", headers=bearer(token))).status == 403, "tokens make no tokens"
    for wrong in ({"ttl_s": 59}, {"ttl_s": 601}, {"config": {"nonsense": 1}}, {"more": 1}):
        assert (await guarded.client.post("/api/v1/tokens", json=wrong, headers=headers)).status == 400
    query = f"?encoding=linear16&sample_rate=16000&language=de&token={token}"
    async with guarded.client.get(f"/ws/v1/transcribe{query}", headers=UPGRADE) as response:
        assert response.status != 401


def test_what_a_token_decides_the_client_cannot_change() -> None:
    config = SessionConfig(language="en").fixed({"language": "en", "interim_results": False})
    assert config.interim_results is False
    assert config.merged({"language": "en", "prompt": "x"}).prompt == "x"
    for changes in ({"language": "de"}, {"interim_results": True}):
        with pytest.raises(ConfigError) as refused:
            config.merged({"prompt": "x"}).merged(changes)
        assert refused.value.code == "FIXED_BY_TOKEN"
    with pytest.raises(ConfigError, match="`language`"):
        SessionConfig(language="de").fixed({"language": "en"})


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J"])
async def test_a_key_is_made_with_a_name_that_can_be_seen(guarded: Node, name: str) -> None:
    headers, wanted = bearer(await new_key(guarded)), {"name": name, "tenant": "acme"}
    async with guarded.client.post("/api/v1/admin/keys", json=wanted, headers=headers) as response:
        assert response.status == 400
        said = await response.text()
    assert "INVALID_KEY" in said
    assert "`name` has a line break" in said
    assert len(await guarded.app[ACCOUNTS].keys.all()) == 2
