"""`voiceforge keys` on a database."""

from __future__ import annotations

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
