"""HTTPS served directly."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings
from signaling.tls import tls_of


def made(folder: Path, *, password: bytes | None = None) -> dict[str, Any]:
    """A certificate of one's own and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secrecy = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    forms = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secrecy)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(*forms))
    return {"tls_certificate": folder / "cert.pem", "tls_key": folder / "key.pem"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_tls_of_today_is_spoken_and_no_older_one(tmp_path: Path) -> None:
    files = made(tmp_path)

    async def version(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.Response(text=request.transport.get_extra_info("ssl_object").version())

    app = web.Application()
    app.router.add_get("/", version)
    runner = web.AppRunner(app)
    await runner.setup()
    port = unused_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls_of(Settings(**files))).start()
    try:
        client = ssl.create_default_context(cafile=str(files["tls_certificate"]))
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"https://localhost:{port}/", ssl=client) as response,
        ):
            assert await response.text() in ("TLSv1.2", "TLSv1.3")
        client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        client.maximum_version = ssl.TLSVersion.TLSv1_1
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientConnectorError):
                await http.get(f"https://localhost:{port}/", ssl=client)
    finally:
        await runner.cleanup()


def test_without_files_it_is_plain_http() -> None:
    assert tls_of(Settings()) is None


def test_half_of_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="belong together"):
        Settings(tls_key=made(tmp_path)["tls_key"])


def test_files_that_cannot_be_used_are_a_sentence(tmp_path: Path) -> None:
    files = made(tmp_path, password=b"secret")
    for wrong in (
        files,
        {**files, "tls_key": tmp_path / "none.pem"},
        {**files, "tls_key": files["tls_certificate"]},
    ):
        with pytest.raises(ConfigError) as refused:
            tls_of(Settings(**wrong))
        assert refused.value.code == "TLS_FILES_UNUSABLE"
        assert str(wrong["tls_key"]) in refused.value.message
        assert "_ssl.c" not in refused.value.message


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    wrong = {**made(tmp_path), "tls_key": made(tmp_path / "other")["tls_key"]}
    with pytest.raises(ConfigError, match="the key is another certificate's"):
        tls_of(Settings(**wrong))
