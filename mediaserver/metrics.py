"""What the engine counts, as Prometheus metrics of one application (no globals: tests run several side by side)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0, 10.0)
"""From a queue wait that nobody notices to a final that nobody waits for; dense where the promises lie."""

AWAY_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""From a change of the network's way to the longest that is usually waited."""

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"voiceforge_{name}", text, labels, registry=self.registry)

        def histogram(
            name: str, text: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = LATENCY_BUCKETS_S
        ) -> Histogram:
            return Histogram(f"voiceforge_{name}", text, labels, buckets=buckets, registry=self.registry)

        self.sessions = Gauge("voiceforge_sessions", "Sessions that live now.", ("door",), registry=self.registry)
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
        self.vad_batch_streams = histogram("vad_batch_streams", "Streams in one VAD call.", buckets=BATCH_BUCKETS)
        self.vad_seconds = histogram("vad_seconds", "Duration of one VAD call.")
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
        self.engine_up = Gauge(
            "voiceforge_engine_up", "Whether an engine in a process of its own answers.", registry=self.registry
        )
        self.engine_restarts_total = counter(
            "engine_restarts_total", "Times that the engine's process died and was to be started again."
        )
        self.hops_total = counter(
            "hops_total",
            "Requests for another worker or node by what became of them: passed_on, gone (handled here), failed.",
            ("outcome",),
        )
        self.first_text_seconds = histogram(
            "first_text_seconds", "First-text latency: start of speech to first interim."
        )
        self.final_seconds = histogram("final_seconds", "Final latency: end of speech to its final.")
        self.recordings = Gauge(
            "voiceforge_recordings_running", "Recordings that are being transcribed.", registry=self.registry
        )
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
        self.audit_records_total = counter(
            "audit_records_total", "Records of the audit log by outcome: written, lost.", ("outcome",)
        )
        self.trace_spans_total = counter(
            "trace_spans_total", "Spans of traces by outcome: exported, failed, dropped.", ("outcome",)
        )
        self.loop_lag_seconds = histogram("loop_lag_seconds", "How late the event loop wakes up.")
