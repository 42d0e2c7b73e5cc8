"""Recordings with their references: where they are found, which are chosen, how they are read.

A corpus is a folder with a `manifest.jsonl`: one JSON object a line with `path` (relative to the folder) and
`duration_s`, and where they are known `text`, `language`, `speaker`, `category`, `segments`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import ConfigError

MANIFEST = "manifest.jsonl"
FIXTURES = "speech.json"
DATA_VARIABLE = "VOICEFORGE_DATA"

SYNTHETIC = "synthetic"
"""Category of speech that a program made. Easier than people: its error rates are no measure of accuracy."""

OVERLAP_TOLERANCE_S = 0.1
"""Turns that overlap by more than this have no one right order of words, so one text cannot be scored against them."""

SEEN_IN_TRAINING = ("librispeech-train", "librispeech-chapters", "librispeech-singles", "ljspeech")
"""Collections that many models were trained on: their error rates flatter, and are told apart in the results."""


class Turn(BaseModel):
    """Who speaks when within a recording, in seconds."""

    model_config = ConfigDict(frozen=True)
    start: float
    end: float
    speaker: str | None = None


class Recording(BaseModel):
    """One line of a manifest. `folder` is where its corpus lies; `text` is None where nobody wrote it down,
    `rms_dbfs` the level of the whole recording where it is known.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    folder: Path
    path: str
    duration_s: float = Field(gt=0)
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    category: str = "speech"
    rms_dbfs: float | None = None
    segments: tuple[Turn, ...] = ()

    @property
    def collection(self) -> str:
        """The published set it comes from: the folder that it lies in."""
        return Path(self.path).parent.name

    @property
    def language_code(self) -> str | None:
        """The language without its region: `en` of `en-GB`."""
        return self.language.split("-")[0] if self.language else None

    @property
    def seen_in_training(self) -> bool:
        """Whether models are known to be trained on the set that it comes from."""
        return self.collection.startswith(SEEN_IN_TRAINING)

    @property
    def has_overlap(self) -> bool:
        """Whether two people speak at once somewhere."""
        turns = sorted(self.segments, key=lambda turn: turn.start)
        return any(later.start < earlier.end - OVERLAP_TOLERANCE_S for earlier, later in itertools.pairwise(turns))

    def read(self) -> Samples:
        """The whole recording as [n] float32, 16 kHz mono, whatever the file's format.

        Raises:
            ConfigError: the file is missing or is not audio.
        """
        return read_audio(self.folder / self.path)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of recordings; `name` is what the results call it."""

    name: str
    folder: Path
    recordings: tuple[Recording, ...]

    def select(
        self,
        *,
        categories: Sequence[str] = (),
        languages: Sequence[str] = (),
        collections: Sequence[str] = (),
        with_text: bool = True,
        min_s: float = 0.0,
        max_s: float = float("inf"),
        min_dbfs: float = float("-inf"),
        limit: int | None = None,
    ) -> list[Recording]:
        """The recordings that fit, the same ones in the same order on every machine.

        Empty `categories`, `languages` or `collections` let all pass. `with_text` also leaves out recordings in which
        people speak at once. `limit` is a number of recordings *per category*.
        """
        found = [
            recording
            for recording in self.recordings
            if (not categories or recording.category in categories)
            and (not languages or recording.language_code in languages)
            and (not collections or recording.collection in collections)
            and (not with_text or (bool(recording.text) and not recording.has_overlap))
            and min_s <= recording.duration_s <= max_s
            and (recording.rms_dbfs is None or recording.rms_dbfs >= min_dbfs)
        ]
        by_category: dict[str, list[Recording]] = {}
        for recording in found:
            by_category.setdefault(recording.category, []).append(recording)
        return [item for name in sorted(by_category) for item in spread(by_category[name])[:limit]]


def spread(recordings: Iterable[Recording]) -> list[Recording]:
    """Recordings in an order whose every beginning is a fair sample: one of each collection in turn, by hash of path.

    So a shorter subset is contained in a longer one, and adding a file moves no other.
    """
    piles: dict[str, list[Recording]] = {}
    for recording in sorted(recordings, key=lambda item: hashlib.sha256(item.path.encode()).digest()):
        piles.setdefault(recording.collection, []).append(recording)
    rounds = max((len(pile) for pile in piles.values()), default=0)
    return [piles[name][turn] for turn in range(rounds) for name in sorted(piles) if turn < len(piles[name])]


def load(folder: Path, *, name: str | None = None) -> Corpus:
    """Read the manifest of a corpus.

    Raises:
        ConfigError: there is no manifest, or a line of it is not one.
    """
    manifest = folder / MANIFEST
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise ConfigError(
            "NO_CORPUS",
            f"{manifest} cannot be read.",
            f"Name a folder with a {MANIFEST} by --data or {DATA_VARIABLE}, or leave both out for synthetic speech.",
        ) from exc
    recordings = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            recordings.append(Recording.model_validate({**_plain(json.loads(line)), "folder": folder}))
        except (ValidationError, ValueError) as exc:
            raise ConfigError(
                "BAD_MANIFEST", f"Line {number} of {manifest} is not a recording: {exc}.", "Correct or remove it."
            ) from exc
    return Corpus(name or folder.resolve().name, folder, tuple(recordings))


def load_fixtures(folder: Path) -> Corpus:
    """The project's own synthetic speech: a folder with a `speech.json`. For where there is no corpus.

    Raises:
        ConfigError: there is no such file.
    """
    try:
        rows = json.loads((folder / FIXTURES).read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(
            "NO_CORPUS",
            f"There is no corpus, and no {FIXTURES} in {folder} either.",
            f"Name a folder with a {MANIFEST} by --data or {DATA_VARIABLE}.",
        ) from exc
    return Corpus(
        "fixtures",
        folder,
        tuple(
            Recording(
                folder=folder,
                path=row["file"],
                duration_s=row["duration_s"],
                text=row["text"],
                language="en",
                speaker=row["voice"],
                category=SYNTHETIC,
            )
            for row in rows
        ),
    )


def find(given: Path | None) -> Corpus:
    """The corpus to use: by `find_folder`, else the fixtures of this checkout.

    Raises:
        ConfigError: neither is there.
    """
    checkout = Path(__file__).resolve().parents[1]
    folder = find_folder(given, checkout=checkout)
    return load(folder) if folder is not None else load_fixtures(checkout / "tests" / "fixtures" / "speech")


def _plain(row: object) -> dict[str, object]:
    """A manifest says null for what does not apply; absent says the same and lets the default in."""
    if not isinstance(row, dict):
        raise ValueError("it is not an object")
    return {key: value for key, value in row.items() if value is not None}


def find_folder(given: Path | None, *, checkout: Path) -> Path | None:
    """The folder of the corpus: what was given, else `VOICEFORGE_DATA`, else `shared/data` beside the checkout."""
    if given is not None:
        return given
    if named := os.environ.get(DATA_VARIABLE):
        return Path(named)
    beside = checkout.parent / "shared" / "data"
    return beside if (beside / MANIFEST).is_file() else None


def read_audio(path: Path) -> Samples:
    """Decode a file to [n] float32, 16 kHz mono.

    Raises:
        ConfigError: the file is missing or is not audio.
    """
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    pieces: list[Samples] = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                pieces.extend(_mono(part) for part in resampler.resample(frame))
            pieces.extend(_mono(part) for part in resampler.resample(None))
    except (OSError, av.error.FFmpegError, IndexError) as exc:
        raise _bad_audio(path, str(exc)) from exc
    if not pieces:
        raise _bad_audio(path, "there is none in it")
    return np.concatenate(pieces)


def _bad_audio(path: Path, reason: str) -> ConfigError:
    return ConfigError("BAD_AUDIO", f"{path} cannot be read as audio: {reason}.", "Check that the corpus is complete.")


def _mono(frame: av.AudioFrame) -> Samples:
    return frame.to_ndarray().reshape(-1).astype(np.float32, copy=False)
