"""What a new user reads on the terminal."""

from __future__ import annotations

import click

from mediaserver.errors import VoiceForgeError
from mediaserver.settings import KeylessAccess, Settings
from signaling.limits import is_loopback


def announce(url: str, settings: Settings, *, has_keys: bool) -> None:
    """Where the server listens, and who may come in."""
    click.echo(f"VoiceForge is listening: open {url}")
    if not has_keys and settings.keyless_access is not KeylessAccess.EVERYONE:
        click.echo("There are no keys: programs of this machine are served, and nobody else.", err=True)
    if settings.keyless_access is KeylessAccess.EVERYONE and not is_loopback(settings.host):
        click.echo(
            f"Warning: `keyless_access` lets in whoever reaches {settings.host}. "
            "Put it behind a proxy that asks who is there, or make keys.",
            err=True,
        )


def say_loaded(model_name: str) -> None:
    """That sessions are taken."""
    click.echo(f"The model {model_name} is loaded: sessions are taken.")


def say_failed(exc: VoiceForgeError) -> None:
    """Why there is no server: a sentence and a hint, not a traceback."""
    click.echo(f"{exc.message}\n{exc.hint}", err=True)
