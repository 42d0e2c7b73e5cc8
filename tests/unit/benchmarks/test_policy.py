"""What a variant changes and leaves as it was, and what a decode is said to cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import corpus
from benchmarks.job import Job
from benchmarks.policy import DecodeCosts, Meter, measure
from benchmarks.scoring import Normaliser
from benchmarks.stack import Models
from benchmarks.variants import AS_SHIPPED, VARIANTS, AlignAtt, Change, FarAlignAtt, StableOnly, applied
from mediaserver.decoder import stabilizer, whisper
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.stabilizer import Stabilizer
from mediaserver.decoder.whisper import WhisperModel, context_frames
from mediaserver.decoder.window import HypothesisWord, Kind, Window
from mediaserver.session import utterance
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings

SECOND = np.zeros(16_000, dtype=np.float32)


def word(text: str, end: float, probability: float = 0.9) -> HypothesisWord:
    return HypothesisWord(text, end - 0.2, end, probability)


def texts(words: list[HypothesisWord]) -> str:
    return "".join(word.text for word in words)


def test_a_change_is_undone() -> None:
    before = whisper.CONTEXT_FLOOR_S
    window = Window("any", Kind.INTERIM, SECOND, 0)
    frames = context_frames(window)
    with applied([Change(whisper, "CONTEXT_FLOOR_S", 9.0)]):
        assert context_frames(window) == 900
    assert (whisper.CONTEXT_FLOOR_S, context_frames(window)) == (before, frames)


def test_a_change_is_undone_after_an_error_too() -> None:
    before = stabilizer.HOLD_S
    with pytest.raises(RuntimeError), applied([Change(stabilizer, "HOLD_S", 5.0)]):
        raise RuntimeError
    assert before == stabilizer.HOLD_S


def test_what_is_not_there_is_not_changed_nor_is_anything_else() -> None:
    before = stabilizer.HOLD_S
    wrong = [Change(stabilizer, "HOLD_S", 5.0), Change(stabilizer, "NO_SUCH_CONSTANT", 1.0)]
    with pytest.raises(AttributeError), applied(wrong):
        pytest.fail("entered")
    assert before == stabilizer.HOLD_S


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_changes_something_that_is_there(name: str) -> None:
    variant = VARIANTS[name]
    with applied(variant.changes):
        assert all(getattr(change.owner, change.name) is change.value for change in variant.changes)
    differs = [change for change in variant.changes if getattr(change.owner, change.name) != change.value]
    assert len(differs) == len(variant.changes), "as shipped already"
    settings, session = Settings().model_dump(), SessionConfig.model_validate({}).model_dump()
    assert all(settings[key] != value for key, value in variant.settings.items())
    assert all(session[key] != value for key, value in variant.session.items())
    assert (name == AS_SHIPPED) == (not (variant.changes or variant.settings or variant.session))


def test_an_utterance_is_stabilized_by_what_the_variant_says() -> None:
    with applied(VARIANTS["AlignAtt 0.3 s"].changes):
        changed = utterance.Utterance(0, start_sample=0, speech_sample=0)
        assert isinstance(changed._stabilizer, AlignAtt)
    assert type(utterance.Utterance(0, start_sample=0, speech_sample=0)._stabilizer) is Stabilizer


def test_alignatt_needs_no_second_hypothesis_and_never_takes_back() -> None:
    words = [word(" we", 0.5), word(" are", 0.9), word(" here", 1.35)]
    near, far = AlignAtt(), FarAlignAtt()
    view = near.update(words, window_start_s=0.0, audio_end_s=1.5)
    assert (texts(view.stable), texts(view.unstable)) == (" we are", " here")
    assert texts(far.update(words[1:], window_start_s=0.0, audio_end_s=1.35).stable) == ""
    later = [word(" we", 0.5), word(" were", 0.9), word(" here", 1.35), word(" then", 1.9)]
    view = near.update(later, window_start_s=0.0, audio_end_s=2.1)
    assert texts(view.stable) == " we are here"
    assert texts(view.unstable) == " then"


def test_alignatt_forgets_what_it_has_committed() -> None:
    far = FarAlignAtt()
    assert texts(far.update([word(" no", 0.5)], window_start_s=0.0, audio_end_s=1.1).stable) == " no"
    view = far.update([word(" no", 0.5), word(" no", 1.0)], window_start_s=0.0, audio_end_s=1.4)
    assert (texts(view.stable), texts(view.unstable)) == (" no", " no"), "said again, heard once"


def test_stable_only_shows_what_two_agree_on() -> None:
    words, only = [word(" we", 0.5), word(" are", 0.9)], StableOnly()
    view = only.update(words, window_start_s=0.0, audio_end_s=1.5)
    assert (view.stable, view.unstable) == ([], [])
    view = only.update([*words, word(" here", 1.5)], window_start_s=0.0, audio_end_s=1.8)
    assert (texts(view.stable), view.unstable) == (" we are", [])


def test_what_a_batch_costs() -> None:
    costs = DecodeCosts()
    alone = costs.of(context_s=4, tokens=[10], beam=1)
    # 28.8 + 5.6 of encoding, 11 steps of 7.4, 8 + 4.8 + 9 of alignment, 1.5 of features.
    assert alone == pytest.approx(139.1)
    assert costs.of(context_s=4, tokens=[0], beam=1) < alone, "nothing to align"
    assert alone < costs.of(context_s=4, tokens=[10, 10], beam=1) < 2 * alone, "batches pay"
    assert costs.of(context_s=4, tokens=[10], beam=5) > alone


def test_a_meter_is_paid_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Item:
        tokens = (1, 2, 3)

    window, meter = Window("any", Kind.FINAL, SECOND, 0), Meter(DecodeCosts())
    monkeypatch.setattr(WhisperModel, "_generate", lambda *args: [Item()])
    model = WhisperModel.__new__(WhisperModel)
    with applied([meter.watching]):
        model._generate(None, [window], [], [])
    model._generate(None, [window], [], [])
    cost_s = DecodeCosts().of(context_s=context_frames(window) / 100, tokens=[3], beam=1) / 1000
    assert meter.take_s() == pytest.approx(cost_s)
    assert meter.take_s() == pytest.approx(DecodeCosts().hop / 1000)
    assert meter.spent_ms["final"] == pytest.approx(1000 * cost_s)
    assert meter.windows == {"final": 1}
    meter.reset()
    assert not meter.spent_ms


async def test_real_words_in_modelled_time(model_files: ModelFiles, vad_model_path: Path) -> None:
    settings = Settings(model=model_files.name, cpu_threads=1)
    console = Console(quiet=True)
    job = Job(corpus.find(None), settings, Models(model_files, vad_model_path), console, Normaliser())
    names = [AS_SHIPPED, "stable words only", "no speculative finals"]
    result = await measure(job, speakers=1, seconds_each=6.0, names=names)
    shipped, hidden, patient = result.details["runs"]
    assert not result.failed
    assert [row[0] for row in result.rows] == names
    assert shipped["words"] == hidden["words"] > 0
    assert shipped["wer"] < 0.5
    assert shipped["windows"]["interim"] > 0, shipped["windows"]
    assert 0 < shipped["cores_per_stream"] < 1
    assert shipped["p50_word_s"] < hidden["p50_word_s"], "who waits for a second hypothesis waits longer"
    assert shipped["windows"]["speculative"] > 0
    assert "speculative" not in patient["windows"]
    assert hidden["screen"]["changed_words"] <= shipped["screen"]["changed_words"]
