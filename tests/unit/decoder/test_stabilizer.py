"""Which words will not change."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.decoder.stabilizer import Stabilizer, View
from mediaserver.decoder.window import HypothesisWord

WORD_S = 0.4


def said(text: str, *, start_s: float = 0.0) -> list[HypothesisWord]:
    return [
        HypothesisWord(" " + word, start_s + n * WORD_S, start_s + (n + 1) * WORD_S, 0.9)
        for n, word in enumerate(text.split())
    ]


def texts(view: View) -> tuple[str, str]:
    return (
        "".join(word.text for word in view.stable).strip(),
        "".join(word.text for word in view.unstable).strip(),
    )


def feed(
    stabilizer: Stabilizer, text: str, *, audio_end_s: float = 100.0, window_start_s: float = 0.0
) -> tuple[str, str]:
    words = said(text, start_s=window_start_s)
    return texts(stabilizer.update(words, window_start_s=window_start_s, audio_end_s=audio_end_s))


def test_a_word_is_stable_once_two_hypotheses_agree() -> None:
    stabilizer = Stabilizer()
    assert feed(stabilizer, "the cat sat") == ("", "the cat sat")
    assert feed(stabilizer, "the cat sang a song") == ("the cat", "sang a song")
    assert feed(stabilizer, "the cat sang a song too") == ("the cat sang a song", "too")


def test_agreement_ignores_case_and_punctuation() -> None:
    stabilizer = Stabilizer()
    feed(stabilizer, "However due to")
    assert feed(stabilizer, "however, due to the")[0] == "however, due to"


def test_words_at_the_end_of_the_audio_stay_unstable() -> None:
    stabilizer = Stabilizer()
    feed(stabilizer, "some thing", audio_end_s=1.0)
    assert feed(stabilizer, "some thing", audio_end_s=1.0) == ("some", "thing")


def test_a_word_at_the_very_end_of_the_audio_is_not_shown_yet() -> None:
    assert feed(Stabilizer(), "some thing", audio_end_s=0.85) == ("", "some")


def test_doubtful_words_are_not_shown_while_they_are_the_last() -> None:
    def view(*probabilities: float) -> str:
        words = [HypothesisWord(f" w{n}", n * 1.0, n + 0.5, p) for n, p in enumerate(probabilities)]
        return texts(Stabilizer().update(words, window_start_s=0.0, audio_end_s=100.0))[1]

    assert view(0.9, 0.3, 0.3) == "w0"
    assert view(0.9, 0.3, 0.9) == "w0 w1 w2"
    assert view(0.9, 0.05, 0.9) == "w0"


def test_a_word_without_any_time_at_the_end_is_not_shown() -> None:
    stabilizer = Stabilizer()
    words = [HypothesisWord(" light,", 0.2, 1.0, 0.9), HypothesisWord(" light,", 1.0, 1.0, 0.9)]
    assert texts(stabilizer.update(words, window_start_s=0.0, audio_end_s=1.2)) == ("", "light,")


def test_stable_words_are_not_taken_back_by_a_later_hypothesis() -> None:
    stabilizer = Stabilizer()
    feed(stabilizer, "the cat sat on")
    feed(stabilizer, "the cat sat on the")
    assert feed(stabilizer, "a cat sat upon the mat") == ("the cat sat on the", "mat")


def test_a_window_that_begins_later_continues_the_stable_words() -> None:
    stabilizer = Stabilizer()
    feed(stabilizer, "one two three four")
    feed(stabilizer, "one two three four five")
    assert feed(stabilizer, "three four five six", window_start_s=2 * WORD_S)[1] == "six"


def test_a_repeated_word_is_not_swallowed() -> None:
    stabilizer = Stabilizer()
    feed(stabilizer, "no no")
    feed(stabilizer, "no no no")
    assert feed(stabilizer, "no no no no") == ("no no no", "no")


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "no"]), max_size=8), max_size=12))
def test_stable_only_grows_and_times_never_go_back(hypotheses: list[list[str]]) -> None:
    stabilizer = Stabilizer()
    before: list[HypothesisWord] = []
    for words in hypotheses:
        view = stabilizer.update(said(" ".join(words)), window_start_s=0.0, audio_end_s=2.5)
        assert view.stable[: len(before)] == before
        before = view.stable
        shown = [*view.stable, *view.unstable]
        assert all(word.start <= word.end for word in shown)
        assert all(first.end <= second.start for first, second in itertools.pairwise(shown))
