"""Finals as TXT, SRT, VTT, TSV or JSON. Pure: text in, text out.

Cues are cut where a reader would pause. Among all ways to cut an utterance into cues that fit, the one with the least
cost is taken (dynamic programming over its words): cuts at sentence ends and long pauses are cheap, cuts inside a
phrase are dear, and dearest after a word that belongs to the next one (an article, a preposition). The limits are those
that broadcasters publish for subtitles in Latin script.

Finals that name a speaker (or a channel) are told apart in every format; two who speak at once have cues at once.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from mediaserver.events import Final, Word
from mediaserver.text.leading import leading_words

LINE_COLUMNS = 42
"""Longest line. A full-width character (Chinese, Japanese, Korean) takes two columns."""

CUE_MAX_S = 7.0
"""A cue that stays longer is read twice."""

CUE_MIN_S = 1.0
"""A cue that goes sooner is missed; it stays this long where the next one leaves room."""

READING_COLUMNS_PER_S = 17.0
"""A comfortable reading speed for adults; cues stay longer for it where the next one leaves room."""

GAP_S = 0.04
"""Between two cues, one frame at 25 Hz, so that a reader sees the change."""

PAUSE_S = 0.4
"""A silence that is heard as a break in the sentence."""

LONG_PAUSE_S = 1.5
"""A silence that a cue does not reach across."""

SCRAP_COLUMNS = 12
"""A cue with less than two short words flickers by."""

_SENTENCE_END = re.compile(r"[.!?…。！？]['\")\]»”’]*$")
_CLAUSE_END = re.compile(r"[,;:，、；：—–]['\")\]»”’]*$")


class Format(StrEnum):
    """What transcripts are written as."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: `start` and `end` in seconds of stream time, at most two lines, for more hide the picture, and who
    says it.
    """

    start: float
    end: float
    lines: tuple[str, ...]
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    """A word with its place on the clock and what stands between it and the word before (a space, or nothing)."""

    text: str
    before: str
    start: float
    end: float


def render(finals: Sequence[Final], form: Format) -> str:
    """The transcript of a session in one format, in the order of stream time, ending in a line break.

    `json` has the whole text, the duration, and per segment its times, text, confidence, language, speaker and words.
    """
    ordered = sorted((final for final in finals if final.transcript.strip()), key=lambda final: final.start)
    return _RENDERERS[form](ordered)


def cues(finals: Iterable[Final]) -> list[Cue]:
    """Finals as subtitles in order, each with a positive duration; those of one speaker never overlap."""
    by_speaker: dict[str | None, list[Final]] = {}
    for final in finals:
        by_speaker.setdefault(final.speaker, []).append(final)
    done: list[Cue] = []
    for speaker, said in by_speaker.items():
        runs = [run for final in said for run in _runs(_tokens(final), leading_words(final.language))]
        done += _timed([draft for run in runs for draft in _cut(run)], speaker)
    return sorted(done, key=lambda cue: cue.start)


# Words


def _tokens(final: Final) -> list[_Token]:
    """A final's words with the spacing of its transcript; a final without words gets words spread over its time."""
    words = [word for word in final.words if word.word.strip()] or _spread(final)
    tokens: list[_Token] = []
    position = 0
    for word in words:
        text = " ".join(word.word.split())
        found = final.transcript.find(text, position)
        if found >= 0:
            before = " " if any(char.isspace() for char in final.transcript[position:found]) else ""
            position = found + len(text)
        else:
            before = " "
        start = max(word.start, tokens[-1].end if tokens else 0.0)
        tokens += _pieces(text, before, start, max(word.end, start))
    return tokens


def _pieces(text: str, before: str, start: float, end: float) -> list[_Token]:
    """A word in pieces that fit a line: almost always one."""
    if _columns(text) <= LINE_COLUMNS:
        return [_Token(text, before, start, end)]
    step = LINE_COLUMNS // 2
    parts = [text[at : at + step] for at in range(0, len(text), step)]
    share = (end - start) / len(parts)
    return [
        _Token(part, "" if number else before, start + number * share, start + (number + 1) * share)
        for number, part in enumerate(parts)
    ]


def _spread(final: Final) -> list[Word]:
    """Words for a final that has none, their times by their share of its characters."""
    texts = final.transcript.split()
    total = sum(len(text) for text in texts)
    words, done = [], 0
    for text in texts:
        start = final.start + final.duration * done / total
        done += len(text)
        words.append(Word(text, start, final.start + final.duration * done / total, final.confidence))
    return words


def _runs(tokens: list[_Token], leading: frozenset[str]) -> list[_Run]:
    """Tokens between pauses that no cue reaches across."""
    runs: list[list[_Token]] = []
    for token in tokens:
        if not runs or token.start - runs[-1][-1].end >= LONG_PAUSE_S:
            runs.append([])
        runs[-1].append(token)
    return [_Run(run, leading) for run in runs]


# Cutting


class _Run:
    """Words that may share a cue. Widths and the costs of cuts are worked out once, for the search asks often."""

    def __init__(self, tokens: list[_Token], leading: frozenset[str]) -> None:
        self.tokens = tokens
        self.reach = [0]  # columns up to and with token n, spaces counted
        for token in tokens:
            self.reach.append(self.reach[-1] + _columns(token.before) + _columns(token.text))
        self.cut_cost = [_cut_cost(left, right, leading) for left, right in pairwise(tokens)] + [0.0]

    def text(self, start: int, end: int) -> str:
        return "".join((token.before if n else "") + token.text for n, token in enumerate(self.tokens[start:end]))

    def width(self, start: int, end: int) -> int:
        return self.reach[end] - self.reach[start] - _columns(self.tokens[start].before)

    def fits(self, start: int, end: int) -> bool:
        """Whether these words are short enough, and go into two lines."""
        if self.tokens[end - 1].end - self.tokens[start].start > CUE_MAX_S:
            return False
        if self.width(start, end) <= LINE_COLUMNS:
            return True
        room = LINE_COLUMNS + self.reach[start] + _columns(self.tokens[start].before)
        full = bisect_right(self.reach, room) - 1  # the first line takes all it can
        return self.width(full, end) <= LINE_COLUMNS

    def cue_cost(self, start: int, end: int) -> float:
        """Each cue costs something, a scrap and a second line more, so that cues are whole and not many."""
        duration_s = self.tokens[end - 1].end - self.tokens[start].start
        width = self.width(start, end)
        scrap = 4.0 if width < SCRAP_COLUMNS or duration_s < CUE_MIN_S / 2 else 0.0
        return 2.0 + scrap + (1.5 if width > LINE_COLUMNS else 0.0)

    def lines(self, start: int, end: int) -> tuple[str, ...]:
        """One line, or two: cut where it disturbs least and leaves them even."""
        if self.width(start, end) <= LINE_COLUMNS or end - start == 1:
            return (self.text(start, end),)

        def cost(at: int) -> float:
            upper, lower = self.width(start, at), self.width(at, end)
            too_long = 1000.0 * max(0, upper - LINE_COLUMNS, lower - LINE_COLUMNS)
            return self.cut_cost[at - 1] + 10.0 * abs(upper - lower) / LINE_COLUMNS + too_long

        best = min(range(start + 1, end), key=cost)
        return self.text(start, best), self.text(best, end)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A cue before its times are set."""

    start: float
    end: float
    lines: tuple[str, ...]


def _cut(run: _Run) -> list[_Draft]:
    """The cheapest way to cut a run into cues that fit."""
    count = len(run.tokens)
    best = [0.0] + [float("inf")] * count
    came_from = [0] * (count + 1)
    for end in range(1, count + 1):
        mixture = 0.0  # a cue that ends one sentence and begins another
        for start in range(end - 1, -1, -1):
            if end - start > 1:
                if not run.fits(start, end):
                    break
                mixture += 2.0 if run.cut_cost[start] == 0.0 else 0.0
            cost = best[start] + run.cut_cost[end - 1] + run.cue_cost(start, end) + mixture
            if cost < best[end]:
                best[end], came_from[end] = cost, start
    drafts: list[_Draft] = []
    end = count
    while end > 0:
        start = came_from[end]
        drafts.append(_Draft(run.tokens[start].start, run.tokens[end - 1].end, run.lines(start, end)))
        end = start
    return drafts[::-1]


def _cut_cost(left: _Token, right: _Token, leading: frozenset[str]) -> float:
    """How much a cut here disturbs the reader: 0 after a sentence, 15 after a word that leads a phrase."""
    if _SENTENCE_END.search(left.text):
        return 0.0
    if _CLAUSE_END.search(left.text):
        cost = 3.0
    elif left.text.lower() in leading:
        cost = 15.0
    else:
        cost = 8.0 if right.text.lower() in leading else 10.0
    return cost / 2 if right.start - left.end >= PAUSE_S else cost


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _timed(drafts: list[_Draft], speaker: str | None) -> list[Cue]:
    """Times that can be read: a cue stays as long as its text needs, up to the next one."""
    done: list[Cue] = []
    for number, draft in enumerate(drafts):
        start = max(draft.start, done[-1].end if done else 0.0)
        wanted_s = max(CUE_MIN_S, sum(_columns(line) for line in draft.lines) / READING_COLUMNS_PER_S)
        end = max(draft.end, start + wanted_s)
        if number + 1 < len(drafts):
            end = min(end, drafts[number + 1].start - GAP_S)
        end = max(end, draft.end - GAP_S, start + 0.001)
        done.append(Cue(round(start, 3), round(end, 3), draft.lines, speaker))
    return done


# Formats


def _txt(finals: list[Final]) -> str:
    return "".join(f"{_named(final.speaker)}{' '.join(final.transcript.split())}\n" for final in finals)


def _srt(finals: list[Final]) -> str:
    """SubRip knows no speakers: where they change, a cue begins with who it is."""
    blocks: list[str] = []
    before: str | None = None
    for number, cue in enumerate(cues(finals), start=1):
        name = _named(cue.speaker) if cue.speaker != before else ""
        times = f"{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}"
        blocks.append(f"{number}\n{times}\n{_joined((name + cue.lines[0], *cue.lines[1:]))}\n")
        before = cue.speaker
    return "\n".join(blocks)


def _vtt(finals: list[Final]) -> str:
    blocks = ["WEBVTT\n"]
    for cue in cues(finals):
        voice = "" if cue.speaker is None else f"<v {_escaped(' '.join(cue.speaker.split()))}>"
        text = voice + "\n".join(_escaped(line) for line in cue.lines)
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def _tsv(finals: list[Final]) -> str:
    """Whole finals with times in milliseconds, as Whisper's own tool writes them; with speakers, a column more."""
    spoken = any(final.speaker is not None for final in finals)
    rows = ["start\tend\tspeaker\ttext\n" if spoken else "start\tend\ttext\n"]
    for final in finals:
        end_ms = round((final.start + final.duration) * 1000)
        who = f"{' '.join((final.speaker or '').split())}\t" if spoken else ""
        rows.append(f"{round(final.start * 1000)}\t{end_ms}\t{who}{' '.join(final.transcript.split())}\n")
    return "".join(rows)


def _json(finals: list[Final]) -> str:
    body = {
        "text": " ".join(" ".join(final.transcript.split()) for final in finals),
        "duration": round(max((final.start + final.duration for final in finals), default=0.0), 3),
        "segments": [
            {
                "id": number,
                "start": round(final.start, 3),
                "end": round(final.start + final.duration, 3),
                "text": " ".join(final.transcript.split()),
                "confidence": round(final.confidence, 3),
                "language": final.language,
                "speaker": final.speaker,
                "words": [
                    {
                        "word": word.word.strip(),
                        "start": round(word.start, 3),
                        "end": round(word.end, 3),
                        "confidence": round(word.confidence, 3),
                        "low_confidence": word.low_confidence,
                    }
                    for word in final.words
                ],
            }
            for number, final in enumerate(finals)
        ],
    }
    return json.dumps(body, ensure_ascii=False, indent=1) + "\n"


def _named(speaker: str | None) -> str:
    return "" if speaker is None else f"{' '.join(speaker.split())}: "


def _escaped(line: str) -> str:
    """WebVTT cue text (W3C WebVTT §6.4): `&`, `<` and `>` would open entities, tags and the arrow."""
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _joined(lines: tuple[str, ...]) -> str:
    """SubRip has no escapes: an arrow in the text would be taken for a time line."""
    return "\n".join(lines).replace("-->", "→")


def _clock(seconds: float, mark: str) -> str:
    """`HH:MM:SS` and milliseconds after `mark`; hours grow past two digits."""
    total_ms = round(seconds * 1000)
    minutes, rest_ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest_ms // 1000:02d}{mark}{rest_ms % 1000:03d}"


_RENDERERS: dict[Format, Callable[[list[Final]], str]] = {
    Format.TXT: _txt,
    Format.SRT: _srt,
    Format.VTT: _vtt,
    Format.TSV: _tsv,
    Format.JSON: _json,
}
