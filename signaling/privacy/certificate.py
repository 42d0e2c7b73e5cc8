"""Certificates of deletion, signed so that they can be checked years later (Ed25519, RFC 8032).

Ed25519 and not a shared secret: whoever is given a certificate can check it with the public key, and cannot make one.
The private key follows from `token_secret`, which all nodes share; where that is not set it is a file in `data_dir`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings

ALGORITHM = "Ed25519"
PURPOSE = b"voiceforge certificates of deletion, 1"
"""What the key is derived for: `token_secret` signs other things too, with other keys."""

KEY_FILE = "certificate.key"
SEED_BYTES = 32
CERTIFICATE_MAX_BYTES = 1 << 20

Document = dict[str, Any]


class Signer:
    """Signs and checks certificates.

    Args:
        seed: of the private key, [32].
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def of(cls, settings: Settings, *, may_make: bool = True) -> Signer:
        """The node's. Blocks.

        Args:
            settings: of the node.
            may_make: whether one is made up and kept where there is none yet; who checks has nothing from that.

        Raises:
            ConfigError: KEY_FILE_INVALID, or NO_SIGNING_KEY where none may be made.
            OSError: the file can be neither read nor written.
        """
        if settings.token_secret is not None:
            secret = settings.token_secret.get_secret_value().encode()
            return cls(hmac.digest(secret, PURPOSE, "sha256"))
        path = settings.data_dir / KEY_FILE
        if not may_make and not path.exists():
            raise ConfigError(
                "NO_SIGNING_KEY",
                f"There is neither `token_secret` nor `{KEY_FILE}` in the data directory: nothing was signed here.",
                "Give --public-key, which `voiceforge privacy public-key` prints where it was signed; or the "
                "`token_secret` or `data_dir` of that server.",
            )
        return cls(_kept_seed(path))

    @property
    def public_key(self) -> str:
        """What anybody checks certificates with, in Base64."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, statement: Mapping[str, Any]) -> Document:
        """A certificate: what is stated, its digest, and the signature over the very bytes that the digest is of."""
        told = canonical(statement)
        return {
            "statement": dict(statement),
            "sha256": hashlib.sha256(told).hexdigest(),
            "signature": {
                "algorithm": ALGORITHM,
                "public_key": self.public_key,
                "value": base64.b64encode(self._key.sign(told)).decode(),
            },
        }


def canonical(statement: Mapping[str, Any]) -> bytes:
    """A statement as bytes, the same whoever writes them: names in order, no spaces, UTF-8."""
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def problem_of(certificate: object, public_key: str) -> str | None:
    """What is wrong with a certificate; None: it says what was signed with this key.

    Args:
        certificate: as it was given out, parsed.
        public_key: of who is said to have signed it; the one in the certificate proves nothing by itself.
    """
    match certificate:
        case {
            "statement": dict(statement),
            "sha256": str(digest),
            "signature": {"algorithm": "Ed25519", "public_key": str(signed_by), "value": str(value)},
        }:
            told = canonical(statement)
        case _:
            return "It is no certificate of deletion."
    if not hmac.compare_digest(hashlib.sha256(told).hexdigest().encode(), digest.encode(errors="replace")):
        return "Its digest is of another text: it was changed."
    if signed_by != public_key:
        return "It was signed with another key."
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(value, validate=True), told)
    except (InvalidSignature, ValueError, binascii.Error):
        return "Its signature is of another text, or of another key."
    return None


def _kept_seed(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SEED_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    seed = path.read_bytes()
    if len(seed) != SEED_BYTES:
        raise ConfigError(
            "KEY_FILE_INVALID",
            f"`{KEY_FILE}` in the data directory is no key.",
            "Restore it from a backup; without it, set aside, certificates are signed with a new one.",
        )
    return seed
