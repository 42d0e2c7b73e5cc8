"""HTTPS served directly, for a node without a proxy before it."""

from __future__ import annotations

import ssl
from pathlib import Path

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings


def tls_of(settings: Settings) -> ssl.SSLContext | None:
    """What the port speaks; None is plain HTTP. Reads files: not for the event loop.

    Raises:
        ConfigError: TLS_FILES_UNUSABLE.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    for name, path in (("tls_certificate", settings.tls_certificate), ("tls_key", settings.tls_key)):
        _require_readable(name, path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=_no_password)
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        raise ConfigError(
            "TLS_FILES_UNUSABLE",
            f"`tls_certificate` {settings.tls_certificate} and `tls_key` {settings.tls_key} cannot be used: "
            f"{_why(exc)}.",
            "Give PEM files that belong together, the key without a password.",
        ) from exc
    return context


def _require_readable(name: str, path: Path) -> None:
    """Name the file that cannot be read; OpenSSL says only that one of two cannot.

    Raises:
        ConfigError: TLS_FILES_UNUSABLE.
    """
    try:
        with path.open("rb"):
            pass
    except OSError as exc:
        raise ConfigError(
            "TLS_FILES_UNUSABLE",
            f"`{name}` {path} cannot be read: {exc.strerror}.",
            "Check the path, and that the user of the server may read it.",
        ) from exc


def _why(exc: OSError | ValueError) -> str:
    """OpenSSL's reason in words, without the place in its source."""
    if not isinstance(exc, ssl.SSLError):
        return str(exc)
    known = {"KEY_VALUES_MISMATCH": "the key is another certificate's"}
    reason = exc.reason or ""
    return known.get(reason, f"they are not PEM files of a certificate and a key ({reason or 'PEM'})")


def _no_password() -> str:
    raise ValueError("the key asks for a password")
