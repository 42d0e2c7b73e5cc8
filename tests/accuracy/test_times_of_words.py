"""What is told of words in real speech: times on the stream's clock, and confidence."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.corpus import load_fixtures
from benchmarks.drive import Sink, Take
from benchmarks.job import Job
from benchmarks.march import march
from benchmarks.offline import Offline
from benchmarks.scoring import Normaliser, percentile
from benchmarks.scripts import join
from benchmarks.stack import Models, placement_of, serving
from benchmarks.word_times import boundaries, misplaced
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.events import Final, Interim, Revision
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from tests.conftest import SPEECH

BOUNDARY_S = 0.06
"""Median distance of a word's boundary from the same in an alignment of the whole. Reached: 0.016."""

LEAST_SHARE = 0.8
"""Of the words that have to be in both: a median over a few that happen to match would say little."""


@pytest.fixture(scope="module")
def job(model_files: ModelFiles, vad_model_path: Path) -> Job:
    models = Models(model_files, vad_model_path)
    return Job(load_fixtures(SPEECH), Settings(model="tiny.en"), models, Console(quiet=True), Normaliser(), short=True)


@pytest.fixture(scope="module")
def take(job: Job) -> Take:
    """The project's own speech with pauses, through one session with interims and revisions."""
    recordings = job.corpus.recordings

    async def run() -> Take:
        async with serving(job.settings, job.models, faster=True) as stack:

            def open_session(name: str, sink: Sink) -> Session:
                return stack.open(name, sink, SessionConfig.model_validate({"endpointing_ms": 300}))

            drive = await march([join("words", recordings, seed=0)], open_session, held=stack.held, at_once=1)
            return drive.takes[0]

    return asyncio.run(run())


def test_times_never_go_back_and_stay_inside_the_audio(take: Take) -> None:
    events = [item.event for item in take.seen]
    assert any(isinstance(event, Interim) and event.words for event in events)
    assert misplaced(events) == []
    assert all(
        event.start <= event.start + event.duration <= take.script.duration_s
        for event in events
        if isinstance(event, Interim | Final | Revision)
    )


def test_boundaries_are_those_of_an_alignment_of_the_whole(job: Job, take: Take) -> None:
    settled = {item.event.utterance_id: item.event for item in take.seen if isinstance(item.event, Final | Revision)}
    ours = [word for number in sorted(settled) for word in settled[number].words]
    theirs = Offline(job.models.whisper.directory, placement_of(job.settings)).words(take.script.samples, "en")
    found = boundaries(ours, theirs)
    assert len(found) >= LEAST_SHARE * len(ours)
    median_s = percentile([abs(value) for place in found for value in (place.start_s, place.end_s)], 50)
    assert median_s is not None
    assert median_s <= BOUNDARY_S


def test_words_and_texts_have_a_confidence_and_doubtful_words_a_mark(take: Take) -> None:
    finals = [item.event for item in take.seen if isinstance(item.event, Final)]
    for final in finals:
        assert all(0.0 < word.confidence < 1.0 for word in final.words)
        assert all(word.low_confidence == (word.confidence < 0.5) for word in final.words)
        if final.words:
            assert final.confidence == pytest.approx(sum(word.confidence for word in final.words) / len(final.words))
