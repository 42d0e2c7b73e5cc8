"""Keys: made, compared, rotated, revoked; on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.storage.database import Database
from signaling.auth.keys import FRESH_S, REMEMBERED_MAX, USED_AGAIN_S, Keys, NewKey, is_within
from signaling.auth.principal import KeyLimits, Scope
from signaling.auth.tables import ApiKey

UNSEEN = ("\n", "\r", "\t", "\0", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\u200b", "\ud800")

NEW = NewKey("phone", "acme", scopes=[Scope.STREAM], limits=KeyLimits(sessions=2))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(database: Database, clock: Clock) -> Keys:
    return Keys(database, wall_s=clock)


async def test_a_key_stands_for_whom_it_was_made(keys: Keys) -> None:
    assert not await keys.exist()
    row, value = await keys.create(NEW)
    assert await keys.exist()
    principal, _ = await keys.find(value)
    assert principal is not None
    assert (principal.tenant, principal.key_id, principal.scopes) == ("acme", row.id, {Scope.STREAM})
    assert principal.limits == KeyLimits(sessions=2)
    assert not principal.is_local
    assert value.startswith(f"vf_{row.id}_")


async def test_a_key_is_kept_as_a_hash_alone(keys: Keys) -> None:
    row, value = await keys.create(NEW)
    kept = " ".join(str(getattr(row, column.name)) for column in row.__table__.columns)
    assert value not in kept
    assert value.split("_", 2)[2] not in kept
    assert row.digest == hashlib.sha256(value.encode()).hexdigest()


async def test_what_is_no_key_stands_for_nobody(keys: Keys) -> None:
    row, value = await keys.create(NEW)
    last = "A" if value[-1] != "A" else "B"
    for wrong in ("", "vf_", f"vf_{row.id}", value[:-1], value[:-1] + last, f"vf_00000000_{'x' * 43}", "\ud800" * 9):
        assert await keys.find(wrong) == (None, "The key is not one of this server.")


async def test_a_revoked_key_ends_within_seconds_in_other_processes(
    keys: Keys, database: Database, clock: Clock
) -> None:
    row, value = await keys.create(NEW)
    other = Keys(database, wall_s=clock)
    assert (await other.find(value))[0] is not None
    await keys.revoke(row.id)
    assert await keys.find(value) == (None, "The key has been revoked.")
    clock.now_s += FRESH_S
    assert (await other.find(value))[0] is None
    assert await other.exist(), "a server whose last key was revoked does not fall open"


async def test_a_rotated_key_overlaps_with_its_successor(keys: Keys, clock: Clock) -> None:
    row, value = await keys.create(NEW)
    successor, new_value = await keys.rotate(row.id, overlap_s=60)
    assert (successor.tenant, successor.scopes, successor.limits) == (row.tenant, row.scopes, row.limits)
    assert (await keys.find(value))[0] is not None
    assert (await keys.find(new_value))[0] is not None
    clock.now_s += 60
    assert await keys.find(value) == (None, "The key has expired.")
    assert (await keys.find(new_value))[0] is not None
    with pytest.raises(VoiceForgeError) as refused:
        await keys.rotate(row.id, overlap_s=60)
    assert refused.value.code == "KEY_ENDED"


async def test_a_key_that_is_not_there_is_neither_rotated_nor_revoked(keys: Keys) -> None:
    for change in (keys.revoke("00000000"), keys.rotate("00000000", overlap_s=1)):
        with pytest.raises(VoiceForgeError) as refused:
            await change
        assert refused.value.code == "KEY_NOT_FOUND"


@pytest.mark.parametrize(
    "wanted",
    [
        NewKey("x", "not a tenant"),
        NewKey("x", ""),
        NewKey("x", "acme", scopes=[]),
        NewKey("x", "acme", networks=["300.0.0.0/8"]),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(keys: Keys, wanted: NewKey) -> None:
    with pytest.raises(ConfigError) as refused:
        await keys.create(wanted)
    assert refused.value.code == "INVALID_KEY"
    assert await keys.all() == []


async def test_a_name_is_one_line_that_can_be_read(keys: Keys) -> None:
    for character in UNSEEN:
        with pytest.raises(ConfigError, match="`name`") as refused:
            await keys.create(NewKey(f"a{character}b", "acme"))
        assert refused.value.code == "INVALID_KEY"
    assert await keys.all() == []


async def test_a_name_is_in_any_script_and_one_that_is_older_than_the_rule_can_be_followed(keys: Keys) -> None:
    row, _ = await keys.create(NewKey("Empfang – 受付 №1 ☎", "acme"))
    async with keys._database.writing() as session:
        old = await session.get(ApiKey, row.id)
        assert old is not None
        old.name = "two\nlines"
    assert (await keys.rotate(row.id, overlap_s=1.0))[0].name == "two\nlines"


async def test_a_key_comes_from_its_networks_only(keys: Keys) -> None:
    _, value = await keys.create(NewKey("x", "acme", networks=["192.0.2.0/24", "2001:db8::/32"]))
    for address in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"):
        assert (await keys.find(value, address=address))[0] is not None
    for address in ("192.0.3.7", "2001:db9::1", "nonsense"):
        assert await keys.find(value, address=address) == (None, "The key may not be used from this address.")


def test_networks() -> None:
    assert is_within("fe80::1%eth0", ["fe80::/10"])
    assert not is_within("127.0.0.1", [])


async def test_its_last_use_is_noted_once_a_minute(keys: Keys, clock: Clock) -> None:
    _, value = await keys.create(NEW)
    await keys.find(value)
    used_s = clock.now_s
    clock.now_s += USED_AGAIN_S - 1
    await keys.find(value)
    assert (await keys.all())[0].last_used_at == used_s
    clock.now_s += 1
    await keys.find(value)
    assert (await keys.all())[0].last_used_at == clock.now_s


async def test_guesses_fill_no_memory(tmp_path: Path, clock: Clock) -> None:
    keys = Keys(Database(f"sqlite:///{tmp_path / 'none.db'}"), wall_s=clock)
    for guess in range(REMEMBERED_MAX + 50):
        await keys.find(f"vf_{guess:08x}_{'x' * 43}")
    assert len(keys._rows) == REMEMBERED_MAX
    assert not (tmp_path / "none.db").exists(), "a server without keys writes nothing"


async def test_keys_are_listed_by_tenant_the_newest_first(keys: Keys, clock: Clock) -> None:
    for tenant in ("a", "b", "a"):
        await keys.create(NewKey(tenant, tenant))
        clock.now_s += 1
    assert [key.tenant for key in await keys.all()] == ["a", "b", "a"]
    assert len(await keys.all(tenant="a")) == 2
    assert [key.created_at for key in await keys.all()] == sorted(
        (key.created_at for key in await keys.all()), reverse=True
    )
