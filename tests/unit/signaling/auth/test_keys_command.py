"""`voiceforge keys` on a database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signaling.cli import main


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEFORGE_DATA_DIR", str(tmp_path / "data"))


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments])


def test_keys_are_made_listed_rotated_and_revoked() -> None:
    made = keys("create", "phone", "--tenant", "acme", "--scope", "stream", "--sessions", "3")
    assert made.exit_code == 0, made.output
    value = made.stdout.strip()
    assert value.startswith("vf_")
    assert "only time" in made.stderr
    listed = keys("list").stdout
    assert value.split("_")[1] in listed
    assert "acme" in listed
    assert "active" in listed
    assert value not in listed
    follower = keys("rotate", value.split("_")[1]).stdout.strip()
    assert follower != value
    assert "until" in keys("list").stdout
    assert keys("revoke", follower.split("_")[1]).exit_code == 0
    assert "revoked" in keys("list", "--tenant", "acme").stdout
    assert "acme" not in keys("list", "--tenant", "other").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x", "--tenant", "a b"), "`tenant`"),
        (("create", "x", "--network", "nonsense"), "`networks`"),
        (("create", "two\nlines"), "`name`"),
        (("create", "red\x1b[31m"), "`name`"),
        (("create", "x", "--sessions", "-1"), "`sessions`"),
        (("rotate", "00000000"), "no such key"),
        (("revoke", "00000000"), "no such key"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    outcome = keys(*arguments)
    assert outcome.exit_code == 1
    assert said in outcome.stderr
    assert "Traceback" not in outcome.output


def test_what_is_done_to_keys_is_in_the_audit_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    monkeypatch.setenv("VOICEFORGE_AUDIT_LOG", str(path))
    value = keys("create", "phone", "--tenant", "acme").stdout.strip()
    assert keys("revoke", value.split("_")[1]).exit_code == 0
    assert keys("revoke", "00000000").exit_code == 1
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(record["action"], record["outcome"]) for record in records] == [
        ("key.create", "asked"),
        ("key.create", "done"),
        ("key.revoke", "asked"),
        ("key.revoke", "done"),
        ("key.revoke", "asked"),
        ("key.revoke", "refused"),
    ]
    assert records[2]["object"] == {"key": value.split("_")[1]}
    assert records[-1]["code"] == "KEY_NOT_FOUND"
    assert {record["actor"]["kind"] for record in records} == {"command_line"}
    assert value not in path.read_text()


def test_nothing_is_done_to_keys_without_an_audit_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEFORGE_AUDIT_LOG", str(tmp_path))  # a folder
    refused = keys("create", "phone")
    assert refused.exit_code == 1
    assert "audit log" in refused.output
    monkeypatch.delenv("VOICEFORGE_AUDIT_LOG")
    assert "phone" not in keys("list").stdout


def test_the_audit_log_is_not_among_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEFORGE_AUDIT_LOG", "stdout")
    made = keys("create", "phone")
    assert made.stdout.strip().startswith("vf_")
    assert len(made.stdout.splitlines()) == 1
    assert '"key.create"' in made.stderr
