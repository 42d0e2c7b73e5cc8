/** Keeps asking whether the server is there, by the clock of the browser. */

import { Heartbeat, TICK_INTERVAL_MS } from "./heartbeat.ts";

export interface PulseListener {
  /** It is time to ask. */
  ping(): void;
  /** Nobody answers. */
  dead(): void;
  /** Bytes that came on this connection, whatever they say; null where that is not known. */
  received(): Promise<number | null>;
}

export class Pulse {
  readonly #listener: PulseListener;
  #heartbeat = new Heartbeat(performance.now());
  #ticker: ReturnType<typeof setInterval> | undefined;

  constructor(listener: PulseListener) {
    this.#listener = listener;
  }

  /** Null until a ping was answered. */
  get roundTripS(): number | null {
    const roundTripMs = this.#heartbeat.roundTripMs;
    return roundTripMs === null ? null : roundTripMs / 1000;
  }

  /** Since when nothing was heard on a connection that stood, in seconds. */
  get silentS(): number {
    return (performance.now() - this.#heartbeat.lastHeardMs) / 1000;
  }

  /** A connection stands. */
  start(): void {
    this.stop();
    this.#heartbeat = new Heartbeat(performance.now());
    this.#ticker = setInterval(() => this.#tick(), TICK_INTERVAL_MS);
  }

  stop(): void {
    clearInterval(this.#ticker);
    this.#ticker = undefined;
  }

  heard(): void {
    if (this.#ticker !== undefined) this.#heartbeat.heard(performance.now());
  }

  answered(): void {
    if (this.#ticker !== undefined) this.#heartbeat.answered(performance.now());
  }

  /** The path may have changed: asks at once. */
  doubt(): void {
    if (this.#ticker === undefined) return;
    this.#heartbeat.doubt();
    this.#tick();
  }

  async #count(): Promise<void> {
    const heartbeat = this.#heartbeat; // of this connection; an answer for an older one is of no use
    const bytes = await this.#listener.received();
    if (bytes !== null) heartbeat.received(bytes, performance.now());
  }

  #tick(): void {
    void this.#count();
    const beat = this.#heartbeat.tick(performance.now());
    if (beat === "dead") this.#listener.dead();
    else if (beat === "ping") this.#listener.ping();
  }
}
