"""How the cores of a machine are shared best among batches, tried out once and kept.

Many slots of one thread waste nothing on waiting for each other; few slots of many threads finish each window sooner
and share the caches better. Which wins depends on the machine and the model. Everything here blocks.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import ctranslate2
import numpy as np
import structlog
import tokenizers

log = structlog.get_logger(__name__)

CONTEXT_FRAMES = 500
"""5 s: what most interims need."""

STEPS = 16
"""Tokens of 5 s of speech. The end is forbidden until then, so that every window costs the same."""

WINDOWS_A_CORE = 2
"""Of one round: about 0.4 s with tiny.en."""

ROUNDS = 2
"""In turn, the better of each counts: what else the machine does in a moment then falls on all alike."""

NOISY = 1.25
"""Rounds of the same sharing that differ by more say that the machine does something else: nothing is learnt then."""

BUSY_SHARE = 0.8
"""The default keeps all cores computing. Where it got less of them, others had the rest: nothing is learnt either."""

MARGIN = 1.15
"""How much faster than one thread a slot another sharing must be to be taken: less is chance."""

SLOWEST_WINDOW_S = 1.5
"""A model that takes longer for a window is not tried out further: it would take minutes."""

MAX_KEPT = 32
"""Results that the file keeps, the oldest dropped first."""

FILE_NAME = "calibration.json"


@dataclass(frozen=True, slots=True)
class Sharing:
    """How cores are shared: `slots` × `threads` is at most their number."""

    slots: int
    threads: int


@dataclass(frozen=True, slots=True)
class Round:
    """How long a round took, and the share of the cores' time that it got."""

    took_s: float
    busy_share: float


Measure = Callable[[Sharing], Round | None]
"""Runs a round; None if it would take too long, or cannot be done."""


def candidates(cores: int) -> list[Sharing]:
    """What is tried out, the default first."""
    slots = dict.fromkeys(max(1, count) for count in (cores, cores // 2, cores // 4, 1))
    return [Sharing(count, max(1, cores // count)) for count in slots]


def fastest(rounds: Mapping[Sharing, Sequence[Round]], default: Sharing) -> Sharing | None:
    """The sharing to take, given its rounds; None if they say nothing."""
    best_s = {sharing: min(each.took_s for each in of_one) for sharing, of_one in rounds.items()}
    if any(is_disturbed(each) or each.took_s > NOISY * best_s[default] for each in rounds[default]):
        return None
    best = min(best_s, key=lambda sharing: best_s[sharing])
    return best if best_s[best] * MARGIN < best_s[default] else default


def is_disturbed(default: Round) -> bool:
    """Whether a round of the default did not get the cores to itself."""
    return default.busy_share < BUSY_SHARE


def sharing_for(cores: int, *, key: str, kept_in: Path, measure: Measure) -> Sharing:
    """What was found before, or what is found now.

    Args:
        cores: how many there are.
        key: names machine, model and version; what was found for another is not used.
        kept_in: directory of the file with the results.
        measure: runs a round.
    """
    path = kept_in / FILE_NAME
    default, *others = candidates(cores)
    if not others:
        return default
    results = _read(path)
    known = _sharing(results.get(key), cores)
    if known is not None:
        return known
    started_s = time.monotonic()
    rounds: dict[Sharing, list[Round]] = {}
    for _ in range(ROUNDS):
        for sharing in (default, *others):
            took = measure(sharing)
            if took is None or (sharing == default and is_disturbed(took)):
                log.info("calibration left out", reason="model too slow" if took is None else "machine too busy")
                return default
            rounds.setdefault(sharing, []).append(took)
    found = fastest(rounds, default)
    log.info(
        "calibrated",
        chosen=asdict(found or default),
        kept=found is not None,
        rounds_s={f"{s.slots}x{s.threads}": [round(each.took_s, 3) for each in took] for s, took in rounds.items()},
        took_s=round(time.monotonic() - started_s, 1),
    )
    if found is None:
        return default
    results[key] = asdict(found)
    _write(path, results)
    return found


def key_of(directory: Path, *, compute_type: str, cores: int) -> str:
    """Names this machine, the model in `directory` and the versions."""
    model = directory / "model.bin"
    size_bytes = model.stat().st_size if model.exists() else 0
    parts = (platform.machine(), _cpu_name(), cores, directory.name, size_bytes, compute_type, ctranslate2.__version__)
    return " | ".join(map(str, parts))


class WhisperRounds:
    """Rounds of real decodes: call it with a sharing.

    Args:
        directory: of the model.
        compute_type: CTranslate2's name of the arithmetic.
        cores: how many there are.
    """

    def __init__(self, directory: Path, *, compute_type: str, cores: int) -> None:
        self._directory = directory
        self._compute_type = compute_type
        self._cores = cores
        # A copy for each sharing, so that rounds can take turns; of small models only: see SLOWEST_WINDOW_S.
        self._loaded: dict[Sharing, ctranslate2.models.Whisper] = {}
        self._tokens: tuple[int, int] | None = None

    def __call__(self, sharing: Sharing) -> Round | None:
        """A round; None if it would take too long, or the model cannot be loaded."""
        try:
            if sharing not in self._loaded:
                model = self._load(sharing)
                # The first window of each slot is slower, and tells whether the model is fast enough to be tried out.
                if self._decode(model, sharing.slots, windows=sharing.slots).took_s > SLOWEST_WINDOW_S:
                    return None
                self._loaded[sharing] = model
            return self._decode(self._loaded[sharing], sharing.slots, windows=WINDOWS_A_CORE * self._cores)
        except Exception as exc:  # CTranslate2 raises RuntimeError and ValueError, tokenizers bare Exception
            log.warning("calibration failed", reason=str(exc))  # loading the model will say more
            return None

    def _load(self, sharing: Sharing) -> ctranslate2.models.Whisper:
        return ctranslate2.models.Whisper(
            str(self._directory),
            device="cpu",
            compute_type=self._compute_type,
            inter_threads=sharing.slots,
            intra_threads=sharing.threads,
        )

    def _decode(self, model: ctranslate2.models.Whisper, slots: int, *, windows: int) -> Round:
        """Decode so many windows, `slots` at once."""
        start, end = self._start_and_end()
        mel = np.random.default_rng(0).standard_normal((1, model.n_mels, CONTEXT_FRAMES)).astype(np.float32)

        def decode(_: int) -> None:
            encoded = model.encode(ctranslate2.StorageView.from_array(mel))
            model.generate(encoded, [[start]], beam_size=1, max_length=1 + STEPS, suppress_tokens=[end])

        started_s, computed_s = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(slots) as threads:
            list(threads.map(decode, range(windows)))
        took_s = time.perf_counter() - started_s
        return Round(took_s, (time.process_time() - computed_s) / (took_s * self._cores))

    def _start_and_end(self) -> tuple[int, int]:
        """The tokens that begin and end a text.

        Raises:
            ValueError: the vocabulary has none.
        """
        if self._tokens is None:
            vocabulary = tokenizers.Tokenizer.from_file(str(self._directory / "tokenizer.json"))
            start, end = (vocabulary.token_to_id(name) for name in ("<|startoftranscript|>", "<|endoftext|>"))
            if start is None or end is None:
                raise ValueError("this is not a vocabulary of Whisper")
            self._tokens = (start, end)
        return self._tokens


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _read(path: Path) -> dict[str, object]:
    """What was found before; nothing if the file is not there or not ours."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _sharing(found: object, cores: int) -> Sharing | None:
    if not isinstance(found, dict) or set(found) != {"slots", "threads"}:
        return None
    slots, threads = found["slots"], found["threads"]
    if not (isinstance(slots, int) and isinstance(threads, int)):
        return None
    return Sharing(slots, threads) if slots >= 1 and threads >= 1 and slots * threads <= cores else None


def _write(path: Path, results: dict[str, object]) -> None:
    """Keep what was found; where that is not possible it is found again at the next start."""
    kept = dict(list(results.items())[-MAX_KEPT:])
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        draft.replace(path)
    except OSError as exc:
        log.warning("calibration not kept", path=str(path), reason=exc.strerror)
