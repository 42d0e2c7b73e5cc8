"""Who a client says it is, and temporary tokens."""

from __future__ import annotations

import time

import jwt
import pytest
from aiohttp.test_utils import make_mocked_request

from signaling.problems import HttpError
from signaling.routes.deepgram.credentials import Credentials, Grants, credentials_of


@pytest.mark.parametrize(
    ("headers", "credentials"),
    [
        ({}, Credentials()),
        ({"Authorization": "Token abc"}, Credentials("token", "abc")),
        ({"Authorization": "bearer  a.b.c "}, Credentials("bearer", "a.b.c")),
        ({"Authorization": "alone"}, Credentials("alone", "")),
        ({"Sec-WebSocket-Protocol": "token, abc"}, Credentials("token", "abc", "token")),
        ({"Sec-WebSocket-Protocol": "Bearer,a.b.c"}, Credentials("bearer", "a.b.c", "Bearer")),
        ({"Sec-WebSocket-Protocol": "own, token, abc, x-session, 7"}, Credentials("token", "abc", "token")),
        ({"Sec-WebSocket-Protocol": "token"}, Credentials("token", "", "token")),
    ],
)
def test_credentials_come_by_header_or_subprotocol(headers: dict[str, str], credentials: Credentials) -> None:
    assert credentials_of(make_mocked_request("GET", "/v1/listen", headers=headers)) == credentials


def test_another_subprotocol_is_refused_before_anybody_logs_what_is_in_it() -> None:
    request = make_mocked_request("GET", "/v1/listen", headers={"Sec-WebSocket-Protocol": "my-secret-key"})
    with pytest.raises(HttpError) as caught:
        credentials_of(request)
    assert (caught.value.status, caught.value.code) == (400, "INVALID_SUBPROTOCOL")
    assert "my-secret-key" not in str(caught.value)


def test_a_key_is_in_no_representation() -> None:
    assert "my-secret-key" not in repr(Credentials("token", "my-secret-key"))


def test_a_token_of_ours_is_good_for_as_long_as_it_says() -> None:
    grants = Grants()
    token = grants.issue(30)
    assert grants.check(Credentials("bearer", token))
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 30
    assert claims["exp"] == pytest.approx(time.time() + 30, abs=5)


def test_credentials_that_are_no_token_pass() -> None:
    grants = Grants()
    for credentials in (
        Credentials(),
        Credentials("token", "abc"),
        Credentials("bearer", "sk-abc"),
        Credentials("basic"),
    ):
        assert grants.check(credentials) is False
    assert grants.check(Credentials("token", Grants().issue(30))) is False  # a key may look like anything


def refusal(token: str) -> HttpError:
    with pytest.raises(HttpError) as caught:
        Grants().check(Credentials("bearer", token))
    assert (caught.value.status, caught.value.code) == (401, "INVALID_AUTH")
    assert token not in str(caught.value)
    return caught.value


def test_tokens_that_expired_or_are_anothers_are_refused() -> None:
    old = Grants(wall_s=lambda: time.time() - 100)
    with pytest.raises(HttpError, match="has expired"):
        old.check(Credentials("bearer", old.issue(99)))
    refusal(Grants().issue(30))
    good = Grants().issue(30)
    refusal(good[:-4] + "AAAA")
    refusal(good[:-2] + "xx")  # no Base64 either
    refusal("eyJhbGciOiJIUzI1NiJ9..")
    refusal(jwt.encode({"iss": "voiceforge"}, "x" * 32, algorithm="HS256"))
    refusal(jwt.encode({"iss": "voiceforge", "exp": time.time() + 30}, "", algorithm="none"))
