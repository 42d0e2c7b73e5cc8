"""Virtual environments for other servers, each with pinned packages, made once and never mixed with this project's.

By pip, which this project depends on anyway, and so through the index, mirror and wheel folders that the user's pip is
set up with. On Linux that decides about PyTorch: the public index has its CUDA build (3 GB with its libraries), which
runs on a CPU as well; where pip also finds a CPU build (0.2 GB), it takes that.
"""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mediaserver.errors import VoiceForgeError

STEP_S = 1800.0
"""Longest time of one step: 3 GB at 2 MB/s take 25 minutes."""

STOP_S = 10.0
"""How long a stopped pip may clean up behind itself."""

KEPT_LINES = 12
"""Of what pip says, the oldest lines go first; these many explain a failure."""

STAMP = "installed.json"

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One call of pip. `alone` leaves out what the packages ask for: extras of theirs that nothing here uses."""

    packages: tuple[str, ...]
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What an environment holds, in the order in which it is put there."""

    name: str
    steps: tuple[Step, ...]

    @property
    def stamp(self) -> str:
        """What is written beside an environment when it is complete: another plan, Python or system needs another."""
        made = {"python": platform.python_version(), "system": platform.platform(terse=True)}
        return json.dumps({**asdict(self), **made}, indent=1)


async def environment(plan: Plan, home: Path, *, on_step: OnStep = lambda line: None) -> Path:
    """The interpreter of the plan's environment under `home`, which is made if it is not there or not by this plan.

    Raises:
        VoiceForgeError: NO_ROOM, REGISTRY_UNREACHABLE, INSTALL_FAILED.
    """
    folder = home / plan.name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / STAMP
    if _read(stamp) == plan.stamp and python.exists():
        return python
    try:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as exc:
        raise VoiceForgeError(
            "NO_ROOM", f"{folder} cannot be written: {exc.strerror}.", "Choose another folder by --home."
        ) from exc
    on_step("virtual environment")
    await _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], plan, on_step)
    for step in plan.steps:
        on_step(", ".join(step.packages[:2]))
        await _run(pip(python, step), plan, on_step)
    stamp.write_text(plan.stamp, encoding="utf-8")
    return python


def pip(python: Path, step: Step) -> list[str]:
    """The command of a step: this environment's pip, working on that one."""
    return [
        *(sys.executable, "-m", "pip", "--python", str(python), "install", "--disable-pip-version-check"),
        *("--no-input", "--progress-bar", "off"),
        *(["--no-deps"] if step.alone else []),
        *step.packages,
    ]


async def _run(command: Sequence[str], plan: Plan, on_step: OnStep) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    unreachable = False
    try:
        async with asyncio.timeout(STEP_S):
            assert process.stdout is not None
            async for raw in process.stdout:
                line = raw.decode(errors="replace").strip()
                unreachable |= "Retrying (" in line
                lines.append(line)
                if line.startswith(("Collecting", "Downloading", "Installing")):
                    on_step(line)
            await process.wait()
    except TimeoutError as exc:
        raise VoiceForgeError(
            "INSTALL_FAILED", f"{plan.name}: pip was not done in {STEP_S / 60:.0f} min.", "Try again.", retryable=True
        ) from exc
    finally:
        await _stop(process)
    if process.returncode:
        raise failure(plan, list(lines), unreachable=unreachable)


def failure(plan: Plan, lines: Sequence[str], *, unreachable: bool) -> VoiceForgeError:
    """Why an installation failed, from pip's last lines."""
    if unreachable:
        return VoiceForgeError(
            "REGISTRY_UNREACHABLE",
            f"{plan.name} could not be installed: pip does not reach the package index.",
            "Check the network, or point pip at a mirror (PIP_INDEX_URL).",
            retryable=True,
        )
    errors = [line for line in lines if line.startswith("ERROR:")] or list(lines)
    return VoiceForgeError(
        "INSTALL_FAILED",
        f"{plan.name} could not be installed. {' '.join(errors[-2:])}".strip(),
        "Leave this server out by --rival, or see whether your index has these versions.",
    )


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
