"""Certificates of deletion: signed, and checked years later."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings
from signaling.privacy.certificate import KEY_FILE, Signer, problem_of

STATEMENT = {"tenant": "acme", "deleted": {"recordings": 3}, "of": "Zürich"}
SIGNER = Signer(b"s" * 32)


def test_it_is_good_as_long_as_nobody_changes_it() -> None:
    certificate = SIGNER.sign(STATEMENT)
    assert problem_of(certificate, SIGNER.public_key) is None
    shuffled = {name: certificate[name] for name in sorted(certificate, reverse=True)}
    shuffled["statement"] = dict(sorted(STATEMENT.items(), reverse=True))
    assert problem_of(shuffled, SIGNER.public_key) is None, "the order of names says nothing"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it["statement"].update(tenant="other"), "changed"),
        (lambda it: it["statement"]["deleted"].update(recordings=4), "changed"),
        (lambda it: it.update(Signer(b"x" * 32).sign(STATEMENT)), "another key"),
        (lambda it: it["signature"].update(value=base64.b64encode(b"x" * 64).decode()), "signature"),
        (lambda it: it["signature"].update(value="!"), "signature"),
        (lambda it: it["signature"].update(algorithm="none"), "no certificate"),
        (lambda it: it.pop("sha256"), "no certificate"),
    ],
)
def test_what_was_changed_is_found_out(change: Any, said: str) -> None:
    certificate = SIGNER.sign({**STATEMENT, "deleted": {"recordings": 3}})
    change(certificate)
    assert said in (problem_of(certificate, SIGNER.public_key) or "")


@pytest.mark.parametrize("nonsense", [None, [], "x", {"statement": []}])
def test_nonsense_is_no_certificate(nonsense: object) -> None:
    assert problem_of(nonsense, SIGNER.public_key) == "It is no certificate of deletion."
    assert problem_of(SIGNER.sign(STATEMENT), "nonsense") == "It was signed with another key."


def test_all_nodes_with_one_secret_have_one_key(tmp_path: Path) -> None:
    one, other = (Signer.of(Settings(token_secret="t" * 32, data_dir=tmp_path / name)) for name in ("a", "b"))
    assert one.public_key == other.public_key
    assert not (tmp_path / "a").exists()
    assert Signer.of(Settings(token_secret="u" * 32)).public_key != one.public_key


def test_without_a_secret_the_key_is_kept(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert Signer.of(settings).public_key == Signer.of(settings).public_key
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(ConfigError) as refused:
        Signer.of(settings)
    assert refused.value.code == "KEY_FILE_INVALID"
