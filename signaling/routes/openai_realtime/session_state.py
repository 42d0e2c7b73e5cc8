"""What a client has asked for until now, and what that is for our own sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from mediaserver.errors import ConfigError
from mediaserver.ingest.bytestream import AudioFormat, Encoding
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Denoise, Settings, TurnDetection
from signaling.model_names import require_served
from signaling.routes.openai_realtime.errors import CONVERSATION, RealtimeError, invalid
from signaling.routes.openai_realtime.session_models import (
    LOGPROBS,
    Audio,
    AudioInput,
    LegacySession,
    LegacyTranscriptionSession,
    NoiseReduction,
    PcmaFormat,
    PcmFormat,
    PcmuFormat,
    SemanticVad,
    ServerVad,
    Session,
    Transcription,
    TranscriptionSession,
)

G711_RATE_HZ = 8000

LEGACY_FORMATS: Mapping[str, dict[str, Any]] = {
    "pcm16": {"type": "audio/pcm", "rate": 24_000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}

EAGERNESS_MS: Mapping[str, tuple[int, int]] = {"low": (600, 8000), "medium": (300, 4000), "high": (200, 2000)}
"""Silence that ends a finished and an unfinished turn. The longest waits are OpenAI's; a finished turn is ended by
`medium` as this server does by default."""

NOISE: Mapping[str, Denoise] = {"near_field": Denoise.SPEEX, "far_field": Denoise.SPECTRAL_GATE}


@dataclass(frozen=True, slots=True)
class SessionState:
    """The parameters of one session.

    Args:
        asked: what the client has asked for; what it left open is not set.
        is_legacy: whether the client last spoke of it in the legacy shape.
    """

    asked: Session = field(default_factory=Session)
    is_legacy: bool = False

    def updated(self, session: Session) -> SessionState:
        """With what an update in today's shape sets; what it leaves out stays, null turns off."""
        merged = _merged(self.asked.model_dump(exclude_unset=True), session.model_dump(exclude_unset=True))
        return SessionState(Session.model_validate(merged))

    def updated_legacy(self, session: LegacySession) -> SessionState:
        """With what an update in the legacy shape sets."""
        given = session.model_dump(exclude_unset=True, exclude={"modalities", "client_secret"})
        names = {
            "input_audio_noise_reduction": "noise_reduction",
            "input_audio_transcription": "transcription",
            "turn_detection": "turn_detection",
        }
        changes: dict[str, Any] = {name: given[flat] for flat, name in names.items() if flat in given}
        if (written := given.get("input_audio_format")) is not None:
            changes["format"] = LEGACY_FORMATS[written]
        include = {"include": given["include"]} if "include" in given else {}
        state = self.updated(Session.model_validate({**include, "audio": {"input": changes}}))
        return SessionState(state.asked, is_legacy=True)

    @property
    def with_logprobs(self) -> bool:
        """Whether the client wants log-probabilities."""
        return LOGPROBS in (self.asked.include or ())

    @property
    def transcribes(self) -> bool:
        """Whether the client wants text."""
        return "transcription" not in self._input.model_fields_set or self._input.transcription is not None

    @property
    def is_manual(self) -> bool:
        """Whether only the client says where an item ends."""
        return "turn_detection" in self._input.model_fields_set and self._input.turn_detection is None

    @property
    def audio_format(self) -> AudioFormat:
        """Of the audio that comes in messages."""
        match self._input.format:
            case PcmuFormat():
                return AudioFormat(Encoding.MULAW, G711_RATE_HZ)
            case PcmaFormat():
                return AudioFormat(Encoding.ALAW, G711_RATE_HZ)
            case PcmFormat(rate=rate):
                return AudioFormat(Encoding.LINEAR16, rate)
            case _:
                return AudioFormat(Encoding.LINEAR16, PcmFormat(type="audio/pcm").rate)

    def prefix_padding_ms(self, settings: Settings) -> int:
        """Audio that an item has from before speech was noticed."""
        turns = self._input.turn_detection
        asked = turns.prefix_padding_ms if isinstance(turns, ServerVad) else None
        return settings.pre_roll_ms if asked is None else asked

    def config(self) -> SessionConfig:
        """For our own sessions; every field that a client of this protocol can change is set."""
        given, turns = self._input, self._input.turn_detection
        said = given.transcription or Transcription()
        vad = turns if isinstance(turns, ServerVad) else None
        fields: dict[str, Any] = {
            "language": said.language,
            "languages": said.languages,
            "prompt": said.prompt,
            "hotwords": said.keywords,
            "interim_results": self.transcribes,
            "revisions": False,  # the protocol has no word for them
            "vad_enabled": not self.is_manual,
            "vad_threshold": vad.threshold if vad else None,
            "pre_roll_ms": vad.prefix_padding_ms if vad else None,
            "endpointing_ms": vad.silence_duration_ms if vad else None,
            "turn_detection": None if turns is None else "silence" if vad else "semantic",
            "turn_complete_ms": None,
            "turn_incomplete_ms": None,
            "denoise": None,
        }
        if isinstance(turns, SemanticVad):
            eagerness = "medium" if turns.eagerness in (None, "auto") else turns.eagerness
            fields["turn_complete_ms"], fields["turn_incomplete_ms"] = EAGERNESS_MS[eagerness or "medium"]
        if "noise_reduction" in given.model_fields_set:
            noise = given.noise_reduction
            fields["denoise"] = (Denoise.OFF if noise is None else NOISE[noise.type]).value
        return SessionConfig.model_validate(fields)

    def require_model(self, *, loaded: str, aliases: Sequence[str]) -> None:
        """Refuse a model that is not there.

        Raises:
            RealtimeError: MODEL_NOT_LOADED, or DIARIZATION_UNSUPPORTED.
        """
        given = self._input.transcription
        if given is not None:
            require_model(given.model, loaded=loaded, aliases=aliases, param="audio.input.transcription.model")

    def told(self, session_id: str, *, settings: Settings, model: str, expires_at: int | None) -> dict[str, Any]:
        """The session object with nothing left open, in today's shape."""
        session = TranscriptionSession(
            id=session_id,
            expires_at=expires_at,
            include=self.asked.include,
            audio=Audio(input=self._filled(settings, model)),
        )
        return session.model_dump(mode="json")

    def told_legacy(
        self, session_id: str, *, settings: Settings, model: str, secret: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The session object with nothing left open, in the legacy shape."""
        filled = self._filled(settings, model)
        written = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
        session = LegacyTranscriptionSession.model_validate(
            {
                "id": session_id,
                "modalities": ["text"],
                "include": self.asked.include,
                "input_audio_format": written[filled.format.type] if filled.format else None,
                "input_audio_noise_reduction": filled.noise_reduction,
                "input_audio_transcription": filled.transcription,
                "turn_detection": filled.turn_detection,
                "client_secret": secret,
            }
        )
        return session.model_dump(mode="json", exclude=None if secret else {"client_secret"})

    @property
    def _input(self) -> AudioInput:
        audio = self.asked.audio
        return AudioInput() if audio is None or audio.input is None else audio.input

    def _filled(self, settings: Settings, model: str) -> AudioInput:
        """The input with the node's own settings where the client left something open."""
        given = self._input
        said = given.transcription or Transcription()
        noise = given.noise_reduction
        if "noise_reduction" not in given.model_fields_set and settings.denoise is not Denoise.OFF:
            noise = NoiseReduction(type="near_field" if settings.denoise is Denoise.SPEEX else "far_field")
        return AudioInput(
            format=given.format or PcmFormat(type="audio/pcm"),
            noise_reduction=noise,
            transcription=said.model_copy(update={"model": model}) if self.transcribes else None,
            turn_detection=None if self.is_manual else _filled_turns(given.turn_detection, settings),
        )


def _filled_turns(given: ServerVad | SemanticVad | None, settings: Settings) -> ServerVad | SemanticVad:
    if isinstance(given, SemanticVad) or (given is None and settings.turn_detection is TurnDetection.SEMANTIC):
        eagerness = given.eagerness if isinstance(given, SemanticVad) else None
        return SemanticVad(type="semantic_vad", eagerness=eagerness or "auto", create_response=False)
    vad = given or ServerVad(type="server_vad")
    return ServerVad(
        type="server_vad",
        threshold=settings.vad_threshold if vad.threshold is None else vad.threshold,
        prefix_padding_ms=settings.pre_roll_ms if vad.prefix_padding_ms is None else vad.prefix_padding_ms,
        silence_duration_ms=settings.endpointing_ms if vad.silence_duration_ms is None else vad.silence_duration_ms,
        create_response=False,
        interrupt_response=False,
    )


def require_model(name: str | None, *, loaded: str, aliases: Sequence[str], param: str) -> None:
    """Refuse a model that is not there.

    Raises:
        RealtimeError: MODEL_NOT_LOADED, or DIARIZATION_UNSUPPORTED for one that would tell who speaks.
    """
    if name is not None and "diarize" in name.lower():
        raise RealtimeError(
            "DIARIZATION_UNSUPPORTED",
            f"`{param}`: this server does not tell speakers apart yet.",
            "Ask for a model without `diarize` in its name.",
            param=param,
        )
    try:
        require_served(name, loaded=loaded, aliases=aliases)
    except ConfigError as exc:
        raise RealtimeError(exc.code, exc.message, exc.hint, param=param) from exc


def parse_session(given: object, *, within: str, event_id: str | None = None) -> Session:
    """A session object in today's shape.

    Args:
        given: as the client sent it.
        within: where in its message the object lies, with a dot at its end.
        event_id: of the client's event.

    Raises:
        RealtimeError: names the first field that is wrong, or says that this server does not converse.
    """
    if isinstance(given, dict) and given.get("type") == "realtime":
        raise RealtimeError(
            "UNSUPPORTED_SESSION_TYPE",
            f"`{within}type`: there are no sessions of type `realtime` here. {CONVERSATION}",
            'Ask for {"type": "transcription", "audio": {"input": {…}}}.',
            param=f"{within}type",
            event_id=event_id,
        )
    try:
        return Session.model_validate(given)
    except ValidationError as exc:
        raise invalid(exc, within=within, event_id=event_id) from exc


def _merged(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Objects field by field, unless they are of another type now; everything else is replaced."""
    merged = dict(before)
    for name, value in changes.items():
        old = merged.get(name)
        is_same_kind = isinstance(old, dict) and isinstance(value, dict) and old.get("type") == value.get("type")
        merged[name] = _merged(old, value) if is_same_kind and isinstance(old, dict) else value
    return merged
