"""Words and their punctuation."""

import pytest

from mediaserver.decoder.window import HypothesisWord, Token
from mediaserver.decoder.words import join_punctuation, text_of


def word(text: str, probability: float = 0.8) -> HypothesisWord:
    return HypothesisWord(text, 0.0, 0.1, probability)


def test_a_mark_that_stands_alone_joins_the_word_before_it() -> None:
    joined = join_punctuation([word(" Hello"), word(","), word(" you"), word("?")])
    assert [item.text for item in joined] == [" Hello,", " you?"]


def test_an_opening_mark_joins_the_word_after_it() -> None:
    joined = join_punctuation([word(" he"), word(" said"), word(' "'), word(" stop"), word('"')])
    assert text_of(joined) == 'he said "stop"'


def test_what_a_mark_ties_together_is_one_word() -> None:
    joined = join_punctuation(
        [HypothesisWord(" post", 1.0, 1.2, 0.8), HypothesisWord("-mortem", 1.2, 1.6, 0.4), word(" 1"), word(".5")]
    )
    assert [item.text for item in joined] == [" post-mortem", " 1.5"]
    assert (joined[0].start, joined[0].end) == (1.0, 1.6)
    assert joined[0].probability == pytest.approx(0.6)


def test_letters_of_scripts_without_spaces_stay_words() -> None:
    assert len(join_punctuation([word("今"), word("日"), word("は")])) == 3


def test_marks_alone_are_no_words() -> None:
    assert join_punctuation([word(" ..."), word("!")]) == []


def test_tokens_stay_with_their_word() -> None:
    def word(text: str, *numbers: int) -> HypothesisWord:
        return HypothesisWord(text, 0.0, 0.1, 0.5, tuple(Token(number, str(number), -0.1) for number in numbers))

    joined = join_punctuation([word(' "', 1), word("post", 2), word("-mortem", 3, 4), word(",", 5)])
    assert [[token.number for token in item.tokens] for item in joined] == [[1, 2, 3, 4, 5]]
    assert [item.text for item in joined] == [' "post-mortem,']
