/** Whether the server still answers. Sans-IO: the caller brings the time and sends the pings. */

/** As the server pings: often enough to notice a dead path before a person gives up, rare enough to cost nothing. */
export const PING_INTERVAL_MS = 5_000;
/** Three pings without an answer. */
export const DEAD_AFTER_MS = 15_000;
/** How often `tick` wants to be called. */
export const TICK_INTERVAL_MS = 1_000;

export type Beat = "ping" | "dead" | "wait";

/** Decides when to ping and when the other side counts as gone. */
export class Heartbeat {
  #lastHeardMs: number;
  #lastPingMs: number;
  #lastTickMs: number;

  constructor(nowMs: number) {
    this.#lastHeardMs = this.#lastPingMs = this.#lastTickMs = nowMs;
  }

  /** Anything came from the server. */
  heard(nowMs: number): void {
    this.#lastHeardMs = nowMs;
  }

  /** What to do now. */
  tick(nowMs: number): Beat {
    // A computer that slept sees a long silence that the server is not to blame for: ask before judging.
    if (nowMs - this.#lastTickMs > PING_INTERVAL_MS) this.#lastHeardMs = nowMs;
    this.#lastTickMs = nowMs;
    if (nowMs - this.#lastHeardMs >= DEAD_AFTER_MS) return "dead";
    if (nowMs - this.#lastPingMs < PING_INTERVAL_MS) return "wait";
    this.#lastPingMs = nowMs;
    return "ping";
  }
}
