"""`voiceforge tenants` and `voiceforge privacy`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from front_door import OFFER, SDP, StartNode

from mediaserver.jobs.store import NewJob, Store
from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from signaling.app import ACCOUNTS
from signaling.auth.keys import NewKey
from signaling.cli import main
from signaling.cli import privacy as command
from signaling.privacy import service
from signaling.privacy.certificate import Signer


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SERVER_FIRST_S", 0.0)
    monkeypatch.setenv("VOICEFORGE_DATA_DIR", str(tmp_path / "data"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_how_long_things_are_kept() -> None:
    assert run("tenants", "set", "acme", "--transcript-keep-s", "600", "--usage-keep-days", "3").exit_code == 0
    assert run("tenants", "set", "acme", "--usage-keep-days", "-").exit_code == 0
    (line,) = [line for line in run("tenants", "list").stdout.splitlines() if "acme" in line]
    assert line.split() == ["acme", "600", "s", "as", "set", "as", "set"]
    for wrong in ("1", "soon"):
        outcome = run("tenants", "set", "acme", "--transcript-keep-s", wrong)
        assert outcome.exit_code == 1
        assert "`transcript_keep_s`" in outcome.stderr


def test_data_is_deleted_and_the_certificate_is_checked(tmp_path: Path) -> None:
    async def fill() -> None:
        database = Database(Settings().jobs_database_url)
        await Store(database).add([NewJob("job_1", {}, 60.0, tenant="acme")], now_s=1.0)
        await database.close()

    asyncio.run(fill())
    assert run("privacy", "erase", "acme").exit_code == 1, "it asks first"
    erased = run("privacy", "erase", "acme", "--yes")
    assert erased.exit_code == 0, erased.output
    certificate = json.loads(erased.stdout)
    assert certificate["statement"]["deleted"]["recordings"] == 1
    again = run("privacy", "certificate", certificate["statement"]["request_id"])
    assert json.loads(again.stdout) == certificate
    path = tmp_path / "certificate.json"
    path.write_text(erased.stdout)
    checked = run("privacy", "verify", str(path))
    assert checked.exit_code == 0, checked.output
    assert "1 recordings" in checked.stdout
    key = run("privacy", "public-key").stdout.strip()
    assert run("privacy", "verify", str(path), "--public-key", key).exit_code == 0
    path.write_text(erased.stdout.replace('"acme"', '"other"'))
    assert "changed" in run("privacy", "verify", str(path)).stderr
    path.write_bytes(b"\xff" * 10)
    assert "no certificate" in run("privacy", "verify", str(path)).stderr
    assert run("privacy", "certificate", "era_none").exit_code == 1
    assert run("privacy", "compact").exit_code == 0


def test_who_checks_where_nothing_was_signed_is_told_so_and_makes_up_no_key(tmp_path: Path) -> None:
    """A key made up for the check would call every certificate forged, and be taken for the server's from then on."""
    signer = Signer(b"s" * 32)
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(signer.sign({"tenant": "acme", "ended_at": "then", "deleted": {}, "is_complete": True})))
    checked = run("privacy", "verify", str(path))
    assert checked.exit_code == 1
    assert "nothing was signed here" in checked.stderr
    assert "--public-key" in checked.stderr
    assert not (tmp_path / "data").exists()
    assert run("privacy", "verify", str(path), "--public-key", signer.public_key).exit_code == 0
    assert not (tmp_path / "data").exists()


def test_nobody_is_deleted_whose_name_is_none() -> None:
    assert "no name" in run("privacy", "erase", "a b", "--yes").stderr


async def test_a_server_that_runs_has_the_first_turn_for_it_has_the_sessions(
    start_node: StartNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SERVER_FIRST_S", 20.0)
    monkeypatch.setattr(service, "LOOK_PERIOD_S", 0.05)
    node = await start_node(data_dir=tmp_path / "data")
    _, value = await node.app[ACCOUNTS].keys.create(NewKey("x", "acme"))
    headers = {**SDP, "Authorization": f"Bearer {value}"}
    async with node.client.post("/whip", data=OFFER, headers=headers) as response:
        assert response.status == 201
    erased = await asyncio.to_thread(run, "privacy", "erase", "acme", "--yes")
    assert erased.exit_code == 0, erased.output
    assert json.loads(erased.stdout)["statement"]["deleted"]["sessions_ended"] == 1
    assert node.peers[0].closed == ["data_deleted"]
