/** Which part of a transcript is which word, so that text can be shown exactly as sent and still be marked up by word. */

import type { Word } from "./events.ts";

/** How far ahead a word is looked for: beyond a few changed words, a short one would be found inside another. */
const LOOKAHEAD_CHARACTERS = 24;

/** A piece of a transcript; the pieces together are the transcript. */
export interface Segment {
  readonly text: string;
  /** Null for what lies between words: spaces, or text that no word accounts for. */
  readonly word: Word | null;
  /** Whether this piece lies within the stable part. */
  readonly stable: boolean;
}

/**
 * Splits a transcript into words and what lies between them.
 *
 * Words are looked for in order; one that formatting has changed beyond recognition is left out, and its text stays as a
 * piece without a word. Works for scripts without spaces, since nothing is split or joined by them.
 *
 * @param stableLength how many leading UTF-16 units of the transcript are stable.
 */
export function alignWords(transcript: string, words: readonly Word[], stableLength: number): Segment[] {
  const segments: Segment[] = [];
  let position = 0;
  const add = (end: number, word: Word | null): void => {
    if (end <= position) return;
    // A piece that straddles the boundary counts as unstable: better late than changing what was called stable.
    segments.push({ text: transcript.slice(position, end), word, stable: end <= stableLength });
    position = end;
  };
  for (const word of words) {
    const text = word.word.trim();
    const at = text === "" ? -1 : transcript.indexOf(text, position);
    if (at < 0 || at > position + LOOKAHEAD_CHARACTERS) continue;
    add(at, null);
    add(at + text.length, word);
  }
  add(transcript.length, null);
  return segments;
}
