"""What holds for one session: its client's choices, and the node's settings for what the client left open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from mediaserver.audio.endpoint import EndpointerConfig, TurnWaits
from mediaserver.decoder.window import Decoder
from mediaserver.errors import ConfigError
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Denoise, DenoiseBranch, Settings, TurnDetection


class EffectiveConfig(BaseModel):
    """What is in force for a session, defaults included; the words are those of its configuration."""

    language: str | None = Field(description="Code, or null where it is detected.")
    languages: list[str] = Field(description="Codes that detection chooses from; none is all that the model knows.")
    prompt: str | None
    hotwords: list[str]
    model: str
    interim_results: bool
    revisions: bool
    settled_finals: bool
    vad_enabled: bool
    endpointing_ms: int
    vad_threshold: float
    pre_roll_ms: int
    turn_detection: Literal["silence", "semantic"]
    turn_complete_ms: int
    turn_incomplete_ms: int
    utterance_end_ms: int | None
    min_confidence: float
    denoise: Denoise
    denoise_branch: DenoiseBranch


@dataclass(frozen=True, slots=True)
class Effective:
    """A session's configuration with nothing left open.

    Args:
        language: code, or None where it is to be detected.
        languages: codes that detection chooses from; none is all that the model knows.
        prompt: text before what is heard, or None.
        hotwords: words to expect.
        model: the model that the node has loaded.
        interim_results: whether interims are sent.
        revisions: whether finals are corrected later.
        hold_ms: how long a final may be held until it has settled; None where it is told at once.
        vad_enabled: off: everything counts as speech.
        endpointer: what begins and ends an utterance.
        turn_waits: what `semantic` waits, whether or not it is chosen.
        utterance_end_ms: gap after the last word, or None where `utterance_end` comes with the final.
        min_confidence: words below it are marked.
        denoise: which suppressor.
        denoise_branch: who hears it.
    """

    language: str | None
    languages: tuple[str, ...]
    prompt: str | None
    hotwords: tuple[str, ...]
    model: str
    interim_results: bool
    revisions: bool
    hold_ms: int | None
    vad_enabled: bool
    endpointer: EndpointerConfig
    turn_waits: TurnWaits
    utterance_end_ms: int | None
    min_confidence: float
    denoise: Denoise
    denoise_branch: DenoiseBranch

    @classmethod
    def of(cls, config: SessionConfig, settings: Settings, decoder: Decoder) -> Effective:
        """Fill in what the client left open.

        Raises:
            ConfigError: the client wants a model, a language or an end-of-turn model that is not there.
        """
        if config.model is not None and config.model != decoder.model_name:
            raise ConfigError(
                "MODEL_NOT_LOADED",
                f"`model`: this node has {decoder.model_name!r} loaded, not {config.model!r}.",
                "Leave `model` out, or start a node with the model that you want.",
            )
        for field, asked in (
            ("language", [config.language] if config.language else []),
            ("languages", config.languages),
        ):
            unknown = [code for code in asked or [] if code not in decoder.languages]
            if unknown:
                raise ConfigError(
                    "UNKNOWN_LANGUAGE",
                    f"`{field}`: {decoder.model_name!r} does not know {', '.join(map(repr, unknown))}.",
                    f"It knows {', '.join(decoder.languages)}.",
                )
        turn_detection = TurnDetection(config.turn_detection or settings.turn_detection)
        if turn_detection is TurnDetection.SEMANTIC and not settings.wants_turn_model:
            raise ConfigError(
                "TURN_MODEL_NOT_LOADED",
                "`turn_detection`: this node has no end-of-turn model loaded.",
                "Leave `turn_detection` out, or start a node with `turn_model` switched on.",
            )
        turn_waits = TurnWaits(
            complete_ms=settings.turn_complete_ms if config.turn_complete_ms is None else config.turn_complete_ms,
            incomplete_ms=settings.turn_incomplete_ms
            if config.turn_incomplete_ms is None
            else config.turn_incomplete_ms,
        )
        only = decoder.languages[0] if len(decoder.languages) == 1 else None
        return cls(
            language=only or config.language or (None if config.languages else settings.language),
            languages=tuple(config.languages or settings.languages),
            prompt=settings.prompt if config.prompt is None else config.prompt,
            hotwords=tuple(settings.hotwords if config.hotwords is None else config.hotwords),
            model=decoder.model_name,
            interim_results=config.interim_results,
            revisions=config.revisions,
            hold_ms=settings.settle_max_ms if config.settled_finals else None,
            vad_enabled=config.vad_enabled,
            endpointer=EndpointerConfig(
                threshold=settings.vad_threshold if config.vad_threshold is None else config.vad_threshold,
                endpointing_ms=settings.endpointing_ms if config.endpointing_ms is None else config.endpointing_ms,
                pre_roll_ms=settings.pre_roll_ms if config.pre_roll_ms is None else config.pre_roll_ms,
                min_speech_ms=settings.min_speech_ms,
                max_utterance_s=settings.max_utterance_s,
                turn_waits=turn_waits if turn_detection is TurnDetection.SEMANTIC else None,
            ),
            turn_waits=turn_waits,
            utterance_end_ms=(
                settings.utterance_end_ms if config.utterance_end_ms is None else config.utterance_end_ms
            ),
            min_confidence=settings.min_confidence if config.min_confidence is None else config.min_confidence,
            denoise=Denoise(config.denoise or settings.denoise),
            denoise_branch=DenoiseBranch(config.denoise_branch or settings.denoise_branch),
        )

    def as_dict(self) -> dict[str, object]:
        """What `ready` tells the client."""
        return self.told().model_dump(mode="json")

    def told(self) -> EffectiveConfig:
        """What clients may know of it."""
        return EffectiveConfig(
            language=self.language,
            languages=list(self.languages),
            prompt=self.prompt,
            hotwords=list(self.hotwords),
            model=self.model,
            interim_results=self.interim_results,
            revisions=self.revisions,
            settled_finals=self.hold_ms is not None,
            vad_enabled=self.vad_enabled,
            endpointing_ms=self.endpointer.endpointing_ms,
            vad_threshold=self.endpointer.threshold,
            pre_roll_ms=self.endpointer.pre_roll_ms,
            turn_detection="semantic" if self.endpointer.turn_waits else "silence",
            turn_complete_ms=self.turn_waits.complete_ms,
            turn_incomplete_ms=self.turn_waits.incomplete_ms,
            utterance_end_ms=self.utterance_end_ms,
            min_confidence=self.min_confidence,
            denoise=self.denoise,
            denoise_branch=self.denoise_branch,
        )
