"""What `bench languages` makes of what came back."""

from pathlib import Path

import numpy as np

from benchmarks.corpus import Recording
from benchmarks.drive import Seen, Take
from benchmarks.languages import Heard, _finals_right, _pairs, _row, _switch
from benchmarks.scoring import Normaliser
from benchmarks.scripts import Said, Script
from mediaserver.events import Final


def recording(path: str, language: str, text: str | None = None) -> Recording:
    return Recording(folder=Path(), path=path, duration_s=3.0, language=language, text=text)


def final(start: float, language: str, text: str = "a") -> Seen:
    return Seen(
        start + 3.0,
        Final(
            utterance_id=int(start),
            transcript=text,
            confidence=0.9,
            start=start,
            duration=2.0,
            timestamp=start + 2.5,
            language=language,
            language_confidence=0.9,
            words=[],
        ),
    )


def test_what_was_said_after_the_change_is_counted() -> None:
    said = tuple(
        Said(recording(name, code), start_s, start_s + 3.0)
        for name, code, start_s in (("1", "de", 0.5), ("2", "de", 4.5), ("3", "fr", 8.5), ("4", "fr", 12.5))
    )
    take = Take(
        Script("joined", np.zeros(16, dtype=np.float32), said),
        [final(0.5, "de"), final(4.5, "de"), final(8.5, "de"), final(11.0, "fr", ""), final(12.5, "fr")],
    )
    switch = _switch(take)
    assert (switch.before, switch.after, switch.right) == ("de", "fr", (False, True))
    assert _finals_right(take, said[0].recording) == [True, True, True, False]


def test_pairs_are_of_different_languages_that_have_enough_recordings() -> None:
    piles = {
        code: [recording(f"{code}{n}", code) for n in range(count)] for code, count in (("de", 3), ("fr", 2), ("ko", 1))
    }
    pairs = list(_pairs(piles, 5))
    assert pairs
    assert all(before[0].language != after[0].language for before, after in pairs)
    assert all(len(before) == len(after) == 2 for before, after in pairs)
    assert list(_pairs({"de": piles["de"]}, 5)) == []


def test_a_row_tells_shares_and_error_rates() -> None:
    class Bare:
        normaliser = Normaliser()

    heard = [
        Heard(recording("1", "de-DE", "eins zwei"), [True], {1.0: (True, False)}, "eins zwei", "eins drei"),
        Heard(recording("2", "de-DE"), [False], {1.0: (False, False)}),
    ]
    row = _row(Bare(), "de", heard)  # type: ignore[arg-type]
    assert row[:5] == ["de", 2, "50/–/–", 0.0, 50.0]
    assert row[5] == "0.0/50.0"
