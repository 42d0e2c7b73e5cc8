"""How an engine is, as plain data: its own process tells it to the media processes that it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """An engine in a moment.

    Args:
        device: `cpu` or `cuda`.
        compute_type: CTranslate2's name of the arithmetic.
        slots: batches decoded at once.
        busy_slots: those that decode now.
        queued: windows that wait, by kind in small letters.
        process_id: of its process.
        cpu_s, resident_bytes, open_files: likewise (`mediaserver.process`).
    """

    device: str
    compute_type: str
    slots: int
    busy_slots: int
    queued: dict[str, int] = field(default_factory=dict)
    process_id: int = 0
    cpu_s: float = 0.0
    resident_bytes: int = 0
    open_files: int = 0


@runtime_checkable
class Telling(Protocol):
    """An engine that says how it is."""

    def status(self) -> EngineStatus | None:
        """How it is now; None where it is away."""
        ...
