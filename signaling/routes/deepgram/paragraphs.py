"""A text in paragraphs: what pauses between sentences make of it, and no paragraph that is a page. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel

from signaling.routes.deepgram.messages import TIME_DIGITS
from signaling.routes.deepgram.style import Written

SENTENCE_END = re.compile(r"[.!?…。！？]['\")\]»”’]*$")

PARAGRAPH_PAUSE_S = 1.0
"""Between sentences; readers of a page breathe for less, and begin a new thought after more."""

BREAK_S = 2.5
"""A silence that ends a sentence, whatever was written at its end."""

SENTENCES_MAX = 6
"""Of a paragraph; then it ends with its sentence, pause or not."""


class Sentence(BaseModel):
    """A sentence; times are seconds of the recording."""

    text: str
    start: float
    end: float


class Paragraph(BaseModel):
    """Sentences that belong together."""

    sentences: list[Sentence]
    num_words: int
    start: float
    end: float


class Paragraphs(BaseModel):
    """The text with an empty line between paragraphs, and each of them."""

    transcript: str
    paragraphs: list[Paragraph]


def divide(words: Sequence[Written]) -> Paragraphs:
    """The paragraphs of a channel."""
    sentences = _cut(words)
    paragraphs: list[list[Sequence[Written]]] = []
    for sentence in sentences:
        last = paragraphs[-1] if paragraphs else None
        if last is None or len(last) >= SENTENCES_MAX or sentence[0].start - last[-1][-1].end >= PARAGRAPH_PAUSE_S:
            paragraphs.append([sentence])
        else:
            last.append(sentence)
    bodies = [_body(paragraph) for paragraph in paragraphs]
    texts = [" ".join(sentence.text for sentence in body.sentences) for body in bodies]
    return Paragraphs(transcript="\n" + "\n\n".join(texts) if texts else "", paragraphs=bodies)


def _cut(words: Sequence[Written]) -> list[Sequence[Written]]:
    sentences = []
    begin = 0
    for at in range(1, len(words) + 1):
        if (
            at == len(words)
            or SENTENCE_END.search(words[at - 1].full)
            or words[at].start - words[at - 1].end >= BREAK_S
        ):
            sentences.append(words[begin:at])
            begin = at
    return sentences


def _body(sentences: Sequence[Sequence[Written]]) -> Paragraph:
    return Paragraph(
        sentences=[
            Sentence(
                text="".join(word.lead + word.full for word in sentence).strip(),
                start=round(sentence[0].start, TIME_DIGITS),
                end=round(sentence[-1].end, TIME_DIGITS),
            )
            for sentence in sentences
        ],
        num_words=sum(len(sentence) for sentence in sentences),
        start=round(sentences[0][0].start, TIME_DIGITS),
        end=round(sentences[-1][-1].end, TIME_DIGITS),
    )
