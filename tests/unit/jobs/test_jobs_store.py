"""Jobs in the database, on each kind of it: taken in, claimed once, ended once, owed, expired."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from mediaserver.errors import CapacityError
from mediaserver.jobs import store as module
from mediaserver.jobs.deliveries import HELD_S, OWED_MAX_S, Deliveries, receiver_of
from mediaserver.jobs.ledger import ATTEMPTS_MAX, LEASE_S, REANNOUNCED_AFTER_S, RISES_AFTER_S, Ledger
from mediaserver.jobs.models import Job, Priority, Stage, State, Upload
from mediaserver.jobs.store import NewJob, Store, new_id
from mediaserver.storage.database import Database

OPTIONS = {"language": None, "prompt": None, "hotwords": [], "multichannel": False, "task": "transcribe"}
HOOK = {"webhook_url": "https://example.org/hook", "webhook_secret": "long enough"}


def new_job(priority: Priority = Priority.NORMAL, **given: Any) -> NewJob:
    return NewJob(new_id("job"), OPTIONS, 100.0, priority, **given)


class Books:
    """The database's three sides."""

    def __init__(self, database: Database) -> None:
        self.store = Store(database)
        self.ledger = Ledger(database)
        self.deliveries = Deliveries(database)

    async def state(self, job_id: str) -> Job:
        job = await self.store.get(job_id)
        assert job is not None
        return job

    async def complete(self, job: Job, owner: str, *, now_s: float) -> bool:
        return await self.ledger.complete(job, owner, body=b"packed", summary={}, size_bytes=5, now_s=now_s)

    async def reclaim(self, *, now_s: float) -> list[str]:
        return await self.ledger.reclaim(await self.ledger.overdue(now_s=now_s), now_s=now_s)


@pytest_asyncio.fixture
async def books(database: Database) -> Books:
    return Books(database)


async def test_who_is_next_goes_by_priority_and_then_by_turn(books: Books) -> None:
    wanted = [Priority.LOW, Priority.NORMAL, Priority.EXPRESS, Priority.NORMAL, Priority.LOW, Priority.EXPRESS]
    jobs = [new_job(priority) for priority in wanted]
    await books.store.add(jobs[:4], now_s=1.0)
    await books.store.add(jobs[4:], now_s=2.0)
    claimed = []
    while (job := await books.ledger.claim("a", now_s=3.0)) is not None:
        claimed.append(job.id)
    assert claimed == [jobs[n].id for n in (2, 5, 1, 3, 0, 4)]
    assert not await books.ledger.has_waiting()


async def test_who_waits_long_is_not_kept_out_by_who_is_more_urgent(books: Books) -> None:
    low, normal = new_job(Priority.LOW), new_job()
    await books.store.add([low], now_s=0.0)
    await books.store.add([normal], now_s=RISES_AFTER_S)
    later = [new_job(), new_job(Priority.EXPRESS)]
    await books.store.add(later, now_s=2 * RISES_AFTER_S - 2)

    async def following(now_s: float) -> str:
        job = await books.ledger.claim("a", now_s=now_s)
        assert job is not None
        await books.ledger.release(job, "a", now_s=now_s)
        return job.id

    assert await following(RISES_AFTER_S - 1) == later[1].id
    await books.store.cancel(later[1].id, now_s=0.0)
    assert await following(RISES_AFTER_S - 1) == normal.id
    assert await following(RISES_AFTER_S) == low.id  # as urgent as the others, and before them
    express = new_job(Priority.EXPRESS)
    await books.store.add([express], now_s=RISES_AFTER_S)
    assert await following(2 * RISES_AFTER_S - 1) == express.id
    assert await following(2 * RISES_AFTER_S) == low.id


async def test_a_claim_that_was_renewed_since_it_was_looked_at_is_left_alone(books: Books) -> None:
    await books.store.add([new_job()], now_s=1.0)
    job = await books.ledger.claim("a", now_s=2.0)
    assert job is not None
    overdue = await books.ledger.overdue(now_s=5000.0)  # a clock that was set, or another machine's
    assert overdue == {job.number: 2.0 + LEASE_S}
    await books.ledger.renew("a", {job.number: (Stage.TRANSCRIBING, 1.0)}, now_s=3.0)
    assert await books.ledger.reclaim(overdue, now_s=5000.0) == []
    assert (await books.state(job.id)).state == State.RUNNING


async def test_webhooks_to_a_receiver_that_has_enough_wait_and_the_others_do_not(books: Books) -> None:
    urls = ["https://a.example", "https://a.example/x", "https://a.example:8443/", "https://b_example/%41?x=_"]
    jobs = [new_job(webhook_url=url) for url in urls]
    await books.store.add(jobs, now_s=1.0)
    for n, job in enumerate(jobs):
        await books.store.cancel(job.id, now_s=2.0 + n)

    async def owed(*not_to: str) -> list[str | None]:
        taken = await books.deliveries.take(limit=10, now_s=9.0, not_to=not_to)
        assert not await books.deliveries.any_due(now_s=9.0, not_to=not_to)
        await books.deliveries.give_back([one.id for one in taken])
        return [one.job.webhook_url for one in taken]

    assert await owed() == urls
    assert await owed(receiver_of(urls[1])) == urls[2:]
    assert await owed(receiver_of(urls[0]), receiver_of(urls[2])) == urls[3:]
    assert await owed("https://bXexample/") == urls
    assert await owed(receiver_of(urls[3])) == urls[:3]


async def test_a_broker_is_told_again_ever_more_rarely(books: Books) -> None:
    await books.store.add([new_job()], now_s=0.0)
    told_s = []
    for n in range(97):  # a day
        now_s = n * (REANNOUNCED_AFTER_S + 1)
        if jobs := await books.ledger.unannounced(limit=10, now_s=now_s):
            await books.ledger.announced([job.id for job in jobs], now_s=now_s)
            told_s.append(n)
    assert told_s == [0, 1, 2, 4, 8, 16, 32, 64]


async def test_two_workers_never_take_the_same_job(books: Books) -> None:
    jobs = await books.store.add([new_job() for _ in range(12)], now_s=1.0)
    claims: list[str] = []

    async def work(owner: str) -> None:
        # PostgreSQL may answer nothing to one that came second: it asks again, as the queue does.
        while await books.ledger.has_waiting():
            job = await books.ledger.claim(owner, now_s=2.0)
            if job is not None:
                claims.append(job.id)

    await asyncio.gather(*(work(f"worker {n}") for n in range(4)))
    assert sorted(claims) == sorted(job.id for job in jobs)


async def test_a_certain_job_can_be_claimed_once(books: Books) -> None:
    first, second = await books.store.add([new_job(), new_job()], now_s=1.0)
    claimed = await books.ledger.claim("a", now_s=2.0, job_id=second.id)
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.attempts, claimed.owner) == (second.id, State.RUNNING, 1, "a")
    assert await books.ledger.claim("b", now_s=2.0, job_id=second.id) is None
    assert (await books.state(first.id)).state == State.QUEUED


async def test_a_result_appears_with_the_state_and_only_from_who_has_the_job(books: Books) -> None:
    (added,) = await books.store.add([new_job(**HOOK)], now_s=1.0)
    job = await books.ledger.claim("a", now_s=2.0)
    assert job is not None
    assert not await books.complete(job, "b", now_s=3.0)
    assert await books.store.result(added.id) is None
    await books.ledger.renew("a", {job.number: (Stage.TRANSCRIBING, 50.0)}, now_s=3.0)
    assert ((await books.state(added.id)).progress, (await books.state(added.id)).stage) == (50.0, "transcribing")
    assert await books.complete(job, "a", now_s=4.0)
    ended = await books.state(added.id)
    assert (ended.state, ended.progress, ended.finished_at, ended.expires_at) == ("completed", 100.0, 4.0, 104.0)
    assert await books.store.result(added.id) == b"packed"
    assert not await books.complete(job, "a", now_s=5.0)
    assert not await books.ledger.fail(job, "a", {}, now_s=5.0)


async def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_by_its_worker(books: Books) -> None:
    running, waiting = await books.store.add([new_job(**HOOK), new_job(**HOOK)], now_s=1.0)
    job = await books.ledger.claim("a", now_s=2.0)
    assert job is not None
    done = await books.store.cancel(waiting.id, now_s=3.0)
    assert done is not None
    assert (done.state, done.finished_at) == (State.CANCELLED, 3.0)
    asked = await books.store.cancel(running.id, now_s=3.0)
    assert asked is not None
    assert asked.state == State.RUNNING
    assert await books.ledger.held("a") == {job.number: True}
    assert await books.ledger.cancelled(job, "a", now_s=4.0)
    assert (await books.state(running.id)).state == State.CANCELLED
    assert await books.store.cancel(running.id, now_s=5.0) is None
    assert await books.store.cancel("job_none", now_s=5.0) is None
    owed = await books.deliveries.take(limit=10, now_s=5.0)
    assert [(one.event, one.job.id) for one in owed] == [
        ("transcription.cancelled", waiting.id),
        ("transcription.cancelled", running.id),
    ]


async def test_a_dead_workers_job_is_run_once_more_and_then_fails(books: Books) -> None:
    (added,) = await books.store.add([new_job(**HOOK)], now_s=1.0)
    now_s = 2.0
    for attempt in range(1, ATTEMPTS_MAX + 1):
        job = await books.ledger.claim(f"worker {attempt}", now_s=now_s)
        assert job is not None
        assert job.attempts == attempt
        assert await books.reclaim(now_s=now_s + LEASE_S - 1) == []
        now_s += LEASE_S + 1
        again = await books.reclaim(now_s=now_s)
        assert again == ([added.id] if attempt < ATTEMPTS_MAX else [])
        assert not await books.complete(job, f"worker {attempt}", now_s=now_s)  # it was not dead after all: too late
    failed = await books.state(added.id)
    assert failed.state == State.FAILED
    assert failed.error is not None
    assert failed.error["code"] == "WORKER_CRASHED"
    (owed,) = await books.deliveries.take(limit=10, now_s=now_s)
    assert owed.event == "transcription.failed"


async def test_a_dead_workers_job_that_was_to_be_cancelled_is_cancelled(books: Books) -> None:
    (added,) = await books.store.add([new_job()], now_s=1.0)
    await books.ledger.claim("a", now_s=2.0)
    await books.store.cancel(added.id, now_s=3.0)
    assert await books.reclaim(now_s=100.0) == []
    assert (await books.state(added.id)).state == State.CANCELLED


async def test_what_is_renewed_is_not_taken_away(books: Books) -> None:
    (added,) = await books.store.add([new_job()], now_s=1.0)
    job = await books.ledger.claim("a", now_s=2.0)
    assert job is not None
    await books.ledger.renew("a", {job.number: (Stage.TRANSCRIBING, 1.0)}, now_s=10.0)
    assert await books.reclaim(now_s=2.0 + LEASE_S + 1) == []
    await books.ledger.forget_dead(lambda owner: owner == "a")
    assert await books.reclaim(now_s=11.0) == [added.id]


async def test_a_job_put_back_is_as_it_was(books: Books) -> None:
    first, _ = await books.store.add([new_job(), new_job()], now_s=1.0)
    job = await books.ledger.claim("a", now_s=2.0)
    assert job is not None
    assert await books.ledger.release(job, "a", now_s=0.0)
    back = await books.state(first.id)
    assert (back.state, back.attempts, back.owner, back.progress) == (State.QUEUED, 0, None, 0.0)
    assert not await books.ledger.release(job, "a", now_s=0.0)
    again = await books.ledger.claim("b", now_s=3.0)
    assert again is not None
    assert again.id == first.id  # it has not lost its turn


async def test_a_webhook_is_one_senders_for_a_while_and_its_secret_forgotten_at_the_end(books: Books) -> None:
    (added,) = await books.store.add([new_job(**HOOK)], now_s=1.0)
    assert not await books.deliveries.any_due(now_s=2.0)
    await books.store.cancel(added.id, now_s=2.0)
    assert await books.deliveries.any_due(now_s=2.0)
    (owed,) = await books.deliveries.take(limit=10, now_s=3.0)
    assert owed.job.webhook_secret == "long enough"
    assert await books.deliveries.take(limit=10, now_s=4.0) == []
    await books.deliveries.hold([owed.id], now_s=HELD_S)
    assert await books.deliveries.take(limit=10, now_s=HELD_S + 10) == []
    (again,) = await books.deliveries.take(limit=10, now_s=3 * HELD_S)  # its sender died
    assert again.id == owed.id
    await books.deliveries.give_back([owed.id])
    (once_more,) = await books.deliveries.take(limit=10, now_s=3 * HELD_S)
    await books.deliveries.done(once_more)
    assert await books.deliveries.take(limit=10, now_s=10 * HELD_S) == []
    assert (await books.state(added.id)).webhook_secret is None


async def test_old_news_is_not_told(books: Books) -> None:
    (added,) = await books.store.add([new_job(**HOOK)], now_s=1.0)
    await books.store.cancel(added.id, now_s=2.0)
    assert await books.deliveries.take(limit=10, now_s=OWED_MAX_S + 3.0) == []


async def test_what_is_deleted_takes_everything_with_it(books: Books) -> None:
    (added,) = await books.store.add([new_job(**HOOK)], now_s=1.0)
    job = await books.ledger.claim("a", now_s=2.0)
    assert job is not None
    await books.complete(job, "a", now_s=3.0)
    assert await books.store.delete(added.id)
    assert not await books.store.delete(added.id)
    assert await books.store.get(added.id) is None
    assert await books.store.result(added.id) is None
    assert not await books.deliveries.any_due(now_s=4.0)


async def test_ended_jobs_expire_and_others_do_not(books: Books) -> None:
    ended, _waiting = await books.store.add([new_job(), new_job()], now_s=1.0)
    job = await books.ledger.claim("a", now_s=2.0)
    assert job is not None
    await books.complete(job, "a", now_s=3.0)
    assert await books.store.delete_expired(now_s=102.0) == []
    assert await books.store.delete_expired(now_s=104.0) == [ended.id]
    assert await books.store.delete_expired(now_s=1e9) == []


async def test_jobs_are_listed_by_pages_and_filters(books: Books) -> None:
    jobs = await books.store.add([new_job(batch_id="b" if n % 2 else None) for n in range(6)], now_s=1.0)
    ids = [job.id for job in jobs][::-1]
    first = await books.store.listed(limit=4)
    assert [job.id for job in first] == ids[:4]
    assert [job.id for job in await books.store.listed(limit=4, before=first[-1].number)] == ids[4:]
    assert await books.store.listed(limit=4, before=1) == []
    await books.store.cancel(ids[0], now_s=2.0)
    assert [job.id for job in await books.store.listed(limit=9, state=State.CANCELLED)] == [ids[0]]
    assert len(await books.store.listed(limit=9, batch_id="b")) == 3
    assert set(await books.store.get_all([ids[0], ids[1], "job_none"])) == {ids[0], ids[1]}


async def test_a_full_queue_takes_all_or_none(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUED_MAX", 4)
    await books.store.add([new_job()], now_s=1.0)
    for jobs, code in ((2, "QUEUE_SHARE_USED_UP"), (4, "QUEUE_FULL")):
        with pytest.raises(CapacityError) as failure:
            await books.store.add([new_job() for _ in range(jobs)], now_s=1.0)
        assert failure.value.code == code
    assert len(await books.store.listed(limit=9)) == 1
    await books.store.add([new_job(tenant="other")], now_s=1.0)  # there is always room for another
    with pytest.raises(CapacityError) as failure:
        await books.store.add([new_job(tenant="third"), new_job(tenant="third")], now_s=1.0)
    assert failure.value.code == "QUEUE_FULL"


async def test_the_broker_is_told_of_what_waits_and_again_after_long(books: Books) -> None:
    jobs = await books.store.add([new_job(), new_job(Priority.EXPRESS)], now_s=1.0)
    told = await books.ledger.unannounced(limit=9, now_s=2.0)
    assert [job.id for job in told] == [jobs[1].id, jobs[0].id]
    await books.ledger.announced([job.id for job in told], now_s=2.0)
    assert await books.ledger.unannounced(limit=9, now_s=3.0) == []
    assert len(await books.ledger.unannounced(limit=9, now_s=3.0 + REANNOUNCED_AFTER_S)) == 2
    claimed = await books.ledger.claim("a", now_s=4.0)
    assert claimed is not None
    await books.ledger.release(claimed, "a", now_s=0.0)
    assert [job.id for job in await books.ledger.unannounced(limit=9, now_s=5.0)] == [claimed.id]


async def test_uploads_expire_and_are_bounded(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    def upload(tenant: str | None = None) -> Upload:
        return Upload(id=new_id("upl"), size_bytes=3, file_name=None, created_at=1.0, expires_at=10.0, tenant=tenant)

    monkeypatch.setattr(module, "UPLOADS_MAX", 3)
    one = upload()
    await books.store.add_upload(one)
    with pytest.raises(CapacityError) as failure:
        await books.store.add_upload(upload())
    assert failure.value.code == "UPLOAD_SHARE_USED_UP"
    other = upload("other")
    await books.store.add_upload(other)
    with pytest.raises(CapacityError) as failure:
        await books.store.add_upload(upload("third"))
    assert failure.value.code == "TOO_MANY_UPLOADS"
    assert await books.store.delete_upload(other.id)
    assert await books.store.get_upload(one.id, now_s=9.0) is not None
    assert await books.store.get_upload(one.id, now_s=11.0) is None
    assert await books.store.needed([one.id, "upl_none"]) == {one.id}
    assert await books.store.delete_expired_uploads(now_s=11.0) == [one.id]
    assert not await books.store.delete_upload(one.id)


def test_ids_cannot_be_guessed() -> None:
    ids = {new_id("job") for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) >= 36 for one in ids)


async def test_a_page_of_jobs_is_found_and_not_sought(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    questions = ("state = 'completed'", "tenant = 'acme'", "tenant = 'acme' AND state = 'failed'")
    async with database.reading() as session:
        for question in questions:
            plan = await session.execute(
                text(f"EXPLAIN QUERY PLAN SELECT * FROM jobs WHERE {question} ORDER BY number DESC LIMIT 51")
            )
            (step,) = plan.all()
            assert "USING INDEX" in step.detail, question
            assert step.detail.count("=?") == question.count("="), "each of them narrows it down"
    await database.close()
