"""What the engine counts, as Prometheus metrics of one application (no globals: tests run several side by side)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0, 10.0)
"""From a queue wait that nobody notices to a final that nobody waits for; dense where the promises lie."""

AWAY_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""From a change of the network's way to the longest that is usually waited."""

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)

LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""From a loop that idles to one that a jitter buffer notices (0.05) and a client does (1)."""

LARGEST = frozenset(
    {
        "voiceforge_build_info",
        "voiceforge_not_ready",
        "voiceforge_engine_slots",
        "voiceforge_engine_busy_slots",
        "voiceforge_engine_queued_windows",
        "voiceforge_engine_overloaded",
        "voiceforge_engine_cpu_seconds",
        "voiceforge_engine_resident_bytes",
        "voiceforge_engine_open_files",
        "voiceforge_jobs_in_state",
        "voiceforge_usage_unwritten_seconds",
    }
)
"""Gauges that tell of what the workers of a node share, or of the worst of them: `max` over them is what holds."""

SMALLEST = frozenset(f"voiceforge_{name}" for name in ("ready", "engine_up", "database_up", "state_up"))
"""Those of which `min` does. All others are to be summed up, as counters and histograms are."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Args:
        name: as it is shown.
        kind: counter, gauge or histogram.
        labels: names of its labels.
        text: what it says.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:  # noqa: PLR0915 - a list of what there is, one statement each
        self.registry = CollectorRegistry()
        self.on_scrape: list[Callable[[], None]] = []
        """Called before what is shown is read: they set the gauges that tell of a moment."""
        self._families: list[Family] = []
        ProcessCollector(registry=self.registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            self._families.append(Family(f"voiceforge_{name}", "counter", labels, text))
            return Counter(f"voiceforge_{name}", text, labels, registry=self.registry)

        def histogram(
            name: str, text: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = LATENCY_BUCKETS_S
        ) -> Histogram:
            self._families.append(Family(f"voiceforge_{name}", "histogram", labels, text))
            return Histogram(f"voiceforge_{name}", text, labels, buckets=buckets, registry=self.registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            self._families.append(Family(f"voiceforge_{name}", "gauge", labels, text))
            return Gauge(f"voiceforge_{name}", text, labels, registry=self.registry)

        self.build_info = gauge(
            "build_info",
            "1, with the version and what decodes; no `model` before one is loaded.",
            ("version", "model", "device", "compute_type"),
        )
        self.ready = gauge("ready", "Whether sessions are taken: what /readyz says.")
        self.not_ready = gauge("not_ready", "1 for each reason for which sessions are not taken.", ("reason",))
        self.sessions = gauge("sessions", "Sessions that live now.", ("door",))
        self.sessions_held = gauge(
            "sessions_held", "Of them, those whose clients are away and may come back.", ("door",)
        )
        self.sessions_closing = gauge("sessions_closing", "Of them, those that wait for their last finals.")
        self.sessions_ended_total = counter(
            "sessions_ended_total", "Sessions that ended, by reason.", ("door", "reason")
        )
        self.connections_lost_total = counter(
            "connections_lost_total", "Connections that dropped and whose sessions waited for them.", ("door",)
        )
        self.resumes_total = counter(
            "resumes_total",
            "Sessions that waited for their clients, or were asked for by them, by outcome: here, elsewhere, refused, "
            "expired, handed_over.",
            ("door", "outcome"),
        )
        self.away_seconds = histogram(
            "away_seconds", "How long clients were away that came back.", ("door",), buckets=AWAY_BUCKETS_S
        )
        self.resumptions_total = counter(
            "resumptions_total",
            "Records from which another process could go on with a session, by outcome: written, away (what processes "
            "share was not reached), claimed (another one has gone on).",
            ("outcome",),
        )
        self.refused_total = counter("refused_total", "Requests for a session that were refused, by code.", ("code",))
        self.setup_seconds = histogram(
            "setup_seconds",
            "From the offer to a stage of setup: answered, connected, first_packet, first_text.",
            ("stage",),
        )
        self.rtp_packets_total = counter(
            "rtp_packets_total",
            "RTP packets by fate: received, reordered, lost, recovered (FEC), concealed, late, duplicate, malformed, "
            "refused, reset.",
            ("fate",),
        )
        self.jitter_delay_seconds = histogram(
            "jitter_delay_seconds", "Longest that a packet was held, per second of packets."
        )
        self.audio_seconds_total = counter(
            "audio_seconds_total", "Audio received, by kind: speech, silence, concealed.", ("kind",)
        )
        self.vad_batch_streams = histogram(
            "vad_batch_streams", "Streams whose frames were judged together.", buckets=BATCH_BUCKETS
        )
        self.vad_seconds = histogram("vad_seconds", "How long it took to judge what was ready of all streams.")
        self.turn_seconds = histogram("turn_seconds", "Duration of one call of the end-of-turn model.")
        self.turns_total = counter(
            "turns_total",
            "Pauses by what the end-of-turn model said: complete, incomplete, failed, given_up.",
            ("outcome",),
        )
        self.queue_seconds = histogram("queue_seconds", "Wait of a window before its decode.", ("kind",))
        self.decode_seconds = histogram("decode_seconds", "Duration of one batch's decode.", ("kind",))
        self.decode_batch_windows = histogram("decode_batch_windows", "Windows in one batch.", buckets=BATCH_BUCKETS)
        self.windows_total = counter(
            "windows_total", "Windows by outcome: decoded, replaced, failed, rejected.", ("kind", "outcome")
        )
        self.decoded_audio_seconds_total = counter(
            "decoded_audio_seconds_total",
            "Audio in windows that were decoded, the same audio as often as it was.",
            ("kind",),
        )
        self.decoding_seconds_total = counter(
            "decoding_seconds_total",
            "What decodes took, a batch's time shared by its windows. The real-time factor of a slot is rate(this) / "
            "rate(voiceforge_decoded_audio_seconds_total).",
            ("kind",),
        )
        self.engine_up = gauge("engine_up", "Whether the engine is loaded and answers.")
        self.engine_slots = gauge("engine_slots", "Batches that the engine decodes at once.")
        self.engine_busy_slots = gauge("engine_busy_slots", "Those that it decodes now.")
        self.engine_queued_windows = gauge("engine_queued_windows", "Windows that wait in the engine.", ("kind",))
        self.engine_overloaded = gauge("engine_overloaded", "Whether finals would be late with one more session.")
        self.engine_cpu_seconds = gauge(
            "engine_cpu_seconds", "Processor time of the engine's process, where it has one of its own, since it began."
        )
        self.engine_resident_bytes = gauge("engine_resident_bytes", "Memory of the engine's process, likewise.")
        self.engine_open_files = gauge("engine_open_files", "Open files of the engine's process, likewise.")
        self.engine_restarts_total = counter(
            "engine_restarts_total", "Times that the engine's process died and was to be started again."
        )
        self.worker_restarts_total = counter(
            "worker_restarts_total", "Times that a worker died and was to be started again."
        )
        self.scrapes_left_out_total = counter(
            "scrapes_left_out_total",
            "Workers whose metrics are missing in an answer, for they did not give them in time.",
        )
        self.hops_total = counter(
            "hops_total",
            "Requests for another worker or node by what became of them: passed_on, gone (handled here), failed.",
            ("outcome",),
        )
        self.first_text_seconds = histogram(
            "first_text_seconds",
            "First-text latency: start of speech to first interim. Here and in the next two streams count that come as "
            "they are spoken, not recordings that are pushed faster.",
        )
        self.word_seconds = histogram(
            "word_seconds", "Word latency: end of a word in the audio until it is told and stays as it is."
        )
        self.final_seconds = histogram("final_seconds", "Final latency: end of speech to its final.")
        self.recordings = gauge("recordings_running", "Recordings that are being transcribed.")
        self.recordings_total = counter(
            "recordings_total", "Recordings by outcome: completed, failed, cancelled.", ("outcome",)
        )
        self.recorded_seconds_total = counter("recorded_seconds_total", "Audio of completed recordings.")
        self.events_dropped_total = counter("events_dropped_total", "Interims left out for a slow client.")
        self.jobs_total = counter(
            "jobs_total",
            "Runs of recordings by how they ended: completed, failed, cancelled, released (at a stop), lost (deleted, "
            "or taken over).",
            ("outcome",),
        )
        self.webhooks_total = counter(
            "webhooks_total", "Webhooks by outcome: delivered, failed, dropped.", ("outcome",)
        )
        self.jobs_in_state = gauge(
            "jobs_in_state", "Jobs in the database by state: queued, running, completed, failed, cancelled.", ("state",)
        )
        self.database_up = gauge("database_up", "Whether the database answered when it was last asked.")
        self.state_up = gauge("state_up", "Whether what several processes share can be reached.")
        self.usage_unwritten_seconds = gauge(
            "usage_unwritten_seconds", "How long ago usage was last written down; a crash would lose as much of it."
        )
        self.audit_records_total = counter(
            "audit_records_total", "Records of the audit log by outcome: written, lost.", ("outcome",)
        )
        self.trace_spans_total = counter(
            "trace_spans_total", "Spans of traces by outcome: exported, failed, dropped.", ("outcome",)
        )
        self.loop_lag_seconds = histogram(
            "loop_lag_seconds", "How late the event loop wakes up.", buckets=LAG_BUCKETS_S
        )
        self.gc_pause_seconds = histogram(
            "gc_pause_seconds",
            "Searches for garbage, which stop the process, by generation: 1 (young objects), 2 (all of them).",
            ("generation",),
            buckets=LAG_BUCKETS_S,
        )

    def families(self) -> list[Family]:
        """What there is, in the order above."""
        return self._families

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of it as Prometheus reads it, and the content type.

        Args:
            accept: the header of who asks: the text format, or OpenMetrics.
        """
        encode, content_type = self._looked_at(accept)
        return encode(self.registry), content_type

    async def exposed(self, accept: str) -> tuple[bytes, str]:
        """As `exposition`, written in a thread: 800 lines are 6 to 10 ms of work."""
        encode, content_type = self._looked_at(accept)
        return await asyncio.to_thread(encode, self.registry), content_type

    def _looked_at(self, accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
        for callback in self.on_scrape:
            callback()
        return choose_encoder(accept)
