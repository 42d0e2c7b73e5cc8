"""What is on the socket: everything that a window or a hypothesis holds arrives, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import math
import typing
from enum import Enum
from types import NoneType, UnionType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.audio.clock import Samples
from mediaserver.decoder.remote.wire import (
    FRAMING,
    MAX_SAMPLES_BYTES,
    Answer,
    Cancel,
    Decode,
    Failed,
    Hello,
    Refused,
    State,
    Superseded,
    Welcome,
    Withdraw,
    encode,
    read_from_engine,
    read_to_engine,
)
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Window
from mediaserver.local.frames import LENGTHS, FrameError


def value_of(hint: typing.Any) -> typing.Any:
    """A value that is no default, for any type that a window or a hypothesis may have a field of."""
    if hint == Samples:
        return np.arange(1, 8, dtype=np.float32) / 8
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return value_of(next(part for part in typing.get_args(hint) if part is not NoneType))
    if typing.get_origin(hint) is tuple:
        parts = [part for part in typing.get_args(hint) if part is not Ellipsis]
        return tuple(value_of(part) for part in parts)
    if typing.get_origin(hint) is list:
        return [value_of(typing.get_args(hint)[0])] * 2
    if typing.get_origin(hint) is dict:
        key, value = typing.get_args(hint)
        return {value_of(key): value_of(value)}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return full(hint)
    if issubclass(hint, Enum):
        return list(hint)[-1]
    return {str: "ä\n", int: 7, float: 0.1, bool: True}[hint]


def full(kind: type) -> typing.Any:
    """An instance with every field set to something that is not its default."""
    return kind(**{name: value_of(hint) for name, hint in typing.get_type_hints(kind).items()})


def assert_same(one: typing.Any, other: typing.Any) -> None:
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert theirs.dtype == mine.dtype
            assert np.array_equal(mine, theirs)
        else:
            assert type(mine) is type(theirs), field.name
            assert mine == theirs, field.name


def frame_of(message: typing.Any) -> tuple[bytes, bytes]:
    data = b"".join(encode(message))
    header_bytes, samples_bytes = FRAMING.lengths(data[: LENGTHS.size])
    assert len(data) == LENGTHS.size + header_bytes + samples_bytes
    return data[LENGTHS.size :][:header_bytes], data[LENGTHS.size + header_bytes :]


def window(samples: int = 16_000) -> Window:
    return Window("a", Kind.FINAL, np.zeros(samples, dtype=np.float32), 0)


def test_every_field_of_a_window_arrives() -> None:
    sent = full(Window)
    got = read_to_engine(*frame_of(Decode(3, sent)))
    assert isinstance(got, Decode)
    assert got.ident == 3
    assert_same(sent, got.window)


def test_every_field_of_a_hypothesis_arrives() -> None:
    sent = full(Hypothesis)
    got = read_from_engine(*frame_of(Answer(4, sent)))
    assert isinstance(got, Answer)
    assert_same(sent, got.hypothesis)


def test_numbers_that_json_does_not_know_arrive() -> None:
    sent = Hypothesis([HypothesisWord(" a", 0.0, 0.5, math.nan)], mean_log_probability=-math.inf)
    got = read_from_engine(*frame_of(Answer(4, sent)))
    assert isinstance(got, Answer)
    assert got.hypothesis.mean_log_probability == -math.inf
    assert math.isnan(got.hypothesis.words[0].probability)


@pytest.mark.parametrize("message", [Hello(1, "x"), Cancel(9), Withdraw("a")])
def test_messages_of_a_client_arrive(message: Hello | Cancel | Withdraw) -> None:
    assert read_to_engine(*frame_of(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Welcome("tiny.en", ("en",)),
        Refused("A", "b", "c"),
        State(True, 3),
        State(False, None),
        Superseded(5),
        Failed(5, "A", "b", "c", True),
    ],
)
def test_messages_of_an_engine_arrive(message: typing.Any) -> None:
    assert read_from_engine(*frame_of(message)) == message


def test_samples_of_another_layout_are_sent_as_float32() -> None:
    stereo = np.linspace(-1, 1, 2000).reshape(-1, 2).astype(np.float32)
    got = read_to_engine(*frame_of(Decode(1, dataclasses.replace(window(), samples=stereo[:, 0]))))
    assert isinstance(got, Decode)
    assert np.array_equal(got.window.samples, stereo[:, 0])


def test_a_window_without_samples_arrives() -> None:
    got = read_to_engine(*frame_of(Decode(1, window(0))))
    assert isinstance(got, Decode)
    assert len(got.window.samples) == 0


def test_a_window_beyond_the_bounds_is_not_sent() -> None:
    with pytest.raises(FrameError, match="too large"):
        encode(Decode(1, window(MAX_SAMPLES_BYTES // 4 + 1)))


def test_a_field_with_a_value_of_another_type_is_not_sent() -> None:
    odd = dataclasses.replace(window(), start_sample=np.float32(0.5))  # type: ignore[arg-type] # meant
    with pytest.raises(FrameError, match="not sent"):
        encode(Decode(1, odd))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[]",
        b"nonsense",
        b"\xff\xfe",
        b'{"type":"cancel"}',
        b'{"type":"cancel","ident":-1}',
        b'{"type":"cancel","ident":"1"}',
        b'{"type":"cancel","ident":1,"more":1}',
        b'{"type":"answer","ident":1,"hypothesis":{}}',  # an engine's, not a client's
        b'{"type":"decode","ident":1,"window":{"session_id":"a"},"lengths":[0]}',
    ],
)
def test_what_is_no_message_is_refused(header: bytes) -> None:
    with pytest.raises(FrameError):
        read_to_engine(header, b"")


@given(st.binary(max_size=200), st.binary(max_size=16))
def test_bytes_of_any_kind_are_a_message_or_refused(header: bytes, samples: bytes) -> None:
    for read in (read_to_engine, read_from_engine):
        try:
            read(header, samples)
        except FrameError:
            continue


def test_samples_of_another_length_than_announced_are_refused() -> None:
    header, samples = frame_of(Decode(1, window(10)))
    for wrong in (samples[:-4], samples + bytes(4), samples[:-1]):
        with pytest.raises(FrameError, match="announced"):
            read_to_engine(header, wrong)
    with pytest.raises(FrameError, match="behind"):
        read_to_engine(*(frame_of(Cancel(1))[0], bytes(4)))
