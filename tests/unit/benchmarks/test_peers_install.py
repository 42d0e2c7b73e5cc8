"""Environments for other servers: what is put there, when it is made anew, and what is said when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.contenders import PLANS, plans
from benchmarks.peers.install import STAMP, Plan, Step, environment, pip
from mediaserver.errors import VoiceForgeError

EMPTY = Plan("nothing", ())


def test_every_package_is_pinned_and_pytorch_comes_first() -> None:
    for plan in PLANS.values():
        packages = [package for step in plan.steps for package in step.packages]
        assert all(package.count("==") == 1 for package in packages)
        assert packages[0].startswith("torch==")
        assert len({package.split("==")[0] for package in packages}) == len(packages)


def test_a_rival_is_put_in_without_what_it_asks_for() -> None:
    for name, package in (("whisperlive", "whisper-live==0.10.0"), ("whisperlivekit", "whisperlivekit==0.2.26")):
        (plan,) = plans([name])
        (step,) = [step for step in plan.steps if step.alone]
        assert step.packages == (package,)
        assert "--no-deps" in pip(Path("python"), step)


def test_pip_works_on_the_other_environment() -> None:
    command = pip(Path("/there/bin/python"), Step(("a==1", "b==2")))
    assert command[0] == sys.executable
    assert command[command.index("--python") + 1] == "/there/bin/python"
    assert command[-2:] == ["a==1", "b==2"]
    assert "--no-deps" not in command


async def test_an_environment_is_made_once_and_is_its_own(tmp_path: Path) -> None:
    steps: list[str] = []
    python = await environment(EMPTY, tmp_path, on_step=steps.append)
    prefix = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert Path(prefix.stdout.strip()).samefile(tmp_path / "nothing")
    assert steps
    steps.clear()
    assert await environment(EMPTY, tmp_path, on_step=steps.append) == python
    assert steps == []


async def test_other_pins_make_another_environment(tmp_path: Path) -> None:
    await environment(EMPTY, tmp_path)
    (tmp_path / "nothing" / "left over").touch()
    steps: list[str] = []
    changed = Plan("nothing", (Step(("not a package",)),))
    with pytest.raises(VoiceForgeError):
        await environment(changed, tmp_path, on_step=steps.append)
    assert not (tmp_path / "nothing" / "left over").exists()
    assert not (tmp_path / "nothing" / STAMP).exists()  # half made is not made
    await environment(EMPTY, tmp_path)
    assert (tmp_path / "nothing" / STAMP).exists()


async def test_pip_s_own_words_explain_a_failure(tmp_path: Path) -> None:
    with pytest.raises(VoiceForgeError, match="Invalid requirement") as caught:
        await environment(Plan("wrong", (Step(("not a package",)),)), tmp_path)
    assert caught.value.code == "INSTALL_FAILED"


async def test_an_index_that_cannot_be_reached_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nobody listens
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(VoiceForgeError) as caught:
        await environment(Plan("far", (Step(("far-away==1.0",)),)), tmp_path)
    assert caught.value.code == "REGISTRY_UNREACHABLE"
    assert caught.value.retryable


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VoiceForgeError) as caught:
        await environment(EMPTY, tmp_path / "file")
    assert caught.value.code == "NO_ROOM"
