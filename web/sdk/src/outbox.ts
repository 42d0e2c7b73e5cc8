/** Sends a stream of bytes over sockets that come and go: each byte once, or again from where the server asks. */

import type { Layout } from "./audio_format.ts";
import { KeptAudio, MESSAGE_MAX_BYTES } from "./kept_audio.ts";

/** As much may wait in the browser's own queue: two seconds of linear16, so that a close or a `finalize` is not late. */
const BUFFERED_MAX_BYTES = 64 * 1024;
/** How often a full queue is looked at again; there is no event for it. */
const LOOK_AGAIN_MS = 50;

/** A socket as far as audio is concerned. */
export interface Pipe {
  readonly isOpen: boolean;
  readonly bufferedAmount: number;
  send(bytes: Uint8Array<ArrayBuffer>): void;
}

/**
 * Keeps what comes, and sends it as fast as the socket takes it.
 *
 * What is too old to be kept is dropped, sent or not. Silence of the same length takes its place where silence can be
 * written, so that all times stay true; else the stream goes on without it.
 */
export class Outbox {
  readonly #layout: Layout;
  readonly #kept: KeptAudio;
  readonly #onDropped: (lostS: number) => void;
  #pipe: Pipe | null = null;
  #next = 0;
  /** Bytes that the server never gets: its count of the stream is behind ours by so much. */
  #skipped = 0;
  #missedUpTo = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #waiting: { maxUnsent: number; resolve: () => void }[] = [];

  /** @param onDropped called where audio was dropped that had not been sent, for the connection is too slow. */
  constructor(layout: Layout, onDropped: (lostS: number) => void) {
    this.#layout = layout;
    this.#kept = new KeptAudio(layout.keptBytes, layout.isPackets);
    this.#onDropped = onDropped;
  }

  get unsentBytes(): number {
    return this.#kept.end - this.#next;
  }

  /** Takes the next bytes; they are not to be changed afterwards. */
  push(bytes: Uint8Array<ArrayBuffer>): void {
    this.#kept.push(bytes);
    if (this.#pipe !== null) this.#pump();
  }

  /**
   * Sends over this pipe from now on.
   *
   * @param received how many bytes of the stream the server has; null: it wants a new stream from its beginning.
   * @returns seconds that are too old to be sent again; null where a new stream has to begin.
   */
  begin(pipe: Pipe, received: number | null): number | null {
    this.#pipe = pipe;
    if (received === null && this.#layout.bytesPerS === null) {
      this.#kept.clear();
      this.#next = this.#skipped = this.#missedUpTo = 0;
      return null;
    }
    if (received === null) this.#skipped = this.#next;
    // Never beyond what there is: a server that says so is no reason to fail.
    else this.#next = Math.min(this.#kept.end, received + this.#skipped);
    const missedS = this.#seconds(this.#missed());
    this.#pump();
    return missedS;
  }

  /** The pipe is gone; what comes is kept for the next. */
  pause(): void {
    this.#pipe = null;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Resolves once at most `maxUnsent` bytes wait to be sent. */
  async until(maxUnsent: number): Promise<void> {
    if (this.unsentBytes <= maxUnsent) return;
    await new Promise<void>((resolve) => this.#waiting.push({ maxUnsent, resolve }));
  }

  /** Nothing more is sent; nobody waits. */
  end(): void {
    this.pause();
    this.#kept.clear();
    this.#next = 0;
    this.#letGo();
  }

  #pump(): void {
    const pipe = this.#pipe;
    if (pipe === null || !pipe.isOpen) return; // the next pipe begins where the server says
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const missed = this.#missed();
    if (missed > 0) this.#onDropped(this.#seconds(missed));
    while (this.#next < this.#kept.end) {
      if (pipe.bufferedAmount > BUFFERED_MAX_BYTES) {
        this.#timer = setTimeout(() => this.#pump(), LOOK_AGAIN_MS);
        break;
      }
      this.#sendNext(pipe);
    }
    this.#letGo();
  }

  #sendNext(pipe: Pipe): void {
    const missing = this.#kept.start - this.#next;
    if (missing > 0 && this.#layout.silence === null) {
      this.#skipped += missing;
      this.#next += missing;
    } else if (missing > 0) {
      const filling = new Uint8Array(Math.min(missing, MESSAGE_MAX_BYTES)).fill(this.#layout.silence as number);
      pipe.send(filling);
      this.#next += filling.length;
    } else {
      const message = this.#kept.read(this.#next) as Uint8Array<ArrayBuffer>;
      pipe.send(message);
      this.#next += message.length;
    }
  }

  /** Bytes that were dropped since the last call and cannot be sent any more. */
  #missed(): number {
    const from = Math.max(this.#next, this.#missedUpTo);
    this.#missedUpTo = Math.max(this.#missedUpTo, this.#kept.start);
    return Math.max(0, this.#kept.start - from);
  }

  #letGo(): void {
    const unsent = this.unsentBytes;
    const ready = this.#waiting.filter(({ maxUnsent }) => unsent <= maxUnsent);
    this.#waiting = this.#waiting.filter(({ maxUnsent }) => unsent > maxUnsent);
    for (const { resolve } of ready) resolve();
  }

  /** 0 where bytes do not tell time. */
  #seconds(bytes: number): number {
    return this.#layout.bytesPerS === null ? 0 : bytes / this.#layout.bytesPerS;
  }
}
