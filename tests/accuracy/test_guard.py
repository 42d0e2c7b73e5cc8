"""The accuracy guard: what a change must not make worse. Words and flicker, never times: machines differ.

The bounds are about twice what tiny.en reaches: decoding depends a little on how windows fall into batches and on how
many interims a busy machine gets done, and 120 words are few. `python -m benchmarks accuracy` sees smaller changes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.corpus import Corpus, find
from benchmarks.drive import Drive, Sink, play
from benchmarks.job import Job, broken_promises, screen_score
from benchmarks.latency import scripts_for
from benchmarks.noises import generated
from benchmarks.scoring import Normaliser
from benchmarks.screen import final_text, score_stream
from benchmarks.stack import Models, serving
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings

SPEAKERS = 2
SECONDS_EACH = 20.0
"""Two speakers of 20 s and the noises at once: 25 s on two cores."""

NOISE_S = 12.0

WER_BOUND = 0.08
"""Reached on the corpus: 0.04."""

WER_BOUND_SYNTHETIC = 0.05
"""Reached on the project's own speech: 0.015."""

FLICKER_BOUND = 0.40
"""Reached: 0.11 to 0.17 on a busy machine; a free one shows more interims, and so more changes."""

STABLE_CORRECTED_BOUND = 0.05
"""Reached: none of 78; up to 0.03 on other utterances."""


@dataclass(frozen=True)
class Guarded:
    job: Job
    speech: Drive
    noise: Drive


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """The corpus where it is found, else the project's own speech."""
    return find(None)


@pytest.fixture(scope="module")
def guarded(corpus: Corpus, model_files: ModelFiles, vad_model_path: Path) -> Guarded:
    """One run in real time of everything that is guarded."""
    settings = Settings(model="tiny.en")
    models = Models(model_files, vad_model_path)
    job = Job(corpus, settings, models, Console(quiet=True), Normaliser(), short=True)
    return asyncio.run(_run(job))


async def _run(job: Job) -> Guarded:
    speech = scripts_for(job, SPEAKERS, SECONDS_EACH)
    noises = [noise.script() for noise in generated(NOISE_S)]
    async with serving(job.settings, job.models) as stack:

        def open_session(name: str, sink: Sink) -> Session:
            return stack.open(name, sink, SessionConfig.model_validate({"language": "en"}))

        drive = await play([*speech, *noises], open_session)
    return Guarded(job, Drive(drive.takes[:SPEAKERS], drive.load), Drive(drive.takes[SPEAKERS:], drive.load))


def test_word_errors_stay_under_their_bound(guarded: Guarded) -> None:
    bound = WER_BOUND_SYNTHETIC if guarded.job.corpus.name == "fixtures" else WER_BOUND
    errors = guarded.job.set_errors(guarded.speech.takes)
    assert errors.words > 60
    assert errors.rate <= bound, [final_text(take.seen) for take in guarded.speech.takes]


def test_no_word_is_invented(guarded: Guarded) -> None:
    assert {take.script.name: score_stream(take.seen).shown_words for take in guarded.noise.takes} == {
        take.script.name: 0 for take in guarded.noise.takes
    }


def test_text_does_not_flicker(guarded: Guarded) -> None:
    score = screen_score(guarded.speech.takes)
    assert score.shown_words > 60
    assert score.flicker <= FLICKER_BOUND


def test_the_promises_are_kept(guarded: Guarded) -> None:
    assert broken_promises(guarded.speech, label="speech") == []
    assert broken_promises(guarded.noise, label="noise") == []


def test_stable_text_is_seldom_corrected(guarded: Guarded) -> None:
    score = screen_score(guarded.speech.takes)
    assert score.stable_words > 30
    assert score.stable_corrected_share <= STABLE_CORRECTED_BOUND
