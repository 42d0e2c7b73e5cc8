"""The playground's files, their headers, and what the page is told of the server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from front_door import Node, StartNode


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder as a build leaves it."""
    root = tmp_path / "static"
    root.mkdir()
    (root / "index.html").write_text("<!doctype html><title>VoiceForge</title>")
    (root / "page.js").write_text("export {};")
    (root / ".gitkeep").write_text("")
    (tmp_path / "outside.txt").write_text("not for clients")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    return root


async def test_the_page_is_at_the_root_and_asks_again_each_time(start_node: StartNode, built: Path) -> None:
    node = await start_node(static_dir=built)
    response = await node.client.get("/")
    assert response.status == 200
    assert response.content_type == "text/html"
    assert response.headers["Cache-Control"] == "no-cache"


async def test_the_page_may_use_the_microphone_and_nothing_from_elsewhere(start_node: StartNode, built: Path) -> None:
    node = await start_node(static_dir=built)
    headers = (await node.client.get("/")).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "microphone=(self)" in headers["Permissions-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


async def test_a_stamped_file_is_kept_and_a_plain_one_is_not(start_node: StartNode, built: Path) -> None:
    node = await start_node(static_dir=built)
    stamped = await node.client.get("/static/page.js?v=0123")
    assert stamped.content_type in ("text/javascript", "application/javascript")
    assert "immutable" in stamped.headers["Cache-Control"]
    assert (await node.client.get("/static/page.js")).headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["/static/.gitkeep", "/static/link.txt", "/static/../outside.txt", "/static/%2e%2e/outside.txt", "/static/"]
)
async def test_nothing_but_the_page_is_served(start_node: StartNode, built: Path, path: str) -> None:
    node = await start_node(static_dir=built)
    assert (await node.client.get(path)).status == 404


async def test_a_missing_page_says_how_to_build_it(node: Node) -> None:
    response = await node.client.get("/")
    assert response.status == 404
    assert (await response.json())["error"]["code"] == "PAGE_NOT_BUILT"


@pytest.mark.parametrize(("path", "method"), [("/api/v1/config", "GET"), ("/api/v1/tokens", "POST")])
async def test_a_page_of_a_listed_origin_may_show_its_token_or_key(
    start_node: StartNode, path: str, method: str
) -> None:
    node = await start_node(cors_origins=["https://app.example"])
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
    answer = await node.client.options(path, headers={**asked, "Origin": "https://app.example"})
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert method in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    refused = await node.client.options(path, headers={**asked, "Origin": "https://evil.example"})
    assert refused.status == 403


async def test_the_page_is_told_what_it_shows(start_node: StartNode) -> None:
    turn = {"urls": ["turn:turn.example"], "username": "u", "credential": "c"}
    node = await start_node(ice_servers=[turn], endpointing_ms=700)
    body = await (await node.client.get("/api/v1/config")).json()
    assert (body["model"], body["languages"], body["ready"]) == ("tiny.en", ["en"], True)
    assert body["ice_servers"] == [turn]
    assert body["session"]["endpointing_ms"] == 700
    assert body["turn_detection"] == ["silence"]
    assert body["limits"]["max_sessions"] == 64
    assert "vad_threshold" in body["session_schema"]["properties"]
    assert body["version"]


async def test_the_page_is_told_that_a_model_may_judge_pauses(start_node: StartNode) -> None:
    node = await start_node(turn_model=True)
    body = await (await node.client.get("/api/v1/config")).json()
    assert body["turn_detection"] == ["silence", "semantic"]
    assert body["session"]["turn_detection"] == "silence"


async def test_the_page_is_told_the_model_before_it_is_loaded(start_node: StartNode) -> None:
    node = await start_node(loaded=False)
    body = await (await node.client.get("/api/v1/config")).json()
    assert (body["model"], body["ready"], body["languages"]) == ("tiny.en", False, [])


async def test_each_asking_gets_credentials_of_its_own_that_no_cache_keeps(start_node: StartNode) -> None:
    secret = "north-of-the-river-1"
    node = await start_node(turn_urls=["turn:turn.example"], turn_secret=secret, turn_ttl_s=60)
    told = []
    for _ in range(2):
        response = await node.client.get("/api/v1/config")
        assert response.headers["Cache-Control"] == "no-store"
        assert secret not in await response.text()
        told.append((await response.json())["ice_servers"][0])
    first, second = told
    assert first["urls"] == ["turn:turn.example"]
    assert abs(int(first["username"].split(":")[0]) - time.time() - 60) < 30
    assert first["username"] != second["username"]
    assert first["credential"] != second["credential"]
