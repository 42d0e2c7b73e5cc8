"""The application's way to the recordings' pipeline, which is there once the models are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mediaserver.audio.vad import VadPool
from mediaserver.decoder.window import Task
from mediaserver.errors import CapacityError
from mediaserver.jobs.recording import Recorder, RecordingOptions
from mediaserver.jobs.transcript import Segment, Transcript
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from mediaserver.storage.usage import RECORDING, TRANSLATION
from signaling.auth.principal import current_principal
from signaling.limits import Admission, loading
from signaling.usage.meter import Meter


class Recordings:
    """Gives the application's one `Recorder`.

    Args:
        settings, metrics: of the node.
        admission: whether the node works, and its engine.
        vad: gives the voice activity model, None until it is loaded.
        meter: counts what is transcribed while its client waits; jobs are counted where they end.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        metrics: Metrics,
        admission: Admission,
        vad: Callable[[], VadPool | None],
        meter: Meter | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._admission = admission
        self._vad = vad
        self._meter = meter
        self._recorder: Recorder | None = None

    def loaded(self) -> Recorder | None:
        """The recorder; None while nothing can be transcribed."""
        try:
            return self.recorder()
        except CapacityError:
            return None

    def recorder(self) -> Recorder:
        """The recorder, where a recording may be transcribed now.

        Raises:
            CapacityError: SHUTTING_DOWN, MODEL_LOADING or ENGINE_DOWN.
        """
        engine = self._admission.check_up()
        if self._recorder is None:
            vad = self._vad()
            if vad is None:
                raise loading()
            self._recorder = Recorder(decoder=engine, vad=vad, settings=self._settings, metrics=self._metrics)
        return self._recorder

    async def transcribe(
        self,
        recorder: Recorder,
        path: Path,
        options: RecordingOptions,
        *,
        door: str,
        on_segment: Callable[[int, Segment], None] | None = None,
    ) -> Transcript:
        """Transcribe a file for the client of this request, and count it. Raises what `Recorder.transcribe` does."""
        transcript = await recorder.transcribe(path, options, on_segment=on_segment)
        if self._meter is not None:
            self._meter.recorded(
                current_principal(),
                door=door,
                model=transcript.model,
                audio_s=transcript.duration_s * len(transcript.channels),
                speech_s=transcript.speech_s,
                heard=TRANSLATION if options.task is Task.TRANSLATE else RECORDING,
            )
        return transcript
