"""A recording from the file to its transcript, through the engine that live sessions use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mediaserver.audio.vad import VadPool
from mediaserver.decoder.window import Decoder, Task
from mediaserver.jobs.transcript import ChannelTranscript, RecordingOptions, Segment, Transcript
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings

__all__ = ["ChannelTranscript", "Recorder", "RecordingOptions", "Segment", "Task", "Transcript"]

OnProgress = Callable[[float], None]
"""Told the share of a recording that is done, 0 to 1, never less than before; on the event loop."""

OnSegment = Callable[[int, Segment], None]
"""Told a channel and its next segment, in order of time within a channel; on the event loop."""


class Recorder:
    """Transcribes recordings. One for an application; recordings may run side by side.

    Args:
        decoder: the engine of all sessions.
        vad: whose model hears where somebody speaks.
        settings: of the node.
        metrics: where recordings are counted.
    """

    def __init__(self, *, decoder: Decoder, vad: VadPool, settings: Settings, metrics: Metrics) -> None:
        self._decoder = decoder
        self._vad = vad
        self._settings = settings
        self._metrics = metrics

    def check(self, options: RecordingOptions) -> None:
        """Refuse what this node's model cannot do, before a file is fetched or stored for it.

        Raises:
            ConfigError: UNKNOWN_LANGUAGE or TRANSLATION_UNSUPPORTED.
        """
        raise NotImplementedError

    async def transcribe(
        self,
        path: Path,
        options: RecordingOptions,
        *,
        on_progress: OnProgress | None = None,
        on_segment: OnSegment | None = None,
    ) -> Transcript:
        """Transcribe a file of any container that PyAV reads. Cancelling the task stops it within half a second.

        Args:
            path: of the file; it is only read.
            options: how.
            on_progress: told the share that is done.
            on_segment: told each segment as soon as it is sure.

        Raises:
            MediaError: FILE_NOT_FOUND, FILE_UNREADABLE, NOT_AUDIO or TOO_MANY_CHANNELS.
            ConfigError: as `check`.
            VoiceForgeError: the engine failed or is closed.
        """
        raise NotImplementedError
