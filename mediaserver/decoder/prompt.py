"""What a decode is told before it hears: text that came before, and words to expect.

Whisper reads both as the end of the text before the audio. Hot words are written as a list that ends in a full stop,
like a sentence that is over: without it the decoder goes on with the list instead of the audio, and twenty words that
nobody says double the word errors. With it they do no harm (`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

from faster_whisper.tokenizer import Tokenizer

from mediaserver.decoder.window import Window

MAX_PROMPT_TOKENS = 223
"""Half of Whisper's positions, less the mark that begins a prompt: more would leave too few for the text."""

MAX_HOTWORD_TOKENS = 160
"""What hot words take of it at most, about 40 words: the rest is kept for the text before."""


LENGTH_STEP_TOKENS = 32
"""Prompts whose lengths lie in the same step share a batch; 31 spaces more move the word errors by less than chance."""


def prefix(tokenizer: Tokenizer, window: Window) -> list[int]:
    """The tokens before `<|startoftranscript|>`; none where the window has neither prompt nor hot words.

    Of hot words that are too many the last ones are left out, of a prompt that is too long its beginning.
    """
    listed = _list_of(tokenizer, window.hotwords)
    text = window.prompt.strip() if window.prompt else ""
    before = _encoded(tokenizer, f" {text}") if text else []
    before = before[max(0, len(before) - (MAX_PROMPT_TOKENS - len(listed))) :]
    tokens = [*listed, *before]
    return [tokenizer.sot_prev, *tokens] if tokens else []


def alike(tokenizer: Tokenizer, prefixes: list[list[int]]) -> list[dict[int, list[int]]]:
    """Prefixes in groups of one length, by their index: CTranslate2 wants the text to start at one place in a batch.

    Lengths that are near each other are made equal with spaces before the text, which does not change what is heard.
    An absent prompt cannot be filled up: the decoder would go on with the spaces.
    """
    groups: dict[int, list[int]] = {}
    for index, tokens in enumerate(prefixes):
        groups.setdefault(-(-len(tokens) // LENGTH_STEP_TOKENS), []).append(index)
    space = tokenizer.encode(" ")[:1]
    padded = []
    for _, group in sorted(groups.items()):
        longest = max(len(prefixes[index]) for index in group)
        padded.append({index: [*(t := prefixes[index])[:1], *space * (longest - len(t)), *t[1:]] for index in group})
    return padded


def _list_of(tokenizer: Tokenizer, hotwords: tuple[str, ...]) -> list[int]:
    tokens: list[int] = []
    for count in range(1, len(hotwords) + 1):
        longer = _encoded(tokenizer, f" {', '.join(word.strip() for word in hotwords[:count])}.")
        if len(longer) > MAX_HOTWORD_TOKENS:
            break
        tokens = longer
    return tokens


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text; marks such as `<|startoftranscript|>` in what a client sends are left out, for a second one
    makes CTranslate2 refuse the whole batch.
    """
    return [token for token in tokenizer.encode(text) if token < tokenizer.eot]
