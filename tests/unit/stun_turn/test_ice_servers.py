"""What clients are told of ICE servers, and the URLs that are refused before a browser refuses them."""

from __future__ import annotations

import re

import pytest
from pydantic import SecretStr

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings
from stun_turn.credentials import issue
from stun_turn.servers import IceServer, IceServers, newcomer, parse_ice_servers
from stun_turn.urls import ServerUrl

SECRET = "north-of-the-river-1"
URLS = ("turn:turn.example", "turns:turn.example:443?transport=tcp")


def servers(now_s: float = 1000.0) -> IceServers:
    return IceServers(
        [IceServer(urls=("stun:stun.example",))],
        turn_urls=URLS,
        turn_secret=SECRET,
        turn_ttl_s=600,
        clock=lambda: now_s,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stun:stun.example", ServerUrl("stun", "stun.example", 3478, "udp")),
        ("stuns:a", ServerUrl("stuns", "a", 5349, "tcp")),
        ("turn:192.0.2.7:80", ServerUrl("turn", "192.0.2.7", 80, "udp")),
        ("turn:[2001:db8::7]?transport=tcp", ServerUrl("turn", "2001:db8::7", 3478, "tcp")),
        ("turns:turn.example", ServerUrl("turns", "turn.example", 5349, "tcp")),
        ("turns:turn.example:443?transport=tcp", ServerUrl("turns", "turn.example", 443, "tcp")),
    ],
)
def test_urls_are_read(text: str, expected: ServerUrl) -> None:
    assert ServerUrl.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "turn:",
        "http://a",
        "turn://a",
        "turn:a:70000",
        "turn:a:x",
        "turn:a?transport=sctp",
        "turn:a?x=1",
        "stun:a?transport=udp",
        "turn:a>; rel=evil",
        "turn:a b",
        "turn:a\r\nSet-Cookie: b",
        "turn:a\n",
        "turn:-a",
        "turn:user@a",
    ],
)
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerUrl.parse(text)
    assert caught.value.code == "INVALID_ICE_URL"


def test_each_session_gets_credentials_of_its_own() -> None:
    fixed, turn = servers().for_session("s-1")
    made = issue(SECRET, "s-1", ttl_s=600, now_s=1000.0)
    assert fixed.as_dict() == {"urls": ["stun:stun.example"]}
    assert turn.as_dict() == {"urls": list(URLS), "username": "1600:s-1", "credential": made.credential}
    assert servers().links("s-1") == [
        '<stun:stun.example>; rel="ice-server"',
        *(
            f'<{url}>; rel="ice-server"; username="1600:s-1"; credential="{made.credential}"; '
            'credential-type="password"'
            for url in URLS
        ),
    ]
    assert servers().links("s-2") != servers().links("s-1")


def test_no_two_newcomers_share_a_name() -> None:
    names = {str(servers().for_session(newcomer())[1].username) for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r"1600:new-[0-9a-f]{16}", name) for name in names)


def test_without_turn_servers_there_are_no_credentials() -> None:
    assert IceServers([IceServer(urls=("stun:a",))]).links("s-1") == ['<stun:a>; rel="ice-server"']


def test_a_nodes_servers_are_those_of_its_settings() -> None:
    settings = Settings(turn_urls=["turn:a"], turn_secret=SecretStr(SECRET), turn_ttl_s=60, ice_servers=[])
    (turn,) = IceServers.from_settings(settings).for_session("s-1")
    expires_s, _, name = str(turn.username).partition(":")
    assert turn.credential == issue(SECRET, name, ttl_s=0, now_s=int(expires_s)).credential


@pytest.mark.parametrize(
    ("urls", "code"), [(["stun:a"], "NOT_A_TURN_URL"), (["turn:a", "http://a"], "INVALID_ICE_URL")]
)
def test_a_url_that_is_no_turn_server_stops_the_start(urls: list[str], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        IceServers.from_settings(Settings(turn_urls=urls, turn_secret=SecretStr(SECRET)))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"urls": []},
        {"urls": "http://elsewhere"},
        {"urls": "turn:x>; rel=evil"},
        {"urls": "turn:x", "username": "a\r\nSet-Cookie: b"},
        {"urls": "turn:x", "password": "unknown field"},
    ],
)
def test_a_wrong_ice_server_stops_the_start(entry: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_ice_servers([{"urls": "stun:fine"}, {**entry, "credential": "not to be shown"}])
    assert caught.value.code == "INVALID_ICE_SERVERS"
    assert "Entry 2" in caught.value.message
    assert "not to be shown" not in str(caught.value)
    assert "not to be shown" not in repr(IceServer(urls=("turn:x",), credential="not to be shown"))
