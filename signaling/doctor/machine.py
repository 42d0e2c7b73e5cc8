"""What a node needs of its machine: models, libopus, room on its disks, and a device to decode on."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
from pathlib import Path

import ctranslate2

from mediaserver.decoder.catalogue import resolve, turn_model, vad_model
from mediaserver.decoder.device import place
from mediaserver.ingest.opus import load_libopus
from mediaserver.settings import Settings
from signaling.doctor.finding import Check, Finding, failed, fine, warned
from signaling.finding import in_daemon_thread

MODELS_S = 120.0
"""All files of the models are read for their digests: 3 GB from a slow disk."""

SCARCE_BYTES = 2 * 1000**3
"""Less than this is a warning: a day of recordings (16 kHz, 32 kB/s) is 2.8 GB."""

EMPTY_BYTES = 200 * 1000**2
"""Less than this is a failure: not even a small model or an hour of uploads fits."""

ENGINE_S = 2.0

CUDA_LIBRARIES = ("libcublas.so.12",)
"""What CTranslate2 loads when it first computes: missing, it fails in the middle of the first decode."""


def machine_checks(settings: Settings) -> list[Check]:
    """The checks of this subject."""
    return [
        Check("models", lambda: check_models(settings), MODELS_S),
        Check("device", lambda: check_device(settings)),
        Check("libopus", check_libopus),
        Check("disk", lambda: check_disk(settings)),
    ]


async def check_models(settings: Settings) -> Finding:
    """Whether the models are here, with the digests that were published.

    Raises:
        ModelError: one is not, or is damaged.
    """

    def look() -> list[str]:
        names = []
        if settings.engine_socket is None:
            files = resolve(settings.model, model_dir=settings.model_dir, fetch=False)
            names.append(f"{settings.model} ({files.source})")
        vad_model(model_dir=settings.model_dir, fetch=False)
        names.append("the VAD")
        if settings.wants_turn_model:
            turn_model(model_dir=settings.model_dir, fetch=False)
            names.append("the end-of-turn model")
        return names

    names = await in_daemon_thread(look, name="doctor-models")
    return fine(f"{', '.join(names)}: here and undamaged.")


async def check_device(settings: Settings) -> Finding:
    """What Whisper runs on, and if not on CUDA, why not.

    Raises:
        VoiceForgeError: NO_CUDA_DEVICE or UNSUPPORTED_COMPUTE_TYPE.
    """
    if settings.engine_socket is not None:
        return await _check_engine(settings.engine_socket)
    why_not = await in_daemon_thread(why_no_cuda, name="doctor-cuda")
    if settings.device == "cuda" and why_not is not None:
        return failed(f"`device` is cuda, but {why_not}.", "Set `device` to cpu or auto, or mend the driver.")
    placed = place(
        device="cpu" if why_not is not None else settings.device,
        compute_type=settings.compute_type,
        cpu_threads=settings.cpu_threads,
        slots=settings.slots,
    )
    if placed.device == "cuda":
        return fine(f"CTranslate2 decodes on CUDA ({placed.compute_type}).")
    chosen = f"CTranslate2 decodes on the CPU ({placed.compute_type}, {placed.slots} × {placed.threads} cores)"
    return fine(f"{chosen}, for {why_not}." if settings.device == "auto" and why_not else f"{chosen}.")


def why_no_cuda() -> str | None:
    """Why CTranslate2 cannot use a GPU here; None where it can. Blocks for as long as the driver takes."""
    if not _loads("libcuda.so.1"):
        return "there is no NVIDIA driver (libcuda.so.1 does not load)"
    if not ctranslate2.get_cuda_device_count():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        told = f" (CUDA_VISIBLE_DEVICES is `{hidden}`)" if hidden is not None else ""
        return f"the NVIDIA driver shows no device that CTranslate2 can use{told}"
    missing = [name for name in CUDA_LIBRARIES if not _loads(name)]
    if missing:
        return f"{missing[0]} does not load: install CUDA 12's libraries"
    return None


async def _check_engine(socket: Path) -> Finding:
    try:
        async with asyncio.timeout(ENGINE_S):
            _, writer = await asyncio.open_unix_connection(socket)
    except (OSError, TimeoutError):
        return failed(f"No engine listens at {socket}.", f"Run `voiceforge engine --socket {socket}`.")
    writer.close()
    return fine(f"An engine listens at {socket}.")


async def check_libopus() -> Finding:
    """Whether Opus can be decoded.

    Raises:
        VoiceForgeError: LIBOPUS_MISSING.
    """
    library = load_libopus()
    library.opus_get_version_string.restype = ctypes.c_char_p
    version = library.opus_get_version_string().decode()
    return fine(f"{version} decodes Opus.")


async def check_disk(settings: Settings) -> Finding:
    """Whether models and recordings have room, and can be written."""
    places = {"models": settings.model_dir, "recordings": settings.data_dir}
    told, scarce = [], []
    for what, path in places.items():
        existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if free < EMPTY_BYTES:
            return failed(
                f"{existing} has {free / 1e6:.0f} MB free for {what}.", "Make room there, or choose another folder."
            )
        if what == "recordings" and not os.access(existing, os.W_OK):
            return failed(f"{existing} cannot be written by this user.", "Set `data_dir` to a folder that can.")
        if free < SCARCE_BYTES:
            scarce.append(what)
        told.append(f"{free / 1e9:.1f} GB free for {what}")
    text = f"{', '.join(told)}."
    return warned(text, "That is little: a day of recorded speech takes about 3 GB.") if scarce else fine(text)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
