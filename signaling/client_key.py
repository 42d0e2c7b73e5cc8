"""What the command line shows to a server, and what it says of a server that it does not trust, or the other way round.

The key comes from the environment, for flags stand in every process list.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mediaserver.errors import VoiceForgeError

if TYPE_CHECKING:  # the command line's --help need not wait for it
    import aiohttp

VARIABLE = "VOICEFORGE_API_KEY"

KEY_HINT = f"Set {VARIABLE} to a key of this server: `voiceforge keys create NAME` makes one."


def key_headers() -> dict[str, str]:
    """What goes with each request; nothing where there is no key."""
    key = os.environ.get(VARIABLE, "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


def untrusted(url: str, exc: aiohttp.ClientConnectorCertificateError) -> VoiceForgeError:
    """What to say of a server whose certificate nobody vouches for."""
    return VoiceForgeError(
        "CERTIFICATE_UNTRUSTED",
        f"The certificate of {url} is not trusted: {getattr(exc.certificate_error, 'verify_message', None) or exc}.",
        "Use the name that stands in it; for one of your own, name it in SSL_CERT_FILE.",
    )
