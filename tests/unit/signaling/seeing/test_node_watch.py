"""What a node sees of itself, and shows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from front_door import FakeEngine

from mediaserver.decoder.status import EngineStatus
from mediaserver.jobs.store import NewJob, Store, new_id
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from signaling.limits import Admission, Reason
from signaling.registry import Registry
from signaling.seeing import node_watch
from signaling.seeing.node_watch import ALL_REASONS, NodeWatch
from signaling.seeing.readiness import Conditions


class TellingEngine(FakeEngine):
    """An engine that says how it is."""

    def __init__(self, process_id: int) -> None:
        super().__init__()
        self.told = EngineStatus("cuda", "float16", 4, 3, {"final": 2, "recording": 5}, process_id, 1.5, 1000, 7)

    def status(self) -> EngineStatus | None:
        return self.told


class Watched:
    """A node that is watched, without a network."""

    def __init__(
        self, folder: Path, *, engine: FakeEngine | None = None, is_away: bool = False, **given: object
    ) -> None:
        self.metrics = Metrics()
        self.settings = Settings.model_validate({"data_dir": folder, **given})
        self.database = Database(self.settings.jobs_database_url)
        self.engine = engine or FakeEngine()
        self.is_away = is_away
        registry = Registry(max_sessions=1, metrics=self.metrics)
        self.admission = Admission(engine=lambda: self.engine, require_room=lambda: None)
        self.watch = NodeWatch(
            settings=self.settings,
            metrics=self.metrics,
            admission=self.admission,
            registry=registry,
            engine=lambda: self.engine,
            database=self.database,
            usage_age_s=lambda: 2.5,
            state_is_away=lambda: self.is_away,
        )

    def shown(self, name: str, **labels: str) -> float | None:
        self.metrics.exposition("")
        return self.metrics.registry.get_sample_value(f"voiceforge_{name}", labels or None)

    async def until(self, condition: Callable[[], bool]) -> None:
        running = asyncio.create_task(self.watch.run())
        try:
            async with asyncio.timeout(20):
                while not condition():
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self.database.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERIOD_S", "MACHINE_PERIOD_S", "JOBS_PERIOD_S"):
        monkeypatch.setattr(node_watch, name, 0.01)


def test_every_reason_has_a_series(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    assert {watched.shown("not_ready", reason=code) for code in ALL_REASONS} == {0.0}
    told = {condition.reason.code for condition in Conditions(disk_reserve_bytes=1)._all}
    assert told | {"stopping", "loading", "engine_down"} == set(ALL_REASONS)


def test_an_engine_in_its_own_process_is_shown_with_what_it_uses(tmp_path: Path) -> None:
    watched = Watched(tmp_path, engine=TellingEngine(process_id=1))
    assert watched.shown("engine_slots") == 4
    assert watched.shown("engine_busy_slots") == 3
    assert watched.shown("engine_queued_windows", kind="recording") == 5
    assert watched.shown("engine_resident_bytes") == 1000
    built = watched.metrics.build_info.collect()[0].samples[0].labels
    assert (built["model"], built["device"], built["compute_type"]) == ("tiny.en", "cuda", "float16")
    watched.engine.ready = False
    assert watched.shown("engine_up") == 0
    assert watched.shown("not_ready", reason="engine_down") == 1
    assert watched.shown("ready") == 0


def test_an_engine_in_this_process_is_not_counted_twice(tmp_path: Path) -> None:
    watched = Watched(tmp_path, engine=TellingEngine(process_id=os.getpid()))
    assert watched.shown("engine_slots") == 4
    assert watched.shown("engine_resident_bytes") == 0


async def test_jobs_are_counted_by_state(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    new = [NewJob(id=new_id("job"), options={}, keep_s=60.0, url="http://example.com/a") for _ in range(3)]
    await Store(watched.database).add(new, now_s=1.0)
    await watched.until(lambda: watched.shown("jobs_in_state", state="queued") == 3)
    assert watched.shown("database_up") == 1
    assert watched.shown("usage_unwritten_seconds") == 2.5


async def test_a_database_that_fails_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs.db").write_bytes(b"no database at all" * 100)
    watched = Watched(tmp_path)
    seen: list[bool] = []
    monkeypatch.setattr(watched.watch.conditions, "database", lambda is_up, now_s: seen.append(is_up))
    await watched.until(lambda: bool(seen))
    assert not seen[0]
    assert watched.shown("database_up") == 0


async def test_nothing_is_asked_where_there_is_no_database(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "nothing yet")
    looks: list[None] = []
    original = watched.watch.conditions.machine
    watched.watch.conditions.machine = lambda machine, now_s: (looks.append(None), original(machine, now_s))[1]  # type: ignore[method-assign]
    await watched.until(lambda: len(looks) >= 3)
    assert not (tmp_path / "nothing yet").exists()
    assert watched.admission.not_ready() == []


@pytest.mark.parametrize(("way", "counts"), [("refuse", True), ("serve", False)])
async def test_a_state_that_is_away_counts_where_sessions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, counts: bool
) -> None:
    watched = Watched(tmp_path, is_away=True, state_away=way)
    seen: list[bool] = []
    monkeypatch.setattr(watched.watch.conditions, "state", lambda is_away, now_s: seen.append(is_away))
    await watched.until(lambda: bool(seen))
    assert seen[0] is counts
    assert watched.shown("state_up") == 0


def test_what_is_further_wrong_is_told_after_what_is_plain(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.admission.further = lambda: [Reason("loop_lag", "the event loop is late")]
    watched.admission.stop()
    assert [reason.code for reason in watched.admission.not_ready()] == ["stopping", "loop_lag"]
