"""HTTPS served directly, for a node without a proxy before it."""

from __future__ import annotations

import ssl

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings


def tls_of(settings: Settings) -> ssl.SSLContext | None:
    """What the port speaks; None is plain HTTP. Reads files: not for the event loop.

    Raises:
        ConfigError: TLS_FILES_UNUSABLE.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=_no_password)
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        raise ConfigError(
            "TLS_FILES_UNUSABLE",
            f"`tls_certificate` and `tls_key` cannot be used: {exc.strerror if isinstance(exc, OSError) else exc}.",
            "Give PEM files that belong together, the key without a password.",
        ) from exc
    return context


def _no_password() -> str:
    raise ValueError("the key asks for a password")
