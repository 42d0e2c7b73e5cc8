"""A session's own fields (caller, call id …) from a request's header, for clients that cannot change the URL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from mediaserver.errors import ConfigError
from mediaserver.session_config import SessionConfig

Config = TypeVar("Config", bound=SessionConfig)

METADATA_HEADER = "X-VoiceForge-Metadata"
"""A JSON object of texts: `{"caller":"+49 30 1234","call_id":"a7"}`."""


def with_header_metadata(config: Config, headers: Mapping[str, str]) -> Config:
    """The configuration with the header's fields; where the URL names a field too, the URL's counts.

    Raises:
        ConfigError: INVALID_METADATA, if the header is no JSON object; INVALID_CONFIG, if its fields are no texts, too
            long or too many.
    """
    header = headers.get(METADATA_HEADER)
    if header is None:
        return config
    try:
        fields = json.loads(header)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(
            "INVALID_METADATA",
            f"The header {METADATA_HEADER} is not a JSON object.",
            'Send texts: {"caller":"+49 30 1234"}.',
        )
    return config.merged({"metadata": {**fields, **config.metadata}})
