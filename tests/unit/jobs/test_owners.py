"""Which workers can be known to be dead: only those whose process numbers mean here what they meant there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mediaserver.jobs import owners
from mediaserver.jobs.owners import is_dead, this_process


def ended_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_process_of_this_machine_that_is_gone_is_dead() -> None:
    mine = this_process("")
    system = mine.rpartition("/")[0].rpartition("/")[0]
    assert is_dead(f"{system}/{ended_process()}/abc", mine)
    assert not is_dead(f"{system}/1/abc", mine)
    assert is_dead(this_process("an earlier start"), this_process(""))
    assert not is_dead(mine, mine)


def test_another_machine_with_the_same_name_is_not_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("another machine\n")
    with monkeypatch.context() as there:
        there.setattr(owners, "_BOOT", boot)
        system = this_process("").rpartition("/")[0].rpartition("/")[0]
    assert not is_dead(f"{system}/{ended_process()}/abc", this_process(""))
