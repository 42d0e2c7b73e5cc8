from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.events import Final, Word
from mediaserver.text.subtitles import CUE_MAX_S, LINE_COLUMNS, Cue, Format, cues, render

SENTENCES = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do. "
    "Once or twice she had peeped into the book her sister was reading, but it had no pictures."
)


def final(text: str, *, start: float = 0.0, word_s: float = 0.3, pauses: dict[int, float] | None = None) -> Final:
    """A final whose words are `word_s` long, with a pause before the words at some positions."""
    words, at = [], start
    for number, word in enumerate(text.split()):
        at += (pauses or {}).get(number, 0.0)
        words.append(Word(word, at, at + word_s, 0.9))
        at += word_s
    return with_words(text, words, start=start, duration=at - start)


def with_words(text: str, words: Sequence[Word], *, start: float = 0.0, duration: float = 1.0) -> Final:
    return Final(0, text, 0.9, start, duration, start + duration, "en", None, list(words))


def text_of(made: list[Cue]) -> str:
    return " ".join(line for cue in made for line in cue.lines)


def test_lines_break_at_sentences_and_clauses_not_inside_phrases() -> None:
    assert [cue.lines for cue in cues([final(SENTENCES)])] == [
        ("Alice was beginning to get very tired", "of sitting by her sister on the bank,"),
        ("and of having nothing to do.",),
        ("Once or twice she had peeped", "into the book her sister was reading,"),
        ("but it had no pictures.",),
    ]


def test_a_pause_is_where_a_sentence_without_punctuation_is_cut() -> None:
    text = "we went to the market this morning and then we came back home with nothing but a small bag of salt"
    made = cues([final(text, pauses={7: 0.6})])
    assert made[0].lines == ("we went to the market this morning",)


def test_no_cue_reaches_across_a_long_silence() -> None:
    made = cues([final("Yes. No.", pauses={1: 5.0})])
    assert [(cue.start, cue.lines) for cue in made] == [(0.0, ("Yes.",)), (5.3, ("No.",))]
    assert made[0].end == 1.0, "a short word stays long enough to be read"


def test_a_cue_stays_as_long_as_its_text_needs_but_never_into_the_next() -> None:
    fast = [final("Extraordinarily uncomfortable places.", word_s=0.1), final("Next.", start=1.2)]
    first, second = cues(fast)
    assert first.end == 1.16
    assert second.start == 1.2
    alone = cues(fast[:1])[0]
    assert alone.end == round(len(alone.lines[0]) / 17.0, 3)


def test_a_final_without_words_is_spread_over_its_time() -> None:
    made = cues([with_words(SENTENCES, [], start=10.0, duration=12.0)])
    assert text_of(made) == SENTENCES
    assert made[0].start == 10.0
    assert made[-1].end >= 21.9


def test_text_without_spaces_is_joined_as_it_was_written() -> None:
    text = "今日はとても良い天気ですね。"
    words = [
        Word(part, n * 0.3, n * 0.3 + 0.3, 0.9)
        for n, part in enumerate(["今日", "は", "とても", "良い", "天気", "ですね。"])
    ]
    assert text_of(cues([with_words(text, words)])) == text
    long = text[:-1] * 4
    made = cues([with_words(long, [Word(char, n * 0.1, n * 0.1 + 0.1, 0.9) for n, char in enumerate(long)])])
    assert all(len(line) <= LINE_COLUMNS // 2 for cue in made for line in cue.lines), "full-width takes two columns"


def test_a_word_longer_than_a_line_is_divided() -> None:
    made = cues([final("https://" + "a" * 100)])
    assert all(len(line) <= LINE_COLUMNS for cue in made for line in cue.lines)
    assert "".join(line for cue in made for line in cue.lines) == "https://" + "a" * 100


@given(
    st.lists(
        st.tuples(
            st.text(alphabet="abcdefghij.,?-&<>éß今", min_size=1, max_size=30),
            st.floats(0, 3, allow_nan=False),
            st.floats(0, 1.5, allow_nan=False),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_every_word_comes_once_and_cues_keep_their_limits(parts: list[tuple[str, float, float]]) -> None:
    words, at = [], 0.0
    for text, pause_s, duration_s in parts:
        words.append(Word(text, at + pause_s, at + pause_s + duration_s, 0.5))
        at += pause_s + duration_s
    made = cues([with_words(" ".join(text for text, _, _ in parts), words, duration=at)])
    assert "".join(text_of(made).split()) == "".join(text for text, _, _ in parts)
    previous_end = 0.0
    for cue in made:
        assert previous_end <= cue.start < cue.end
        assert 1 <= len(cue.lines) <= 2
        previous_end = cue.end
        spoken = [word for word in words if cue.start <= word.start < cue.end]
        if len(spoken) > 1:
            assert spoken[-1].start - spoken[0].start <= CUE_MAX_S


def test_srt() -> None:
    made = render([final("Hello there.", start=3599.9), final("Bye --> now.", start=3700.0)], Format.SRT)
    assert made == ("1\n00:59:59,900 --> 01:00:00,900\nHello there.\n\n2\n01:01:40,000 --> 01:01:41,000\nBye → now.\n")


def test_vtt_escapes_what_would_be_markup() -> None:
    made = render([final("a < b && c --> <i>d</i>")], Format.VTT)
    assert made.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:")
    assert "a &lt; b &amp;&amp; c --&gt; &lt;i&gt;d&lt;/i&gt;\n" in made


def test_times_round_to_whole_milliseconds_without_sixty_seconds() -> None:
    made = render([final("x", start=59.9996)], Format.VTT)
    assert "00:01:00.000 --> " in made
    assert render([final("x", start=360_000.0)], Format.SRT).startswith("1\n100:00:00,000 --> ")


def test_tsv_and_txt_have_a_line_a_final() -> None:
    finals = [final("One\ttwo.", start=1.0), final("Three\nfour.", start=4.5)]
    assert render(finals, Format.TSV) == "start\tend\ttext\n1000\t1600\tOne two.\n4500\t5100\tThree four.\n"
    assert render(finals, Format.TXT) == "One two.\nThree four.\n"


def test_json_has_segments_and_words() -> None:
    made = json.loads(render([final("Grüße, Welt.", start=2.0)], Format.JSON))
    assert made["text"] == "Grüße, Welt."
    assert made["duration"] == 2.6
    assert made["segments"][0]["words"][1] == {
        "word": "Welt.",
        "start": 2.3,
        "end": 2.6,
        "confidence": 0.9,
        "low_confidence": False,
    }


def test_finals_come_in_the_order_of_the_stream_and_empty_ones_not_at_all() -> None:
    finals = [final("Second.", start=5.0), with_words("  ", []), final("First.")]
    assert render(finals, Format.TXT) == "First.\nSecond.\n"
    assert render([], Format.VTT) == "WEBVTT\n"
    assert render([], Format.SRT) == ""
    assert json.loads(render([], Format.JSON)) == {"text": "", "duration": 0.0, "segments": []}


def test_an_hour_is_cut_in_reasonable_time() -> None:
    import time

    finals = [final(SENTENCES, start=n * 12.0) for n in range(300)]
    started = time.perf_counter()
    made = render(finals, Format.SRT)
    assert time.perf_counter() - started < 10.0
    assert len(re.findall("-->", made)) == 1200


def test_no_line_ends_in_a_word_that_leads_the_next_one() -> None:
    text = (
        "she was considering in her own mind as well as she could for the hot day made her feel very sleepy "
        "whether the pleasure of making a chain of daisies would be worth the trouble of getting up"
    )
    ends = [line.split()[-1] for cue in cues([final(text)]) for line in cue.lines]
    assert not {"the", "of", "a", "as", "for", "in", "her"} & set(ends), ends


def test_an_unknown_language_is_cut_without_such_words() -> None:
    said = dataclasses.replace(final(SENTENCES), language="xx")
    assert text_of(cues([said])) == SENTENCES


def spoken(speaker: str, text: str, start: float) -> Final:
    return dataclasses.replace(final(text, start=start), speaker=speaker)


TWO = [
    spoken("Channel 0", "good morning how are you today", 0.0),
    spoken("Channel 1", "fine <thanks> and you", 1.0),
    spoken("Channel 1", "it is raining", 6.0),
]


def test_two_who_speak_at_once_have_cues_at_once_and_names() -> None:
    made = cues(TWO)
    assert [(cue.speaker, cue.start) for cue in made] == [("Channel 0", 0.0), ("Channel 1", 1.0), ("Channel 1", 6.0)]
    assert made[0].end > made[1].start
    assert render(TWO, Format.TXT).splitlines()[:2] == [
        "Channel 0: good morning how are you today",
        "Channel 1: fine <thanks> and you",
    ]
    assert "<v Channel 1>fine &lt;thanks&gt; and you\n" in render(TWO, Format.VTT)
    srt = render(TWO, Format.SRT)
    assert "Channel 0: good morning" in srt
    assert "\nit is raining\n" in srt  # the name is told where it changes
    assert render(TWO, Format.TSV).splitlines()[:2] == [
        "start\tend\tspeaker\ttext",
        "0\t1800\tChannel 0\tgood morning how are you today",
    ]


def test_without_speakers_nothing_is_named() -> None:
    assert render([final("so it goes")], Format.TSV).startswith("start\tend\ttext\n")
    assert "<v" not in render([final("so it goes")], Format.VTT)
