"""Plans: limits by name, in the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from front_door import Node, StartNode

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from signaling.app import ACCOUNTS
from signaling.auth.accounts import Accounts
from signaling.auth.keys import Keys, NewKey
from signaling.auth.plans import Plans
from signaling.auth.principal import KeyLimits, Scope
from signaling.cli import main

TABLES = {"pro": {"sessions": 10.0, "minutes_per_month": 600.0}, "free": {"sessions": 1.0}}


async def limits_of(keys: Keys, value: str) -> KeyLimits | str:
    principal, why = await keys.find(value)
    return why if principal is None else principal.limits


async def test_a_plan_says_what_a_key_does_not_say_itself(database: Database) -> None:
    keys = Keys(database, plans=Plans(TABLES))
    _, value = await keys.create(NewKey("x", "acme", plan="pro", limits=KeyLimits(sessions=3)))
    assert await limits_of(keys, value) == KeyLimits(sessions=3, minutes_per_month=600)


async def test_a_changed_plan_changes_its_keys(database: Database) -> None:
    _, value = await Keys(database, plans=Plans(TABLES)).create(NewKey("x", "acme", plan="pro"))
    grown = Keys(database, plans=Plans({"pro": {"sessions": 50.0}}))
    assert await limits_of(grown, value) == KeyLimits(sessions=50)


async def test_a_plan_that_is_gone_lets_nobody_in(database: Database) -> None:
    _, value = await Keys(database, plans=Plans(TABLES)).create(NewKey("x", "acme", plan="pro"))
    assert await limits_of(Keys(database), value) == "The key's plan is not known to this server."


async def test_a_key_gets_another_plan_and_its_follower_too(database: Database) -> None:
    keys = Keys(database, plans=Plans(TABLES))
    row, value = await keys.create(NewKey("x", "acme", plan="pro"))
    await keys.change_plan(row.id, "free")
    assert await limits_of(keys, value) == KeyLimits(sessions=1)
    _, follower = await keys.rotate(row.id, overlap_s=60)
    assert await limits_of(keys, follower) == KeyLimits(sessions=1)
    await keys.change_plan(row.id, None)
    assert await limits_of(keys, value) == KeyLimits()
    for wrong, code in ((("00000000", "free"), "KEY_NOT_FOUND"), ((row.id, "gold"), "INVALID_KEY")):
        with pytest.raises(VoiceForgeError) as refused:
            await keys.change_plan(*wrong)
        assert refused.value.code == code
    with pytest.raises(ConfigError):
        await keys.create(NewKey("x", "acme", plan="gold"))


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"pro plus": {}}, "no name"),
        ({"pro": {"seats": 1.0}}, "`pro.seats`"),
        ({"pro": {"sessions": -1.0}}, "sessions"),
    ],
)
def test_a_plan_that_makes_no_sense_keeps_the_server_from_starting(
    tables: dict[str, dict[str, float]], said: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Accounts(Settings(plans=tables))
    assert refused.value.code == "INVALID_PLAN"
    assert said in refused.value.message


async def test_over_http(start_node: StartNode, tmp_path: Path) -> None:
    node: Node = await start_node(data_dir=tmp_path / "data", plans=TABLES)
    _, admin = await node.app[ACCOUNTS].keys.create(NewKey("admin", "house", scopes=[Scope.ADMIN]))
    headers = {"Authorization": f"Bearer {admin}"}
    wanted = {"name": "x", "tenant": "acme", "plan": "pro"}
    async with node.client.post("/api/v1/admin/keys", json=wanted, headers=headers) as response:
        made = await response.json()
        assert (response.status, made["key"]["plan"]) == (201, "pro")
    path = f"/api/v1/admin/keys/{made['key']['id']}"
    async with node.client.patch(path, json={"plan": "free"}, headers=headers) as response:
        assert (response.status, (await response.json())["plan"]) == (200, "free")
    for body, asked, status in (
        ({"plan": "gold"}, path, 400),
        ({}, path, 400),
        ({"plan": None}, "/api/v1/admin/keys/00000000", 404),
    ):
        async with node.client.patch(asked, json=body, headers=headers) as response:
            assert response.status == status
    async with node.client.patch(path, json={"plan": None}) as response:
        assert response.status == 401


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEFORGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("VOICEFORGE_PLANS", '{"pro": {"sessions": 2}, "free": {}}')
    made = CliRunner().invoke(main, ["keys", "create", "phone", "--plan", "pro"])
    assert made.exit_code == 0, made.output
    key = made.stdout.split("_")[1]
    assert " pro " in CliRunner().invoke(main, ["keys", "list"]).stdout
    assert CliRunner().invoke(main, ["keys", "plan", key, "free"]).exit_code == 0
    assert " free " in CliRunner().invoke(main, ["keys", "list"]).stdout
    assert CliRunner().invoke(main, ["keys", "plan", key, "-"]).exit_code == 0
    wrong = CliRunner().invoke(main, ["keys", "create", "phone", "--plan", "gold"])
    assert wrong.exit_code == 1
    assert "no plan" in wrong.stderr
