"""`voiceforge …`: one file a command."""

from signaling.cli.main import main

__all__ = ["main"]
