"""The yardstick: faster-whisper over the whole recording, beam 5, with the same weights."""

from __future__ import annotations

from pathlib import Path

from faster_whisper import WhisperModel

from mediaserver.audio.clock import Samples
from mediaserver.decoder.device import Placement
from mediaserver.events import Word

BEAM_SIZE = 5
"""What faster-whisper and most published figures use."""


class Offline:
    """Transcribes whole recordings with all of faster-whisper's defaults: text as context, fallback temperatures."""

    def __init__(self, directory: Path, placement: Placement) -> None:
        self._model = WhisperModel(
            str(directory),
            device=placement.device,
            compute_type=placement.compute_type,
            cpu_threads=placement.slots * placement.threads,
            local_files_only=True,
        )

    def transcribe(self, samples: Samples, language: str | None) -> str:
        """The text of [n] float32 samples, 16 kHz. Blocks."""
        segments, _ = self._model.transcribe(samples, beam_size=BEAM_SIZE, language=language)
        return " ".join(segment.text.strip() for segment in segments)

    def words(self, samples: Samples, language: str | None) -> list[Word]:
        """The words of [n] float32 samples, 16 kHz, with their times by faster-whisper's alignment. Blocks."""
        segments, _ = self._model.transcribe(samples, beam_size=BEAM_SIZE, language=language, word_timestamps=True)
        return [
            Word(word.word.strip(), word.start, word.end, word.probability)
            for segment in segments
            for word in segment.words or ()
        ]
