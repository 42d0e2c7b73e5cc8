"""Which sharing of the cores is taken, when it is not believed, and that it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mediaserver.decoder.calibrate import (
    BUSY_SHARE,
    FILE_NAME,
    MARGIN,
    MAX_KEPT,
    NOISY,
    ROUNDS,
    Round,
    Sharing,
    WhisperRounds,
    candidates,
    fastest,
    key_of,
    sharing_for,
)
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.device import place

NARROW, WIDE = Sharing(2, 1), Sharing(1, 2)


def took(*seconds: float, busy_share: float = 0.95) -> list[Round]:
    return [Round(took_s, busy_share) for took_s in seconds]


class Rounds:
    """Says how long each sharing takes, and counts."""

    def __init__(self, *takes_s: tuple[Sharing, float | None]) -> None:
        self.takes_s = dict(takes_s)
        self.asked: list[Sharing] = []

    def __call__(self, sharing: Sharing) -> Round | None:
        self.asked.append(sharing)
        took_s = self.takes_s[sharing]
        return None if took_s is None else Round(took_s, 0.95)


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 6, 8, 64])
def test_no_sharing_takes_more_cores_than_there_are(cores: int) -> None:
    tried = candidates(cores)
    assert tried[0] == Sharing(cores, 1)
    assert len(set(tried)) == len(tried) <= 4
    for sharing in tried:
        assert 1 <= sharing.slots * sharing.threads <= cores
    assert tried[-1] == Sharing(1, cores)


def test_the_fastest_is_taken_if_it_is_clearly_so() -> None:
    assert fastest({NARROW: took(1.0, 1.1), WIDE: took(0.8, 0.7)}, NARROW) == WIDE
    assert fastest({NARROW: took(1.0, 1.1), WIDE: took(1.01 / MARGIN, 1.0)}, NARROW) == NARROW
    assert fastest({NARROW: took(1.0, 1.0), WIDE: took(2.0, 2.0)}, NARROW) == NARROW


def test_a_machine_that_does_something_else_teaches_nothing() -> None:
    assert fastest({NARROW: took(1.0, 1.01 * NOISY), WIDE: took(0.1, 0.1)}, NARROW) is None
    assert fastest({NARROW: took(1.0, 1.0, busy_share=BUSY_SHARE - 0.01), WIDE: took(0.1, 0.1)}, NARROW) is None


def test_what_was_found_is_kept(tmp_path: Path) -> None:
    rounds = Rounds((NARROW, 1.0), (WIDE, 0.5))
    for _ in range(3):
        assert sharing_for(2, key="k", kept_in=tmp_path / "new", measure=rounds) == WIDE
    assert rounds.asked == [NARROW, WIDE] * ROUNDS
    assert sharing_for(2, key="other", kept_in=tmp_path / "new", measure=Rounds((NARROW, 1.0), (WIDE, 2.0))) == NARROW
    assert sharing_for(2, key="k", kept_in=tmp_path / "new", measure=rounds) == WIDE


def test_what_was_not_believed_is_not_kept(tmp_path: Path) -> None:
    rounds = iter(took(1.0, 0.1, 2.0, 0.1))
    assert sharing_for(2, key="k", kept_in=tmp_path, measure=lambda _: next(rounds)) == NARROW
    assert not (tmp_path / FILE_NAME).exists()


def test_a_model_that_is_too_slow_is_not_tried_out_further(tmp_path: Path) -> None:
    rounds = Rounds((NARROW, None))
    assert sharing_for(2, key="k", kept_in=tmp_path, measure=rounds) == NARROW
    assert rounds.asked == [NARROW]


def test_a_busy_machine_is_left_alone(tmp_path: Path) -> None:
    asked: list[Sharing] = []

    def busy(sharing: Sharing) -> Round:
        asked.append(sharing)
        return Round(1.0, BUSY_SHARE / 2)

    assert sharing_for(2, key="k", kept_in=tmp_path, measure=busy) == NARROW
    assert asked == [NARROW]
    assert not (tmp_path / FILE_NAME).exists()


def test_one_core_needs_no_trial(tmp_path: Path) -> None:
    assert sharing_for(1, key="k", kept_in=tmp_path, measure=Rounds()) == Sharing(1, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '{"k": 3}',
        '{"k": {"slots": 1}}',
        '{"k": {"slots": "1", "threads": 2}}',
        '{"k": {"slots": 2, "threads": 2}}',  # more than two cores
        '{"k": {"slots": 0, "threads": 2}}',
    ],
)
def test_a_file_that_is_not_ours_is_tried_out_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    rounds = Rounds((NARROW, 1.0), (WIDE, 0.5))
    assert sharing_for(2, key="k", kept_in=tmp_path, measure=rounds) == WIDE
    assert json.loads((tmp_path / FILE_NAME).read_text())["k"] == {"slots": 1, "threads": 2}


def test_a_directory_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rounds = Rounds((NARROW, 1.0), (WIDE, 0.5))
    assert sharing_for(2, key="k", kept_in=tmp_path / "file", measure=rounds) == WIDE


def test_only_so_many_results_are_kept(tmp_path: Path) -> None:
    for number in range(MAX_KEPT + 3):
        sharing_for(2, key=str(number), kept_in=tmp_path, measure=Rounds((NARROW, 1.0), (WIDE, 0.5)))
    kept = list(json.loads((tmp_path / FILE_NAME).read_text()))
    assert kept == [str(number) for number in range(3, MAX_KEPT + 3)]


def test_another_model_machine_or_arithmetic_is_another_key(tmp_path: Path) -> None:
    keys = {
        key_of(tmp_path / model, compute_type=arithmetic, cores=cores)
        for model in ("a", "b")
        for arithmetic in ("int8", "float32")
        for cores in (2, 4)
    }
    assert len(keys) == 8


def test_a_real_round_is_timed(model_files: ModelFiles) -> None:
    measure = WhisperRounds(model_files.directory, compute_type="int8", cores=1)
    real = measure(Sharing(1, 1))
    assert real is None or (real.took_s > 0 and real.busy_share > 0)  # None on a machine that is very busy


def test_a_model_that_cannot_be_loaded_is_told_later_not_here(tmp_path: Path) -> None:
    assert WhisperRounds(tmp_path, compute_type="int8", cores=1)(Sharing(1, 1)) is None


@pytest.mark.parametrize(
    ("slots", "cores", "wanted"), [(0, 4, (4, 1)), (1, 4, (1, 4)), (2, 5, (2, 2)), (9, 4, (4, 1)), (1, 1, (1, 1))]
)
def test_slots_that_are_set_share_the_cores(slots: int, cores: int, wanted: tuple[int, int]) -> None:
    placement = place(device="cpu", compute_type="default", cpu_threads=cores, slots=slots)
    assert (placement.slots, placement.threads) == wanted
