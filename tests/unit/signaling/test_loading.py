"""What is loaded at start, and what only where it is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.remote.server import EngineServer
from mediaserver.errors import ModelError, VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings, TurnDetection
from signaling.loading import load_models
from tests.unit.signaling.front_door import FakeEngine


@pytest.mark.parametrize(
    ("settings", "is_wanted"),
    [
        (Settings(), False),
        (Settings(turn_model=True), True),
        (Settings(turn_detection=TurnDetection.SEMANTIC), True),
    ],
)
async def test_the_end_of_turn_model_is_loaded_where_it_is_wanted_and_let_go(
    settings: Settings, is_wanted: bool, model_files: ModelFiles, turn_model_path: Path, no_leaked_threads: None
) -> None:
    loaded = await load_models(settings, Metrics())
    assert (loaded.turns is not None) == is_wanted
    await loaded.close()


async def test_a_missing_end_of_turn_model_stops_the_start_with_a_sentence(
    model_files: ModelFiles, vad_model_path: Path, tmp_path: Path, no_leaked_threads: None
) -> None:
    for directory in (model_files.directory, vad_model_path.parent):
        (tmp_path / directory.name).symlink_to(directory)
    with pytest.raises(ModelError) as caught:
        await load_models(Settings(turn_model=True, model_fetch=False, model_dir=tmp_path), Metrics())
    assert caught.value.code == "MODEL_MISSING"
    assert "voiceforge models fetch smart-turn" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"language": "de"}, "`language`: 'tiny.en' does not know 'de'"),
        ({"languages": ["en", "de", "fr"]}, "`languages`: 'tiny.en' does not know 'de', 'fr'"),
    ],
)
async def test_an_engine_at_a_socket_that_does_not_know_the_languages_stops_the_start(
    settings: dict[str, object],
    told: str,
    vad_model_path: Path,
    tmp_path: Path,
    no_leaked_threads: None,
    no_leaked_tasks: None,
) -> None:
    server = EngineServer(FakeEngine(), tmp_path / "engine")
    await server.start()
    try:
        with pytest.raises(VoiceForgeError) as caught:
            await load_models(Settings.model_validate({"engine_socket": tmp_path / "engine", **settings}), Metrics())
    finally:
        await server.close()
    assert caught.value.code == "UNKNOWN_LANGUAGE"
    assert told in str(caught.value)
