"""Whisper on CTranslate2: a batch of windows in, hypotheses with word times out.

One encoder pass per batch serves generation, alignment and language detection. Windows of a batch may be in different
languages; they never change each other's words. All calls are blocking and release the GIL; the engine runs them in
threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import ctranslate2
import numpy as np
import tokenizers
from faster_whisper.tokenizer import Tokenizer
from numpy.typing import NDArray

from mediaserver.audio.clock import SAMPLE_RATE, seconds
from mediaserver.audio.features import FRAMES_PER_SECOND, HOP_SAMPLES, MAX_FRAMES, LogMel
from mediaserver.decoder import guards
from mediaserver.decoder.device import Placement
from mediaserver.decoder.language import Asked, Heard, choose
from mediaserver.decoder.prompt import alike, prefix
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Task, Token, Window
from mediaserver.decoder.words import join_punctuation
from mediaserver.errors import ModelError

FINAL_MARGIN_S = 4.0
"""Silence after the speech of a final: as accurate as padding to 30 s, at a third of the cost."""

INTERIM_MARGIN_S = 1.0
"""Silence after the speech of an interim: the least that keeps the decoder from looping at the end."""

CONTEXT_FLOOR_S = 4.0
"""Shortest context. Whisper was trained on 30 s; on contexts of 1 to 3 s it invents."""

CONTEXT_STEP_S = 1.0
"""Contexts are rounded up to this, so that windows of similar length can share a batch."""

INTERIM_REPETITION_PENALTY = 1.1
"""Divides the score of what has been written before (Keskar et al. 2019). Windows cut in the middle of a word loop:
with this and the interim's budget the longest of 225 wrote 27 tokens in place of 45, the mean 10.4 in place of 11.9,
and 9.4 % of the words were wrong in place of 9.8. Finals have audio to their end and repeat what was repeated."""

GREEDY = 1
REVISION_BEAM = RECORDING_BEAM = 5
"""Beam search gains nothing on utterances cut at pauses and costs twice the time; on joined ones it gains."""

BEAMS = {Kind.REVISION: REVISION_BEAM, Kind.RECORDING: RECORDING_BEAM}

TIME_PER_ENCODING_S = 0.02
"""Two mel frames become one position of the encoder's output."""

LONGEST_WORD_S = 1.2
"""Alignment stretches a word over silence around it; no word of normal speech takes longer than this."""

MAX_TOKENS = 448
"""Whisper's decoder has no positions beyond this."""


LEAST_TOKEN_PROBABILITY = 1e-9
"""So that the logarithm of what the model holds for impossible is a number."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language, how sure that is (None where it was given), and what the window alone sounds like."""

    code: str
    probability: float | None
    heard: Heard


Alignment: TypeAlias = "ctranslate2.models.WhisperAlignmentResult"
"""Where the tokens of a text lie, and how probable each is after those before it and without a prompt."""


@dataclass(slots=True)
class _Generated:
    """What `generate` said of one window."""

    tokens: list[int]
    no_speech_probability: float
    mean_log_probability: float


def context_frames(window: Window) -> int:
    """Encoder context of a window in mel frames: its audio, a margin of silence, rounded up."""
    margin_s = INTERIM_MARGIN_S if window.kind.is_interim else FINAL_MARGIN_S
    wanted_s = max(window.duration_s + margin_s, CONTEXT_FLOOR_S)
    steps = int(np.ceil(wanted_s / CONTEXT_STEP_S - 1e-9))
    return min(int(steps * CONTEXT_STEP_S * FRAMES_PER_SECOND), MAX_FRAMES)


class WhisperModel:
    """A loaded model.

    Args:
        directory: holds `model.bin`, `config.json`, `tokenizer.json` (faster-whisper's layout).
        placement: where it runs and on how many threads.

    Raises:
        ModelError: CTranslate2 cannot load the directory.
    """

    def __init__(self, directory: Path, placement: Placement) -> None:
        try:
            self._model = ctranslate2.models.Whisper(
                str(directory),
                device=placement.device,
                compute_type=placement.compute_type,
                inter_threads=placement.slots,
                intra_threads=placement.threads,
            )
            self._tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as exc:  # CTranslate2 raises RuntimeError and ValueError, tokenizers bare Exception
            raise ModelError(
                "MODEL_UNLOADABLE",
                f"The model in {directory} cannot be loaded: {exc}.",
                "Check `device` and `compute_type`, or fetch it again with `voiceforge models fetch`.",
            ) from exc
        self._log_mel = LogMel(self._model.n_mels)
        self._tokenizers: dict[tuple[str, Task], Tokenizer] = {}

    @property
    def multilingual(self) -> bool:
        """Whether the model knows languages other than English."""
        return bool(self._model.is_multilingual)

    def decode(self, windows: list[Window]) -> list[Hypothesis]:
        """Decode windows in as few batches as the lengths of their prompts allow.

        Returns:
            A hypothesis for each window, in order.
        """
        prefixes = [prefix(self._tokenizer_for("en"), window) for window in windows]
        hypotheses = self._by_length(windows, prefixes)
        # What may have been read from the prompt is not shown: what counts then is what the window says without it.
        read = [index for index, found in enumerate(hypotheses) if found.rejected == guards.READ_FROM_PROMPT]
        if read:
            plain = self._decode([windows[index] for index in read], [[] for _ in read])
            for index, hypothesis in zip(read, plain, strict=True):
                hypotheses[index] = hypothesis
        return hypotheses

    def _by_length(self, windows: list[Window], prefixes: list[list[int]]) -> list[Hypothesis]:
        """Decode by prompts of one length: CTranslate2 wants the start of the text at one place in all of a batch."""
        found: dict[int, Hypothesis] = {}
        for group in alike(self._tokenizer_for("en"), prefixes):
            decoded = self._decode([windows[index] for index in group], list(group.values()))
            found.update(zip(group, decoded, strict=True))
        return [found[index] for index in range(len(windows))]

    def _decode(self, windows: list[Window], prefixes: list[list[int]]) -> list[Hypothesis]:
        """Decode windows whose prompts are of one length in one batch."""
        frames = max(context_frames(window) for window in windows)
        mel = np.stack([self._log_mel(window.samples, frames) for window in windows])
        encoded = self._model.encode(ctranslate2.StorageView.from_array(mel))
        languages = self._languages(encoded, windows)
        generated = self._generate(encoded, windows, languages, prefixes)
        alignments = self._align(encoded, windows, languages, generated)
        return [
            self._hypothesis(window, language, item, alignment, is_prompted=bool(tokens))
            for window, language, tokens, item, alignment in zip(
                windows, languages, prefixes, generated, alignments, strict=True
            )
        ]

    def _languages(self, encoded: ctranslate2.StorageView, windows: list[Window]) -> list[Language]:
        if not self.multilingual:
            return [Language("en", None, Heard((), (), 0.0)) for _ in windows]
        asked = any(window.language is None for window in windows)
        named = self._model.detect_language(encoded) if asked else [[] for _ in windows]
        return [_language(window, pairs) for window, pairs in zip(windows, named, strict=True)]

    def _generate(
        self,
        encoded: ctranslate2.StorageView,
        windows: list[Window],
        languages: list[Language],
        prefixes: list[list[int]],
    ) -> list[_Generated]:
        prompts = [
            [*tokens, *self._prompt(language, window.task)]
            for tokens, language, window in zip(prefixes, languages, windows, strict=True)
        ]
        budget = max(
            guards.token_budget(window.duration_s, language.code, is_interim=window.kind.is_interim)
            for window, language in zip(windows, languages, strict=True)
        )
        results = self._model.generate(
            encoded,
            prompts,
            beam_size=BEAMS.get(windows[0].kind, GREEDY),
            repetition_penalty=INTERIM_REPETITION_PENALTY if windows[0].kind.is_interim else 1.0,
            max_length=_max_length(prompt_tokens=len(prompts[0]), budget=budget),
            return_scores=True,
            return_no_speech_prob=True,
        )
        eot = self._tokenizer_for("en").eot
        return [
            _Generated(
                tokens=[token for token in result.sequences_ids[0] if token < eot],
                no_speech_probability=float(result.no_speech_prob),
                mean_log_probability=float(result.scores[0]),
            )
            for result in results
        ]

    def _align(
        self,
        encoded: ctranslate2.StorageView,
        windows: list[Window],
        languages: list[Language],
        generated: list[_Generated],
    ) -> list[Alignment | None]:
        """Where each window's tokens lie and how probable they are; None for a window without any.

        One call aligns with one language, and another's moves words by 14 ms and takes a quarter off their probability:
        so there is a call for each language and task, in which the windows of others have no text. Prompts are left
        out: what the audio says for a word is what counts.
        """
        frames = [min(len(window.samples) // HOP_SAMPLES, MAX_FRAMES) for window in windows]
        found: list[Alignment | None] = [None for _ in windows]
        asked = [(language.code, window.task) for language, window in zip(languages, windows, strict=True)]
        for code, task in sorted({each for each, item in zip(asked, generated, strict=True) if item.tokens}):
            texts = [item.tokens if each == (code, task) else [] for each, item in zip(asked, generated, strict=True)]
            aligned = self._model.align(encoded, self._tokenizer_for(code, task).sot_sequence, texts, frames)
            found = [new if text else old for old, new, text in zip(found, aligned, texts, strict=True)]
        return found

    def _is_read(self, item: _Generated, alignment: Alignment | None) -> bool:
        """Whether words may come from the prompt and not from the audio."""
        if alignment is None:
            return False
        tokenizer = self._tokenizer_for("en")
        _, groups = tokenizer.split_to_word_tokens([*item.tokens, tokenizer.eot])
        support = np.log(np.maximum(alignment.text_token_probs, LEAST_TOKEN_PROBABILITY)).tolist()
        return guards.is_read_from_prompt(support, [len(group) for group in groups[:-1]])

    def _hypothesis(
        self, window: Window, language: Language, item: _Generated, alignment: Alignment | None, *, is_prompted: bool
    ) -> Hypothesis:
        words = [] if alignment is None else self._words(window, language.code, item.tokens, alignment)
        kept = guards.without_loops(guards.without_hurried_copies(guards.heard(words)))
        if is_prompted and self._is_read(item, alignment):
            rejected: str | None = guards.READ_FROM_PROMPT
        else:
            rejected = guards.rejection(
                kept,
                is_interim=window.kind.is_interim,
                no_speech_probability=item.no_speech_probability,
                mean_log_probability=item.mean_log_probability,
            )
        return Hypothesis(
            words=[] if rejected else kept,
            language=language.code,
            language_probability=language.probability,
            heard_languages=language.heard.languages,
            heard_probabilities=language.heard.probabilities,
            no_speech_probability=item.no_speech_probability,
            mean_log_probability=item.mean_log_probability,
            rejected=rejected,
        )

    def _words(self, window: Window, language: str, tokens: list[int], alignment: Alignment) -> list[HypothesisWord]:
        """Words of one window with their times on the stream's clock."""
        tokenizer = self._tokenizer_for(language)
        texts, token_groups = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
        edges_s = _token_starts_s(alignment.alignments, len(tokens))
        probabilities = alignment.text_token_probs
        origin_s = seconds(window.start_sample)
        limit_s = origin_s + len(window.samples) / SAMPLE_RATE
        words: list[HypothesisWord] = []
        index = 0
        before_s = origin_s
        for text, group in zip(texts[:-1], token_groups[:-1], strict=True):
            after = index + len(group)
            start_s = max(origin_s + float(edges_s[index]), before_s)
            end_s = origin_s + float(edges_s[min(after, len(edges_s) - 1)])
            # Silence before a word is given to it by the alignment: keep the end that speech is at.
            start_s = max(start_s, end_s - LONGEST_WORD_S)
            start_s, end_s = min(start_s, limit_s), min(max(end_s, start_s), limit_s)
            probability = float(np.mean(probabilities[index:after])) if after <= len(probabilities) else 0.0
            pieces = self._tokens(group, probabilities[index:after]) if window.with_tokens else ()
            words.append(HypothesisWord(text, start_s, end_s, probability, pieces))
            before_s = end_s
            index = after
        return join_punctuation(words)

    def _tokens(self, numbers: Sequence[int], probabilities: Sequence[float]) -> tuple[Token, ...]:
        """The tokens of a word; none where the alignment has none for all of them."""
        if len(probabilities) < len(numbers):
            return ()
        return tuple(
            Token(
                number, self._tokenizer.id_to_token(number) or "", math.log(max(probability, LEAST_TOKEN_PROBABILITY))
            )
            for number, probability in zip(numbers, probabilities, strict=True)
        )

    def _prompt(self, language: Language, task: Task) -> list[int]:
        tokenizer = self._tokenizer_for(language.code, task)
        return [*tokenizer.sot_sequence, tokenizer.no_timestamps]

    def _tokenizer_for(self, language: str, task: Task = Task.TRANSCRIBE) -> Tokenizer:
        key = (language, task)
        if key not in self._tokenizers:
            self._tokenizers[key] = Tokenizer(self._tokenizer, self.multilingual, task=task.value, language=language)
        return self._tokenizers[key]


def _language(window: Window, named: list[tuple[str, float]]) -> Language:
    """The language to decode a window with, by what was given or what detection named."""
    if window.language is not None:
        return Language(window.language, None, Heard((), (), 0.0))
    pairs = [(code.strip("<|>"), float(probability)) for code, probability in named]
    heard = Heard.of(pairs, audio_s=window.duration_s)
    candidates = window.language_candidates or tuple(code for code, _ in pairs)
    scores = window.language_scores or tuple(0.0 for _ in candidates)
    return Language(*choose(Asked(None, candidates, scores), heard), heard)


def _max_length(*, prompt_tokens: int, budget: int) -> int:
    """What `generate` wants so that it writes at most `budget` tokens: it takes half of this, or what is left of it
    after the prompt, whichever is less.
    """
    return min(max(2 * budget, prompt_tokens - 1 + budget), MAX_TOKENS)


def _token_starts_s(alignments: list[tuple[int, int]], tokens: int) -> NDArray[np.float64]:
    """Where each token begins, in seconds from the window's start; one more entry for where the last one ends.

    `alignments` is a monotonic path of (token, encoder position); a token begins where the path first reaches it.
    """
    starts = np.zeros(tokens + 1)
    if not alignments:
        return starts
    path = np.asarray(alignments)
    first = np.concatenate(([True], np.diff(path[:, 0]) > 0))
    reached = dict(zip(path[first, 0].tolist(), path[first, 1].tolist(), strict=True))
    last = 0
    for token in range(tokens + 1):
        last = reached.get(token, path[-1, 1] if token == tokens else last)
        starts[token] = last * TIME_PER_ENCODING_S
    return starts
