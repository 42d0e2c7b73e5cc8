"""Where Whisper runs, and on how many threads."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

import ctranslate2

from mediaserver.errors import VoiceForgeError

CPU_COMPUTE_TYPE = "int8"
CUDA_COMPUTE_TYPE = "float16"


@dataclass(frozen=True, slots=True)
class Placement:
    """A device and how it is shared.

    Args:
        device: `cpu` or `cuda`.
        compute_type: CTranslate2's name of the arithmetic.
        slots: batches decoded at once. One on a GPU: there large batches beat threads. On a CPU one a core, unless
            calibration (calibrate.py) finds otherwise: Whisper's small matrices do not split well.
        threads: cores a batch may use (CPU only).
    """

    device: str
    compute_type: str
    slots: int
    threads: int

    def as_dict(self) -> dict[str, object]:
        """For logs."""
        return asdict(self)


def place(*, device: str, compute_type: str, cpu_threads: int, slots: int = 0) -> Placement:
    """The placement that the settings ask for; `auto` takes CUDA where there is a device.

    Args:
        device: `auto`, `cpu` or `cuda`.
        compute_type: CTranslate2's name of the arithmetic, or `default`.
        cpu_threads: cores to use; 0 is all of them.
        slots: batches decoded at once, at most one a core (CPU only); 0 is one a core.

    Raises:
        VoiceForgeError: NO_CUDA_DEVICE, UNSUPPORTED_COMPUTE_TYPE.
    """
    devices = ctranslate2.get_cuda_device_count()
    if device == "cuda" and not devices:
        raise VoiceForgeError(
            "NO_CUDA_DEVICE", "`device` is cuda, but there is no CUDA device here.", "Set `device` to cpu or auto."
        )
    chosen = "cuda" if device != "cpu" and devices else "cpu"
    default = CUDA_COMPUTE_TYPE if chosen == "cuda" else CPU_COMPUTE_TYPE
    arithmetic = default if compute_type == "default" else compute_type
    supported = ctranslate2.get_supported_compute_types(chosen)
    if arithmetic not in supported:
        raise VoiceForgeError(
            "UNSUPPORTED_COMPUTE_TYPE",
            f"`compute_type` {arithmetic} does not run on this {chosen} device.",
            f"Take one of: {', '.join(sorted(supported))}.",
        )
    if chosen == "cuda":
        return Placement(chosen, arithmetic, slots=1, threads=1)
    cores = cpu_threads or _cores()
    slots = min(slots or cores, cores)
    return Placement(chosen, arithmetic, slots=slots, threads=cores // slots)


def _cores() -> int:
    """Cores that this process may run on (a container's limit of CPUs counts where the system tells it)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
