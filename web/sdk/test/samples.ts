/** Events as the server sends them, short to write. */

import type { FinalEvent, InterimEvent, RevisionEvent, Word } from "../src/events.ts";

const ENVELOPE = { session_id: "s", seq: 1 };

export function word(text: string, start: number, end: number, confidence = 0.9): Word {
  return { word: text, start, end, confidence, speaker: null, low_confidence: confidence < 0.5 };
}

/** Words of half a second each, one after another from `start`. */
export function wordsOf(transcript: string, start = 0): Word[] {
  return transcript.split(" ").map((text, index) => word(text, start + index / 2, start + index / 2 + 0.5));
}

export function interim(id: number, transcript: string, stable: string, extra: Partial<InterimEvent> = {}): InterimEvent {
  const words = wordsOf(transcript, extra.start ?? 0);
  const shared = { utterance_id: id, transcript, stable, words, confidence: 0.9, start: 0, timestamp: 2 };
  return { ...ENVELOPE, type: "interim", is_final: false, duration: words.length / 2, ...shared, ...extra };
}

export function final(id: number, transcript: string, extra: Partial<FinalEvent> = {}): FinalEvent {
  const words = wordsOf(transcript, extra.start ?? 0);
  return {
    ...ENVELOPE,
    type: "final",
    utterance_id: id,
    transcript,
    confidence: 0.9,
    start: 0,
    duration: words.length / 2,
    timestamp: 3,
    language: "en",
    language_confidence: 0.99,
    speaker: null,
    is_final: true,
    words,
    ...extra,
  };
}

export function revision(id: number, transcript: string, extra: Partial<RevisionEvent> = {}): RevisionEvent {
  const { language, language_confidence, speaker, is_final, ...shared } = final(id, transcript);
  void [language, language_confidence, speaker, is_final];
  return { ...shared, ...extra, type: "revision" };
}
