"""`voiceforge turn`: a secret, and a configuration that only its owner reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signaling.cli import main
from signaling.cli.knobs import knobs

SECRET = "north-of-the-river-1"


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of the test."""
    monkeypatch.chdir(tmp_path)
    for knob in knobs():
        monkeypatch.delenv(knob.variable, raising=False)
    monkeypatch.setenv("VOICEFORGE_TURN_SECRET", SECRET)
    monkeypatch.setenv("VOICEFORGE_HOST", "0.0.0.0")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["turn", *arguments], prog_name="voiceforge", terminal_width=120)


def test_a_secret_is_long_and_never_the_same() -> None:
    first, second = run("secret").output.strip(), run("secret").output.strip()
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert first != second


def test_the_configuration_names_this_machines_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEFORGE_ANNOUNCED_ADDRESS", "198.51.100.7")
    monkeypatch.setattr(
        "mediaserver.ingest.ice.get_host_addresses", lambda **_: ["192.0.2.7", "2001:db8::7", "fe80::7"]
    )
    path = tmp_path / "turnserver.conf"
    path.write_text("old " * 10_000)
    path.chmod(0o644)
    result = run("config", "--output", str(path))
    assert (result.exit_code, result.output) == (0, "")
    text = path.read_text()
    assert re.findall(r"^allowed-peer-ip=(.+)$", text, re.MULTILINE) == ["198.51.100.7", "192.0.2.7", "2001:db8::7"]
    assert f"static-auth-secret={SECRET}\n" in text
    assert "old old" not in text
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_asked_for_is_written() -> None:
    output = run(
        "config",
        *("--media-address", "10.1.2.0/30", "--peers", "public", "--realm", "example.org", "--max-sessions", "10"),
        *("--relay-port-min", "50000", "--external-ip", "198.51.100.9"),
    ).output
    for line in ("allowed-peer-ip=10.1.2.0-10.1.2.3", "realm=example.org", "total-quota=120", "max-port=50239"):
        assert f"\n{line}\n" in output, line
    assert "denied-peer-ip=0.0.0.0-255.255.255.255" not in output


def test_the_former_secret_is_taken_too_while_servers_change_over(tmp_path: Path) -> None:
    (tmp_path / "former").write_text("south-of-the-river-1\n")
    output = run("config", "--media-address", "192.0.2.7", "--former-secret-file", str(tmp_path / "former")).output
    assert re.findall(r"^static-auth-secret=(.+)$", output, re.MULTILINE) == [SECRET, "south-of-the-river-1"]


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({"TURN_SECRET": None}, (), "There is no `turn_secret` to write."),
        ({"HOST": "127.0.0.1"}, (), "The media server is on loopback"),
        ({}, ("--media-address", "media.example"), "neither an IP address nor a range"),
        ({}, ("--output", "/nowhere/turnserver.conf"), "/nowhere/turnserver.conf cannot be written"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str | None], arguments: tuple[str, ...], said: str
) -> None:
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(f"VOICEFORGE_{name}")
        else:
            monkeypatch.setenv(f"VOICEFORGE_{name}", value)
    result = run("config", *arguments)
    assert result.exit_code == 1
    assert said in result.output
    assert SECRET not in result.output


def test_ports_that_both_servers_would_take_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEFORGE_UDP_PORT_MIN", "50000")
    monkeypatch.setenv("VOICEFORGE_UDP_PORT_MAX", "50100")
    assert "Warning: the relay's ports overlap" in run("config", "--media-address", "192.0.2.7").stderr
    assert "Warning" not in run("config", "--media-address", "192.0.2.7", "--relay-port-min", "51000").stderr
