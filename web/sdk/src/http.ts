/** Requests, as all of them are made. */

import { fault } from "./faults.ts";

export function bearer(token: string | undefined): Record<string, string> {
  return token === undefined || token === "" ? {} : { Authorization: `Bearer ${token}` };
}

/**
 * `fetch`, with a failure that says what to look at.
 *
 * @throws VoiceForgeError `SERVER_UNREACHABLE`; the signal's reason as it is.
 */
export async function request(url: URL, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (cause) {
    if (init.signal?.aborted) throw init.signal.reason;
    const hint = "Check that the server runs, and that it allows this page's origin.";
    throw fault("SERVER_UNREACHABLE", `No answer from ${url.origin}.`, hint, true, cause);
  }
}
