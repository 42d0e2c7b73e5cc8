"""Recordings get what nobody live needs: the queue in virtual time, with devices of one and two slots."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from mediaserver.decoder.scheduler import Scheduler, Ticket
from mediaserver.decoder.spare import PATIENCE_S, SHORT_BATCH_S, SPEAKING_S, UNNOTICED_S, Spare
from mediaserver.decoder.window import Kind, Window

RECORDED_FRAMES = 2800


def ticket(kind: Kind, *, at_s: float, session: str = "live", frames: int = 700) -> Ticket:
    return Ticket(Window(session, kind, np.zeros(16, dtype=np.float32), 0, "en"), frames, at_s)


@dataclass
class Device:
    """An engine in virtual time: `frame_s` seconds a frame of context."""

    slots: int
    frame_s: float
    waits: dict[Kind, list[float]] = field(default_factory=dict)
    recorded: list[tuple[float, int]] = field(default_factory=list)

    def run(self, arrivals: list[Ticket], *, until_s: float) -> None:
        queue = Scheduler(
            slots=self.slots, max_batch=8, max_kept=1000, interim_period_s=0.6, on_replaced=lambda ticket: None
        )
        coming = sorted(arrivals, key=lambda item: item.queued_at_s)
        running: list[tuple[float, int, float, list[Ticket]]] = []
        now_s, number = 0.0, 0
        while now_s <= until_s:
            while coming and coming[0].queued_at_s <= now_s:
                queue.add(coming.pop(0))
            while running and running[0][0] <= now_s:
                _, _, took_s, batch = heapq.heappop(running)
                queue.done(batch, now_s=now_s, took_s=took_s)
            while len(running) < self.slots:
                batch = queue.take(now_s, free_slots=self.slots - len(running))
                if not batch:
                    break
                number += 1
                took_s = self.frame_s * sum(item.context_frames for item in batch)
                heapq.heappush(running, (now_s + took_s, number, took_s, batch))
                kind = batch[0].window.kind
                if kind is Kind.RECORDING:
                    self.recorded.append((now_s, len(batch)))
                for item in batch:
                    self.waits.setdefault(item.window.kind, []).append(now_s - item.queued_at_s)
            times = [item.queued_at_s for item in coming[:1]] + [end_s for end_s, *_ in running[:1]]
            due_s = queue.next_due_s()
            if due_s is not None and due_s > now_s:
                times.append(due_s)
            if not times:
                return
            now_s = min(times)


def recordings(count: int) -> list[Ticket]:
    return [ticket(Kind.RECORDING, at_s=0.0, session="file", frames=RECORDED_FRAMES) for _ in range(count)]


def speaker(*, start_s: float, end_s: float) -> list[Ticket]:
    """Somebody who speaks for four seconds and pauses for one, again and again."""
    tickets = []
    at_s = start_s
    while at_s < end_s:
        kinds = [Kind.FIRST_INTERIM, *[Kind.INTERIM] * 38]
        tickets += [ticket(kind, at_s=at_s + 0.1 * n) for n, kind in enumerate(kinds, start=1)]
        tickets.append(ticket(Kind.FINAL, at_s=at_s + 4.5))
        at_s += 5.0
    return tickets


CPU_FRAME_S = 1.5 / RECORDED_FRAMES
"""A window of a recording takes a slot 1.5 s."""


def test_a_recording_takes_all_of_an_idle_device() -> None:
    device = Device(slots=2, frame_s=CPU_FRAME_S)
    device.run(recordings(40), until_s=100.0)
    assert sum(count for _, count in device.recorded) == 40
    assert device.recorded[-1][0] == pytest.approx(1.5 * 19)


def test_a_final_waits_for_no_recording_where_there_are_two_slots() -> None:
    device = Device(slots=2, frame_s=CPU_FRAME_S)
    device.run([*recordings(200), *speaker(start_s=5.0, end_s=60.0)], until_s=60.0)
    finals = device.waits[Kind.FINAL]
    assert len(finals) == 11
    assert max(finals) <= CPU_FRAME_S * 700, "at most what an interim takes"
    begun_s = [at_s for at_s, _ in device.recorded if 10.0 < at_s < 55.0]
    assert len(begun_s) >= 45 / 1.5 * 0.8, "one slot goes on with the recording"
    assert all(after - before > 1.4 for before, after in pairwise(begun_s)), "and only one"


def test_who_waited_long_for_an_answer_is_still_speaking_when_it_comes() -> None:
    """Where a window takes longer than a session counts as speaking, the slot that was theirs stays theirs."""
    device = Device(slots=2, frame_s=(SPEAKING_S + 1.0) / 700)
    answered_s = 1.0 + SPEAKING_S + 1.0
    live = [ticket(Kind.FINAL, at_s=1.0), ticket(Kind.FINAL, at_s=answered_s + 0.1)]
    files = [ticket(Kind.RECORDING, at_s=1.1, session="file", frames=1400) for _ in range(9)]
    device.run([*live, *files], until_s=30.0)
    assert device.waits[Kind.FINAL] == [0.0, 0.0]


def test_a_first_word_waits_for_the_batch_that_runs_and_no_longer() -> None:
    device = Device(slots=2, frame_s=CPU_FRAME_S)
    device.run([*recordings(200), *speaker(start_s=20.0, end_s=25.0)], until_s=40.0)
    assert device.waits[Kind.INTERIM][0] <= SHORT_BATCH_S, "newer ones took the first one's place and kept its turn"


def test_on_a_single_slot_a_final_waits_for_one_window_at_most_and_the_recording_still_ends() -> None:
    device = Device(slots=1, frame_s=CPU_FRAME_S)
    device.run([*recordings(12), *speaker(start_s=5.0, end_s=120.0)], until_s=125.0)
    assert max(device.waits[Kind.FINAL]) <= 1.5 + CPU_FRAME_S * 700
    speaking = [at_s for at_s, _ in device.recorded if 8.0 < at_s < 115.0]
    gaps = [after - before for before, after in pairwise(speaking)]
    assert speaking
    assert min(gaps) >= PATIENCE_S
    assert max(gaps) <= PATIENCE_S + 2.0
    late = sum(wait > 0.5 for wait in device.waits[Kind.FINAL])
    assert late <= len(speaking)


def test_a_fast_device_decodes_recordings_beside_speech_in_batches_nobody_notices() -> None:
    device = Device(slots=1, frame_s=0.04 / RECORDED_FRAMES)
    device.run([*recordings(500), *speaker(start_s=1.0, end_s=30.0)], until_s=30.0)
    assert sum(count for _, count in device.recorded) == 500
    assert max(count for _, count in device.recorded) > 1
    assert max(device.waits[Kind.FINAL]) <= UNNOTICED_S


def test_after_speech_all_slots_are_given_back() -> None:
    spare = Spare(slots=2, max_batch=8)
    spare.heard(10.0)
    assert spare.room(RECORDED_FRAMES, 10.0, free_slots=1) == 0
    assert spare.room(RECORDED_FRAMES, 10.0, free_slots=2) == 1
    assert spare.due_s(10.0) == 10.0 + SPEAKING_S
    assert spare.room(RECORDED_FRAMES, 10.0 + SPEAKING_S, free_slots=1) == 1
    assert spare.due_s(10.0 + SPEAKING_S) is None


def test_windows_of_recordings_share_a_batch_only_with_their_like() -> None:
    queue = Scheduler(slots=1, max_batch=8, max_kept=10, interim_period_s=0.6, on_replaced=lambda ticket: None)
    final, recorded = ticket(Kind.FINAL, at_s=0.0), ticket(Kind.RECORDING, at_s=0.0, frames=700)
    queue.add(recorded)
    queue.add(final)
    assert queue.take(100.0) == [final]
    assert queue.take(200.0) == [recorded]


def test_a_discarded_window_of_a_recording_is_not_decoded() -> None:
    queue = Scheduler(slots=1, max_batch=8, max_kept=10, interim_period_s=0.6, on_replaced=lambda ticket: None)
    one, two = recordings(2)
    queue.add(one)
    queue.add(two)
    queue.discard(one)
    assert queue.take(0.0) == [two]
