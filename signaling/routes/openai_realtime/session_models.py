"""The session object of OpenAI's transcription sessions, in today's shape and in the legacy one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mediaserver.session_config import MAX_LANGUAGES
from mediaserver.settings import MAX_HOTWORDS, MAX_PROMPT_LETTERS, HotWord

LOGPROBS: Literal["item.input_audio_transcription.logprobs"] = "item.input_audio_transcription.logprobs"

MODEL_LETTERS = 100


Include = Annotated[list[Literal["item.input_audio_transcription.logprobs"]], Field(fail_fast=True)]


class Strict(BaseModel):
    """What a client sends: nothing unknown, nothing of a wrong type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PcmFormat(Strict):
    """16-bit little-endian mono. Of no consequence over WebRTC, whose audio is RTP."""

    type: Literal["audio/pcm"]
    rate: int = Field(default=24_000, ge=8000, le=48_000, description="Hz. OpenAI takes 24000 only.")


class PcmuFormat(Strict):
    """G.711 mu-law, 8 kHz."""

    type: Literal["audio/pcmu"]


class PcmaFormat(Strict):
    """G.711 A-law, 8 kHz."""

    type: Literal["audio/pcma"]


Format = Annotated[PcmFormat | PcmuFormat | PcmaFormat, Field(discriminator="type")]


class NoiseReduction(Strict):
    """What takes noise out: of what the VAD hears, or of all that is heard, as the node is set (`denoise_branch`)."""

    type: Literal["near_field", "far_field"] = Field(
        description="`near_field`: Speex, for headsets; `far_field`: spectral gating, for rooms."
    )


class Transcription(Strict):
    """What is written down, and how."""

    model: Annotated[str, Field(max_length=MODEL_LETTERS)] | None = Field(
        default=None, description="The node's model, or a name that its `model_aliases` let stand for it."
    )
    language: str | None = Field(default=None, description="ISO 639-1 code; unset is detected by a multilingual model.")
    languages: list[str] | None = Field(
        default=None, max_length=MAX_LANGUAGES, description="Codes that detection chooses from."
    )
    prompt: str | None = Field(
        default=None,
        max_length=MAX_PROMPT_LETTERS,
        description="Text before what is heard, in the spelling to go on with.",
    )
    keywords: list[HotWord] | None = Field(
        default=None, max_length=MAX_HOTWORDS, description="Words to expect, as they are to be written."
    )


class _TurnDetection(Strict):
    create_response: bool | None = Field(
        default=None, description="Without effect: nobody answers in a transcription session."
    )
    interrupt_response: bool | None = Field(
        default=None, description="Without effect: nobody answers in a transcription session."
    )


class ServerVad(_TurnDetection):
    """A silence ends what is said."""

    type: Literal["server_vad"]
    threshold: float | None = Field(default=None, gt=0, lt=1, description="Speech probability that counts as speech.")
    prefix_padding_ms: int | None = Field(
        default=None, ge=0, le=2000, description="Audio kept before speech was noticed."
    )
    silence_duration_ms: int | None = Field(default=None, ge=100, le=10_000, description="Silence that ends it.")


class SemanticVad(_TurnDetection):
    """A model says at each pause whether somebody has finished. Needs a node with `turn_model`."""

    type: Literal["semantic_vad"]
    eagerness: Literal["auto", "low", "medium", "high"] | None = Field(
        default=None,
        description="How long an unfinished turn is waited for: 8 s, 4 s or 2 s; a finished one 600, 300 or 200 ms. "
        "`auto` is `medium`.",
    )


TurnDetection = Annotated[ServerVad | SemanticVad, Field(discriminator="type")]


class AudioInput(Strict):
    """How audio comes and what is done with it. Null turns off what can be turned off; what is left out stays."""

    format: Format | None = Field(default=None, description="May change until the first audio has come.")
    noise_reduction: NoiseReduction | None = None
    transcription: Transcription | None = Field(default=None, description="Null: turns are told, no text.")
    turn_detection: TurnDetection | None = Field(
        default=None, description="Null: `input_audio_buffer.commit` ends items."
    )


class Audio(Strict):
    """There is no output."""

    input: AudioInput | None = None


class Session(Strict):
    """A transcription session as a client asks for it."""

    type: Literal["transcription"] = "transcription"
    include: Include | None = Field(
        default=None, description="Log-probabilities of words; a token is a word with what stands before and after it."
    )
    audio: Audio | None = None


class TranscriptionSession(Session):
    """A transcription session as it is."""

    object: Literal["realtime.transcription_session"] = "realtime.transcription_session"
    id: str
    expires_at: int | None = Field(default=None, description="When its connection is ended, seconds since 1970.")


class ExpiresAfter(Strict):
    """When a secret ends."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=600, ge=10, le=7200)


class LegacySecret(Strict):
    """When the secret of a legacy session ends."""

    expires_at: ExpiresAfter | None = None
    expires_after: ExpiresAfter | None = None


class LegacySession(Strict):
    """A transcription session in its legacy, flat shape."""

    include: Include | None = None
    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] | None = None
    input_audio_noise_reduction: NoiseReduction | None = None
    input_audio_transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None
    modalities: list[Literal["text"]] | None = Field(default=None, description="Text is all there is.")


class LegacySessionRequest(LegacySession):
    """A legacy session with a secret for it."""

    client_secret: LegacySecret | None = None


class LegacyClientSecret(BaseModel):
    """A secret, told once."""

    value: str
    expires_at: int = Field(description="Seconds since 1970.")


class LegacyTranscriptionSession(LegacySession):
    """A legacy session as it is."""

    object: Literal["realtime.transcription_session"] = "realtime.transcription_session"
    id: str
    client_secret: LegacyClientSecret | None = None


class ClientSecretRequest(Strict):
    """Asks for a secret that opens sessions, of parameters that are chosen here."""

    expires_after: ExpiresAfter | None = None
    session: Session | None = None


class ClientSecretResponse(BaseModel):
    """A secret, told once."""

    value: str
    expires_at: int = Field(description="Seconds since 1970.")
    session: TranscriptionSession
