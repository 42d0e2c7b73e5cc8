"""What is speech, and when somebody has finished."""

from __future__ import annotations

from enum import StrEnum

from mediaserver.settings.room import Group, Milliseconds, Room

knob = Group.AUDIO.knob


class Denoise(StrEnum):
    """Noise suppressors; what each costs and does to word errors is in benchmarks/RESULTS.md."""

    OFF = "off"
    SPEEX = "speex"
    SPECTRAL_GATE = "spectral_gate"


class DenoiseBranch(StrEnum):
    """Who hears the denoised signal."""

    VAD = "vad"
    BOTH = "both"


class TurnDetection(StrEnum):
    """What decides that somebody has finished; what each cuts and costs is in benchmarks/RESULTS.md."""

    SILENCE = "silence"
    SEMANTIC = "semantic"


class AudioSettings(Room):
    """The settings of the group `audio`."""

    denoise: Denoise = knob(
        Denoise.OFF,
        "Noise suppressor: `off`, `speex` (cheap, streaming) or `spectral_gate` (noisereduce).",
    )
    denoise_branch: DenoiseBranch = knob(
        DenoiseBranch.VAD,
        "Who hears the denoised signal: the `vad` alone, or `both` it and the decoder, which hears better without.",
    )
    vad_threshold: float = knob(0.5, "Speech probability from which a frame counts as speech.", gt=0, lt=1)
    endpointing_ms: Milliseconds = knob(500, "Silence in ms that ends an utterance.", ge=100, le=10_000)
    pre_roll_ms: Milliseconds = knob(300, "Audio in ms kept before speech was noticed.", ge=0, le=2000)
    min_speech_ms: Milliseconds = knob(250, "Shortest speech in ms that is decoded at all.", ge=0, le=2000)
    max_utterance_s: float = knob(
        20.0, "Longest utterance in seconds; longer speech is cut between words.", ge=5, le=28
    )
    turn_detection: TurnDetection = knob(
        TurnDetection.SILENCE,
        "What ends an utterance: `silence` alone, or also what a model makes of each pause (`semantic`): shorter waits "
        "after finished sentences, longer ones within.",
    )
    turn_model: bool = knob(
        False,
        "Load the end-of-turn model (9 MB) at start, so that sessions may choose `semantic`; "
        "done anyway where that is the node's own setting.",
    )
    turn_complete_ms: Milliseconds = knob(
        300, "With `semantic`: silence in ms that ends a finished turn.", ge=200, le=10_000
    )
    turn_incomplete_ms: Milliseconds = knob(
        1500, "With `semantic`: silence in ms that ends an unfinished turn.", ge=200, le=10_000
    )
    utterance_end_ms: Milliseconds | None = knob(
        None,
        "Gap in ms after the last word at which `utterance_end` is sent; unset, it is sent with the final.",
        ge=100,
        le=10_000,
    )
    settle_max_ms: Milliseconds = knob(
        5000,
        "With `settled_finals`: longest time in ms for which a final is held until it has settled.",
        ge=500,
        le=30_000,
    )

    @property
    def wants_turn_model(self) -> bool:
        """Whether this node loads the end-of-turn model."""
        return self.turn_model or self.turn_detection is TurnDetection.SEMANTIC
