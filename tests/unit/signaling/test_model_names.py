"""Which names stand for the loaded model."""

import pytest

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings
from signaling.model_names import require_served


@pytest.mark.parametrize(
    "name",
    [
        None,
        "tiny.en",
        "nova",
        "nova-3",
        "NOVA-2-phonecall",
        "base",
        "whisper-1",
        "gpt-4o-mini-transcribe",
        "gpt-transcribe",
    ],
)
def test_the_loaded_model_and_what_vendors_clients_send_are_served(name: str | None) -> None:
    require_served(name, loaded="tiny.en", aliases=Settings().model_aliases)


@pytest.mark.parametrize(
    ("name", "aliases"), [("large-v3", ["nova-*"]), ("base.en", ["base", "base-*"]), ("nova-3", []), ("", ["nova-*"])]
)
def test_another_name_is_refused_with_what_may_be_asked_for(name: str, aliases: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        require_served(name, loaded="tiny.en", aliases=aliases)
    assert refused.value.code == "MODEL_NOT_LOADED"
    assert "tiny.en" in refused.value.hint
