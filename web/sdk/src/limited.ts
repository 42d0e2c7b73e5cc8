/** Attempts that end: by their time, or with what they are part of. */

/** Rejects with the signal's reason, once it is aborted. */
export function whenAborted(signal: AbortSignal): Promise<never> {
  const aborted = new Promise<never>((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  aborted.catch(() => undefined); // it may come after everybody has stopped waiting
  return aborted;
}

export interface Limits {
  readonly limitMs: number;
  /** What the attempt is aborted with then. */
  readonly late: () => Error;
  /** Aborts the attempt too, with its own reason. */
  readonly signal: AbortSignal;
}

/** Makes an attempt with a signal of its own; throws what the attempt does. */
export async function limited<Made>(
  { limitMs, late, signal }: Limits,
  attempt: (signal: AbortSignal) => Promise<Made>,
): Promise<Made> {
  signal.throwIfAborted();
  const ending = new AbortController();
  const abort = (): void => ending.abort(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  const timer = setTimeout(() => ending.abort(late()), limitMs);
  try {
    return await attempt(ending.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}
