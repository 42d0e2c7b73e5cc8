"""Guards against invented text: what Whisper writes when there is nothing to write.

Four things give inventions away: the alignment finds no audio for them, they repeat, they come where the model itself
doubts that anybody speaks, and they are the same few sentences that subtitles of films end with. Words that were read
from a prompt are given away by how improbable they are without it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from mediaserver.decoder.window import HypothesisWord

ENGLISH_TOKENS_PER_SECOND = 7.0
"""Fast English is about 4 words or 6 tokens a second; more than this is not speech but a loop."""

TOKENS_PER_SECOND = 20.0
"""Other languages: the vocabulary was made mostly from English, so their words are cut smaller. Read German and French
come to 6 tokens a second of recording with its pauses, Greek to 9; a letter of a rarer script may be three tokens."""

TOKENS_SPARE = 12
"""So that one second of very fast speech is not cut."""

INTERIM_BUDGET_SHARE = 0.7
"""What an interim may write of that: five tokens a second and eight. Interims end in the middle of a word and run on
more often than finals; one that does holds up its whole batch, and what it writes is thrown away."""

INSTANT_S = 0.025
"""A word as short as one position of the encoder (20 ms) has no audio of its own. One such word may be a swallowed "a";
a run of them is text that the decoder went on with after the audio had ended, mostly the sentence once more."""

INSTANT_RUN_WORDS = 2

MAX_UNIT_WORDS = 8
"""Longest phrase whose repetition is looked for; loops longer than this have not been seen within 30 s."""

WORD_REPEATS = 6
"""A single word may be said several times ("zero zero zero", "no, no, no"), hardly six."""

PHRASE_REPEATS = 3
"""A phrase of two words or more, three times on end, is a loop; two copies of it are kept."""

HURRIED_REPEATS = 3
INSTANT_LETTER_S, HURRIED_LETTER_S = 0.02, 0.04
"""A word or phrase this often on end of which one copy has less than the first for each of its letters was written more
often than it was said; copies with less than the second are those too many. The times of honest words are this wrong
too, now and then (of 180 words of commands, 9 and 25), so only runs are looked at, and only where one copy stands out.
Fast speech has 0.05 s a letter. Digits cut out of recordings and said three times keep all their copies."""

DIGIT_LETTERS = 3
"""Letters of a digit's name, at least."""

NO_SPEECH = 0.6
"""From this no-speech probability on, where the text is improbable too, nobody spoke (Whisper's own rule)."""

LOW_LOG_PROBABILITY = -1.0
"""Mean log-probability of a token below which a text is a guess (Whisper's own rule)."""

INTERIM_LOW_LOG_PROBABILITY = -0.5
"""The same for interims: their final is near, and over a coffee shop's murmur they would say that they love you."""

DOUBTS = ((NO_SPEECH, 0.5), (0.4, 0.3))
"""No-speech probability and mean probability of the words: above the one and below the other nobody spoke. A mean over
tokens hides it where one improbable word is all there is, or where a word is said over and over. Of 188 windows of
telephone, read and noisy speech this rejects no final and three interims of two words at most. Of what is written over
tones, birds and rooms with the VAD off it rejects what is improbable; what the model is sure of is left to the rule on
chants."""

CHANT_REPEATS = 3
CHANT_NO_SPEECH = 0.5
"""A text that is one word or phrase this often and nothing else, where the model rather hears no speech: what it writes
over ringing tones ("Oh, oh, oh"), and sure of it. Somebody who says "no, no, no" is heard as a speaker."""

COMPRESSION_RATIO = 2.4
"""zlib makes honest text about half as long; text that shrinks more than this repeats itself (Whisper's own rule)."""

READ_FROM_PROMPT = "prompt"
"""Why a text is rejected that may be there because the prompt has it."""

UNSUPPORTED_LOG_PROBABILITY = -4.5
"""Mean log-probability of a word's tokens without the prompt, below which the word was read from it. Rare names that
only hot words bring right have -0.6 to -4.1; hot words written over noise have -5 to -9 (tiny.en)."""

UNSUPPORTED_TEXT_LOG_PROBABILITY = -2.5
"""The same for a whole text: sentences of a prompt written over noise have -4 to -5."""

INVENTIONS = frozenset(
    {
        "thank you",
        "thanks",
        "thanks for watching",
        "thank you for watching",
        "thank you very much",
        "please subscribe",
        "subscribe",
        "bye",
        "you",
        "the end",
        "so",
        "i'm sorry",
        "oh",
    }
)
"""What the training data's subtitles say over silence. Kept only where the model has heard how it begins."""

INVENTION_PROBABILITY = 0.2
"""Probability of its first word from which one of `INVENTIONS` is believed: the rest follows from that word, whatever
was heard ("you" after an invented "thank" has 0.96). Over knocks, babble and a coffee shop the first word has 0.01 to
0.17 (tiny.en, 25 texts); spoken by four voices in quiet and over room noise 13 dB below them it has 0.26 to 0.95 in 93
of 97, "thank you" 0.30 at least."""


def token_budget(speech_s: float, language: str, *, is_interim: bool = False) -> int:
    """How many tokens `speech_s` seconds of speech can hold."""
    rate = ENGLISH_TOKENS_PER_SECOND if language == "en" else TOKENS_PER_SECOND
    tokens = speech_s * rate + TOKENS_SPARE
    return int(tokens * INTERIM_BUDGET_SHARE if is_interim else tokens)


def normalised(text: str) -> str:
    """A word without case and punctuation: what two hypotheses are compared by."""
    return "".join(char for char in text.casefold() if char.isalnum() or char == "'")


def heard(words: Sequence[HypothesisWord]) -> list[HypothesisWord]:
    """The words that have audio of their own, by the times of the alignment.

    Runs of instant words go. The alignment gives the time that is left over to the last word of what was not heard: if
    after a run nothing comes but the end of what stood before it, that goes too.
    """
    kept: list[HypothesisWord] = []
    at = 0
    while at < len(words):
        after = at
        while after < len(words) and words[after].end - words[after].start < INSTANT_S:
            after += 1
        if after - at < INSTANT_RUN_WORDS:
            kept.extend(words[at : max(after, at + 1)])
            at = max(after, at + 1)
            continue
        rest = [normalised(word.text) for word in words[after:]]
        if rest and rest == [normalised(word.text) for word in kept[-len(rest) :]]:
            break
        at = after
    return kept


def without_loops(words: Sequence[HypothesisWord]) -> list[HypothesisWord]:
    """The words up to the first loop; everything after it is the loop's doing and goes too."""
    keys = [normalised(word.text) for word in words]
    for start in range(len(keys)):
        for unit in range(1, min(MAX_UNIT_WORDS, (len(keys) - start) // 2) + 1):
            repeats = _repeats(keys, start, unit)
            if repeats >= (WORD_REPEATS if unit == 1 else PHRASE_REPEATS):
                return list(words[: start + 2 * unit])
    return list(words)


def without_hurried_copies(words: Sequence[HypothesisWord]) -> list[HypothesisWord]:
    """The words, and of a run of equal words or phrases only the copies that somebody had the time to say.

    What comes after the run stays: a window that ends in the middle of a word may go wrong for a moment only.
    """
    keys = [normalised(word.text) for word in words]
    kept: list[HypothesisWord] = []
    at = 0
    while at < len(words):
        unit, repeats = _run(keys, at)
        copies = [words[at + n * unit : at + (n + 1) * unit] for n in range(repeats)]
        letters = sum(DIGIT_LETTERS if char.isdigit() else 1 for key in keys[at : at + unit] for char in key)
        pace_s = [sum(word.end - word.start for word in copy) / max(letters, 1) for copy in copies]
        if repeats > 1 and min(pace_s) < INSTANT_LETTER_S:
            said = [copy for copy, each_s in zip(copies, pace_s, strict=True) if each_s >= HURRIED_LETTER_S]
            copies = said or [copies[pace_s.index(max(pace_s))]]
        kept += [word for copy in copies for word in copy]
        at += unit * repeats
    return kept


def is_read_from_prompt(support: Sequence[float], word_tokens: Sequence[int]) -> bool:
    """Whether a text, or a word of it, is there because the prompt has it and not because the audio has.

    Args:
        support: log-probability of each token without the prompt.
        word_tokens: how many of these tokens each word has.
    """
    if not support:
        return False
    if sum(support) / len(support) < UNSUPPORTED_TEXT_LOG_PROBABILITY:
        return True
    at = 0
    for count in word_tokens:
        of_word = support[at : at + count]
        if of_word and sum(of_word) / len(of_word) < UNSUPPORTED_LOG_PROBABILITY:
            return True
        at += count
    return False


def rejection(
    words: Sequence[HypothesisWord], *, is_interim: bool, no_speech_probability: float, mean_log_probability: float
) -> str | None:
    """Why this text must not be shown, or None if it may."""
    if not words:
        return None
    low = INTERIM_LOW_LOG_PROBABILITY if is_interim else LOW_LOG_PROBABILITY
    if no_speech_probability > NO_SPEECH and mean_log_probability < low:
        return "no_speech"
    mean_probability = sum(word.probability for word in words) / len(words)
    if any(no_speech_probability > doubt and mean_probability < sure for doubt, sure in DOUBTS):
        return "improbable"
    if no_speech_probability > CHANT_NO_SPEECH and _is_chant([normalised(word.text) for word in words]):
        return "repetitive"
    text = "".join(word.text for word in words).strip()
    encoded = text.encode()
    if len(encoded) / len(zlib.compress(encoded)) > COMPRESSION_RATIO:
        return "repetitive"
    phrase = " ".join(normalised(word.text) for word in words)
    if phrase in INVENTIONS and words[0].probability < INVENTION_PROBABILITY:
        return "invention"
    return None


def _is_chant(keys: list[str]) -> bool:
    """Whether all of it is one phrase again and again, the last time perhaps cut short."""
    return any(
        keys == (keys[:unit] * len(keys))[: len(keys)]
        for unit in range(1, min(MAX_UNIT_WORDS, len(keys) // CHANT_REPEATS) + 1)
    )


def _run(keys: list[str], start: int) -> tuple[int, int]:
    """The shortest phrase at `start` that stands there often enough to be looked at, and how often; else (1, 1)."""
    for unit in range(1, min(MAX_UNIT_WORDS, (len(keys) - start) // HURRIED_REPEATS) + 1):
        repeats = _repeats(keys, start, unit)
        if repeats >= HURRIED_REPEATS:
            return unit, repeats
    return 1, 1


def _repeats(keys: list[str], start: int, unit: int) -> int:
    """How often the `unit` keys at `start` stand there on end."""
    phrase = keys[start : start + unit]
    repeats = 1
    while keys[start + repeats * unit : start + (repeats + 1) * unit] == phrase:
        repeats += 1
    return repeats
