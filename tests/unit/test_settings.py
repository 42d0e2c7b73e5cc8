"""The order of precedence, the errors, and that the reference in docs/ is the one made from the settings."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from pydantic import SecretStr, ValidationError

from mediaserver.settings import Group, Settings
from signaling.cli.knobs import knobs, load_settings, reference, unknown_variables

REFERENCE = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from the machine or the working directory."""
    monkeypatch.chdir(tmp_path)
    for knob in knobs():
        monkeypatch.delenv(knob.variable, raising=False)


def test_the_reference_is_up_to_date() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run `make settings`"


def test_the_reference_says_nothing_of_the_machine_it_was_made_on() -> None:
    assert str(Path.home()) not in reference()


def test_every_setting_has_a_group_a_description_and_a_default_within_its_limits() -> None:
    for knob in knobs():
        assert knob.group in Group
        assert knob.description.endswith((".", "`."))
        assert knob.default_text()
    assert Settings().port == 8080


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings({}).port == 8080
    (tmp_path / "voiceforge.toml").write_text('port = 1001\nmodel = "base"\n')
    assert load_settings({}).port == 1001
    monkeypatch.setenv("VOICEFORGE_PORT", "1002")
    assert load_settings({"port": None, "cors_origins": ()}).port == 1002
    (tmp_path / "voiceforge.toml").write_text('port = 1001\nmodel = "base"\nlanguage = "de"\n')
    monkeypatch.setenv("VOICEFORGE_LANGUAGE", "unset")
    assert load_settings({}).language is None
    settings = load_settings({"port": "1003"})
    assert (settings.port, settings.model) == (1003, "base")


def test_lists_and_objects_can_be_given_as_flags() -> None:
    settings = load_settings({"cors_origins": ("http://a", "http://b"), "ice_servers": '[{"urls": ["turn:a"]}]'})
    assert settings.cors_origins == ["http://a", "http://b"]
    assert settings.ice_servers == [{"urls": ["turn:a"]}]
    assert load_settings({"model_fetch": False}).model_fetch is False
    assert load_settings({"price_per_minute": '{"*": 0.01}'}).price_per_minute == {"*": 0.01}


def test_a_slip_in_the_name_of_a_variable_is_told_and_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_variables() == []
    monkeypatch.setenv("VOICEFORGE_API_KEY", "of the command line")
    monkeypatch.setenv("VOICEFORGE_SERVICE_HOST", "Kubernetes' own")
    monkeypatch.setenv("VOICEFORGE_ENDPOINTING", "300")
    monkeypatch.setenv("VOICEFORGE_WORKER", "2")
    assert unknown_variables() == [
        "VOICEFORGE_ENDPOINTING is no setting and does nothing. Did you mean VOICEFORGE_ENDPOINTING_MS?",
        "VOICEFORGE_WORKER is no setting and does nothing. Did you mean VOICEFORGE_WORKERS?",
    ]


@pytest.mark.parametrize(
    ("flag", "variable", "file", "said"),
    [
        ({"port": "99999"}, {}, "", "--port cannot be '99999': input should be less than or equal to 65535."),
        ({}, {"VOICEFORGE_PORT": "http"}, "", "VOICEFORGE_PORT cannot be 'http': input should be a valid integer"),
        ({}, {}, "vad_threshold = 2.0", "`vad_threshold` in voiceforge.toml cannot be 2.0: input should be less"),
        ({}, {}, "por = 1", "voiceforge.toml has `por`, which is no setting. Did you mean `port`?"),
        ({}, {}, "port = ", "voiceforge.toml is not TOML"),
        ({"denoise": "loud"}, {}, "", "--denoise cannot be 'loud': input should be 'off', 'speex'"),
        ({"ice_servers": "turn:x"}, {}, "", "--ice-servers is not JSON"),
        ({}, {"VOICEFORGE_CORS_ORIGINS": "http://a"}, "", "VOICEFORGE_CORS_ORIGINS is not JSON: Expecting value"),
        ({}, {"VOICEFORGE_PLANS": "{pro"}, "", "VOICEFORGE_PLANS is not JSON"),
        ({"price_per_minute": "free"}, {}, "", "--price-per-minute is not JSON"),
        ({}, {"VOICEFORGE_TOKEN_SECRET": "short"}, "", "cannot be what it is: at least 32 letters are wanted."),
        ({"port": "x", "max_sessions": "0"}, {}, "", "--max-sessions cannot be '0'"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_where_it_comes_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: dict[str, str],
    variable: dict[str, str],
    file: str,
    said: str,
) -> None:
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    if file:
        (tmp_path / "voiceforge.toml").write_text(file)
    with pytest.raises(click.UsageError) as caught:
        load_settings(flag)
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert "pydantic" not in caught.value.message


LIMITS = {"at least": -1, "at most": 1, "more than": 0, "less than": 0}
"""How far beyond the number a limit names is the nearest value that it refuses."""


@pytest.mark.parametrize(
    ("name", "limit"),
    [(knob.name, limit) for knob in knobs() for limit in knob.limits.split(", ") if limit],
)
def test_the_limits_that_the_reference_names_are_held(name: str, limit: str) -> None:
    words, _, number = limit.rpartition(" ")
    with pytest.raises(click.UsageError, match="--" + name.replace("_", "-")):
        load_settings({name: float(number) + LIMITS[words]})


@pytest.mark.parametrize("secret", ["too-short", "has a blank in it somewhere", "x" * 257])
def test_a_weak_secret_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("VOICEFORGE_TURN_SECRET", secret)
    with pytest.raises(click.UsageError) as caught:
        load_settings({})
    assert caught.value.message.startswith("VOICEFORGE_TURN_SECRET cannot be what it is: 16 to 256 letters")
    with pytest.raises(ValidationError) as raw:
        Settings()
    assert secret not in caught.value.message + str(raw.value)


def test_a_secret_is_shown_nowhere_and_has_no_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEFORGE_TURN_SECRET", secret := "a-secret-of-the-test")
    settings = load_settings({"turn_urls": ("turn:a",)})
    assert settings.turn_secret is not None
    assert settings.turn_secret.get_secret_value() == secret
    assert secret not in repr(settings) + str(settings) + settings.model_dump_json()
    assert "--turn-secret" not in reference()
    assert "`VOICEFORGE_TURN_SECRET`" in reference()


def test_turn_servers_without_a_secret_are_refused() -> None:
    with pytest.raises(click.UsageError, match="`turn_urls` needs `turn_secret`"):
        load_settings({"turn_urls": ("turn:a",)})


def test_settings_cannot_be_changed_once_made() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(("first", "last"), [(5000, 0), (0, 5000), (6000, 5000)])
def test_udp_ports_that_are_no_range_are_refused(first: int, last: int) -> None:
    with pytest.raises(click.UsageError, match="are a range"):
        load_settings({"udp_port_min": first, "udp_port_max": last})


@pytest.mark.parametrize("address", ["http://0.0.0.0:8081", "http://[::]:8081", "http://0:8081", "10.0.0.5:8081"])
def test_the_inner_door_has_one_address(address: str) -> None:
    with pytest.raises(ValidationError, match="node_address"):
        Settings(node_address=address, token_secret=SecretStr("s" * 32))


def test_an_announced_address_that_is_none_is_refused() -> None:
    with pytest.raises(click.UsageError, match=r"announced-address cannot be 'example\.org'"):
        load_settings({"announced_address": "example.org"})
