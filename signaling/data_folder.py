"""The folder of recordings and keys, looked at before anything listens."""

from __future__ import annotations

import os
from pathlib import Path

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings


def require_data_folder(settings: Settings) -> None:
    """Refuse to start on a folder that this user cannot use: keys and recordings would be missed one request at a time.

    Nothing is made: a server without keys and recordings writes nothing. Reads the file system: not for the event loop.

    Raises:
        ConfigError: DATA_DIR_UNUSABLE.
    """
    nearest = settings.data_dir.absolute()
    try:
        while not nearest.exists():
            nearest = nearest.parent
        why = _why_not(nearest)
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
    if why:
        raise ConfigError(
            "DATA_DIR_UNUSABLE",
            f"`data_dir` {settings.data_dir} cannot be used: {why}.",
            "Give the folder to the user that the server runs as, or set `data_dir` to another.",
        )


def _why_not(path: Path) -> str:
    """What keeps this process from reading and writing in a folder; empty: nothing."""
    if not path.is_dir():
        return f"{path} is no folder"
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return f"this user may not read and write in {path}"
    return ""
