"""Credentials against vectors that OpenSSL made."""

from __future__ import annotations

import pytest

from stun_turn.credentials import issue


@pytest.mark.parametrize(
    ("secret", "name", "expires_s", "credential"),
    [
        # printf '1433895918:s-1' | openssl dgst -sha1 -hmac north-of-the-river-1 -binary | base64
        ("north-of-the-river-1", "s-1", 1_433_895_918, "jUSvKhuFGAOsT2mpF206TZz3NRg="),
        # printf '2000000000:page-0123456789abcdef' | openssl dgst -sha1 -hmac 'Ab1_.~+/=-Ab1_.~' -binary | base64
        ("Ab1_.~+/=-Ab1_.~", "page-0123456789abcdef", 2_000_000_000, "Z5BkcBsspKSqfUqLlSH1vzzD2pQ="),
    ],
)
def test_known_vectors(secret: str, name: str, expires_s: int, credential: str) -> None:
    made = issue(secret, name, ttl_s=600, now_s=expires_s - 600 + 0.9)
    assert made.username == f"{expires_s}:{name}"
    assert made.credential == credential
    assert made.expires_s == expires_s


def test_a_password_is_not_in_what_is_logged() -> None:
    made = issue("north-of-the-river-1", "s-1", ttl_s=1, now_s=0)
    assert made.credential not in repr(made)
    assert "1:s-1" in repr(made)


@pytest.mark.parametrize("name", ["", "a:b", "a b", 'a"', "a\n", "ü", "x" * 65])
def test_names_that_would_be_read_as_something_else_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="user name"):
        issue("north-of-the-river-1", name, ttl_s=1, now_s=0)
