"""When each word was said: the same yardstick for every server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from faster_whisper import WhisperModel

from benchmarks.corpus import Recording
from benchmarks.offline import BEAM_SIZE
from benchmarks.scripts import Script
from mediaserver.decoder.device import Placement
from mediaserver.events import Word


class Spoken:
    """Words and their times by faster-whisper over each whole recording, with the weights that the servers have.

    Words that it hears otherwise than a server have no time and are left out of that server's latencies.
    """

    def __init__(self, directory: Path, placement: Placement) -> None:
        self._model = WhisperModel(
            str(directory),
            device=placement.device,
            compute_type=placement.compute_type,
            cpu_threads=placement.slots * placement.threads,
            local_files_only=True,
        )
        self._known: dict[str, list[Word]] = {}

    def words(self, script: Script) -> list[Word]:
        """The words of a script, in its seconds. Blocks; a recording is looked at once."""
        return [
            replace(word, start=word.start + said.start_s, end=word.end + said.start_s)
            for said in script.said
            for word in self._of(said.recording)
        ]

    def _of(self, recording: Recording) -> list[Word]:
        if recording.path not in self._known:
            segments, _ = self._model.transcribe(
                recording.read(), beam_size=BEAM_SIZE, language=recording.language_code, word_timestamps=True
            )
            self._known[recording.path] = [
                Word(word.word.strip(), word.start, word.end, word.probability)
                for segment in segments
                for word in segment.words or ()
            ]
        return self._known[recording.path]
