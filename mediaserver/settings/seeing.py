"""What a node tells its operator: logs, the audit log, readiness, traces."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from mediaserver.settings.room import Group, Room

knob = Group.SEEING.knob


class SeeingSettings(Room):
    """The settings of the group `seeing`."""

    log_level: Literal["debug", "info", "warning", "error"] = knob("info", "Least severe line that is logged.")
    log_format: Literal["auto", "json", "console"] = knob(
        "auto", "`json` one object a line, `console` for people, `auto` console on a terminal."
    )
    audit_log: str | None = knob(
        None,
        "File to which is appended who did what to which data, as JSON lines; or `stdout` or `stderr`. Unset, nothing "
        "is.",
        min_length=1,
    )
    audit_required: bool = knob(
        True, "Refuse to start, and what administrators ask for, while the audit log cannot be written."
    )
    disk_reserve_mib: int = knob(
        512,
        "Free space in MiB below which /readyz falls, where `data_dir` lies; 0: it does not count.",
        ge=0,
    )
    otlp_endpoint: str | None = knob(
        None,
        "Where traces of sessions are sent, by OTLP over HTTP: `http://collector:4318`. Unset, there are none. What "
        "the OTEL_* variables say beside it (service name, attributes, timeout, certificate …) holds.",
    )
    otlp_headers: SecretStr | None = knob(None, "Headers that are sent with traces: `name=value,name=value`.")
    trace_sample_ratio: float | None = knob(
        None,
        "Share of sessions that are traced, where no caller with a key says it in its `traceparent`; unset, "
        "OTEL_TRACES_SAMPLER says, or all are.",
        ge=0,
        le=1,
    )
