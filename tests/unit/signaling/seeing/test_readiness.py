"""When a node wants no more sessions, and that it does not flap."""

from __future__ import annotations

from pathlib import Path

import pytest
from front_door import Node, StartNode

from signaling.seeing.machine_use import Sources, look
from signaling.seeing.readiness import (
    DATABASE_DOWN,
    DISK_FULL,
    FILES_USED_UP,
    LOOP_LAG,
    MEMORY_USED_UP,
    OVERLOADED,
    PORTS_USED_UP,
    STATE_AWAY,
    Condition,
    Conditions,
    Machine,
    between,
)

MIB = 1 << 20


@pytest.fixture
def conditions() -> Conditions:
    return Conditions(disk_reserve_bytes=100 * MIB)


def test_what_begins_and_ends_takes_its_time() -> None:
    condition = Condition(OVERLOADED, bad_for_s=5.0, good_for_s=3.0)
    for now_s, is_bad, holds in [
        (0.0, True, False),
        (4.9, True, False),
        (5.0, True, True),
        (6.0, False, True),
        (8.9, False, True),
        (9.0, False, False),
        (10.0, True, False),
        (11.0, False, False),  # it was bad for a moment
        (15.0, True, False),
        (19.8, True, False),
        (20.0, True, True),
    ]:
        condition.see(is_bad, now_s)
        assert condition.holds is holds, now_s


def test_what_is_neither_bad_nor_good_changes_nothing() -> None:
    condition = Condition(OVERLOADED, bad_for_s=1.0)
    condition.see(True, 0.0)
    condition.see(None, 0.9)
    condition.see(True, 1.1)
    assert not condition.holds
    condition.see(True, 2.1)
    assert condition.holds
    condition.see(None, 3.0)
    assert condition.holds


def test_between_knows_which_side_is_worse() -> None:
    assert [between(value, begins=0.9, ends=0.8) for value in (0.7, 0.85, 0.9)] == [False, None, True]
    assert [between(value, begins=100, ends=150) for value in (100, 120, 151)] == [True, None, False]


def test_overload_must_last(conditions: Conditions) -> None:
    for now_s in range(5):
        conditions.overload(True, now_s)
        assert not conditions.reasons
    conditions.overload(True, 5.0)
    assert conditions.reasons == [OVERLOADED]
    conditions.overload(False, 6.0)
    conditions.overload(False, 10.9)
    assert conditions.reasons == [OVERLOADED]
    conditions.overload(False, 11.0)
    assert not conditions.reasons


def test_one_stall_is_no_lag_and_many_are(conditions: Conditions) -> None:
    conditions.lag(1.4, 0.0)
    for tick in range(1, 30):
        conditions.lag(0.001, tick * 0.2)
    assert not conditions.reasons
    for tick in range(30, 60):
        conditions.lag(0.3, tick * 0.5)
    assert conditions.reasons == [LOOP_LAG]
    for tick in range(150, 250):
        conditions.lag(0.001, tick * 0.2)
    assert not conditions.reasons


def test_a_database_may_be_away_for_a_moment(conditions: Conditions) -> None:
    conditions.database(False, 0.0)
    conditions.database(True, 5.0)
    conditions.database(False, 10.0)
    conditions.database(False, 20.0)
    assert conditions.reasons == [DATABASE_DOWN]
    conditions.database(True, 25.0)
    conditions.database(True, 30.0)
    assert not conditions.reasons


def test_a_state_that_is_away(conditions: Conditions) -> None:
    conditions.state(True, 0.0)
    conditions.state(True, 5.0)
    assert conditions.reasons == [STATE_AWAY]
    conditions.state(False, 6.0)
    conditions.state(False, 8.0)
    assert not conditions.reasons


@pytest.mark.parametrize(
    ("bad", "middling", "good", "reason"),
    [
        (
            Machine(disk_free_bytes=99 * MIB),
            Machine(disk_free_bytes=140 * MIB),
            Machine(disk_free_bytes=151 * MIB),
            DISK_FULL,
        ),
        (Machine(files_share=0.91), Machine(files_share=0.85), Machine(files_share=0.79), FILES_USED_UP),
        (Machine(memory_share=0.93), Machine(memory_share=0.9), Machine(memory_share=0.84), MEMORY_USED_UP),
        (
            Machine(ports_free=5, ports=100),
            Machine(ports_free=8, ports=100),
            Machine(ports_free=10, ports=100),
            PORTS_USED_UP,
        ),
        (Machine(ports_free=0, ports=4), Machine(ports_free=0, ports=4), Machine(ports_free=1, ports=4), PORTS_USED_UP),
    ],
)
def test_what_is_nearly_used_up(
    conditions: Conditions, bad: Machine, middling: Machine, good: Machine, reason: object
) -> None:
    for seen, holds in [(good, False), (bad, True), (middling, True), (good, False)]:
        conditions.machine(seen, 0.0)
        assert (conditions.reasons == [reason]) is holds, seen


def test_what_is_not_known_does_not_count(conditions: Conditions) -> None:
    conditions.machine(Machine(), 0.0)
    Conditions(disk_reserve_bytes=0).machine(Machine(disk_free_bytes=0), 0.0)
    assert not conditions.reasons


# --- what of the machine is used up


def cgroup(folder: Path, *, used: int, limit: str, cache: int = 0) -> Path:
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.stat").write_text(f"anon 7\nfile {cache}\nactive_file {cache - 10}\ninactive_file 10\n")
    return folder


def test_memory_is_what_the_kernel_cannot_give_back(tmp_path: Path) -> None:
    sources = Sources(tmp_path, range(0), cgroup=cgroup(tmp_path, used=900, limit="1000", cache=400))
    assert look(sources).memory_share == 0.5


def test_memory_without_a_limit_is_not_known(tmp_path: Path) -> None:
    assert look(Sources(tmp_path, range(0), cgroup=cgroup(tmp_path, used=900, limit="max"))).memory_share is None
    assert look(Sources(tmp_path, range(0), cgroup=tmp_path / "none")).memory_share is None


def test_control_groups_of_the_first_version(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.usage_in_bytes").write_text("800\n")
    (memory / "memory.limit_in_bytes").write_text("1000\n")
    (memory / "memory.stat").write_text("total_inactive_file 100\ntotal_active_file 200\n")
    assert look(Sources(tmp_path, range(0), cgroup=tmp_path)).memory_share == 0.5
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert look(Sources(tmp_path, range(0), cgroup=tmp_path)).memory_share is None


def test_ports_are_counted_once_whoever_has_them(tmp_path: Path) -> None:
    table = tmp_path / "udp"
    table.write_text(
        "  sl  local_address rem_address   st\n"
        "  1: 00000000:2710 00000000:0000 07\n"  # 10000
        "  2: 0100007F:2710 00000000:0000 07\n"
        "  3: 00000000:2712 00000000:0000 07\n"  # 10002
        "  4: 00000000:0035 00000000:0000 07\n"
    )
    sources = Sources(tmp_path, range(10_000, 10_010), udp_tables=(table, tmp_path / "none"))
    assert (look(sources).ports_free, look(sources).ports) == (8, 10)


def test_ports_are_counted_by_address(tmp_path: Path) -> None:
    """A session needs one at each: with two addresses that have each other's ports free, half of all are free."""
    table, table6 = tmp_path / "udp", tmp_path / "udp6"
    head = "  sl  local_address rem_address   st\n"
    first = [f"  1: 0100007F:{port:04X} 00000000:0000 07\n" for port in range(10_000, 10_005)]
    second = [f"  1: 0200007F:{port:04X} 00000000:0000 07\n" for port in range(10_005, 10_009)]
    table.write_text(head + "".join(first + second))
    table6.write_text(head + f"  1: {'0' * 32}:2718 {'0' * 32}:0000 07\n")  # 10008, at all addresses
    sources = Sources(tmp_path, range(10_000, 10_010), udp_tables=(table, table6))
    assert look(sources).ports_free == 4


def test_this_machine_has_something_to_say(tmp_path: Path) -> None:
    seen = look(Sources(tmp_path, range(40_000, 40_010)))
    assert seen.disk_free_bytes
    assert seen.files_share is not None
    assert 0 < seen.files_share < 1
    assert seen.ports_free is not None
    assert look(Sources(tmp_path / "not there", range(0))).disk_free_bytes is None


# --- a whole node


async def readiness(node: Node) -> tuple[int, list[str]]:
    async with node.client.get("/readyz") as response:
        return response.status, (await response.json())["codes"]


async def test_a_disk_that_is_nearly_full_is_told(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path, disk_reserve_mib=1 << 30)
    while (await readiness(node))[0] == 200:
        pass
    assert await readiness(node) == (503, ["disk_full"])
    assert (await node.client.get("/healthz")).status == 200
    async with node.client.get("/metrics") as response:
        text = await response.text()
    assert "voiceforge_ready 0.0" in text
    assert 'voiceforge_not_ready{reason="disk_full"} 1.0' in text
    assert 'voiceforge_not_ready{reason="loading"} 0.0' in text


async def test_a_well_node_is_ready(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path)
    assert await readiness(node) == (200, [])
    async with node.client.get("/metrics") as response:
        text = await response.text()
    for name in ("voiceforge_ready 1.0", "voiceforge_engine_up 1.0", "process_resident_memory_bytes"):
        assert name in text
