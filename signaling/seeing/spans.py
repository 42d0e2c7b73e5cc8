"""Spans as those who make them see them: nothing of OpenTelemetry, which is an extra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Value = str | int | float | bool


class Span(Protocol):
    """A span that has begun."""

    trace_id: str

    def child(self, name: str, start_ns: int, attributes: Mapping[str, Value]) -> Span:
        """Begin one within it."""
        ...

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Say more of it."""
        ...

    def event(self, name: str, at_ns: int, attributes: Mapping[str, Value]) -> None:
        """Something happened within it."""
        ...

    def end(self, at_ns: int, *, error: str | None = None) -> None:
        """It is over; `error` is the code of what went wrong."""
        ...


class Spans(Protocol):
    """Where spans are begun (`signaling.seeing.trace_export`)."""

    def begin(
        self,
        name: str,
        start_ns: int,
        attributes: Mapping[str, Value],
        *,
        traceparent: str | None,
        is_followed: bool = False,
    ) -> Span:
        """Begin a trace, or continue a caller's.

        Args:
            name: of its root.
            start_ns: in nanoseconds since 1970.
            attributes: of its root.
            traceparent: of the caller; None where it sent none.
            is_followed: whether the caller decides that it is traced. Where not, the node's own share does.
        """
        ...
