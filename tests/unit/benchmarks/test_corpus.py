"""Finding, choosing and reading recordings."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.corpus import DATA_VARIABLE, MANIFEST, Recording, find, find_folder, load, load_fixtures, read_audio
from mediaserver.errors import ConfigError


def write_manifest(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return folder


def row(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "duration_s": 5.0, "text": "hello", "language": "en", "category": "read", **more}


def write_wav(path: Path, samples: np.ndarray[Any, Any], rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        *(row(f"read/alpha/{k}.flac") for k in range(5)),
        *(row(f"read/beta/{k}.flac", duration_s=20.0) for k in range(2)),
        row("read/gamma/0.flac", language="en-GB", rms_dbfs=-60.0),
        row("noise/rain/0.flac", category="noise", text=None, language=None),
        row("talk/x/0.flac", category="talk", segments=[{"start": 0, "end": 3}, {"start": 2, "end": 4}]),
        row("talk/x/1.flac", category="talk", segments=[{"start": 0, "end": 2}, {"start": 2, "end": 4}]),
        row("read/delta/0.flac", language="fr-FR"),
    ]


def test_recordings_are_chosen_by_what_is_asked(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    corpus = load(write_manifest(tmp_path, rows))
    assert len(corpus.select(categories=["read"], languages=["en"])) == 8
    assert [item.path for item in corpus.select(languages=["fr"])] == ["read/delta/0.flac"]
    assert [item.path for item in corpus.select(collections=["gamma"])] == ["read/gamma/0.flac"]
    assert len(corpus.select(categories=["read"], min_s=10)) == 2
    assert len(corpus.select(categories=["read"], max_s=10)) == 7
    assert len(corpus.select(categories=["read"], min_dbfs=-50)) == 8  # an unknown level passes
    assert len(corpus.select(categories=["noise"], with_text=False)) == 1


def test_without_a_text_or_with_overlapping_turns_nothing_can_be_scored(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    corpus = load(write_manifest(tmp_path, rows))
    assert corpus.select(categories=["noise"]) == []
    assert [item.path for item in corpus.select(categories=["talk"])] == ["talk/x/1.flac"]


def test_a_limit_counts_per_category_and_takes_from_every_collection(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    corpus = load(write_manifest(tmp_path, rows))
    chosen = corpus.select(categories=["read", "talk"], languages=["en"], limit=3)
    assert [item.collection for item in chosen] == ["alpha", "beta", "gamma", "x"]


def test_a_smaller_subset_lies_within_a_larger_one_whatever_the_order(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    corpus = load(write_manifest(tmp_path / "a", rows))
    turned = load(write_manifest(tmp_path / "b", rows[::-1]))
    small = [item.path for item in corpus.select(categories=["read"], limit=4)]
    large = [item.path for item in corpus.select(categories=["read"], limit=7)]
    assert large[:4] == small
    assert [item.path for item in turned.select(categories=["read"], limit=4)] == small


def test_training_sets_are_known(tmp_path: Path) -> None:
    def of(path: str) -> Recording:
        return Recording(folder=tmp_path, path=path, duration_s=1.0)

    assert of("english-read/ljspeech/a.flac").seen_in_training
    assert of("english-read/librispeech-train-clean-100-cased/a.flac").seen_in_training
    assert not of("english-read/librispeech-test-other/a.flac").seen_in_training


def test_the_folder_is_what_was_given_then_the_variable_then_what_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    assert find_folder(None, checkout=checkout) is None
    beside = write_manifest(tmp_path / "shared" / "data", [row("a/b/c.flac")])
    assert find_folder(None, checkout=checkout) == beside
    monkeypatch.setenv(DATA_VARIABLE, "/elsewhere")
    assert find_folder(None, checkout=checkout) == Path("/elsewhere")
    assert find_folder(tmp_path, checkout=checkout) == tmp_path


@pytest.mark.parametrize("line", ["not json", '{"path": "a.flac"}', '{"path": "a.flac", "duration_s": 0}', "[1]"])
def test_a_bad_manifest_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(row("a/b.flac")) + "\n" + line + "\n")
    with pytest.raises(ConfigError, match="Line 2") as caught:
        load(tmp_path)
    assert caught.value.code == "BAD_MANIFEST"


def test_a_folder_without_a_manifest_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find(tmp_path)
    assert caught.value.code == "NO_CORPUS"
    with pytest.raises(ConfigError):
        load_fixtures(tmp_path)


def test_the_projects_own_speech_is_a_corpus(speeches: dict[str, Any]) -> None:
    folder = next(iter(speeches.values())).path.parent
    corpus = load_fixtures(folder)
    chosen = corpus.select(languages=["en"])
    assert {Path(item.path).stem for item in chosen} == set(speeches)
    for item in chosen:
        assert len(item.read()) / 16_000 == pytest.approx(item.duration_s, abs=0.02)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_audio_comes_out_at_16_khz_whatever_its_rate(tmp_path: Path, rate: int) -> None:
    times_s = np.arange(rate) / rate
    write_wav(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * times_s), rate)
    samples = read_audio(tmp_path / "tone.wav")
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(16_000, abs=64)
    spectrum = np.abs(np.fft.rfft(samples[:16_000]))
    assert np.argmax(spectrum) * 16_000 / min(len(samples), 16_000) == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_what_is_not_audio_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_text("not audio")
    for name in ("a.flac", "missing.flac"):
        with pytest.raises(ConfigError) as caught:
            read_audio(tmp_path / name)
        assert caught.value.code == "BAD_AUDIO"
