"""Folders for recordings: gone with their request, or once their process is."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from signaling.scratch import LOCK, PREFIXES, RECORDING, Scratch, remove_left, scratch_folder, sweep_scratch


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


def left_behind(folder: Path) -> Path:
    """What a killed process leaves: it is nobody's, and has what was in it."""
    folder.mkdir()
    (folder / LOCK).touch()
    (folder / "recording").write_bytes(b"what somebody said")
    return folder


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_what_a_killed_process_left_is_swept_away(tmp_path: Path, prefix: str) -> None:
    left = left_behind(tmp_path / f"{prefix}left")
    others = left_behind(tmp_path / "voiceforge-tests-x")
    unlocked = tmp_path / f"{prefix}just-made"
    unlocked.mkdir()
    used = Scratch(prefix)
    assert await sweep_scratch() == 1
    assert not left.exists()
    assert others.exists()
    assert unlocked.exists()
    assert used.path.exists()
    used.remove()
    assert not used.path.exists()
    used.remove()  # does nothing


async def test_the_folder_of_a_process_that_runs_is_nobodys_and_once_that_is_killed_anybodys(tmp_path: Path) -> None:
    code = "from signaling.scratch import *; import time; print(Scratch(WORKERS).path, flush=True); time.sleep(600)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert process.stdout is not None
    folder = Path((await process.stdout.readline()).decode().strip())
    assert folder.parent == tmp_path
    assert await sweep_scratch() == 0
    assert folder.exists()
    process.kill()
    await process.wait()
    assert await sweep_scratch() == 1
    assert list(tmp_path.iterdir()) == []


async def test_no_link_is_followed(tmp_path: Path) -> None:
    elsewhere = left_behind(tmp_path / "elsewhere")
    (tmp_path / f"{RECORDING}link").symlink_to(elsewhere)
    with_link = tmp_path / f"{RECORDING}lock"
    with_link.mkdir()
    (with_link / LOCK).symlink_to(elsewhere / LOCK)
    inside = left_behind(tmp_path / f"{RECORDING}inside")
    (inside / "more").symlink_to(elsewhere)
    assert await sweep_scratch() == 1
    assert with_link.exists()
    assert not inside.exists()
    assert sorted(path.name for path in elsewhere.iterdir()) == [LOCK, "recording"]


async def test_another_users_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = left_behind(tmp_path / f"{RECORDING}left")
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert await sweep_scratch() == 0
    assert left.exists()


def test_what_is_no_folder_of_ours_is_not_removed(tmp_path: Path) -> None:
    assert not remove_left(left_behind(tmp_path / "home"))
    assert not remove_left(tmp_path / f"{RECORDING}missing")
    assert (tmp_path / "home").exists()


def test_who_sweeps_while_one_is_made_takes_no_more_than_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, swept = fcntl.flock, list[Path]()

    def swept_before(lock: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not swept:
            swept.extend(folder for folder in tmp_path.iterdir() if remove_left(folder))
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", swept_before)
    made = Scratch()
    assert len(swept) == 1
    assert made.path.exists()
    assert not remove_left(made.path)
    made.remove()
