"""Which model hears, on what, and what it is told before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from platformdirs import user_cache_path
from pydantic import Field, model_validator

from mediaserver.settings.room import Group, Milliseconds, Room

knob = Group.DECODER.knob

MAX_PROMPT_LETTERS = 800
"""Whisper takes 223 tokens, about 900 letters of English."""

MAX_HOTWORDS = 100
MAX_HOTWORD_LETTERS = 60
"""Beyond what Whisper takes of them: a bound on what a client may make a node keep and cut."""

HotWord = Annotated[str, Field(min_length=1, max_length=MAX_HOTWORD_LETTERS)]


class DecoderSettings(Room):
    """The settings of the group `decoder`."""

    model: str = knob("tiny.en", "A catalogued model (`voiceforge models`) or a faster-whisper directory.")
    model_dir: Path = knob(user_cache_path("voiceforge") / "models", "Where fetched models are kept.")
    model_fetch: bool = knob(True, "Fetch a missing model at start; otherwise say how to.")
    language: str | None = knob(None, "Language code (`en`, `de` …) of all sessions; unset is detected.")
    languages: list[str] = knob([], "Codes that detection chooses from, as JSON; none is all that the model knows.")
    prompt: str | None = knob(
        None,
        "Text before what is heard, in the spelling to go on with, for sessions that give none of their own.",
        max_length=MAX_PROMPT_LETTERS,
    )
    hotwords: list[HotWord] = knob(
        [],
        "Words to expect (names, terms), as JSON and as they are to be written, for sessions that give none of their "
        "own.",
        max_length=MAX_HOTWORDS,
    )
    model_aliases: list[str] = knob(
        [
            "nova",
            "nova-*",
            "enhanced*",
            "base",
            "base-*",
            "flux-*",
            "whisper-*",
            "gpt-4o-*",
            "gpt-realtime-*",
            "gpt-transcribe*",
            "gpt-live-transcribe*",
        ],
        "Names, as JSON and with `*`, that clients of other vendors' protocols may give for the loaded model; answers "
        "say which model it really was.",
    )
    device: Literal["auto", "cpu", "cuda"] = knob("auto", "Where Whisper runs; `auto` takes CUDA where there is one.")
    compute_type: str = knob("default", "CTranslate2 compute type; `default` is int8 on CPU and float16 on CUDA.")
    cpu_threads: int = knob(0, "Cores that decoding may use; 0 is all of them.", ge=0)
    slots: int = knob(0, "Batches decoded at once, which share the cores; 0 chooses. CPU only.", ge=0, le=256)
    calibrate: bool = knob(
        True,
        "Try out, once a machine and model, how batches share the cores best; it takes 1 to 3 s. CPU only.",
    )
    engine_process: bool = knob(False, "Run the decoder in a process of its own, started again when it dies.")
    engine_socket: Path | None = knob(
        None,
        "Socket of a decoder that already runs (`voiceforge engine`); several servers may share it.",
    )
    max_batch: int = knob(8, "Most windows decoded in one batch (CUDA wants more).", ge=1, le=256)
    interim_period_ms: Milliseconds = knob(
        600, "Least time in ms between two interims of a session; it grows by itself under load.", ge=100
    )

    @model_validator(mode="after")
    def _one_engine(self) -> Self:
        if self.engine_process and self.engine_socket is not None:
            raise ValueError("`engine_process` and `engine_socket` exclude each other: start a decoder, or name one")
        return self
