/** Whether events were left out, by their `seq`. */

/** Events that did not come: `first` to `last`, both included. */
export interface Gap {
  readonly first: number;
  readonly last: number;
}

/** Watches the sequence numbers of one session. */
export class Sequence {
  #last: number | null = null;

  /** The number of the newest event; null before the first. */
  get last(): number | null {
    return this.#last;
  }

  /**
   * Takes the next number.
   *
   * The first number is taken as it is, for a server may count from 0 or from 1.
   *
   * @returns `"duplicate"` for one already seen, the gap before this one, or null when nothing is missing.
   */
  take(seq: number): Gap | "duplicate" | null {
    const last = this.#last;
    if (last !== null && seq <= last) return "duplicate";
    this.#last = seq;
    return last !== null && seq > last + 1 ? { first: last + 1, last: seq - 1 } : null;
  }
}
