"""What `redis_url` may say, and that a wrong one is refused without repeating its password."""

from __future__ import annotations

import pytest

from mediaserver.errors import ConfigError
from signaling.cluster.redis_url import RedisKind, RedisTarget, parse_redis_url


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://h", RedisTarget(RedisKind.SINGLE, (("h", 6379),))),
        (
            "redis://user:p%40ss%2F@10.0.0.5:7000/3",
            RedisTarget(RedisKind.SINGLE, (("10.0.0.5", 7000),), username="user", password="p@ss/", db=3),
        ),
        ("redis://:p@[::1]:1?db=2", RedisTarget(RedisKind.SINGLE, (("::1", 1),), password="p", db=2)),
        (
            "rediss://h/?ssl_ca_certs=/etc/ca.pem",
            RedisTarget(RedisKind.SINGLE, (("h", 6379),), is_tls=True, options={"ssl_ca_certs": "/etc/ca.pem"}),
        ),
        ("unix:///run/re%20dis.sock?db=1", RedisTarget(RedisKind.SINGLE, unix_path="/run/re dis.sock", db=1)),
        ("unix://:p@/run/r.sock", RedisTarget(RedisKind.SINGLE, unix_path="/run/r.sock", password="p")),
        (
            "redis+sentinel://:p@a,b:2/main/1?sentinel_password=q",
            RedisTarget(
                RedisKind.SENTINEL,
                (("a", 26379), ("b", 2)),
                password="p",
                db=1,
                master="main",
                options={"sentinel_password": "q"},
            ),
        ),
        ("rediss+cluster://a:7000,b", RedisTarget(RedisKind.CLUSTER, (("a", 7000), ("b", 6379)), is_tls=True)),
    ],
)
def test_urls_of_all_kinds(url: str, target: RedisTarget) -> None:
    assert parse_redis_url(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://:secret@h",
        "redis://",
        "redis://:secret@h:99999",
        "redis://:secret@h:0",
        "redis://:secret@h:x",
        "redis://:sec#ret@h",
        "redis://:secret@h/x",
        "redis://:secret@h/1/2",
        "redis://:secret@a,b",
        "redis://:secret@h?secret=1",
        "redis://:secret@h?secret",
        "redis://[::1",
        "redis+sentinel://:secret@h",
        "redis+sentinel://:secret@h/main/x",
        "redis+cluster://:secret@h/1",
        "unix://",
        "unix://secret/run/r.sock",
        f"redis+cluster://{','.join(['secret'] * 101)}",
    ],
)
def test_what_is_none_is_refused_by_a_hint_and_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_redis_url(url)
    assert refused.value.code == "REDIS_URL_INVALID"
    assert "sec" not in str(refused.value)
    assert "redis+sentinel://host" in refused.value.hint


def test_nobody_reads_the_password_in_what_it_prints() -> None:
    target = parse_redis_url("redis+sentinel://:secret@h/main?sentinel_password=hidden")
    assert "secret" not in repr(target)
    assert "hidden" not in repr(target)
