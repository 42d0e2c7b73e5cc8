"""A folder that cannot be used is named before anything listens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings
from signaling.cli import main
from signaling.data_folder import require_data_folder


def test_a_folder_that_is_there_or_can_be_made_is_fine_and_nothing_is_made(tmp_path: Path) -> None:
    require_data_folder(Settings(data_dir=tmp_path))
    require_data_folder(Settings(data_dir=tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is no folder") as caught:
        require_data_folder(Settings(data_dir=tmp_path / "file"))
    assert caught.value.code == "DATA_DIR_UNUSABLE"


def test_a_folder_of_somebody_else_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # who runs the tests may read everything
    with pytest.raises(ConfigError, match="may not read and write"):
        require_data_folder(Settings(data_dir=tmp_path / "new"))


def test_a_folder_that_may_not_even_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(ConfigError, match="permission denied"):
        require_data_folder(Settings(data_dir=tmp_path))


def test_serve_says_so_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, ["serve", "--data-dir", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "is no folder" in result.output


def test_keys_that_may_not_be_looked_at_are_no_absent_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", refuse)
    result = CliRunner().invoke(main, ["keys", "list"], env={"VOICEFORGE_DATA_DIR": str(tmp_path / "theirs")})
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "does not answer" in result.output
