"""The application's way to the recordings' pipeline, which is there once the models are."""

from __future__ import annotations

from collections.abc import Callable

from mediaserver.audio.vad import VadPool
from mediaserver.decoder.window import Decoder
from mediaserver.errors import CapacityError
from mediaserver.jobs.recording import Recorder
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.limits import LOADING_RETRY_AFTER_S


class Recordings:
    """Gives the application's one `Recorder`.

    Args:
        settings, metrics: of the node.
        engine, vad: give what is loaded, None until then.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        metrics: Metrics,
        engine: Callable[[], Decoder | None],
        vad: Callable[[], VadPool | None],
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._engine = engine
        self._vad = vad
        self._recorder: Recorder | None = None

    def recorder(self) -> Recorder:
        """The recorder.

        Raises:
            CapacityError: MODEL_LOADING.
        """
        if self._recorder is None:
            engine, vad = self._engine(), self._vad()
            if engine is None or vad is None:
                raise CapacityError(
                    "MODEL_LOADING",
                    "The speech model is still loading.",
                    f"Try again in {LOADING_RETRY_AFTER_S} s; /readyz says when it is there.",
                    retry_after_s=LOADING_RETRY_AFTER_S,
                )
            self._recorder = Recorder(decoder=engine, vad=vad, settings=self._settings, metrics=self._metrics)
        return self._recorder
