"""What a reader sees and when: latency, flicker and the promise of `stable`, from the events of one stream.

The screen shows of each utterance the text of its latest event: interim, final or revision. All times are seconds on
one clock that starts when the first sample of the stream is spoken: an event's `at_s` is the wall time of its arrival
on that clock, and a word's times are stream time, so their difference is a delay that somebody waits.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from mediaserver.events import Event, Final, Interim, Revision, SpeechStarted, SpeechStopped, Word

Text = Interim | Final | Revision

SAME_EDGE_S = 1.5
"""A speech edge this far from an utterance's own belongs to another: utterances of a speaker lie further apart, for
each has at least `min_speech_ms` of speech and `endpointing_ms` of silence."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as it arrived, `at_s` seconds after the first sample was spoken."""

    at_s: float
    event: Event


@dataclass(frozen=True, slots=True)
class ScreenScore:
    """The figures of one stream or, added up, of many. Durations are in seconds, one entry a word or an utterance.

    Args:
        word_s: *word latency*: from the end of a word in the audio, by the word times of the last final or revision,
            to the moment from which it stays on screen unchanged. Case and punctuation may still change; a word that
            moves because one before it was added or removed has not changed; one that goes and comes back counts from
            its return. Right and wrong words count alike.
        stable_word_s: the same for a reader who is shown only `stable` text and finals.
        first_text_s: *first-text latency*: from `speech_started.at` to the utterance's first text.
        first_text_from_word_s: the same from the start of the utterance's first word, which does not rest on the VAD.
        final_s: *final latency*, TTFS: from `speech_stopped.at` to the final.
        final_from_word_s: the same from the end of the utterance's last word.
        shown_words: how many words ever came up on screen; one that returns after it was gone counts again.
        changed_words: how many of them a later text of their utterance removed or replaced.
        stable_words: how many words were told as stable before their final.
        stable_corrected: how many of those the final did not keep.
        stable_broken: how often an interim's `stable` did not begin with the `stable` before it (must be 0).
        final_words: how many words finals had.
        revised_words: how many of them a revision did not keep.
        untimed_words: words of final texts without a place in `words`: left out of the latencies.
        unfinished: utterances that showed text and never got a final (must be 0 once a stream has ended).
    """

    word_s: list[float] = field(default_factory=list)
    stable_word_s: list[float] = field(default_factory=list)
    first_text_s: list[float] = field(default_factory=list)
    first_text_from_word_s: list[float] = field(default_factory=list)
    final_s: list[float] = field(default_factory=list)
    final_from_word_s: list[float] = field(default_factory=list)
    shown_words: int = 0
    changed_words: int = 0
    stable_words: int = 0
    stable_corrected: int = 0
    stable_broken: int = 0
    final_words: int = 0
    revised_words: int = 0
    untimed_words: int = 0
    unfinished: int = 0

    def __add__(self, other: ScreenScore) -> ScreenScore:
        return ScreenScore(**{part.name: getattr(self, part.name) + getattr(other, part.name) for part in fields(self)})

    @property
    def flicker(self) -> float:
        """Share of displayed words that later change: `changed_words` ÷ `shown_words`."""
        return self.changed_words / self.shown_words if self.shown_words else 0.0

    @property
    def stable_corrected_share(self) -> float:
        """Share of stable words that their final corrected."""
        return self.stable_corrected / self.stable_words if self.stable_words else 0.0


def score_stream(seen: Sequence[Seen]) -> ScreenScore:
    """Score the events of one stream, in order of arrival."""
    starts = [item.event.at for item in seen if isinstance(item.event, SpeechStarted)]
    stops = [item.event.at for item in seen if isinstance(item.event, SpeechStopped)]
    utterances: dict[int, list[tuple[float, Text]]] = {}
    for item in seen:
        if isinstance(item.event, Interim | Final | Revision):
            utterances.setdefault(item.event.utterance_id, []).append((item.at_s, item.event))
    return sum((_score_utterance(texts, starts, stops) for texts in utterances.values()), ScreenScore())


def final_text(seen: Sequence[Seen]) -> str:
    """What remains in the end: finals, as revised, in order of their utterances."""
    texts = {
        item.event.utterance_id: item.event.transcript for item in seen if isinstance(item.event, Final | Revision)
    }
    return " ".join(texts[key].strip() for key in sorted(texts)).strip()


def interim_words(seen: Sequence[Seen]) -> list[str]:
    """Every word that any interim showed, with repeats: for counting invented ones."""
    return [word for item in seen if isinstance(item.event, Interim) for word in tokens(item.event.transcript)]


def tokens(text: str) -> list[str]:
    """The words of a text as a reader tells them apart: no case, no punctuation; a CJK letter is a word."""
    found: list[str] = []
    for piece in text.casefold().split():
        word = ""
        for letter in piece:
            if _stands_alone(letter):
                found.extend(part for part in (word, letter) if part)
                word = ""
            elif unicodedata.category(letter)[0] in "LMN" or (letter in "'’" and word):
                word += letter
        word = word.rstrip("'’")
        if word:
            found.append(word)
    return found


def _stands_alone(letter: str) -> bool:
    return "぀" <= letter <= "ヿ" or "㐀" <= letter <= "鿿"


def kept(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]]:
    """Which words of `before` are still there in `after`: index pairs of a longest common subsequence."""
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    pairs = [(i, i) for i in range(head)]
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    # Longest common subsequence of the part that differs, from its end, so that the walk below goes forwards.
    length = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in reversed(range(len(old))):
        for j in reversed(range(len(new))):
            length[i][j] = length[i + 1][j + 1] + 1 if old[i] == new[j] else max(length[i + 1][j], length[i][j + 1])
    i = j = 0
    while i < len(old) and j < len(new):
        if old[i] == new[j]:
            pairs.append((head + i, head + j))
            i, j = i + 1, j + 1
        elif length[i + 1][j] >= length[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs + [(len(before) - k, len(after) - k) for k in range(tail, 0, -1)]


def _score_utterance(
    texts: Sequence[tuple[float, Text]], starts: Sequence[float], stops: Sequence[float]
) -> ScreenScore:
    since_s, shown, changed = _on_screen([(at_s, tokens(text.transcript)) for at_s, text in texts])
    finals = [(at_s, text) for at_s, text in texts if isinstance(text, Final)]
    if not finals:
        return ScreenScore(shown_words=shown, changed_words=changed, unfinished=int(shown > 0))
    final_at_s, final = finals[0]
    last = texts[-1][1]
    words = tokens(last.transcript)
    timed = _timed(words, last.words)
    stable_since_s, stable = _stable(texts, final_at_s, tokens(final.transcript), words)
    score = ScreenScore(
        word_s=[since_s[index] - word.end for index, word in timed],
        stable_word_s=[stable_since_s[index] - word.end for index, word in timed],
        shown_words=shown,
        changed_words=changed,
        stable_words=stable.told,
        stable_corrected=stable.corrected,
        stable_broken=stable.broken,
        final_words=len(tokens(final.transcript)),
        revised_words=_revised(texts, tokens(final.transcript)),
        untimed_words=len(words) - len(timed),
    )
    if not words or not last.words:
        return score
    first_at_s, first = next((at_s, text) for at_s, text in texts if tokens(text.transcript))
    speech_start_s = _nearest(starts, first.start)
    speech_stop_s = _nearest(stops, final.words[-1].end if final.words else final.start + final.duration)
    score.first_text_from_word_s.append(first_at_s - last.words[0].start)
    score.final_from_word_s.append(final_at_s - last.words[-1].end)
    if speech_start_s is not None:
        score.first_text_s.append(first_at_s - speech_start_s)
    if speech_stop_s is not None:
        score.final_s.append(final_at_s - speech_stop_s)
    return score


def _on_screen(texts: Sequence[tuple[float, list[str]]]) -> tuple[list[float], int, int]:
    """Since when each word of the last text is there, how many words ever came up, and how many of them went."""
    words: list[str] = []
    since_s: list[float] = []
    shown = changed = 0
    for at_s, after in texts:
        pairs = kept(words, after)
        now_since_s = [at_s] * len(after)
        for old, new in pairs:
            now_since_s[new] = since_s[old]
        shown += len(after) - len(pairs)
        changed += len(words) - len(pairs)
        words, since_s = after, now_since_s
    return since_s, shown, changed


@dataclass(frozen=True, slots=True)
class _Stable:
    told: int
    corrected: int
    broken: int


def _stable(
    texts: Sequence[tuple[float, Text]], final_at_s: float, final: list[str], last: list[str]
) -> tuple[list[float], _Stable]:
    """Since when each word of the last text was told as stable (at the latest by the final), and how stable fared."""
    told: list[str] = []
    told_at_s: list[float] = []
    broken = 0
    for at_s, text in texts:
        if not isinstance(text, Interim):
            break
        now = tokens(text.stable)
        same = next((i for i, (a, b) in enumerate(zip(told, now, strict=False)) if a != b), min(len(told), len(now)))
        broken += same < len(told)
        told_at_s = told_at_s[:same] + [at_s] * (len(now) - same)
        told = now
    confirmed = kept(told, final)
    final_since_s = [final_at_s] * len(final)
    for old, new in confirmed:
        final_since_s[new] = told_at_s[old]
    last_since_s = [texts[-1][0]] * len(last)
    for old, new in kept(final, last):
        last_since_s[new] = final_since_s[old]
    return last_since_s, _Stable(len(told), len(told) - len(confirmed), broken)


def _timed(words: list[str], places: Sequence[Word]) -> list[tuple[int, Word]]:
    """The words of a text with their places; one place may cover several words (`New York`)."""
    spoken = [(token, place) for place in places for token in tokens(place.word)]
    return [(index, spoken[k][1]) for index, k in kept(words, [token for token, _ in spoken])]


def _revised(texts: Sequence[tuple[float, Text]], final: list[str]) -> int:
    revisions = [tokens(text.transcript) for _, text in texts if isinstance(text, Revision)]
    return len(final) - len(kept(final, revisions[-1])) if revisions else 0


def _nearest(edges: Sequence[float], at: float) -> float | None:
    """The speech edge that belongs to an utterance, if one does: a cut by length has none."""
    best = min(edges, key=lambda edge: abs(edge - at), default=None)
    return best if best is not None and abs(best - at) <= SAME_EDGE_S else None
