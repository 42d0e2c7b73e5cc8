"""Messages that begin as valid ones and go astray: in their values, in their text, in their bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from hypothesis import strategies as st

Json = Any
Value = TypeVar("Value")

MAX_BYTES = 256 * 1024
"""Copies of copies stay below this."""

LONE_SURROGATES = st.sampled_from(["\ud800", "\udfff", "a\udc00b"])
ODD_TEXT = st.one_of(
    st.text(max_size=20),
    LONE_SURROGATES,
    st.sampled_from(
        ["", " ", "\x00", "\r\n", "\u2028", "\ufeff", "İ", "ß" * 40, "x" * 2000, "null", "true", "-0", "1e999"]
    ),
    st.sampled_from(["../../etc/passwd", "http://127.0.0.1/", "%s%n{0}", "<script>", "'; --", "${x}"]),
)
ODD_NUMBERS = st.sampled_from(
    [0, -1, 1, 2**31, 2**53 + 1, 2**63, 10**30, 1e308, -1e308, 0.1, float("nan"), float("inf"), -float("inf"), 1e-320]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), ODD_NUMBERS, ODD_TEXT)
JUNK: st.SearchStrategy[Json] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(ODD_TEXT, inner, max_size=4)),
    max_leaves=8,
)
WHOLE_TEXTS = st.sampled_from(
    ["", " ", "null", "[]", "{}", '""', "0", "[" * 5000, '{"a":' * 3000, "{" * 10, '{"type":', "\ufeff{}", "NaN"]
)


def places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a JSON value, itself first."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def at(value: Json, path: Sequence[Any]) -> Json:
    """What a way leads to."""
    for key in path:
        value = value[key]
    return value


@st.composite
def astray(draw: st.DrawFn, valid: st.SearchStrategy[Json]) -> Json:
    """A JSON value with up to three of its values changed, removed, doubled or put elsewhere."""
    value = deepcopy(draw(valid))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(places(value)))
        if not path:
            if draw(st.integers(0, 9)) == 9:
                value = draw(JUNK)
            elif isinstance(value, dict):
                value[draw(ODD_TEXT)] = draw(JUNK)
            continue
        holder, key = at(value, path[:-1]), path[-1]
        match draw(st.integers(0, 4)):
            case 0:
                del holder[key]
            case 1:
                holder[key] = draw(JUNK)
            case 2:
                holder[key] = [holder[key]]
            case 3 if isinstance(holder, dict):
                holder[draw(ODD_TEXT)] = holder[key]
            case _:
                holder[key] = deepcopy(at(value, draw(st.sampled_from(places(value)))))
    return value


@st.composite
def texts(draw: st.DrawFn, valid: st.SearchStrategy[Json]) -> str:
    """A JSON value gone astray as text, which may be broken too."""
    if draw(st.integers(0, 19)) == 19:
        return draw(WHOLE_TEXTS)
    written = json.dumps(draw(astray(valid)), ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 4)) == 4:
        written = draw(cut_text(st.just(written)))
    return written


def utf8(text: str) -> bytes:
    """Text as bytes, with what is no UTF-8 written all the same."""
    return text.encode("utf-8", "surrogatepass")


def sendable(text: str) -> str:
    """Text as a WebSocket client can send it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _cuts(junk: st.SearchStrategy[Value]) -> Callable[[st.SearchStrategy[Value]], st.SearchStrategy[Value]]:
    """Up to four pieces of a sequence removed, doubled, moved, or replaced by junk."""

    @st.composite
    def cut(draw: st.DrawFn, valid: st.SearchStrategy[Any]) -> Any:
        value = draw(valid)
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(value)))
            end = min(len(value), start + draw(st.sampled_from([0, 1, 1, 2, 4, 16, 200, 5000])))
            match draw(st.integers(0, 5)):
                case 0:
                    value = value[:start] + value[end:]
                case 1:
                    value = value[:start] + value[start:end] * 3 + value[end:]
                case 2:
                    value = value[:start]
                case 3:
                    value = value[end:] + value[start:end] + value[:start]
                case _:
                    value = value[:start] + draw(junk) + value[end:]
            if len(value) > MAX_BYTES:
                value = value[:MAX_BYTES]
        return value

    return cut


cut_text = _cuts(ODD_TEXT)
cut_bytes = _cuts(st.one_of(st.binary(max_size=8), st.sampled_from([b"\x00" * 64, b"\xff" * 64, b"\x00", b"\xff\xfe"])))


@st.composite
def flipped(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with a few of their bits turned over."""
    value = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 8)) if value else 0):
        index = draw(st.integers(0, len(value) - 1))
        value[index] ^= 1 << draw(st.integers(0, 7))
    return bytes(value)


def bytes_astray(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes as they are, cut up, with bits turned over, or none of them."""
    return st.one_of(valid, cut_bytes(valid), flipped(valid), st.binary(max_size=300))


@st.composite
def lines_astray(draw: st.DrawFn, valid: st.SearchStrategy[str], line_junk: st.SearchStrategy[str]) -> str:
    """Text of lines with some removed, doubled, moved, or changed within."""
    lines = draw(valid).split("\r\n")
    for _ in range(draw(st.integers(0, 5))):
        index = draw(st.integers(0, max(0, len(lines) - 1)))
        match draw(st.integers(0, 5)) if lines else 5:
            case 0:
                del lines[index]
            case 1:
                lines.insert(draw(st.integers(0, len(lines))), lines[index])
            case 2:
                lines[index] = draw(cut_text(st.just(lines[index])))
            case 3:
                lines[index], lines[0] = lines[0], lines[index]
            case 4:
                words = lines[index].split(" ")
                words[draw(st.integers(0, len(words) - 1))] = draw(ODD_TEXT)
                lines[index] = " ".join(words)
            case _:
                lines.insert(index, draw(line_junk))
    return draw(st.sampled_from(["\r\n", "\r\n", "\r\n", "\n"])).join(lines)


@st.composite
def queries(
    draw: st.DrawFn, fields: dict[str, st.SearchStrategy[str]], base: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """The query of a URL: what it has to say, a few more of its fields, and in every fourth something odd."""
    names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True))
    pairs = [*base, *((name, draw(fields[name])) for name in names if name not in dict(base))]
    if draw(st.integers(0, 3)) == 3:
        for _ in range(draw(st.integers(1, 2))):
            name = draw(st.one_of(st.sampled_from(sorted(fields)), ODD_TEXT))
            pairs.insert(draw(st.integers(0, len(pairs))), (name, draw(ODD_TEXT)))
        if draw(st.booleans()):
            pairs = [pair for pair in pairs if draw(st.integers(0, 3))]
    return [(sendable(name), sendable(value)) for name, value in pairs]
