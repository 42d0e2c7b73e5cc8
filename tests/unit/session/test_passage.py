"""Utterances that belong together, and what a decode of all of them changes."""

from mediaserver.decoder.window import HypothesisWord
from mediaserver.session.passage import Passage, Said, revisions


def words(text: str, *, start_s: float, step_s: float = 0.5, sure: float = 0.9) -> tuple[HypothesisWord, ...]:
    return tuple(
        HypothesisWord(" " + word, start_s + n * step_s, start_s + (n + 1) * step_s, sure)
        for n, word in enumerate(text.split())
    )


def said(number: int, text: str, *, start_s: float, end_s: float) -> Said:
    start, end = int(start_s * 16_000), int(end_s * 16_000)
    return Said(number, start, start, end, end, words(text, start_s=start_s, sure=0.5))


def at(seconds: float) -> int:
    return int(seconds * 16_000)


def test_a_silence_settles_a_passage_but_not_while_somebody_speaks() -> None:
    passage = Passage()
    passage.add(said(1, "one two", start_s=0, end_s=1))
    assert not passage.is_settled(at(2.9), speaking=False)
    assert passage.is_settled(at(3.0), speaking=False)
    assert not passage.is_settled(at(3.0), speaking=True)


def test_its_length_settles_a_passage_whoever_speaks() -> None:
    passage = Passage()
    passage.add(said(1, "one two", start_s=5, end_s=6))
    assert not passage.is_settled(at(25.0), speaking=True)
    assert passage.is_settled(at(25.1), speaking=True)


def test_an_empty_passage_is_never_settled() -> None:
    assert not Passage().is_settled(at(1000), speaking=False)
    assert not Passage().is_joined


def test_only_utterances_whose_words_differ_are_revised() -> None:
    before = [said(1, "a dog", start_s=0, end_s=1), said(2, "Barks twice.", start_s=2, end_s=3)]
    heard = [*words("the dog", start_s=0), *words("barks, twice", start_s=2)]
    changed = revisions(before, heard)
    assert [item.number for item in changed] == [1]
    assert [word.text for word in changed[0].words] == [" the", " dog"]


def test_a_word_goes_to_the_utterance_that_it_lies_in_or_nearest_to() -> None:
    before = [said(1, "a b", start_s=0, end_s=1), said(2, "c d", start_s=2, end_s=3)]
    heard = [*words("a b near", start_s=0, step_s=0.45), *words("next c d", start_s=1.6, step_s=0.45)]
    assert [[word.text.strip() for word in item.words] for item in revisions(before, heard)] == [
        ["a", "b", "near"],
        ["next", "c", "d"],
    ]


def test_revised_words_stay_between_those_of_the_utterances_beside_theirs() -> None:
    before = [
        said(1, "a b", start_s=0, end_s=1),
        said(2, "c d", start_s=1.2, end_s=2.2),
        said(3, "e f", start_s=2.4, end_s=3.4),
    ]
    heard = [*words("a b", start_s=0), *words("x y", start_s=0.9, step_s=0.85), *words("e f", start_s=2.6)]
    changed = revisions(before, heard)
    assert [item.number for item in changed] == [2]
    times = [(word.start, word.end) for word in changed[0].words]
    assert times == [(1.0, 1.75), (1.75, 2.4)]


def test_an_utterance_that_the_joined_decode_skipped_keeps_its_words() -> None:
    before = [said(1, "a b c d", start_s=0, end_s=2), said(2, "e f g h", start_s=3, end_s=5)]
    assert revisions(before, words("a b c x", start_s=0))[0].number == 1
    assert len(revisions(before, words("a b c x", start_s=0))) == 1
    assert revisions(before, []) == []
