"""How words are written for a client."""

from __future__ import annotations

import pytest

from mediaserver.events import Word
from signaling.routes.deepgram.style import Style, parse_replacement, text_of, written

TEXT = "“Um, well,” said Anna, “it's 50% of $3.50 — AT&T's, not mine…”"


def words(text: str) -> list[Word]:
    return [Word(word, n, n + 0.5, 0.9 - n / 100) for n, word in enumerate(text.split())]


def told(text: str, style: Style, language: str | None = "en") -> str:
    return text_of(written(text, words(text), style, language=language), style)


def test_without_punctuation_there_are_neither_marks_nor_capitals() -> None:
    assert told(TEXT, Style()) == "well said anna it's 50% of $3.50 at&t's not mine"


def test_with_punctuation_the_text_is_as_it_was_written() -> None:
    assert told(TEXT, Style(has_punctuation=True, keeps_fillers=True)) == TEXT


def test_each_word_is_there_bare_and_whole() -> None:
    said = written("Hello, World!", words("Hello, World!"), Style(has_punctuation=True), language="en")
    assert [(word.bare, word.full) for word in said] == [("hello", "Hello,"), ("world", "World!")]


def test_fillers_are_left_out_of_english_alone() -> None:
    assert told("Um, so uh yes", Style()) == "so yes"
    assert told("Um, so uh yes", Style(keeps_fillers=True)) == "um so uh yes"
    assert told("um neun", Style(), "de") == "um neun"


def test_a_language_without_spaces_gets_none() -> None:
    pieces = [Word("你好", 0, 1, 0.9), Word("世界。", 1, 2, 0.9)]
    for style, text in ((Style(has_punctuation=True), "你好世界。"), (Style(), "你好世界")):
        assert text_of(written("你好世界。", pieces, style, language="zh"), style) == text


def test_words_that_the_text_does_not_have_are_still_told() -> None:
    said = written("other", words("two words"), Style(), language="en")
    assert text_of(said, Style()) == "two words"


@pytest.mark.parametrize(
    ("entry", "text", "after"),
    [
        ("kant:Immanuel Kant", "So Kant, then.", "So Immanuel Kant, then."),
        ("new york:NYC", "In “New York,” mostly.", "In “NYC,” mostly."),
        ("kant", "So Kant, then.", "So then."),
        ("kant:", "So Kant, then.", "So then."),
        ("can:K", "Can a canned can can?", "K a canned K K?"),
        ("not there:x", "So Kant, then.", "So Kant, then."),
        (":x", "So Kant, then.", "So Kant, then."),
    ],
)
def test_words_are_replaced(entry: str, text: str, after: str) -> None:
    assert told(text, Style(has_punctuation=True, replacements=(parse_replacement(entry),))) == after


def test_what_is_put_in_stands_from_the_first_word_to_the_last_and_is_as_sure_as_the_least() -> None:
    style = Style(replacements=(parse_replacement("new york:NYC"),))
    (merged,) = written("New York", words("New York"), style, language="en")
    assert (merged.bare, merged.start, merged.end, merged.confidence) == ("NYC", 0, 1.5, 0.89)
