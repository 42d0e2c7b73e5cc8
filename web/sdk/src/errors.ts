/** What can go wrong, told as the server tells it: a code, a sentence and a hint. */

import type { WireError } from "./events.ts";

/** A failure that a person or a program is told about. */
export class VoiceForgeError extends Error implements WireError {
  override readonly name = "VoiceForgeError";
  /** SCREAMING_SNAKE, stable across versions; branch on it. */
  readonly code: string;
  /** One sentence that says what to do about it. */
  readonly hint: string;
  /** Whether the same request may succeed later. */
  readonly retryable: boolean;
  /** Seconds after which the server said that another attempt may succeed. */
  readonly retryAfterS: number | null;
  /** Of the HTTP answer that told it; null where none did. */
  readonly status: number | null;

  constructor(error: WireError, options: { cause?: unknown; retryAfterS?: number | null; status?: number | null } = {}) {
    super(error.message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = error.code;
    this.hint = error.hint;
    this.retryable = error.retryable;
    this.retryAfterS = options.retryAfterS ?? null;
    this.status = options.status ?? null;
  }
}

/** What a status means when the server's own words are missing: a proxy answered, or something that is no VoiceForge. */
const BY_STATUS: Readonly<Record<number, Omit<WireError, "retryable">>> = {
  401: { code: "UNAUTHORIZED", message: "The server wants an access token.", hint: "Enter a valid token." },
  403: { code: "FORBIDDEN", message: "The server refused this access.", hint: "Check the token and its rights." },
  404: {
    code: "NOT_FOUND",
    message: "No transcription endpoint was found at this address.",
    hint: "Check the server's address and that a VoiceForge server answers there.",
  },
  429: { code: "TOO_MANY_SESSIONS", message: "Too many sessions are open.", hint: "Close one or try again shortly." },
  502: { code: "BAD_GATEWAY", message: "The server behind the proxy did not answer.", hint: "Try again shortly." },
  503: { code: "SERVER_FULL", message: "The server takes no more sessions now.", hint: "Try again shortly." },
  504: { code: "GATEWAY_TIMEOUT", message: "The server behind the proxy took too long.", hint: "Try again shortly." },
};

const RETRYABLE_STATUSES: ReadonlySet<number> = new Set([408, 429, 502, 503, 504]);

/**
 * The error that an HTTP answer tells: from the server's `{"error":{code,message,hint,retryable}}`, or from the status.
 *
 * @param retryAfter the `Retry-After` header; only its form in seconds is read.
 */
export function errorFromResponse(status: number, body: string, retryAfter: string | null = null): VoiceForgeError {
  const retryAfterS = retryAfter !== null && /^\d+$/.test(retryAfter.trim()) ? Number(retryAfter) : null;
  const told = BY_STATUS[status] ?? {
    code: `HTTP_${status}`,
    message: `The server answered with HTTP status ${status}.`,
    hint: "See the server's log.",
  };
  const fallback: WireError = { ...told, retryable: RETRYABLE_STATUSES.has(status) };
  return new VoiceForgeError(wireErrorFromBody(body, fallback) ?? fallback, { retryAfterS, status });
}

function wireErrorFromBody(body: string, fallback: WireError): WireError | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return null;
  }
  if (typeof parsed !== "object" || parsed === null) return null;
  return wireError((parsed as { error?: unknown }).error, fallback);
}

/** Reads the object under `error`; absent parts come from `fallback`. Null where there is no code and no message. */
export function wireError(value: unknown, fallback: WireError): WireError | null {
  if (typeof value !== "object" || value === null) return null;
  const { code, message, hint, retryable } = value as Partial<Record<keyof WireError, unknown>>;
  if (typeof code !== "string" && typeof message !== "string") return null;
  return {
    code: typeof code === "string" ? code : fallback.code,
    message: typeof message === "string" ? message : fallback.message,
    hint: typeof hint === "string" ? hint : fallback.hint,
    retryable: typeof retryable === "boolean" ? retryable : fallback.retryable,
  };
}

/** By the name of the `DOMException` that `getUserMedia` rejects with. */
const BY_EXCEPTION: Readonly<Record<string, WireError>> = {
  NotAllowedError: {
    code: "MICROPHONE_DENIED",
    message: "The browser did not allow the microphone.",
    hint: "Allow it in the address bar's site settings, then start again.",
    retryable: true,
  },
  NotFoundError: {
    code: "MICROPHONE_NOT_FOUND",
    message: "No microphone was found.",
    hint: "Connect one, or choose another in the settings.",
    retryable: true,
  },
  OverconstrainedError: {
    code: "MICROPHONE_NOT_FOUND",
    message: "The chosen microphone is not there.",
    hint: "Connect it, or choose another in the settings.",
    retryable: true,
  },
  NotReadableError: {
    code: "MICROPHONE_BUSY",
    message: "The microphone could not be opened.",
    hint: "Close other programs that use it, then start again.",
    retryable: true,
  },
};

/** Why there is no microphone, from what `getUserMedia` rejected with. */
export function errorFromMicrophone(cause: unknown): VoiceForgeError {
  const name = typeof cause === "object" && cause !== null ? String((cause as { name?: unknown }).name) : "";
  const known = BY_EXCEPTION[name] ?? {
    code: "MICROPHONE_FAILED",
    message: "The microphone could not be used.",
    hint: "Check the system's audio settings.",
    retryable: true,
  };
  return new VoiceForgeError(known, { cause });
}
