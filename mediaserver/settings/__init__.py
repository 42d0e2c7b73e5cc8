"""Every knob, typed, with its unit and its default: a room for each group, put together here.

Order of precedence: command-line flags, environment (`VOICEFORGE_*`), `voiceforge.toml`, default. The descriptions
here are the reference: `voiceforge serve --help` and `docs/settings.md` are made from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from mediaserver.settings.access import AccessSettings, KeylessAccess
from mediaserver.settings.audio import AudioSettings, Denoise, DenoiseBranch, TurnDetection
from mediaserver.settings.cluster import ClusterSettings, StateAway
from mediaserver.settings.decoder import (
    MAX_HOTWORD_LETTERS,
    MAX_HOTWORDS,
    MAX_PROMPT_LETTERS,
    DecoderSettings,
    HotWord,
)
from mediaserver.settings.recordings import RecordingSettings
from mediaserver.settings.room import Group
from mediaserver.settings.seeing import SeeingSettings
from mediaserver.settings.server import ServerSettings
from mediaserver.settings.sessions import SessionSettings, WebhookBatch
from mediaserver.settings.webrtc import STRONG_LETTERS, WebrtcSettings

__all__ = [
    "MAX_HOTWORDS",
    "MAX_HOTWORD_LETTERS",
    "MAX_PROMPT_LETTERS",
    "SETTINGS_FILE",
    "STRONG_LETTERS",
    "Denoise",
    "DenoiseBranch",
    "Group",
    "HotWord",
    "KeylessAccess",
    "Settings",
    "StateAway",
    "TurnDetection",
    "WebhookBatch",
]

SETTINGS_FILE = Path("voiceforge.toml")


class Settings(  # the last room's settings come first: pydantic collects them from the end of the bases
    RecordingSettings,
    SessionSettings,
    DecoderSettings,
    AudioSettings,
    WebrtcSettings,
    SeeingSettings,
    ClusterSettings,
    AccessSettings,
    ServerSettings,
    BaseSettings,
):
    """The settings of one node."""

    model_config = SettingsConfigDict(
        env_prefix="VOICEFORGE_",
        env_parse_none_str="unset",  # so that a variable can take back what the file says
        toml_file=SETTINGS_FILE,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    @model_validator(mode="after")
    def _redis_needs_a_secret(self) -> Self:
        if self.redis_url is not None and self.token_secret is None:
            raise ValueError("`redis_url` needs `token_secret`, the same for all nodes: they take each other's tokens")
        return self

    @model_validator(mode="after")
    def _nodes_share_a_secret(self) -> Self:
        if self.node_address is not None and self.token_secret is None:
            raise ValueError("`node_address` needs `token_secret`, the same for all: servers know each other by it")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags (given to the constructor) win over environment, that over the file, that over defaults."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
