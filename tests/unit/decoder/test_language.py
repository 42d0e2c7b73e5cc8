"""Which language a session speaks: found, kept, changed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.decoder.language import HOLD_S, SURE, Asked, Heard, LanguageTracker, choose, may_show

KNOWN = ("en", "de", "fr", "nl")


def sounds(audio_s: float = 3.0, **probabilities: float) -> Heard:
    ordered = sorted(probabilities.items(), key=lambda item: item[1], reverse=True)
    return Heard.of(ordered, audio_s=audio_s)


def decoded(tracker: LanguageTracker, heard: Heard) -> str:
    """What a final is decoded in, and what the session makes of it."""
    asked = tracker.final()
    language = asked.language or choose(asked, heard)[0]
    tracker.hear_final(heard)
    return language


def test_a_sure_first_final_fixes_the_language_for_interims() -> None:
    tracker = LanguageTracker(KNOWN)
    assert tracker.language is None
    assert decoded(tracker, sounds(de=0.98, nl=0.01)) == "de"
    assert tracker.language == "de"
    assert tracker.interim() == Asked("de")
    assert tracker.final().language is None  # looked for all the same: the speaker may change


def test_a_short_and_doubtful_one_does_not() -> None:
    tracker = LanguageTracker(KNOWN)
    assert decoded(tracker, sounds(0.8, nl=0.5, de=0.4)) == "nl"
    assert tracker.language is None
    assert decoded(tracker, sounds(3.0, de=0.95, nl=0.03)) == "de"
    assert tracker.language == "de"


def test_one_long_and_sure_final_in_another_language_switches_and_is_decoded_in_it() -> None:
    tracker = LanguageTracker(KNOWN)
    for _ in range(50):
        decoded(tracker, sounds(en=0.99, de=0.001))
    assert decoded(tracker, sounds(de=0.99, en=0.001)) == "de"
    assert tracker.language in (None, "de")  # in doubt or switched, but no longer what it was
    assert decoded(tracker, sounds(de=0.99, en=0.001)) == "de"
    assert tracker.language == "de"


def test_a_doubtful_one_takes_two() -> None:
    tracker = LanguageTracker(KNOWN)
    for _ in range(50):
        decoded(tracker, sounds(en=0.99))
    assert decoded(tracker, sounds(1.0, de=0.9, en=0.02)) == "en"
    assert tracker.language == "en"
    assert decoded(tracker, sounds(2.5, de=0.95, en=0.02)) == "de"


def test_a_doubtful_one_between_others_changes_nothing() -> None:
    tracker = LanguageTracker(KNOWN)
    for _ in range(10):
        decoded(tracker, sounds(en=0.99))
        assert decoded(tracker, sounds(1.0, de=0.9, en=0.05)) == "en"


def test_what_was_chosen_is_never_looked_for() -> None:
    tracker = LanguageTracker(KNOWN, chosen="fr")
    assert decoded(tracker, sounds(de=0.99)) == "fr"
    assert tracker.interim() == tracker.final() == Asked("fr")


def test_one_language_alone_is_fixed() -> None:
    assert LanguageTracker(("en",)).final() == Asked("en")
    assert LanguageTracker(KNOWN, allowed=("de",)).final() == Asked("de")


def test_detection_keeps_to_the_languages_allowed() -> None:
    tracker = LanguageTracker(KNOWN, allowed=("en", "de"))
    assert decoded(tracker, sounds(nl=0.9, de=0.06, en=0.01)) == "de"
    assert set(tracker.final().candidates) == {"en", "de"}


def test_words_are_held_back_while_the_language_is_in_doubt_but_not_for_long() -> None:
    assert not may_show(0.6, audio_s=HOLD_S / 2)
    assert may_show(0.6, audio_s=HOLD_S)
    assert may_show(SURE, audio_s=0.5)
    assert may_show(None, audio_s=0.1)


@pytest.mark.parametrize("heard", [Heard((), (), 3.0), Heard((), (), 0.0)])
def test_a_window_that_was_not_asked_says_nothing(heard: Heard) -> None:
    tracker = LanguageTracker(KNOWN)
    tracker.hear_final(heard)
    assert tracker.language is None


def test_unknown_languages_among_those_allowed_are_passed_over() -> None:
    assert set(LanguageTracker(KNOWN, allowed=("de", "en", "tlh")).final().candidates) == {"de", "en"}
    assert set(LanguageTracker(KNOWN, allowed=("tlh",)).final().candidates) == set(KNOWN)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 30), st.dictionaries(st.sampled_from([*KNOWN, "xx"]), st.floats(0, 1), min_size=0, max_size=5)
        ),
        max_size=30,
    )
)
def test_whatever_is_heard_the_next_choice_is_one_of_the_candidates(
    script: list[tuple[float, dict[str, float]]],
) -> None:
    tracker = LanguageTracker(KNOWN)
    for audio_s, named in script:
        heard = sounds(audio_s, **named)
        language, probability = choose(tracker.final(), heard)
        assert language in KNOWN
        assert 0.5 <= probability <= 1.0
        tracker.hear_final(heard)
        scores = tracker.final().scores
        assert max(scores) == 0.0
        assert tracker.language in (None, *KNOWN)


def test_a_language_that_is_sure_is_surer_than_the_bound() -> None:
    heard = sounds(de=0.98, nl=0.01)
    assert choose(Asked(None, KNOWN, (0.0,) * 4), heard)[1] >= SURE
