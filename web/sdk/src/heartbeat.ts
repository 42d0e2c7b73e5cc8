/** Whether the server still answers. Sans-IO: the caller brings the time and sends the pings. */

/** As the server pings: often enough to notice a dead path before a person gives up, rare enough to cost nothing. */
export const PING_INTERVAL_MS = 5_000;
/** Three pings without an answer. */
export const DEAD_AFTER_MS = 15_000;
/** Once there is a reason to doubt the path, an answer is waited for so long: a long round trip, and a lost packet. */
export const DOUBTED_DEAD_AFTER_MS = 3_000;
/** A server reports on the audio that it receives about once a second: three reports are missing, and the path is doubted. */
export const QUIET_MS = 4_000;
/** How often `tick` wants to be called. */
export const TICK_INTERVAL_MS = 1_000;

export type Beat = "ping" | "dead" | "wait";

/** Decides when to ping and when the other side counts as gone. */
export class Heartbeat {
  #lastHeardMs: number;
  #lastPingMs: number;
  #lastTickMs: number;
  #pingAnswered = true;
  #isDoubted = false;
  #isDoubtAsked = false;
  #roundTripMs: number | null = null;
  #receivedBytes = -1;
  #receivedAtMs: number;

  constructor(nowMs: number) {
    this.#lastHeardMs = this.#lastPingMs = this.#lastTickMs = this.#receivedAtMs = nowMs;
  }

  /** When anything last came from the server. */
  get lastHeardMs(): number {
    return this.#lastHeardMs;
  }

  /** From the last answered ping to its answer; null before. */
  get roundTripMs(): number | null {
    return this.#roundTripMs;
  }

  /** Anything came from the server. */
  heard(nowMs: number): void {
    this.#lastHeardMs = nowMs;
    this.#isDoubted = false;
  }

  /** The answer to a ping came. */
  answered(nowMs: number): void {
    this.heard(nowMs);
    if (!this.#pingAnswered) this.#roundTripMs = nowMs - this.#lastPingMs;
    this.#pingAnswered = true;
  }

  /** The network may have changed: ask at once, and wait for the answer less long. */
  doubt(): void {
    if (!this.#isDoubted) this.#isDoubtAsked = false;
    this.#isDoubted = true;
  }

  /** So many bytes of any kind have come from the server; none for a while is a doubt. */
  received(bytes: number, nowMs: number): void {
    const isNews = bytes !== this.#receivedBytes;
    if (!isNews && nowMs - this.#receivedAtMs < QUIET_MS) return;
    if (!isNews) this.doubt();
    this.#receivedBytes = bytes;
    this.#receivedAtMs = nowMs;
  }

  /** What to do now. */
  tick(nowMs: number): Beat {
    // A computer that slept sees a long silence that the server is not to blame for: ask before judging.
    if (nowMs - this.#lastTickMs > PING_INTERVAL_MS) {
      this.#lastHeardMs = nowMs;
      this.doubt();
    }
    this.#lastTickMs = nowMs;
    if (nowMs - this.#lastHeardMs >= DEAD_AFTER_MS) return "dead";
    const sincePingMs = nowMs - this.#lastPingMs;
    if (this.#isDoubted && this.#isDoubtAsked && sincePingMs >= DOUBTED_DEAD_AFTER_MS) return "dead";
    if (this.#isDoubted ? this.#isDoubtAsked : sincePingMs < PING_INTERVAL_MS) return "wait";
    this.#isDoubtAsked = true;
    this.#lastPingMs = nowMs;
    this.#pingAnswered = false;
    return "ping";
  }
}
