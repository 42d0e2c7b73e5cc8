"""Who a client says it is."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from signaling.problems import HttpError
from signaling.routes.deepgram.credentials import Credentials, credentials_of


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
