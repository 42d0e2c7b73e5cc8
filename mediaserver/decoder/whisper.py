"""Whisper on CTranslate2: a batch of windows in, hypotheses with word times out.

One encoder pass per batch serves generation, alignment and language detection. All calls are blocking and release the
GIL; the engine runs them in threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ctranslate2
import numpy as np
import tokenizers
from faster_whisper.tokenizer import Tokenizer
from numpy.typing import NDArray

from mediaserver.audio.clock import SAMPLE_RATE, seconds
from mediaserver.audio.features import FRAMES_PER_SECOND, HOP_SAMPLES, MAX_FRAMES, LogMel
from mediaserver.decoder import guards
from mediaserver.decoder.device import Placement
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Window
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

GREEDY = 1
REVISION_BEAM = 5
"""Beam search gains nothing on utterances cut at pauses and costs twice the time; on joined ones it gains."""

TIME_PER_ENCODING_S = 0.02
"""Two mel frames become one position of the encoder's output."""

LONGEST_WORD_S = 1.2
"""Alignment stretches a word over silence around it; no word of normal speech takes longer than this."""

MAX_TOKENS = 448
"""Whisper's decoder has no positions beyond this."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language and how sure the model is of it (1.0 where it was given)."""

    code: str
    probability: float | None


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
        self._tokenizers: dict[str, Tokenizer] = {}

    @property
    def multilingual(self) -> bool:
        """Whether the model knows languages other than English."""
        return bool(self._model.is_multilingual)

    def decode(self, windows: list[Window]) -> list[Hypothesis]:
        """Decode windows of one language (or of unknown language) in one batch.

        Returns:
            A hypothesis for each window, in order.
        """
        frames = max(context_frames(window) for window in windows)
        mel = np.stack([self._log_mel(window.samples, frames) for window in windows])
        encoded = self._model.encode(ctranslate2.StorageView.from_array(mel))
        languages = self._languages(encoded, windows)
        generated = self._generate(encoded, windows, languages)
        return self._hypotheses(encoded, windows, languages, generated)

    def _languages(self, encoded: ctranslate2.StorageView, windows: list[Window]) -> list[Language]:
        if not self.multilingual:
            return [Language("en", None) for _ in windows]
        given = windows[0].language
        if given is not None:
            return [Language(given, None) for _ in windows]
        detected = self._model.detect_language(encoded)
        return [Language(best[0][0].strip("<|>"), float(best[0][1])) for best in detected]

    def _generate(
        self, encoded: ctranslate2.StorageView, windows: list[Window], languages: list[Language]
    ) -> list[_Generated]:
        prompts = [self._prompt(language) for language in languages]
        budget = max(
            guards.token_budget(window.duration_s, language.code)
            for window, language in zip(windows, languages, strict=True)
        )
        results = self._model.generate(
            encoded,
            prompts,
            beam_size=REVISION_BEAM if windows[0].kind is Kind.REVISION else GREEDY,
            max_length=min(len(prompts[0]) + budget, MAX_TOKENS),
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

    def _hypotheses(
        self,
        encoded: ctranslate2.StorageView,
        windows: list[Window],
        languages: list[Language],
        generated: list[_Generated],
    ) -> list[Hypothesis]:
        frames = [min(len(w.samples) // HOP_SAMPLES, MAX_FRAMES) for w in windows]
        words: list[list[HypothesisWord]] = [[] for _ in windows]
        if any(item.tokens for item in generated):
            # The language token of the first window stands in for all: it does not move the alignment.
            aligned = self._model.align(
                encoded, self._tokenizer_for(languages[0].code).sot_sequence, [g.tokens for g in generated], frames
            )
            words = [
                self._words(window, language.code, item.tokens, alignment)
                for window, language, item, alignment in zip(windows, languages, generated, aligned, strict=True)
            ]
        hypotheses = []
        for window, language, item, found in zip(windows, languages, generated, words, strict=True):
            kept = guards.without_loops(guards.heard(found))
            rejected = guards.rejection(
                kept,
                is_interim=window.kind.is_interim,
                no_speech_probability=item.no_speech_probability,
                mean_log_probability=item.mean_log_probability,
            )
            hypotheses.append(
                Hypothesis(
                    words=[] if rejected else kept,
                    language=language.code,
                    language_probability=language.probability,
                    no_speech_probability=item.no_speech_probability,
                    mean_log_probability=item.mean_log_probability,
                    rejected=rejected,
                )
            )
        return hypotheses

    def _words(
        self, window: Window, language: str, tokens: list[int], alignment: ctranslate2.models.WhisperAlignmentResult
    ) -> list[HypothesisWord]:
        """Words of one window with their times on the stream's clock."""
        if not tokens:
            return []
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
            words.append(HypothesisWord(text, start_s, end_s, probability))
            before_s = end_s
            index = after
        return join_punctuation(words)

    def _prompt(self, language: Language) -> list[int]:
        tokenizer = self._tokenizer_for(language.code)
        return [*tokenizer.sot_sequence, tokenizer.no_timestamps]

    def _tokenizer_for(self, language: str) -> Tokenizer:
        if language not in self._tokenizers:
            self._tokenizers[language] = Tokenizer(
                self._tokenizer, self.multilingual, task="transcribe", language=language
            )
        return self._tokenizers[language]


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
