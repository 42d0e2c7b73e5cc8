/** What opens a session: a key or a token, in the form that each way to the server takes. */

import { errorFromResponse } from "./errors.ts";
import { fault } from "./faults.ts";
import { bearer, request } from "./http.ts";
import type { ClientOptions } from "./options.ts";

/** It is used at once: the shortest life that the server gives. */
const JOIN_TTL_S = 60;

/** Asks for the token anew where a function gives it. */
export async function credentialOf(token: ClientOptions["token"]): Promise<string | undefined> {
  const value = typeof token === "function" ? await token() : token;
  return value === "" ? undefined : value;
}

/** As the server tells tokens from keys: three parts, the first of them an object in Base64. */
export function isToken(value: string): boolean {
  return value.startsWith("eyJ") && value.split(".").length === 3;
}

/**
 * A token for one session, by the key: the key itself would stand in a URL, which proxies write down.
 *
 * @throws VoiceForgeError what the server refused, or `SERVER_UNREACHABLE`; the signal's reason as it is.
 */
export async function joinToken(tokens: URL, key: string, signal: AbortSignal): Promise<string> {
  const response = await request(tokens, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...bearer(key) },
    body: JSON.stringify({ ttl_s: JOIN_TTL_S }),
    signal,
  });
  const body = await response.text();
  if (!response.ok) throw errorFromResponse(response.status, body, response.headers.get("Retry-After"));
  const token = tokenIn(body);
  if (token === null) throw fault("INVALID_ANSWER", "The server gave no join token.", "Check the server's address.");
  return token;
}

function tokenIn(body: string): string | null {
  try {
    const { token } = JSON.parse(body) as { token?: unknown };
    return typeof token === "string" ? token : null;
  } catch {
    return null;
  }
}
