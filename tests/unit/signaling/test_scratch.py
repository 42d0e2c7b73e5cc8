"""Folders for recordings: gone with their request, or once their process is."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from signaling.scratch import LOCK, PREFIX, Scratch, scratch_folder, sweep_scratch


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


async def test_it_is_gone_at_the_end_and_nobodys_but_ours(tmp_path: Path) -> None:
    async def fail() -> None:
        async with scratch_folder() as folder:
            (folder / "recording").write_bytes(b"what somebody said")
            assert folder.stat().st_mode & 0o777 == 0o700
            assert await sweep_scratch() == 0, "it is in use"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert list(tmp_path.iterdir()) == []


async def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    (left / LOCK).touch()
    (left / "recording").write_bytes(b"what somebody said")
    others = tmp_path / "voiceforge-tests-x"
    others.mkdir()
    used = Scratch()
    assert await sweep_scratch() == 1
    assert not left.exists()
    assert others.exists()
    assert used.path.exists()
    used.remove()
