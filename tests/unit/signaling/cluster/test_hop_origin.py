"""Who says where a request comes from."""

from __future__ import annotations

import pytest

from signaling.cluster import hop_origin
from signaling.cluster.hop_origin import HopOrigin
from signaling.problems import HttpError

SECRET = "s" * 32
HERE, THERE = "aaaaaaaa", "bbbbbbbb"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(origin: HopOrigin, method: str, target: str, value: str) -> bool:
    try:
        origin.check(method, target, value)
    except HttpError as exc:
        return (exc.code, exc.status) == ("HOP_REFUSED", 403)
    return False


def test_what_one_signs_another_with_the_same_secret_believes(clock: Clock) -> None:
    value = HopOrigin(SECRET, HERE, wall_s=clock).sign("POST", "/whip?language=en", "2001:db8::1", to=HERE)
    assert HopOrigin(SECRET, HERE, wall_s=clock).check("POST", "/whip?language=en", value) == "2001:db8::1"


@pytest.mark.parametrize("address", ["203.0.113.7", "a word too many", "m\udce4rz", ""])
def test_whatever_a_proxy_says_is_carried(clock: Clock, address: str) -> None:
    origin = HopOrigin(SECRET, HERE, wall_s=clock)
    assert origin.check("GET", "/", origin.sign("GET", "/", address, to=HERE)) == address


def test_a_signature_is_good_for_one_request(clock: Clock) -> None:
    signer, origin = HopOrigin(SECRET, HERE, wall_s=clock), HopOrigin(SECRET, HERE, wall_s=clock)
    value = signer.sign("POST", "/whip", "127.0.0.1", to=HERE)
    assert refused(origin, "DELETE", "/whip", value)
    assert refused(origin, "POST", "/whip?x", value)
    assert refused(origin, "POST", "/whip", value.replace("127.0.0.1", "127.0.0.2"))
    assert refused(HopOrigin("t" * 32, HERE, wall_s=clock), "POST", "/whip", value)
    assert not refused(origin, "POST", "/whip", value)
    assert refused(origin, "POST", "/whip", value)  # a second time


def test_a_signature_is_good_at_one_place(clock: Clock) -> None:
    """Who catches a request on the network between nodes cannot send it to another of them."""
    value = HopOrigin(SECRET, HERE, wall_s=clock).sign("DELETE", "/whip/x", "192.0.2.1", to=THERE)
    with pytest.raises(HttpError) as caught:
        HopOrigin(SECRET, HERE, wall_s=clock).check("DELETE", "/whip/x", value)
    assert (caught.value.code, caught.value.status) == ("HOP_MISDIRECTED", 421)
    assert refused(HopOrigin(SECRET, HERE, wall_s=clock), "DELETE", "/whip/x", value.replace(THERE, HERE))
    assert not refused(HopOrigin(SECRET, THERE, wall_s=clock), "DELETE", "/whip/x", value)


@pytest.mark.parametrize("value", ["", " ", "x", "x y z", "\udcff 1 2 3", "0" * 64 + " 1000000.0 n 127.0.0.1"])
def test_nonsense_is_refused(clock: Clock, value: str) -> None:
    assert refused(HopOrigin(SECRET, HERE, wall_s=clock), "GET", "/", value)


def test_old_ones_are_refused_and_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hop_origin, "SEEN_MAX", 3)
    signer, origin = HopOrigin(SECRET, HERE, wall_s=clock), HopOrigin(SECRET, HERE, wall_s=clock)
    values = [signer.sign("GET", "/", "127.0.0.1", to=HERE) for _ in range(4)]
    assert [refused(origin, "GET", "/", value) for value in values] == [False, False, False, True]
    clock.now_s += hop_origin.GOOD_FOR_S + 1
    assert all(refused(origin, "GET", "/", value) for value in values)
    clock.now_s += hop_origin.GOOD_FOR_S
    assert not refused(origin, "GET", "/", signer.sign("GET", "/", "127.0.0.1", to=HERE))


def test_clocks_may_be_a_little_apart(clock: Clock) -> None:
    value = HopOrigin(SECRET, HERE, wall_s=lambda: clock.now_s + hop_origin.GOOD_FOR_S - 1).sign(
        "GET", "/", "127.0.0.1", to=HERE
    )
    assert not refused(HopOrigin(SECRET, HERE, wall_s=clock), "GET", "/", value)
