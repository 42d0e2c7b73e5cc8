/** How long after it was spoken a word stands on screen for good. */

import { alignWords } from "./align.ts";
import type { FinalEvent, InterimEvent } from "./events.ts";

/** Enough words for a steady median, few enough to follow a change within some 20 seconds of speech. */
const RECENT_WORDS = 50;
/** Utterances whose words may still be counted; older ones are over. */
const OPEN_UTTERANCES = 8;

/**
 * Measures word latency: from a word's end in the audio to the event since which it is shown unchanged, be it in the
 * stable part of an interim or in the final. A stable word that the final corrects counts as it did when it was stable.
 *
 * Both ends are stream time at the server. The way back adds half a round trip, which the caller brings; what the
 * microphone and the encoder hold back before sending (some 20 to 60 ms) cannot be seen from here and is not included.
 */
export class WordLatency {
  readonly #recentS: number[] = [];
  readonly #wordsCounted = new Map<number, number>();

  /**
   * Takes an interim or a final.
   *
   * @param rttS the round trip in seconds, 0 while unknown.
   */
  observe(event: InterimEvent | FinalEvent, rttS: number): void {
    const stableLength = event.type === "final" ? event.transcript.length : event.stable.length;
    const stableWords = alignWords(event.transcript, event.words, stableLength)
      .filter((segment) => segment.stable && segment.word !== null)
      .map((segment) => segment.word);
    const counted = this.#wordsCounted.get(event.utterance_id) ?? 0;
    for (const word of stableWords.slice(counted)) {
      if (word !== null) this.#recentS.push(Math.max(0, event.timestamp - word.end + rttS / 2));
    }
    if (this.#recentS.length > RECENT_WORDS) this.#recentS.splice(0, this.#recentS.length - RECENT_WORDS);
    this.#wordsCounted.set(event.utterance_id, Math.max(counted, stableWords.length));
    for (const id of this.#wordsCounted.keys()) {
      if (this.#wordsCounted.size <= OPEN_UTTERANCES) break;
      this.#wordsCounted.delete(id); // a Map keeps the order of insertion: the oldest goes first
    }
  }

  /** The latency in seconds that `share` of the recent words stayed under; null before the first word. */
  percentileS(share: number): number | null {
    const sorted = [...this.#recentS].sort((one, other) => one - other);
    return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
  }

  get medianS(): number | null {
    return this.percentileS(0.5);
  }
}
