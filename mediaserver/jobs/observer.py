"""Who watches jobs beside their clients: traces. By itself it does nothing."""

from __future__ import annotations

from mediaserver.jobs.models import Job


class JobObserver:
    """Hears of jobs, on the event loop, each time when something of them is over. Never blocks and never raises."""

    def ran(self, job: Job, outcome: str, *, began_s: float, decoding_s: float | None, ended_s: float) -> None:
        """A run is over.

        Args:
            job: as it was claimed.
            outcome: completed, failed, cancelled, released or lost.
            began_s: when it was claimed, in seconds since 1970.
            decoding_s: since when its recording was there; None: it never was.
            ended_s: when its end was written down.
        """

    def delivered(self, job: Job, event: str, *, began_s: float, ended_s: float) -> None:
        """Its client was told, or given up."""
