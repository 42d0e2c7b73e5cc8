/** Everything that was said, built from events. Pure data: no DOM, no clock, no network. */

import type { FinalEvent, InterimEvent, RevisionEvent, ServerEvent, Word } from "./events.ts";

/** A text that a later decode replaced. */
export interface Superseded {
  readonly text: string;
  /** Stream time at which the server sent the text that replaced it. */
  readonly replacedAt: number;
}

/** Speech between endpoints. A value: an event that changes an utterance makes a new one under the same key. */
export interface Utterance {
  /** Unique in a transcript, and the same through all changes. */
  readonly key: string;
  /** Counts the sessions of a transcript from 0. */
  readonly session: number;
  /** In seconds of the transcript's clock, on which sessions follow one another. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
  /** The leading part of `text` that will not change before the final; all of it once final. */
  readonly stable: string;
  /** With times on the transcript's clock. */
  readonly words: readonly Word[];
  readonly confidence: number;
  readonly language: string | null;
  readonly speaker: string | null;
  readonly isFinal: boolean;
  /** The finals that revisions have replaced, oldest first. */
  readonly superseded: readonly Superseded[];
}

/** Takes events in the order in which they come and holds the utterances that they add up to, in order of time. */
export class Transcript {
  #utterances: Utterance[] = [];
  #indexByKey = new Map<string, number>();
  /** How often an utterance's number was given to another one, by session and number; empty as a rule. */
  #reused = new Map<string, number>();
  #session = 0;
  #offsetS = 0;
  #endS = 0;

  /** All utterances, those without text included, in order. */
  get utterances(): readonly Utterance[] {
    return this.#utterances;
  }

  /** Seconds on the transcript's clock up to which something is known. */
  get durationS(): number {
    return this.#endS;
  }

  /** Begins another session: its clock starts at 0 again and is laid after all that came before. */
  startSession(): void {
    if (this.#utterances.length > 0 || this.#endS > 0) this.#session += 1;
    this.#offsetS = this.#endS;
  }

  /** Forgets everything that was said; a running session goes on under the same clock. */
  clear(): void {
    this.#utterances = [];
    this.#indexByKey.clear();
    this.#reused.clear();
  }

  /**
   * Takes one event.
   *
   * @returns the utterance that it changed, or null where it changed none.
   */
  apply(event: ServerEvent): Utterance | null {
    switch (event.type) {
      case "interim":
        return this.#interim(event);
      case "final":
        return this.#final(event);
      case "revision":
        return this.#revision(event);
      case "metadata":
        this.#endS = Math.max(this.#endS, this.#offsetS + event.duration);
        return null;
      default:
        return null;
    }
  }

  #interim(event: InterimEvent): Utterance | null {
    this.#separate(event);
    const before = this.#find(event.utterance_id);
    if (before?.isFinal) return null; // overtaken by its own final
    return this.#put(event, {
      stable: event.transcript.startsWith(event.stable) ? event.stable : "",
      language: null,
      speaker: null,
      isFinal: false,
      superseded: [],
    });
  }

  #final(event: FinalEvent): Utterance {
    this.#separate(event);
    const before = this.#find(event.utterance_id);
    return this.#put(event, {
      stable: event.transcript,
      language: event.language ?? null,
      speaker: event.speaker ?? null,
      isFinal: true,
      superseded: before?.superseded ?? [],
    });
  }

  #revision(event: RevisionEvent): Utterance {
    const before = this.#find(event.utterance_id);
    const replaced = before?.isFinal && before.text !== event.transcript;
    return this.#put(event, {
      stable: event.transcript,
      language: before?.language ?? null,
      speaker: before?.speaker ?? null,
      isFinal: true,
      superseded: [
        ...(before?.superseded ?? []),
        ...(replaced ? [{ text: before.text, replacedAt: this.#offsetS + event.timestamp }] : []),
      ],
    });
  }

  #key(utteranceId: number): string {
    const key = `${this.#session}-${utteranceId}`;
    const times = this.#reused.get(key);
    return times === undefined ? key : `${key}.${times}`;
  }

  /**
   * Tells an utterance from another one of the same number.
   *
   * A process that takes a session over may not know of the final that was told a moment before. It gives its number to
   * what is said next, and what was final stays nevertheless.
   */
  #separate(event: InterimEvent | FinalEvent): void {
    const before = this.#find(event.utterance_id);
    if (before === undefined || !before.isFinal || this.#offsetS + event.start < before.end) return;
    const key = `${this.#session}-${event.utterance_id}`;
    this.#reused.set(key, (this.#reused.get(key) ?? 0) + 1);
  }

  #find(utteranceId: number): Utterance | undefined {
    const index = this.#indexByKey.get(this.#key(utteranceId));
    return index === undefined ? undefined : this.#utterances[index];
  }

  #put(
    event: InterimEvent | FinalEvent | RevisionEvent,
    rest: Pick<Utterance, "stable" | "language" | "speaker" | "isFinal" | "superseded">,
  ): Utterance {
    const offsetS = this.#offsetS;
    const utterance: Utterance = {
      key: this.#key(event.utterance_id),
      session: this.#session,
      start: offsetS + event.start,
      end: offsetS + event.start + event.duration,
      text: event.transcript,
      words: event.words.map((word) => ({ ...word, start: offsetS + word.start, end: offsetS + word.end })),
      confidence: event.confidence,
      ...rest,
    };
    this.#endS = Math.max(this.#endS, utterance.end, offsetS + event.timestamp);
    const index = this.#indexByKey.get(utterance.key);
    if (index !== undefined) this.#utterances[index] = utterance;
    else this.#insert(utterance);
    return utterance;
  }

  #insert(utterance: Utterance): void {
    // An utterance nearly always comes last; one whose only event was delayed goes where its time says.
    let at = this.#utterances.length;
    while (at > 0 && comesAfter(this.#utterances[at - 1], utterance)) at -= 1;
    this.#utterances.splice(at, 0, utterance);
    for (let index = at; index < this.#utterances.length; index += 1) {
      const moved = this.#utterances[index];
      if (moved !== undefined) this.#indexByKey.set(moved.key, index);
    }
  }
}

function comesAfter(one: Utterance | undefined, other: Utterance): boolean {
  return one !== undefined && one.session === other.session && one.start > other.start;
}
