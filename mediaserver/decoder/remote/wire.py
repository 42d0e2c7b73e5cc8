"""What goes over the socket between a media process and an engine (sans-IO).

The body of a frame (`mediaserver/local/frames.py`) is samples, as float32 of the machine's own byte order: the socket
never leaves it. Headers are checked strictly: a field that is missing, unknown or of another type is refused. What
`Window` and `Hypothesis` hold goes over as it is declared there, so a field that they gain needs no edit here; one that
JSON cannot carry fails at import.

A client says `Hello` first and is told `Welcome` or `Refused`; then it sends `Decode`, `Cancel` and `Withdraw`, and
gets one of `Answer`, `Superseded` and `Failed` for each `Decode`, and a `State` every `STATE_PERIOD_S`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

import numpy as np
from pydantic import ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from pydantic_core import PydanticSerializationError

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.decoder.status import EngineStatus
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Window
from mediaserver.local.frames import FrameError, Framing

PROTOCOL = 2
"""Raised when the frames or the messages change; what `Window` and `Hypothesis` hold is in `SHAPE`."""

MAX_HEADER_BYTES = 256 * 1024
"""A hypothesis of 448 tokens is 60 kB of JSON at most; prompts and hot words are less."""

MAX_AUDIO_S = 60
"""Twice what Whisper hears at once; a longer window is a fault."""

MAX_SAMPLES_BYTES = MAX_AUDIO_S * SAMPLE_RATE * np.dtype(np.float32).itemsize

FRAMING = Framing(header_max_bytes=MAX_HEADER_BYTES, body_max_bytes=MAX_SAMPLES_BYTES)

MAX_IN_FLIGHT = 1024
"""Windows of one connection that the engine may hold unanswered; the client keeps further ones back."""

STATE_PERIOD_S = 0.5
"""How often the engine says how it is: by it the client knows that the engine lives, and how loaded it is."""

SILENCE_LIMIT_S = 10.0
"""An engine that says nothing for so long hangs: even a long decode leaves its event loop free."""

HELLO_LIMIT_S = 5.0
"""Both ends are on one machine: who says nothing for so long is not one of us."""

STRICT = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")


@checked(config=STRICT, frozen=True, slots=True)
class Hello:
    """A client's first message."""

    protocol: int
    shape: str
    type: Literal["hello"] = "hello"


@checked(config=STRICT, frozen=True, slots=True)
class Welcome:
    """The engine's first message, to a client that speaks as it does."""

    model: str
    languages: tuple[str, ...]
    type: Literal["welcome"] = "welcome"


@checked(config=STRICT, frozen=True, slots=True)
class Refused:
    """The engine's only message to a client that it cannot serve."""

    code: str
    message: str
    hint: str
    type: Literal["refused"] = "refused"


@checked(config=STRICT, frozen=True, slots=True)
class State:
    """How the engine is; `retry_after_s` is None while finals are on time, `status` where it does not say."""

    ready: bool
    retry_after_s: int | None
    status: EngineStatus | None = None
    type: Literal["state"] = "state"


@dataclass(frozen=True, slots=True)
class Decode:
    """A window to be decoded. `ident` is unique among those of the connection that are unanswered."""

    ident: int
    window: Window


@checked(config=STRICT, frozen=True, slots=True)
class Cancel:
    """Nobody waits for this window any more. It may still be answered."""

    ident: NonNegativeInt
    type: Literal["cancel"] = "cancel"


@checked(config=STRICT, frozen=True, slots=True)
class Withdraw:
    """Nobody wants the replaceable window of this session that still waits, if there is one."""

    session_id: str
    type: Literal["withdraw"] = "withdraw"


@checked(config=STRICT, frozen=True, slots=True)
class Answer:
    """What a window said."""

    ident: NonNegativeInt
    hypothesis: Hypothesis
    type: Literal["answer"] = "answer"


@checked(config=STRICT, frozen=True, slots=True)
class Superseded:
    """A replaceable window gave way to a newer one of its session, or was withdrawn."""

    ident: NonNegativeInt
    type: Literal["superseded"] = "superseded"


@checked(config=STRICT, frozen=True, slots=True)
class Failed:
    """A window that has no hypothesis, and why (the parts of a VoiceForgeError)."""

    ident: NonNegativeInt
    code: str
    message: str
    hint: str
    retryable: bool
    type: Literal["failed"] = "failed"


ToEngine = Hello | Decode | Cancel | Withdraw
FromEngine = Welcome | Refused | State | Answer | Superseded | Failed


def _shape_of(kind: type) -> list[object]:
    """Names and types of a dataclass's fields, those of the dataclasses inside it included."""
    hints = get_type_hints(kind)
    fields = [(field.name, str(hints[field.name])) for field in dataclasses.fields(kind)]
    inner = {part for hint in hints.values() for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part)}
    return [kind.__name__, fields, *(_shape_of(part) for part in sorted(inner, key=str) if isinstance(part, type))]


SHAPE = hashlib.sha256(repr([_shape_of(Window), _shape_of(Hypothesis), _shape_of(HypothesisWord)]).encode()).hexdigest()
"""Differs between two programs whose windows or hypotheses hold different things: they must not talk."""

_HINTS = get_type_hints(Window)
_AUDIO = tuple(field.name for field in dataclasses.fields(Window) if _HINTS[field.name] == Samples)
"""Fields that travel behind the header: [n] float32 each, in this order."""

_PLAIN = tuple(field.name for field in dataclasses.fields(Window) if field.name not in _AUDIO)
"""Fields that travel in the header."""

_WINDOW_HEADER: Any = dataclasses.make_dataclass("WindowHeader", [(name, _HINTS[name]) for name in _PLAIN])
_DECODE_HEADER: Any = checked(config=STRICT)(
    dataclasses.make_dataclass(
        "DecodeHeader",
        [
            ("ident", NonNegativeInt),
            ("window", _WINDOW_HEADER),
            ("lengths", tuple.__class_getitem__((NonNegativeInt,) * len(_AUDIO))),
            ("type", Literal["decode"]),
        ],
    )
)

_TO_ENGINE: TypeAdapter[Any] = TypeAdapter(
    Annotated[Hello | Cancel | Withdraw | _DECODE_HEADER, Field(discriminator="type")], config=STRICT
)
_FROM_ENGINE: TypeAdapter[Any] = TypeAdapter(Annotated[FromEngine, Field(discriminator="type")], config=STRICT)


def encode(message: ToEngine | FromEngine) -> list[bytes | memoryview]:
    """A message as the buffers of one frame.

    Raises:
        FrameError: the message is larger than a frame may be, or a field has a value of another type.
    """
    if not isinstance(message, Decode):
        adapter = _TO_ENGINE if isinstance(message, Hello | Cancel | Withdraw) else _FROM_ENGINE
        return [FRAMING.start(_json(adapter, message), 0)]
    window = message.window
    arrays = [np.ascontiguousarray(getattr(window, name), dtype=np.float32) for name in _AUDIO]
    plain = _WINDOW_HEADER(*(getattr(window, name) for name in _PLAIN))
    header = _DECODE_HEADER(ident=message.ident, window=plain, lengths=tuple(map(len, arrays)), type="decode")
    start = FRAMING.start(_json(_TO_ENGINE, header), sum(array.nbytes for array in arrays))
    return [start, *(array.data.cast("B") for array in arrays if array.nbytes)]


def _json(adapter: TypeAdapter[Any], message: Any) -> bytes:
    try:
        return adapter.dump_json(message, warnings="error")
    except PydanticSerializationError as exc:
        raise FrameError(f"not sent: {exc}") from exc


def read_to_engine(header: bytes, samples: bytes) -> ToEngine:
    """A frame that a client sent.

    Raises:
        FrameError: it is no message of a client.
    """
    message = _validated(_TO_ENGINE, header)
    if not isinstance(message, _DECODE_HEADER):
        _require_bare(samples)
        return message  # type: ignore[no-any-return] # what the adapter's union says
    if sum(message.lengths) * 4 != len(samples):
        raise FrameError(f"{len(samples)} bytes of samples, {sum(message.lengths)} samples announced")
    arrays = np.split(np.frombuffer(samples, dtype=np.float32), np.cumsum(message.lengths)[:-1])
    parts: dict[str, Any] = {name: getattr(message.window, name) for name in _PLAIN}
    parts.update(zip(_AUDIO, arrays, strict=True))
    return Decode(message.ident, Window(**parts))


def read_from_engine(header: bytes, samples: bytes) -> FromEngine:
    """A frame that an engine sent.

    Raises:
        FrameError: it is no message of an engine.
    """
    _require_bare(samples)
    return _validated(_FROM_ENGINE, header)  # type: ignore[no-any-return] # what the adapter's union says


def _validated(adapter: TypeAdapter[Any], header: bytes) -> Any:
    try:
        return adapter.validate_json(header)
    except ValidationError as exc:
        where = ", ".join(".".join(map(str, error["loc"])) or error["msg"] for error in exc.errors()[:3])
        raise FrameError(f"no message: {where}") from exc


def _require_bare(samples: bytes) -> None:
    if samples:
        raise FrameError("samples behind a message that has none")
