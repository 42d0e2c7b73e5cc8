"""Where and with what a benchmark ran, so that its figures can be made again."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ctranslate2
import psutil

PACKAGES = ("voiceforge", "faster-whisper", "ctranslate2", "onnxruntime", "numpy", "av", "aiortc")
"""What decides speed and accuracy."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is written beside every result.

    Args:
        command: as typed.
        commit: the commit of the checkout, with `+` where files differ from it; `unknown` outside one.
        date: UTC, ISO 8601.
        cpu, cores, memory_gib, gpus: the machine; `cores` are those that this process may use.
        load_1m: the machine's load before the run; above 0.5 something else was running.
        versions: of Python and the packages that matter.
    """

    command: str
    commit: str
    date: str
    cpu: str
    cores: int
    memory_gib: float
    gpus: int
    load_1m: float
    system: str
    versions: dict[str, str]

    @property
    def machine(self) -> str:
        """The machine in one line."""
        gpus = f", {self.gpus} CUDA device(s)" if self.gpus else ""
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB{gpus}"


def provenance(argv: list[str]) -> Provenance:
    """Look around, now."""
    return Provenance(
        command=shlex.join(argv),
        commit=_commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=psutil.virtual_memory().total / 2**30,
        gpus=ctranslate2.get_cuda_device_count(),
        load_1m=psutil.getloadavg()[0],
        system=platform.platform(),
        versions={"python": platform.python_version(), **_versions()},
    )


def typed_command() -> list[str]:
    """The command line as a person would type it: without the interpreter's path."""
    program = Path(sys.argv[0])
    return [*(["python", "-m", "benchmarks"] if program.name == "__main__.py" else [program.name]), *sys.argv[1:]]


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head}+" if changed else head


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
