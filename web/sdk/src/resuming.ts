/** Tries again and again, ever less often, for as long as the server keeps the session. */

import type { VoiceForgeError } from "./errors.ts";
import { connectionLost, fault, toldOf } from "./faults.ts";
import { limited } from "./limited.ts";

/** The first attempt comes at once, but not all clients of a node that goes away in the same moment. */
const FIRST_JITTER_MS = 250;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5_000;
/** How long one attempt may take: connecting over a bad mobile network, not more. */
export const ATTEMPT_MS = 10_000;

/** How long to wait before each attempt. */
export class Backoff {
  readonly #random: () => number;
  #attempts = 0;

  /** @param random from 0 to 1. */
  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** In ms: doubled each time, half to one and a half of it by chance. */
  next(): number {
    const attempt = this.#attempts++;
    if (attempt === 0) return this.#random() * FIRST_JITTER_MS;
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (attempt - 1));
    return wait * (0.5 + this.#random());
  }
}

/** What is waited for between attempts; the network's return ends a wait. */
export class Patience {
  #hurry: (() => void) | null = null;

  /** There is reason to try at once. */
  hurry(): void {
    this.#hurry?.();
  }

  /** @throws the signal's reason. */
  async wait(ms: number, signal: AbortSignal, canBeHurried: boolean): Promise<void> {
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const abort = (): void => done(() => reject(signal.reason));
      const timer = setTimeout(() => done(resolve), ms);
      const done = (settle: () => void): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        this.#hurry = null;
        settle();
      };
      signal.addEventListener("abort", abort, { once: true });
      if (canBeHurried) this.#hurry = () => done(resolve);
    });
  }
}

export interface Persistence {
  readonly windowS: number;
  readonly patience: Patience;
  /** Aborted when the client is closed. */
  readonly signal: AbortSignal;
  readonly now: () => number;
  readonly backoff?: Backoff;
}

/**
 * Makes attempts until one succeeds.
 *
 * @param attempt rejects with what went wrong; its signal ends it after `ATTEMPT_MS`, or when the window is over.
 * @throws VoiceForgeError `CONNECTION_LOST` when the window is over; what no further attempt would change; the signal's
 *   reason as it is.
 */
export async function persist<Made>(
  attempt: (signal: AbortSignal) => Promise<Made>,
  { windowS, patience, signal, now, backoff = new Backoff() }: Persistence,
): Promise<Made> {
  const deadlineMs = now() + windowS * 1000;
  let retryAfterMs = 0;
  for (;;) {
    const waitMs = Math.min(Math.max(backoff.next(), retryAfterMs), deadlineMs - now());
    await patience.wait(waitMs, signal, retryAfterMs === 0);
    if (now() >= deadlineMs) throw connectionLost();
    const limits = { limitMs: Math.min(ATTEMPT_MS, deadlineMs - now()), late: connectionLost, signal };
    try {
      return await limited(limits, attempt);
    } catch (cause) {
      signal.throwIfAborted();
      const error = finalOf(toldOf(cause));
      if (!error.retryable) throw error;
      retryAfterMs = (error.retryAfterS ?? 0) * 1000;
    }
  }
}

/** 404: ended; 405: it never could be; 409: it cannot be; 410: ended. */
const GONE: ReadonlySet<number> = new Set([404, 405, 409, 410]);

/** What a refusal means to a session that was there. */
function finalOf(error: VoiceForgeError): VoiceForgeError {
  if (!GONE.has(error.status ?? 0)) return error;
  const hint = "Start again; what was said so far is here.";
  return fault("SESSION_GONE", "The session ended while the connection was lost.", hint, false, error);
}

/** Why a session is over, in one word. */
export function reasonOf(error: VoiceForgeError): string {
  const reasons: Readonly<Record<string, string>> = {
    CONNECTION_LOST: "peer_lost",
    SESSION_GONE: "gone",
    REPLACED: "replaced",
  };
  return reasons[error.code] ?? "error";
}
