"""What a client may choose for its session; the rest is the node's (`mediaserver.settings`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import PydanticCustomError

from mediaserver.errors import ConfigError
from mediaserver.settings import MAX_HOTWORDS, MAX_PROMPT_LETTERS, HotWord

MAX_LANGUAGES = 100
"""As many as Whisper knows."""

MAX_METADATA_FIELDS, MAX_METADATA_NAME_LETTERS, MAX_METADATA_LETTERS = 16, 64, 256
"""A caller, a call's id and a dozen more: they go out again with every event."""

MAX_CHANNELS = 8
"""Channels of one connection: stereo calls have two, meeting recorders up to eight."""

MAX_LABEL_LETTERS = 64

MAX_ENTRIES = 1000
"""Of a list or an object, known before each of them is judged: what is wrong with a hundred thousand takes seconds."""

MAX_PROBLEMS = 50
"""Named in one refusal: what is nonsense throughout need not be said of each part."""

MAX_UNKNOWN_NAMED, MAX_NAME_LETTERS = 20, 80
"""So many unknown fields, and so much of a name, are quoted in a refusal."""


def _bounded(value: object) -> object:
    if isinstance(value, list | dict) and len(value) > MAX_ENTRIES:
        raise PydanticCustomError("too_many", "has more than {most} entries", {"most": MAX_ENTRIES})
    return value


def _listed(value: object) -> object:
    """A URL has no lists: what is separated by commas is one."""
    if not isinstance(value, str):
        return _bounded(value)
    return _bounded([part.strip() for part in value.split(",") if part.strip()])


def _parsed(value: object) -> object:
    """A URL has no objects: a JSON object in a string is one."""
    if not isinstance(value, str):
        return _bounded(value)
    try:
        return _bounded(json.loads(value))
    except (ValueError, RecursionError):
        return value  # refused as what it is, a string


Listed = Annotated[list[str], BeforeValidator(_listed)]
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_LETTERS)]
Labels = Annotated[list[Label], BeforeValidator(_listed)]
MetadataName = Annotated[str, Field(min_length=1, max_length=MAX_METADATA_NAME_LETTERS)]
MetadataText = Annotated[str, Field(max_length=MAX_METADATA_LETTERS)]
HotWords = Annotated[list[HotWord], BeforeValidator(_listed)]


class SessionConfig(BaseModel):
    """What a client may choose for its session, by `configure` or in the URL. Unset fields take the node's setting."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    language: str | None = Field(None, description="Language code; unset is detected by a multilingual model.")
    languages: Listed | None = Field(
        None,
        max_length=MAX_LANGUAGES,
        description="Codes that detection chooses from; in a URL separated by commas.",
    )
    prompt: str | None = Field(
        None,
        max_length=MAX_PROMPT_LETTERS,
        description="Text before what is heard, in the spelling to go on with. Whisper takes about 220 tokens, some "
        "150 words, of prompt and hot words together: of a longer prompt its end counts.",
    )
    hotwords: HotWords | None = Field(
        None,
        validation_alias=AliasChoices("hotwords", "custom_vocabulary"),
        max_length=MAX_HOTWORDS,
        description="Words to expect (names, terms), as they are to be written; in a URL separated by commas. About "
        "40 count, the first ones. Also called `custom_vocabulary`.",
    )
    model: str | None = Field(None, description="The model; only the one that the node has loaded is accepted.")
    interim_results: bool = Field(True, description="Whether interims are sent.")
    revisions: bool = Field(True, description="Whether finals are corrected once more speech has been heard.")
    settled_finals: bool = Field(
        False,
        description="Hold each final back until it has settled, and send no revisions: for clients that know none.",
    )
    vad_enabled: bool = Field(
        True,
        description="Off: everything counts as speech, utterances end by `finalize` or length. Those in which nothing "
        "was even like speech have no final.",
    )
    endpointing_ms: int | None = Field(None, ge=100, le=10_000, description="Silence in ms that ends an utterance.")
    vad_threshold: float | None = Field(None, gt=0, lt=1, description="Speech probability that counts as speech.")
    pre_roll_ms: int | None = Field(None, ge=0, le=2000, description="Audio in ms kept before speech was noticed.")
    turn_detection: Literal["silence", "semantic"] | None = Field(
        None, description="What ends an utterance: silence alone, or also what a model makes of each pause."
    )
    turn_complete_ms: int | None = Field(
        None, ge=200, le=10_000, description="Silence in ms that ends a finished turn."
    )
    turn_incomplete_ms: int | None = Field(
        None, ge=200, le=10_000, description="Silence in ms that ends an unfinished turn."
    )
    utterance_end_ms: int | None = Field(
        None, ge=100, le=10_000, description="Gap in ms after the last word at which `utterance_end` is sent."
    )
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="Confidence below which a word is marked `low_confidence`; none is left out."
    )
    denoise: Literal["off", "speex", "spectral_gate"] | None = Field(None, description="Noise suppressor.")
    denoise_branch: Literal["vad", "both"] | None = Field(None, description="Who hears the denoised signal.")

    metadata: Annotated[dict[MetadataName, MetadataText], BeforeValidator(_parsed)] = Field(
        default_factory=dict,
        max_length=MAX_METADATA_FIELDS,
        description="The client's own fields (caller, call id …), given back with every event; in a URL a JSON object.",
    )
    channel_labels: Labels = Field(
        default_factory=list,
        max_length=MAX_CHANNELS,
        description="What the channels are called, in their order; in a URL separated by commas.",
    )

    _fixed: frozenset[str] = PrivateAttr(frozenset())

    def fixed(self, values: Mapping[str, Any]) -> Self:
        """This configuration with fields that somebody else decides; the client may repeat them, not change them.

        Raises:
            ConfigError: FIXED_BY_TOKEN, or fields that are unknown or of wrong types.
        """
        config = self.merged(dict(values))
        _require_same(self, config, self.model_fields_set & set(values))
        config._fixed = self._fixed | frozenset(values)
        return config

    def merged(self, changes: object) -> Self:
        """This configuration with the fields of a `configure` message changed.

        Raises:
            ConfigError: unknown fields or wrong types; the message names each one.
        """
        if not isinstance(changes, dict):
            raise ConfigError(
                "INVALID_CONFIG", "`config` is not an object.", 'Send {"type":"configure","config":{"language":"en"}}.'
            )
        known = {*type(self).model_fields, "custom_vocabulary"}
        unknown = [name for name in changes if name not in known]
        if len(unknown) > MAX_UNKNOWN_NAMED:
            raise ConfigError(
                "INVALID_CONFIG",
                f"Configuration refused: {len(unknown)} fields are not known, {str(unknown[0])[:MAX_NAME_LETTERS]!r} "
                "among them.",
                "Known fields: " + ", ".join(sorted(known)) + ".",
            )
        kept = self.model_dump(exclude_unset=True)
        if "custom_vocabulary" in changes:  # another name of `hotwords`: what is kept of these is not a second value
            kept.pop("hotwords", None)
        try:
            config = self.model_validate({**kept, **changes})
        except ValidationError as exc:
            raise config_error(exc, known=sorted(type(self).model_fields)) from exc
        _require_same(self, config, self._fixed)
        config._fixed = self._fixed
        return config


def _require_same(one: SessionConfig, other: SessionConfig, fields: Iterable[str]) -> None:
    changed = sorted(name for name in fields if getattr(one, name) != getattr(other, name))
    if changed:
        raise ConfigError(
            "FIXED_BY_TOKEN",
            f"The join token decides {', '.join(f'`{name}`' for name in changed)}, and not the client.",
            "Leave that out, or get a token that does not say it.",
        )


def config_error(exc: ValidationError, *, known: list[str]) -> ConfigError:
    """A validation failure as one error that names every field and what is wrong with it, up to `MAX_PROBLEMS`."""
    found = exc.errors(include_url=False, include_context=False, include_input=False)
    problems = [
        f"`{'.'.join(str(part)[:MAX_NAME_LETTERS] for part in item['loc'])}`: "
        + ("is not a known field" if item["type"] == "extra_forbidden" else item["msg"][0].lower() + item["msg"][1:])
        for item in found[:MAX_PROBLEMS]
    ]
    if len(found) > MAX_PROBLEMS:
        problems.append(f"and {len(found) - MAX_PROBLEMS} more")
    return ConfigError(
        "INVALID_CONFIG",
        "Configuration refused: " + "; ".join(problems) + ".",
        "Known fields: " + ", ".join(known) + ".",
    )
