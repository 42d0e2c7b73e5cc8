"""What the engine's process is told: the settings, and none of the secrets."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.settings import Settings
from signaling.cli.knobs import knobs
from signaling.engine_order import Order


def test_an_order_is_read_as_it_was_written_without_the_secrets() -> None:
    secret = "a-secret-of-the-test-of-32-letters"
    given = {knob.name: SecretStr(secret) for knob in knobs() if knob.is_secret}
    assert given
    settings = Settings(
        model="base.en",
        turn_urls=["turn:turn.example"],
        ice_servers=[{"urls": "turn:other.example", "username": "u", "credential": secret}],
        **given,
    )
    line = Order(settings, ModelFiles("base.en", Path("/models/base.en"), ("en",), "path")).to_line()
    assert secret not in line
    assert "****" not in line
    read = Order.from_line(line)
    assert read.settings.model == "base.en"
    assert read.settings.turn_secret is None
    assert read.model.directory == Path("/models/base.en")
