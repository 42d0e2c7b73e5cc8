/** Which finals were told. A process that goes on with a session after another one died may tell the last ones again. */

import type { FinalEvent, InterimEvent } from "./events.ts";

/** The server writes down four times a second what it has told: a few finals may come again, never this many. */
const KEPT_MAX = 64;

/** The newest finals of one session; the oldest are forgotten first. */
export class Told {
  /** The end in seconds, by channel and number. */
  readonly #ends = new Map<string, number>();

  /**
   * Takes the next text of an utterance.
   *
   * @returns whether its final was told before: the same number, of the same stretch of the stream. What is said later
   *   may have a number that was told, where nobody had written that down.
   */
  isKnown(event: InterimEvent | FinalEvent): boolean {
    const key = `${event.channel ?? 0}-${event.utterance_id}`;
    const end = this.#ends.get(key);
    if (end !== undefined && event.start < end) return true;
    if (event.type === "final") this.#keep(key, event.start + event.duration);
    return false;
  }

  #keep(key: string, end: number): void {
    this.#ends.delete(key);
    this.#ends.set(key, end);
    const oldest = this.#ends.keys().next().value;
    if (this.#ends.size > KEPT_MAX && oldest !== undefined) this.#ends.delete(oldest);
  }
}
