"""The audit log: what is in it, when it is on disk, and what happens where that cannot be."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mediaserver.errors import ConfigError
from mediaserver.metrics import Metrics
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.auth.principal import LOCAL, Principal, Scope
from signaling.seeing import audit_file
from signaling.seeing.audit import REFUSALS_PER_MINUTE, Audit, AuditAwayError, require_audit_log
from signaling.seeing.audit_door import told_config, told_settings
from signaling.seeing.audit_file import AuditWriter, FileTarget

ACME = Principal("acme", "0a1b2c3d", frozenset({Scope.ADMIN}))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def lost(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("voiceforge_audit_records_total", {"outcome": "lost"}) or 0.0


class Disk:
    """A target that can be full, or hang."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.room = 1_000_000
        self.synced = 0
        self.may_write = threading.Event()
        self.may_write.set()
        self.is_closed = False

    def write(self, line: bytes) -> None:
        self.may_write.wait(10)
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        self.lines.append(line)

    def sync(self) -> None:
        self.synced = len(self.lines)

    def close(self) -> None:
        self.is_closed = True


async def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    audit = Audit(Settings(data_dir=tmp_path))
    audit.record("data.delete")
    await audit.surely("key.create")
    await audit.close()
    assert not audit.is_on
    assert list(tmp_path.iterdir()) == []


async def test_a_record_says_who_did_what_to_what(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.jsonl"
    audit = Audit(Settings(audit_log=str(path)))
    audit.record("job.delete", object={"job": "job_1"}, details={"bytes": 7}, principal=ACME)
    audit.record("server.start")
    await audit.close()
    record, start = lines(path)
    assert record["action"] == "job.delete"
    assert record["outcome"] == "done"
    assert record["actor"] == {"kind": "key", "tenant": "acme", "key": "0a1b2c3d"}
    assert record["object"] == {"job": "job_1"}
    assert record["details"] == {"bytes": 7}
    assert record["time"].endswith("Z")
    assert start["actor"] == {"kind": "server"}
    assert path.stat().st_mode & 0o777 == 0o600


async def test_surely_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(Settings(audit_log=str(path)))
    await audit.surely("key.revoke", object={"key": "k"}, principal=LOCAL)
    assert [line["action"] for line in lines(path)] == ["key.revoke"]
    await audit.close()


async def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    audit = Audit(Settings(audit_log=str(path)))
    await audit.surely("a.b")
    path.rename(moved)
    await audit.surely("c.d")
    await audit.close()
    assert [line["action"] for line in lines(moved)] == ["a.b"]
    assert [line["action"] for line in lines(path)] == ["c.d"]


async def test_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audits = [Audit(Settings(audit_log=str(path))) for _ in range(3)]
    for number in range(50):
        for audit in audits:
            audit.record("a.b", details={"number": number, "filling": "x" * 300})
    for audit in audits:
        await audit.close()
    assert len(lines(path)) == 150


async def test_a_server_does_not_start_without_the_log_that_it_must_have(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for path, why in (
        (tmp_path, "is a directory"),
        (tmp_path / "file" / "audit.jsonl", "exists|not a directory"),
        (Path("/dev/full"), "no space left"),
    ):
        with pytest.raises(ConfigError, match=why) as refusal:
            await require_audit_log(Settings(audit_log=str(path)))
        assert refusal.value.code == "AUDIT_LOG_UNUSABLE"
        assert str(path) in refusal.value.message
        assert "it does not answer" not in refusal.value.message
        await require_audit_log(Settings(audit_log=str(path), audit_required=False))
    await require_audit_log(Settings())


async def test_a_start_is_asked_for_before_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.jsonl"
    await require_audit_log(Settings(audit_log=str(path)))
    (line,) = lines(path)
    assert (line["action"], line["outcome"], line["actor"]) == ("server.start", "asked", {"kind": "server"})


async def test_a_disk_that_is_full_refuses_who_must_be_recorded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = Settings(audit_log=str(tmp_path / "file" / "audit.jsonl"))
    audit = Audit(settings)
    with pytest.raises(AuditAwayError) as refusal:
        await audit.surely("key.create")
    assert refusal.value.code == "AUDIT_AWAY"
    assert audit.is_failing
    await audit.close()
    lenient = Audit(settings.model_copy(update={"audit_required": False}))
    await lenient.surely("key.create")
    await lenient.close()


def test_what_nobody_waits_for_is_written_once_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "AGAIN_S", 0.01)
    disk, counted = Disk(), []
    disk.room = 2
    writer = AuditWriter(disk, on_outcome=lambda outcome, count: counted.append((outcome, count)))
    for letter in (b"a", b"b", b"c"):
        writer.put(letter)
    assert not writer.put_surely(b"d").result(10)
    assert writer.is_failing
    disk.room = 1000
    assert writer.put_surely(b"e").result(10)
    assert not writer.is_failing
    writer.close()
    assert disk.lines == [b"a\n", b"b\n", b"c\n", b"e\n"]  # who waited for `d` was told that it is not there
    assert disk.synced == 4
    assert disk.is_closed
    assert sum(count for outcome, count in counted if outcome == "written") == 4


def test_a_disk_that_hangs_loses_the_oldest_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "WAITING_MAX", 3)
    disk, counted = Disk(), []
    disk.may_write.clear()
    writer = AuditWriter(disk, on_outcome=lambda outcome, count: counted.append((outcome, count)))
    writer.put(b"hangs")
    while writer._waiting:  # the thread has taken it
        threading.Event().wait(0.001)
    awaited = writer.put_surely(b"awaited")
    for number in range(4):
        writer.put(b"%d" % number)
    disk.may_write.set()
    assert awaited.result(10)
    writer.close()
    assert disk.lines == [b"hangs\n", b"awaited\n", b"2\n", b"3\n"]
    assert counted.count(("lost", 1)) == 2


def test_who_no_longer_waits_stops_nobody() -> None:
    disk = Disk()
    disk.may_write.clear()
    writer = AuditWriter(disk, on_outcome=lambda _outcome, _count: None)
    given_up = writer.put_surely(b"first")
    assert given_up.cancel()  # its caller's time is over, or the client is gone
    disk.may_write.set()
    assert writer.put_surely(b"second").result(10)
    writer.close()
    assert disk.lines == [b"first\n", b"second\n"]


def test_a_line_that_was_cut_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    target = FileTarget(path)
    target.write(b'{"a":1}\n')
    real = os.write

    def cut(file: int, data: memoryview) -> int:
        if len(data) > 4:
            return real(file, data[:4])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", cut)
    with pytest.raises(OSError, match="No space"):
        target.write(b'{"b":2}\n')
    monkeypatch.setattr(os, "write", real)
    target.write(b'{"b":2}\n')
    target.close()
    assert path.read_text().splitlines() == ['{"a":1}', '{"b"', '{"b":2}']


async def test_refusals_are_recorded_so_often_and_the_others_counted(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(Settings(audit_log=str(path)))
    for _ in range(REFUSALS_PER_MINUTE + 5):
        audit.refused("INVALID_API_KEY", now_s=100.0)
    audit.refused("INVALID_API_KEY", now_s=101.0)
    await audit.close()
    records = lines(path)
    assert len(records) == REFUSALS_PER_MINUTE + 1
    assert {record["outcome"] for record in records} == {"refused"}
    assert records[-1]["details"] == {"not_recorded": 5}


async def test_a_process_that_ends_writes_what_waits(tmp_path: Path) -> None:
    path, metrics = tmp_path / "audit.jsonl", Metrics()
    audit = Audit(Settings(audit_log=str(path)), metrics=metrics)
    for _ in range(100):
        audit.record("a.b")
    await asyncio.wait_for(audit.close(), 10)
    assert len(lines(path)) == 100
    assert lost(metrics) == 0


def test_settings_are_told_without_secrets() -> None:
    told = told_settings(
        Settings(
            database_url="postgresql://user:hunter2@db.example/voiceforge",
            token_secret="s" * 40,
            prompt="the patient is called Ann",
            ice_servers=[{"urls": ["turn:t"], "username": "u", "credential": "hunter3"}],
            max_sessions=7,
        )
    )
    assert told["max_sessions"] == 7
    assert told["database_url"] == "postgresql://db.example"
    assert told["token_secret"] == "set"
    assert told["ice_servers"] == 1
    assert not any(secret in json.dumps(told) for secret in ("hunter", "Ann", "sssss"))


def test_a_session_is_told_without_texts() -> None:
    config = SessionConfig(language="en", prompt="Ann", hotwords=["Bob", "Eve"], metadata={"caller": "Ann"})
    assert told_config(config) == {"language": "en", "prompt": 3, "hotwords": 2, "metadata": 1}
