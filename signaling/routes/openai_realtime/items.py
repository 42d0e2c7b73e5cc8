"""One item of a conversation: what was said between two commits, and how its text grows. Sans-IO.

An item is one utterance of ours, or several: long speech is cut, and only a client that commits by hand says where an
item ends. Text is told in the order of the utterances and never taken back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mediaserver.events import Word
from signaling.routes.openai_realtime.following import rest_after
from signaling.routes.openai_realtime.server_events import LogProb

LEAST_PROBABILITY = 1e-6
"""So that every word has a logarithm."""


@dataclass(slots=True)
class Piece:
    """An utterance of an item.

    Args:
        text: what will not change; its final, once `is_settled`.
        words: of `text`, and perhaps more.
        told: what the client has of it; of a final, all.
        is_told: whether the client has anything of it, whatever became of that.
        is_settled: nothing more is told of it.
    """

    text: str = ""
    words: Sequence[Word] = ()
    told: str = ""
    is_told: bool = False
    is_settled: bool = False


@dataclass(slots=True)
class Item:
    """What was said between two commits.

    Args:
        id: its name.
        start_s: stream time at which its audio begins, padding included.
        is_announced: whether the client was told that somebody speaks.
        stopped_s: stream time at which a silence began that would have ended it, had the client not asked for that.
        end_s: stream time at which its audio ends; None until it is committed.
        is_forgotten: nothing is told of it: the client has deleted it, or cleared its audio.
        error: why it has no text.
        transcript: its text, once it is complete.
    """

    id: str
    start_s: float
    is_announced: bool = False
    stopped_s: float | None = None
    end_s: float | None = None
    is_forgotten: bool = False
    error: dict[str, object] | None = None
    transcript: str | None = None
    pieces: dict[int, Piece] = field(default_factory=dict)  # by utterance; bound: what fits an item

    @property
    def is_complete(self) -> bool:
        """Whether everything has been said and decoded."""
        return self.end_s is not None and all(piece.is_settled for piece in self.pieces.values())

    @property
    def text(self) -> str:
        """What is known of its text."""
        return " ".join(piece.text for piece in self.pieces.values() if piece.text)

    @property
    def logprobs(self) -> list[LogProb]:
        """Of all its words; the tokens make up `text`."""
        found: list[LogProb] = []
        for piece in self.pieces.values():
            found += spelled(piece.text, piece.words, lead=" " if found else "")
        return found

    def advance(self) -> Iterator[tuple[str, list[LogProb]]]:
        """What can be added now to what the client has: text, and its words' log-probabilities.

        Where a final has corrected what the client has, what comes after that is added still.
        """
        has_text = any(piece.is_told for piece in self.pieces.values())
        for piece in self.pieces.values():
            if piece.text.startswith(piece.told) or piece.is_settled:
                rest = rest_after(piece.told, piece.text)
                lead = " " if has_text and not piece.is_told else ""
                piece.told = piece.text
                if rest:
                    has_text = piece.is_told = True
                    at = len(spelled(piece.text.removesuffix(rest), piece.words))
                    yield lead + rest, spelled(rest, piece.words[at:], lead=lead)
            if not piece.is_settled:
                return  # what was said after it comes after it


def spelled(text: str, words: Sequence[Word], *, lead: str = "") -> list[LogProb]:
    """A text's words with their log-probabilities; joined, the tokens are `lead` and the text.

    Args:
        text: begins with the first of `words`.
        words: may go on after the text.
        lead: what the first token begins with.
    """
    found: list[LogProb] = []
    at = 0
    for word in words:
        begins = text.find(word.word, at)
        if begins < 0:
            continue  # its punctuation has changed since: the next one may be there
        ends = begins + len(word.word)
        probability = word.confidence if word.probability is None else word.probability
        token = (lead if not found else "") + text[at:ends]
        logprob = round(math.log(min(1.0, max(LEAST_PROBABILITY, probability))), 4)
        found.append(LogProb(token=token, logprob=logprob, bytes=list(token.encode())))
        at = ends
    if found and at < len(text):
        last = found[-1]
        token = last.token + text[at:]
        found[-1] = LogProb(token=token, logprob=last.logprob, bytes=list(token.encode()))
    return found
