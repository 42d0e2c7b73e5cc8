"""The locks say what pyproject.toml asks for, with hashes, and name no index. Checked without a network."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
HELP = "run `make lock`"


def locked(name: str) -> dict[str, list[Requirement]]:
    """The pins of a lock by package; one with markers may have several."""
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            pin = Requirement(line.removesuffix("\\").strip())
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def asked(group: str, extras: Sequence[str] = ()) -> list[Requirement]:
    """What the project, some of its extras and one of its groups ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines: list[str] = list(project["project"]["dependencies"])
    for extra in extras:
        lines += project["project"]["optional-dependencies"][extra]
    pending = [group]
    while pending:
        for entry in project["dependency-groups"][pending.pop()]:
            if isinstance(entry, dict):
                pending.append(entry["include-group"])
            else:
                lines.append(entry)
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(
    ("lock", "group", "extras"),
    [
        ("requirements.lock", "build", ()),
        ("requirements-dev.lock", "dev", ()),
        ("requirements-deploy.lock", "build", ("postgres", "celery", "telemetry")),
    ],
)
def test_a_lock_has_all_that_is_asked_for_in_versions_that_fit(lock: str, group: str, extras: tuple[str, ...]) -> None:
    pins = locked(lock)
    for requirement in asked(group, extras):
        found = pins.get(canonicalize_name(requirement.name), [])
        assert found, f"{lock} has no {requirement.name}: {HELP}"
        for pin in found:
            version = next(iter(pin.specifier)).version
            assert requirement.specifier.contains(version, prereleases=True), f"{lock} has {pin}: {HELP}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "requirements-deploy.lock"])
def test_a_lock_pins_one_version_with_hashes_for_every_system_and_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=)", text, re.MULTILINE)
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,-]+\])?==\S+", block), block[:60]
        assert "--hash=sha256:" in block
    for pins in locked(lock).values():
        for python in ("3.11", "3.12", "3.13"):
            here = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
            assert sum(pin.marker is None or pin.marker.evaluate(here) for pin in pins) <= 1


def test_the_development_lock_agrees_with_what_runs() -> None:
    runs, develops = locked("requirements.lock"), locked("requirements-dev.lock")
    for name, pins in runs.items():
        # Versions, not markers: what tests need may want a package on systems where the server itself does not.
        assert {str(pin.specifier) for pin in pins} == {str(pin.specifier) for pin in develops.get(name, [])}, (
            f"{name}: {HELP}"
        )
