"""What the audit log hears of requests: every action of administrators, surely, and nothing secret."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from documented import whole_app
from front_door import OFFER, SDP, Node, StartNode

from signaling.app import ACCOUNTS, AUDIT
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope
from signaling.openapi.operation import Access, Operation, Tag, description_of

UNAUDITED = {
    "How much of an upload is there",
}
"""Of recordings: what is told of bytes that its client has brought itself, but for their number nothing."""

NAMED = {"X-Request-ID": "call-7"}


async def records(node: Node, path: Path) -> list[dict[str, Any]]:
    """All records so far: what is recorded surely comes after all that waited."""
    await node.app[AUDIT].surely("test.look")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in found if not record["action"].startswith(("test.", "server."))]


@pytest.fixture
def audit_path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def audited(start_node: StartNode, tmp_path: Path, audit_path: Path) -> Node:
    return await start_node(data_dir=tmp_path / "data", audit_log=str(audit_path))


async def admin_key(node: Node) -> tuple[str, dict[str, str]]:
    row, value = await node.app[ACCOUNTS].keys.create(NewKey("boss", "acme", scopes=tuple(Scope)))
    return row.id, {"Authorization": f"Bearer {value}", **NAMED}


def test_what_administrators_and_jobs_do_is_in_the_log(tmp_path: Path) -> None:
    for route in whole_app(tmp_path).router.routes():
        operation = description_of(route.handler)
        if not isinstance(operation, Operation):
            continue
        is_of_records = operation.access is Access.ANY and operation.tag is Tag.RECORDINGS
        if operation.access in (Access.ADMIN, Access.JOBS) or is_of_records:
            assert operation.audited or operation.summary in UNAUDITED, f"{route.method} {operation.summary}"


async def test_what_an_administrator_does_is_asked_and_done(audited: Node, audit_path: Path) -> None:
    own, headers = await admin_key(audited)
    wanted = {"name": "phone", "tenant": "acme"}
    async with audited.client.post("/api/v1/admin/keys", json=wanted, headers=headers) as response:
        assert response.status == 201
        made = await response.json()
        written = audit_path.read_text()  # before anything else makes it be written
    asked, done = [json.loads(line) for line in written.splitlines() if '"key.' in line]
    assert (asked["action"], asked["outcome"]) == ("key.create", "asked")
    assert (done["action"], done["outcome"]) == ("key.create", "done")
    assert asked["request_id"] == done["request_id"] == "call-7"
    assert done["object"] == {"key": made["key"]["id"], "tenant": "acme"}
    assert done["actor"] == {"kind": "key", "tenant": "acme", "key": own, "address": "127.0.0.1"}
    assert made["value"] not in written


async def test_an_administrator_is_refused_while_there_is_no_log(audited: Node, audit_path: Path) -> None:
    _, headers = await admin_key(audited)
    audit_path.unlink()
    audit_path.mkdir()
    wanted = {"name": "phone", "tenant": "acme"}
    async with audited.client.post("/api/v1/admin/keys", json=wanted, headers=headers) as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "AUDIT_AWAY"
        assert response.headers["Retry-After"]
    assert [row.name for row in await audited.app[ACCOUNTS].keys.all()] == ["boss"]  # it was not done
    async with audited.client.get("/api/v1/usage", headers=headers) as response:
        assert response.status == 200


async def test_a_refused_administrator_is_recorded(audited: Node, audit_path: Path) -> None:
    _, headers = await admin_key(audited)
    async with audited.client.delete("/api/v1/admin/keys/ffffffff", headers=headers) as response:
        assert response.status == 404
    asked, refused = await records(audited, audit_path)
    assert asked["object"] == refused["object"] == {"id": "ffffffff"}
    assert (refused["outcome"], refused["code"]) == ("refused", "KEY_NOT_FOUND")


async def test_who_is_not_let_in_is_recorded_without_what_was_shown(audited: Node, audit_path: Path) -> None:
    await admin_key(audited)
    wrong = "vf_0123abcd_" + "x" * 43
    async with audited.client.post(
        "/whip", data=OFFER, headers={**SDP, "Authorization": f"Bearer {wrong}"}
    ) as response:
        assert response.status == 401
    (refused,) = await records(audited, audit_path)
    assert refused["action"] == "access.refuse"
    assert refused["actor"] == {"kind": "nobody", "address": "127.0.0.1"}
    assert refused["object"] == {"route": "POST /whip"}
    assert wrong not in audit_path.read_text()


async def test_bringing_bytes_and_looking_at_deletions_are_recorded(audited: Node, audit_path: Path) -> None:
    own, headers = await admin_key(audited)
    async with audited.client.post("/api/v1/uploads", headers={**headers, "Upload-Length": "9"}) as response:
        location = response.headers["Location"]
    offset = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    for status in (204, 409):  # the second is not where the upload has got to
        async with audited.client.patch(location, data=b"RIFF", headers={**headers, **offset}) as response:
            assert response.status == status
    for path in ("/api/v1/erasures", "/api/v1/erasures/era_none"):
        async with audited.client.get(path, headers=headers):
            pass
    _, brought, refused, listed, read = await records(audited, audit_path)
    upload = location.rpartition("/")[2]
    assert (brought["action"], brought["outcome"]) == ("upload.append", "done")
    assert brought["object"] == {"id": upload, "from_byte": 0, "to_byte": 4}
    assert brought["actor"] == {"kind": "key", "tenant": "acme", "key": own, "address": "127.0.0.1"}
    assert (refused["action"], refused["code"]) == ("upload.append", "UPLOAD_OFFSET_WRONG")
    assert (listed["action"], listed["outcome"]) == ("erasure.list", "done")
    assert (read["action"], read["outcome"], read["object"]) == ("erasure.read", "refused", {"id": "era_none"})


async def test_reading_is_recorded(audited: Node, audit_path: Path) -> None:
    _, headers = await admin_key(audited)
    for path in ("/api/v1/usage", "/api/v1/transcriptions", "/api/v1/transcriptions/job_" + "0" * 24 + "/result"):
        async with audited.client.get(path, headers=headers):
            pass
    usage, listed, result = await records(audited, audit_path)
    assert (usage["action"], usage["outcome"]) == ("usage.read", "done")
    assert all(record["actor"]["address"] == "127.0.0.1" for record in (usage, listed, result))
    assert (listed["action"], listed["outcome"]) == ("recording.list", "done")
    assert (result["action"], result["outcome"], result["code"]) == ("transcript.read", "refused", "JOB_NOT_FOUND")


async def test_a_sessions_url_is_never_in_the_log(audited: Node, audit_path: Path) -> None:
    _, headers = await admin_key(audited)
    async with audited.client.post("/whip", data=OFFER, headers={**SDP, **headers}) as response:
        url = response.headers["Location"]
    async with audited.client.get(url, headers={"X-Request-ID": "call-8"}) as response:
        session_id = (await response.json())["session_id"]
    (read,) = await records(audited, audit_path)
    assert read["action"] == "session.read"
    assert read["actor"] == {"kind": "nobody", "address": "127.0.0.1"}  # all that is known of who has the URL
    assert read["request_id"] == "call-8"
    assert read["object"] == {"session": session_id}
    assert url.rpartition("/")[2] not in audit_path.read_text()


async def test_the_start_says_how_the_node_is_set(audited: Node, audit_path: Path) -> None:
    await records(audited, audit_path)
    start = json.loads(audit_path.read_text().splitlines()[0])
    assert start["action"] == "server.start"
    assert start["details"]["settings"]["audit_log"] == str(audit_path)


@pytest.mark.parametrize("given", ["call-7", None, "two words", "x" * 101, "é"])
async def test_a_request_has_a_name(node: Node, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given}
    async with node.client.get("/healthz", headers=headers) as response:
        name = response.headers["X-Request-ID"]
    assert (name == given) is (given == "call-7")
    assert len(name) in (6, 16)


async def test_the_line_of_a_request_has_its_name(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "aiohttp.access"):
        async with node.client.get("/whip/unknown", headers=NAMED) as response:
            assert response.status == 404
    (line,) = [record for record in caplog.records if record.name == "aiohttp.access"]
    assert line.__dict__["request"] == NAMED["X-Request-ID"]
