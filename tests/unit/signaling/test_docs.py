"""The documents and the page as they are served."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from front_door import Node

from signaling.openapi.document import OPENAPI_VERSION


@pytest.mark.parametrize("path", ["/openapi.json", "/asyncapi.json"])
async def test_a_document_is_kept_by_caches_until_it_changes(node: Node, path: str) -> None:
    first = await node.client.get(path)
    assert first.status == 200
    assert first.content_type == "application/json"
    assert first.headers["Cache-Control"] == "public, max-age=300"
    tag = first.headers["ETag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = await node.client.get(path, headers={"If-None-Match": known})
        assert again.status == 304
        assert again.headers["ETag"] == tag
        assert await again.read() == b""
    assert (await node.client.get(path, headers={"If-None-Match": '"other"'})).status == 200


async def test_the_document_is_the_one_of_this_server(node: Node) -> None:
    document = await (await node.client.get("/openapi.json")).json()
    assert document["openapi"] == OPENAPI_VERSION
    assert "post" in document["paths"]["/whip"]
    spoken = await (await node.client.get("/asyncapi.json")).json()
    assert spoken["servers"]["ws"]["variables"]["host"]["default"] == "127.0.0.1:8080"


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []
        self.inline = ""
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "link"):
            self.files.append(given.get("src") or given.get("href") or "")
        self._in_script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.inline += data.strip()


async def test_the_page_loads_from_here_and_only_what_is_there(node: Node) -> None:
    response = await node.client.get("/docs")
    assert response.status == 200
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "script-src" not in policy  # so that no inline script and no eval is allowed
    assert "//" not in policy
    page = Links()
    page.feed(await response.text())
    assert page.inline == ""
    assert len(page.files) == 5
    for path in page.files:
        assert path.startswith("/docs/"), path
        file = await node.client.get(path)
        assert file.status == 200, path
        assert file.headers["X-Content-Type-Options"] == "nosniff"
        if path.endswith(".css"):
            assert not re.search(r"url\((?!['\"]?data:)", await file.text())


@pytest.mark.parametrize("name", ["swagger-ui.css.map", "index.html", "oauth2-redirect.html", "..%2fdocument.py"])
async def test_no_other_file_can_be_asked_for(node: Node, name: str) -> None:
    assert (await node.client.get(f"/docs/{name}")).status == 404
